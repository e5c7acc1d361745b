"""Large transfers: results and COPY through this proxy, through PgBouncer, and without either; the memory of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from rich.table import Table

from benchmarks import _pgbench, _servers
from benchmarks._client import Connection, Login, connect, query_message
from benchmarks._harness import BenchError, Options, Result, Rounds, Say, Spread, in_turn, ratios, spread
from benchmarks._servers import DIRECT, HELIOS, PGBOUNCER, Peer
from heliosproxy.config.kinds import Json
from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError

NAME = "bulk"
SUMMARY = "large results and COPY in and out, one client: this proxy, PgBouncer, no proxy; memory of each"

SIZE = 512_000_000
"""Bytes of values in a transfer."""
QUICK_SIZE = 4_000_000
CHUNK = 64 * 1024
"""Bytes of a CopyData message, about: libpq's programs send whatever they have, often less."""
TABLE = "create table bulk (value text)"
MB = 1e6


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table: what is transferred, in rows of how many bytes; `transfer` moves so many of them."""

    what: str
    row: int
    transfer: Callable[[Connection, int, int], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """A case's megabytes (10^6 bytes of values) a second and peak memory, by peer, and why some peers have none."""

    case: Case
    rounds: Rounds
    memory: Mapping[str, list[float]]

    def json(self) -> Json:
        """Every run, the medians, the ratios of this proxy to each peer, and the peaks of resident memory in bytes."""
        runs = {name: list[Json](values) for name, values in self.rounds.figures.items()}
        peaks = {name: list[Json](values) for name, values in self.memory.items() if values}
        return {
            "what": self.case.what,
            "row_bytes": self.case.row,
            "runs": dict[str, Json](runs),
            "mb_per_second": {name: spread(values).json() for name, values in self.rounds.figures.items() if values},
            "ratio": {name: found.json() if (found := self.ratio(name)) else None for name in (PGBOUNCER, DIRECT)},
            "peak_memory": dict[str, Json](peaks),
            "not_run": dict[str, Json](self.rounds.failures),
        }

    def ratio(self, name: str) -> Spread | None:
        """This proxy divided by that peer; None where either is missing."""
        return ratios(self.rounds.figures.get(HELIOS, ()), self.rounds.figures.get(name, ()))

    def cells(self) -> list[str]:
        """A row of the table."""
        speeds = [_figure(self.rounds.figures.get(name, ()), "{:,.0f}") for name in _pgbench.PEERS]
        compared = [_ratio(self.ratio(name)) for name in (PGBOUNCER, DIRECT)]
        return [self.case.what, str(self.case.row), *speeds, *compared]

    def peaks(self) -> list[str]:
        """A row of the table of memory."""
        return [self.case.what, str(self.case.row), *(_peak(self.memory.get(name, ())) for name in (HELIOS, PGBOUNCER))]


def run(options: Options, say: Say) -> Result:
    """Measure. Raises BenchError."""
    size = QUICK_SIZE if options.quick else SIZE
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        cluster = stack.enter_context(_servers.postgres(say))
        login = _servers.login(cluster)
        # Before the proxy starts: it takes up to a minute to notice tables that were not created through it.
        cluster.psql(f"set role {cluster.user}; {TABLE}", database=cluster.database)
        peers = _pgbench.peers(stack, cluster, missing, say)
        found = [_measure(case, peers, missing, login, size, options, say) for case in CASES]
        server = cluster.psql("show server_version")
    bouncer = ".".join(map(str, _servers.pgbouncer_version()))
    notes = (
        f"One client, {size / MB:,.0f} MB of values a run. COPY in: WHERE false, so that the server stores nothing.",
        "All bundled plugins are on. Transaction pooling; client, proxies and PostgreSQL share this machine.",
        "A ratio is the median of the rounds' own ratios: runs that followed each other.",
        "Memory: the greatest peak of a run's resident memory (VmHWM), what the process takes at rest included.",
        f"PostgreSQL {server}, {f'PgBouncer {bouncer}' if bouncer else 'no PgBouncer'}.",
    )
    figures: Json = {
        "versions": {"postgresql": server, "pgbouncer": bouncer},
        "bytes": size,
        "cases": [one.json() for one in found],
        "notes": list[Json](notes),
    }
    return Result((_speeds(found), _memory(found)), (*notes, *_not_run(found)), figures, _failures(found))


# --- one transfer ---------------------------------------------------------------------------------------------------


def simple(connection: Connection, row: int, count: int) -> None:
    """A result of the simple protocol."""
    _expect(connection.count(query_message(_rows(row, count))), row * count)


def extended(connection: Connection, row: int, count: int) -> None:
    """The same by the extended protocol."""
    bind, sync = b"B\0\0\0\x0c\0\0\0\0\0\0\0\0", b"S\0\0\0\4"
    message = builders.parse(b"", _rows(row, count)) + bind + builders.execute() + sync
    _expect(connection.count(message), row * count)


def copy_out(connection: Connection, row: int, count: int) -> None:
    """COPY TO STDOUT."""
    _expect(connection.count(query_message(b"copy (%s) to stdout" % _rows(row, count))), row * count)


def copy_in(connection: Connection, row: int, count: int) -> None:
    """COPY FROM STDIN of rows that the server reads and does not keep."""
    lines = max(1, CHUNK // row)
    connection.copy_in(b"copy bulk from stdin where false", (b"c" * (row - 1) + b"\n") * lines, count // lines)


def _rows(row: int, count: int) -> bytes:
    return b"select repeat('r', %d) from generate_series(1, %d)" % (row, count)


def _expect(received: int, least: int) -> None:
    if received < least:
        raise BenchError(f"{received} bytes came, and the values alone have {least}")


CASES = (
    Case("result, simple", 100, simple),
    Case("result, extended", 100, extended),
    Case("result, extended", 8_000, extended),
    Case("COPY out", 100, copy_out),
    Case("COPY in", 100, copy_in),
)


def _measure(
    case: Case,
    peers: Mapping[str, Peer],
    missing: Mapping[str, str],
    login: Login,
    size: int,
    options: Options,
    say: Say,
) -> Measured:
    memory: dict[str, list[float]] = {name: [] for name in peers}
    runs = {name: partial(_run, case, peer, login, size, memory[name], say) for name, peer in peers.items()}
    rounds = in_turn(runs, options.rounds)
    return Measured(case, Rounds(rounds.figures, {**missing, **rounds.failures}), memory)


def _run(case: Case, peer: Peer, login: Login, size: int, memory: list[float], say: Say) -> float:
    """One transfer's megabytes a second; its peak memory is added to `memory`. Raises BenchError."""
    count = size // case.row
    try:
        with connect(peer.address, login) as connection:
            connection.query(b"select 1")  # what the first statement alone has to do is done
            _forget_peak(peer)
            began = perf_counter()
            case.transfer(connection, case.row, count)
            speed = case.row * count / (perf_counter() - began) / MB
    except (OSError, PeerError) as error:
        raise BenchError(f"{case.what}: {error}") from None
    memory += _peak_of(peer)
    say(f"{case.what}, rows of {case.row} bytes, {peer.name}: {speed:,.0f} MB/s")
    return speed


# --- memory ---------------------------------------------------------------------------------------------------------


def _forget_peak(peer: Peer) -> None:
    """The peak of its resident memory counts from here, where the system can tell it at all."""
    if peer.pid:
        try:
            Path(f"/proc/{peer.pid}/clear_refs").write_text("5")
        except OSError:
            return


def _peak_of(peer: Peer) -> list[float]:
    """Its peak in bytes; nothing where there is no process, or the system does not tell."""
    try:
        status = Path(f"/proc/{peer.pid}/status").read_text() if peer.pid else ""
    except OSError:
        return []
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return [int(found[1]) * 1024.0] if found else []


# --- what is shown --------------------------------------------------------------------------------------------------


def _speeds(found: list[Measured]) -> Table:
    table = Table(title="bulk: MB/s, median (least-greatest)", title_justify="left")
    for column in ("transfer", "row", *_pgbench.PEERS, f"to {PGBOUNCER}", f"to {DIRECT}"):
        table.add_column(column, justify="left" if column == "transfer" else "right", no_wrap=True)
    for one in found:
        table.add_row(*one.cells())
    return table


def _memory(found: list[Measured]) -> Table:
    table = Table(title="bulk: peak of resident memory, MB", title_justify="left")
    for column in ("transfer", "row", HELIOS, PGBOUNCER):
        table.add_column(column, justify="left" if column == "transfer" else "right", no_wrap=True)
    for one in found:
        table.add_row(*one.peaks())
    return table


def _figure(values: list[float] | tuple[()], style: str) -> str:
    if not values:
        return "-"
    found = spread(values)
    return f"{style.format(found.median)} ({style.format(found.low)}-{style.format(found.high)})"


def _ratio(found: Spread | None) -> str:
    return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})" if found else "-"


def _peak(values: list[float] | tuple[()]) -> str:
    return f"{max(values) / MB:,.0f}" if values else "-"


def _not_run(found: list[Measured]) -> list[str]:
    lines = (
        f"{name}: {one.case.what} not measured: {why}"
        for one in found
        for name, why in one.rounds.failures.items()
        if name != HELIOS
    )
    return list(dict.fromkeys(lines))


def _failures(found: list[Measured]) -> tuple[str, ...]:
    return tuple(f"{HELIOS}: {one.rounds.failures[HELIOS]}" for one in found if HELIOS in one.rounds.failures)
