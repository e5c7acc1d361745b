"""New connections as fast as they can be made, through this proxy, PgBouncer and neither; and how long a client that is
already there waits meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import trustme
from rich.table import Table

from benchmarks import _pgbench, _servers
from benchmarks._client import Login, connect
from benchmarks._harness import BenchError, Options, Result, Rounds, Say, Spread, first_line, in_turn, ratios, spread
from benchmarks._pgbench import PEERS, WARM_UP, run_pgbench
from benchmarks._servers import DIRECT, HELIOS, PGBOUNCER, Access, Peer
from benchmarks._steady import INTERVAL, Waits, steady
from heliosproxy.config.kinds import Address, Json
from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.processes import until
from heliosproxy.wire.errors import PeerError

NAME = "connect"
SUMMARY = "log in, select 1, close: trust, SCRAM, TLS and SCRAM; 1 and 16 clients; who is there already"

CLIENTS = (1, 16)
"""How many connect at once."""
SCRIPT = "select 1;\n"
TRUSTED = "trusted"
"""A role that PostgreSQL asks for nothing."""
LINE = f"host all {TRUSTED} 127.0.0.1/32 trust\n"
RELOAD = 10.0
"""Seconds that PostgreSQL may take to read pg_hba.conf again."""
NO_TLS_SERVER = "PyPI's PostgreSQL is built without OpenSSL"
NO_TLS_PGBENCH = "the only pgbench is PyPI's, which is built without OpenSSL"
MS = 1e3
US = 1e6
NICE = 10
"""How far pgbench stands back: in use it would be elsewhere, and not take the processor from proxy and server."""
ALONE, ALONE_QUICK = 1.0, 0.2
"""Seconds for which the established client is alone before each run."""

_CONNECTING = re.compile(r"^average connection time = ([\d.]+) ms", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Method:
    """How clients log in. `without`: peers that cannot, and why."""

    name: str
    access: Access
    sslmode: str = "disable"
    without: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Beside:
    """What was measured of a peer beside the connections: a value for each run."""

    alone: list[Waits] = field(default_factory=list)
    """Of the established client, before the others came."""
    during: list[Waits] = field(default_factory=list)
    """And while they did."""
    processor: list[float] = field(default_factory=list)
    """Seconds of processor time of the proxy for each connection, what it takes without any already subtracted."""
    connecting: list[float] = field(default_factory=list)
    """Seconds from asking for a connection to being ready, as pgbench has it: the average of a run."""

    def json(self) -> Json:
        """For `--json`."""
        return {
            "alone": [one.json() for one in self.alone],
            "during": [one.json() for one in self.during],
            "processor_seconds": list[Json](self.processor),
            "connecting_seconds": list[Json](self.connecting),
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """Connections a second, by peer, and why some peers have none."""

    method: str
    clients: int
    rounds: Rounds
    beside: Mapping[str, Beside]

    def json(self) -> Json:
        """Every run, the medians, and the ratios of this proxy to each peer."""
        figures = {name: values for name, values in self.rounds.figures.items() if values}
        return {
            "method": self.method,
            "clients": self.clients,
            "runs": {name: list[Json](values) for name, values in figures.items()},
            "per_second": {name: spread(values).json() for name, values in figures.items()},
            "ratio": {name: found.json() if (found := self.ratio(name)) else None for name in (PGBOUNCER, DIRECT)},
            "beside": {name: self.beside[name].json() for name in figures if name in self.beside},
            "not_run": dict[str, Json](self.rounds.failures),
        }

    def ratio(self, name: str) -> Spread | None:
        """This proxy divided by that peer; None where either is missing."""
        return ratios(self.rounds.figures.get(HELIOS, ()), self.rounds.figures.get(name, ()))

    def cells(self) -> list[str]:
        """A row of the table of connections."""
        rates = [_range(self.rounds.figures.get(name, ()), "{:,.0f}") for name in PEERS]
        return [self.method, str(self.clients), *rates, *(_ratio(self.ratio(name)) for name in (PGBOUNCER, DIRECT))]

    def waits(self) -> list[str]:
        """A row of the table of the established client."""
        return [self.method, str(self.clients), *(_waits(self.beside.get(name)) for name in PEERS)]

    def costs(self) -> list[str]:
        """A row of the table of processor time."""
        found = (self.beside.get(name, Beside()).processor for name in (HELIOS, PGBOUNCER))
        return [self.method, str(self.clients), *(_range([US * one for one in each], "{:,.0f}") for each in found)]


def run(options: Options, say: Say) -> Result:
    """Measure. Raises BenchError."""
    pgbench, speaks_tls = program()
    with ExitStack() as stack:
        cluster = stack.enter_context(_servers.postgres(say))
        script = _servers.write(_servers.folder(cluster, "connect") / "script.sql", SCRIPT)
        _trust(cluster)
        found = [
            one
            for method in methods(cluster, speaks_tls=speaks_tls)
            for one in _measure_method(pgbench, script, cluster, method, options, say)
        ]
        server = cluster.psql("show server_version")
    bouncer = ".".join(map(str, _servers.pgbouncer_version()))
    notes = (
        "pgbench -C: each client connects, runs select 1, closes, and begins again, on a thread of its own.",
        "What libpq computes at the client counts too: with SCRAM 4,096 rounds of HMAC for each connection.",
        f"The established client asks every {INTERVAL * MS:g} ms, without TLS; its waits count from when that was due.",
        "All bundled plugins are on. Transaction pooling; pgbench, proxies and PostgreSQL share this machine.",
        "A ratio is the median of the rounds' own ratios: runs that followed each other.",
        f"PostgreSQL {server}, {f'PgBouncer {bouncer}' if bouncer else 'no PgBouncer'}, "
        f"{first_line([pgbench, '--version'])}.",
    )
    figures: Json = {
        "versions": {"postgresql": server, "pgbouncer": bouncer, "pgbench": first_line([pgbench, "--version"])},
        "cases": [one.json() for one in found],
        "notes": list[Json](notes),
    }
    without = () if speaks_tls else (f"TLS was not measured: {NO_TLS_PGBENCH}.",)
    return Result(_tables(found), (*notes, *without, *_not_run(found)), figures, _failures(found))


# --- who logs in, and how ------------------------------------------------------------------------------------------


def program() -> tuple[Path, bool]:
    """pgbench, and whether it can speak TLS: the one installed if that can, else PyPI's. Raises MissingError."""
    installed = shutil.which("pgbench")
    if installed is not None and _speaks_tls(Path(installed)):
        return Path(installed), True
    return _pgbench.program(), False


def _speaks_tls(pgbench: Path) -> bool:
    """libpq refuses the mode before it connects, where it was built without."""
    nowhere = Peer("", Address("127.0.0.1", 1))
    try:
        run_pgbench(pgbench, nowhere, Login("nobody", "", "nothing"), ("-n", "-S", "-t", "1"), 10, PGSSLMODE="require")
    except BenchError as error:
        return "not compiled in" not in str(error)
    return True


def methods(cluster: LocalCluster, *, speaks_tls: bool) -> list[Method]:
    """What is measured, each with what both proxies need for it.

    PgBouncer gets the user's SCRAM secret, and not the password, of which it would compute one for each login.
    """
    user = _servers.login(cluster)
    secret = cluster.psql(f"select rolpassword from pg_authid where rolname = '{user.user}'")
    scram = Access(user, secret=secret)
    found = [Method("trust", _trusting(cluster)), Method("SCRAM", scram)]
    if speaks_tls:
        found.append(Method("TLS, SCRAM", _tls(cluster, scram), "require", {DIRECT: NO_TLS_SERVER}))
    return found


def _trusting(cluster: LocalCluster) -> Access:
    proxy = '\n[auth]\nmethod = "trust"\n'
    return Access(Login(TRUSTED, "", cluster.database), proxy, "auth_type = trust\n")


def _tls(cluster: LocalCluster, scram: Access) -> Access:
    """The same with a certificate, which clients may make use of."""
    issued = trustme.CA().issue_cert(_servers.HOST)
    directory = _servers.folder(cluster, "connect")
    key = _servers.write(directory / "key.pem", issued.private_key_pem.bytes().decode())
    chain = "".join(pem.bytes().decode() for pem in issued.cert_chain_pems)
    certificate = _servers.write(directory / "certificate.pem", chain)
    # JSON's strings are TOML's too.
    proxy = f"\n[client_tls]\ncert_file = {json.dumps(str(certificate))}\nkey_file = {json.dumps(str(key))}\n"
    lines = f"client_tls_sslmode = prefer\nclient_tls_cert_file = {certificate}\nclient_tls_key_file = {key}\n"
    return replace(scram, proxy=proxy, bouncer=scram.bouncer + lines)


def _trust(cluster: LocalCluster) -> None:
    """Let PostgreSQL ask the role `TRUSTED` for nothing. Raises BenchError."""
    cluster.psql(f"create role {TRUSTED} login")
    primary = cluster.node("primary")
    rules = primary.data / "pg_hba.conf"
    rules.write_text(LINE + rules.read_text())
    cluster.psql("select pg_reload_conf()")
    for _ in until(RELOAD):
        try:
            with connect(primary.address, Login(TRUSTED, "", cluster.database)):
                return
        except (OSError, PeerError):
            continue
    raise BenchError("PostgreSQL did not read pg_hba.conf again")


# --- one run --------------------------------------------------------------------------------------------------------


def _measure_method(
    pgbench: Path, script: Path, cluster: LocalCluster, method: Method, options: Options, say: Say
) -> list[Measured]:
    """Start both proxies for the method, measure every number of clients, end them. Raises BenchError."""
    refused = dict(method.without)
    with ExitStack() as stack:
        plugins = _servers.bundled_plugins(cluster, say)
        peers = {HELIOS: stack.enter_context(_servers.helios_proxy(cluster, plugins, say, method.access))}
        try:
            peers[PGBOUNCER] = stack.enter_context(_servers.pgbouncer(cluster, say, method.access))
        except BenchError as error:
            refused[PGBOUNCER] = str(error)
        peers[DIRECT] = _servers.direct(cluster)
        runnable = {name: peer for name, peer in peers.items() if name not in refused}
        storm = Storm(pgbench, script, method, options, say)
        return [storm.measure(clients, runnable, refused) for clients in CLIENTS]


@dataclass(frozen=True, slots=True)
class Storm:
    """Connections without end, by one method."""

    pgbench: Path
    script: Path
    method: Method
    options: Options
    say: Say

    def measure(self, clients: int, peers: Mapping[str, Peer], refused: Mapping[str, str]) -> Measured:
        """Every peer in turn."""
        beside = {name: Beside() for name in peers}
        failures = dict(refused)
        if not self.options.quick:
            for name, peer in peers.items():
                failures |= in_turn({name: partial(self._connections, clients, peer, WARM_UP, [])}, 1).failures
        left = {name: peer for name, peer in peers.items() if name not in failures}
        runs = {name: partial(self._run, clients, peer, beside[name]) for name, peer in left.items()}
        rounds = in_turn(runs, self.options.rounds)
        return Measured(self.method.name, clients, Rounds(rounds.figures, {**failures, **rounds.failures}), beside)

    def _run(self, clients: int, peer: Peer, beside: Beside) -> float:
        """One run's connections a second; the rest is added to `beside`. Raises BenchError."""
        connecting: list[float] = []
        try:
            with connect(peer.address, self.method.access.login) as connection:
                connection.query(b"select 1")  # what the first statement alone has to do is done
                with steady(connection) as alone, Spent(peer.pid) as usual:
                    sleep(ALONE_QUICK if self.options.quick else ALONE)
                with steady(connection) as during, Spent(peer.pid) as spent:
                    rate = self._connections(clients, peer, self.options.seconds, connecting)
        except (OSError, PeerError) as error:
            raise BenchError(f"the established client: {error}") from None
        beside.alone.append(alone.waits())
        beside.during.append(during.waits())
        beside.connecting += connecting
        if peer.pid:
            more = spent.processor - usual.processor / usual.elapsed * spent.elapsed
            beside.processor.append(max(0.0, more) / (rate * self.options.seconds))
        self.say(f"{self.method.name}, {clients} at once, {peer.name}: {rate:,.0f} connections a second")
        return rate

    def _connections(self, clients: int, peer: Peer, seconds: int, connecting: list[float]) -> float:
        """Connections a second; the average time of one is added to `connecting`. Raises BenchError."""
        many = str(clients)
        arguments = ("-n", "-C", "-f", str(self.script), "-c", many, "-j", many, "-T", str(seconds))
        timeout = seconds + _pgbench.GRACE
        variables = {"PGSSLMODE": self.method.sslmode, "PGGSSENCMODE": "disable"}
        login = self.method.access.login
        output = run_pgbench(self.pgbench, peer, login, arguments, timeout, nice=NICE, **variables)
        if found := _CONNECTING.search(output):
            connecting.append(float(found[1]) / MS)
        return _pgbench.throughput(output)


class Spent:
    """The time that a block takes, and the processor time of a process meanwhile; seconds, to be read after it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.elapsed = self.processor = 0.0

    def __enter__(self) -> Spent:
        self.elapsed, self.processor = -perf_counter(), -processor_time(self._pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.elapsed += perf_counter()
        self.processor += processor_time(self._pid)


def processor_time(pid: int) -> float:
    """Seconds that the process has computed, in user mode and in the system; 0 where that cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- what is shown --------------------------------------------------------------------------------------------------


def _tables(found: Sequence[Measured]) -> tuple[Table, ...]:
    rates = _table("new connections a second, median (least-greatest)", (*PEERS, f"to {PGBOUNCER}", f"to {DIRECT}"))
    waits = _table("an established client's select 1 meanwhile, ms: p50 / p99 / longest (p99 before)", PEERS)
    costs = _table("processor time of the proxy for a connection, µs", (HELIOS, PGBOUNCER))
    for one in found:
        rates.add_row(*one.cells())
        waits.add_row(*one.waits())
        costs.add_row(*one.costs())
    return rates, waits, costs


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=f"connect: {title}", title_justify="left")
    for column in ("login", "at once", *columns):
        table.add_column(column, justify="left" if column == "login" else "right", no_wrap=True)
    return table


def _range(values: Sequence[float], style: str) -> str:
    if not values:
        return "-"
    found = spread(values)
    return f"{style.format(found.median)} ({style.format(found.low)}-{style.format(found.high)})"


def _ratio(found: Spread | None) -> str:
    return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})" if found else "-"


def _waits(beside: Beside | None) -> str:
    """Medians of the runs, but for the longest, which is the longest of all."""
    if beside is None or not beside.during:
        return "-"
    p50, p99 = (median(getattr(one, name) for one in beside.during) * MS for name in ("p50", "p99"))
    longest = max(one.longest for one in beside.during) * MS
    before = median(one.p99 for one in beside.alone) * MS
    return f"{p50:.2f} / {p99:.1f} / {longest:.0f} ({before:.1f})"


def _not_run(found: Sequence[Measured]) -> list[str]:
    lines = (
        f"{name}: not measured with {one.method}: {why}"
        for one in found
        for name, why in one.rounds.failures.items()
        if name != HELIOS
    )
    return list(dict.fromkeys(lines))


def _failures(found: Sequence[Measured]) -> tuple[str, ...]:
    return tuple(
        f"{HELIOS}, {one.method}, {one.clients} at once: {one.rounds.failures[HELIOS]}"
        for one in found
        if HELIOS in one.rounds.failures
    )
