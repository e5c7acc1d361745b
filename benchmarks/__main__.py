"""`python -m benchmarks NAME… [--json FILE] [--quick]`. Exit codes: 0 measured, 1 something failed, 2 usage, or a
program that nothing can be measured without is missing. Targets that are not met are shown, and are no failure."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from benchmarks import bulk, connect, hints, throughput, tpcb
from benchmarks._harness import BenchError, Benchmark, MissingError, Options, Result, busy, machine, versions
from heliosproxy.config.kinds import Json

BENCHMARKS: tuple[Benchmark, ...] = (throughput, tpcb, hints, bulk, connect)
WIDTH = 130
"""Columns of the tables where standard output is no terminal."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line."""

    benchmarks: tuple[Benchmark, ...]
    options: Options
    json: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named; the exit code."""
    arguments = parse(argv)
    # Children are ended by SIGQUIT when we are gone, which would have them leave core files.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    out, talk = _console(), Console(stderr=True, highlight=False, soft_wrap=True)
    facts = machine()
    results: dict[str, Result] = {}
    started = time.time()
    for benchmark in arguments.benchmarks:
        try:
            results[benchmark.NAME] = benchmark.run(arguments.options, lambda line: talk.print(line, style="dim"))
        except BenchError as error:
            talk.print(f"{benchmark.NAME}: {error}", style="red", markup=False)
            return 2 if isinstance(error, MissingError) else 1
        _show(out, results[benchmark.NAME])
        _warn(out, arguments.options, busy(facts))
        if arguments.json is not None:  # after each one: what is measured is kept if the next one fails
            try:
                _keep(arguments.json, _document(arguments.options, started, facts, results))
            except OSError as error:
                talk.print(f"{arguments.json} cannot be written: {error.strerror}", style="red", markup=False)
                return 1
    return 1 if any(result.failures for result in results.values()) else 0


def parse(argv: Sequence[str] | None) -> Arguments:
    """Read the command line. Raises SystemExit(2) where it makes no sense."""
    known = {benchmark.NAME: benchmark for benchmark in BENCHMARKS}
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="Measure this proxy. Everything that is needed is started and ended here.",
        epilog="\n".join(f"{name:<12}{benchmark.SUMMARY}" for name, benchmark in known.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Options()
    parser.add_argument("names", nargs="+", metavar="NAME", choices=known, help=", ".join(known))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works, not how fast")
    parser.add_argument("--rounds", type=_count, help=f"runs of each peer, in turn (default {usual.rounds})")
    parser.add_argument("--seconds", type=_count, help=f"length of a run (default {usual.seconds})")
    parser.add_argument("--jobs", type=_count, default=usual.jobs, help="threads of pgbench (default %(default)s)")
    found = parser.parse_args(argv)
    few = Options(quick=True, rounds=1, seconds=1) if found.quick else usual
    options = Options(found.quick, found.rounds or few.rounds, found.seconds or few.seconds, found.jobs)
    return Arguments(tuple(known[name] for name in dict.fromkeys(found.names)), options, found.json)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _console() -> Console:
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=WIDTH)


def _show(out: Console, result: Result) -> None:
    for table in result.tables:
        out.print(table)
    for note in result.notes:
        out.print(f"  {note}", markup=False)
    for failure in result.failures:
        out.print(f"  FAILED {failure}", style="red", markup=False)


def _warn(out: Console, options: Options, was_busy: bool) -> None:
    if options.quick:
        out.print("  --quick: these figures show that the benchmark works, and nothing about speed.")
    if was_busy:
        out.print("  The machine was busy with something else when this began: do not trust the figures.")


def _keep(file: Path, document: Json) -> None:
    file.write_text(json.dumps(document, indent=2) + "\n")


def _document(options: Options, started: float, facts: Json, results: dict[str, Result]) -> Json:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "options": asdict(options),
        "machine": facts,
        "versions": dict(versions()),
        "benchmarks": {
            name: {"figures": result.figures, "failures": list[Json](result.failures)}
            for name, result in results.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
