"""What hints and decisions cost, against the targets of Feature 03: reading hints, deciding, and both on the wire.

Reading and deciding are timed call by call in this process, with the real planner, the real sandboxed plugins and the
catalogue of a real cluster. What a proxy adds to a statement is timed with one client on a socket, through a proxy in
a process of its own and without one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean
from time import perf_counter_ns
from typing import TypeVar

import trio
from helios_sdk.contract import Client
from rich.table import Table

from benchmarks import _servers
from benchmarks._client import Connection, connect, query_message
from benchmarks._harness import BenchError, Options, Result, Say, percentile
from benchmarks._workload import CLUSTER_HINTS, ONE_NODE_HINTS, Drawn, Workload
from heliosproxy.cluster.balance import Balancer
from heliosproxy.cluster.monitor import Monitors
from heliosproxy.cluster.registry import Cluster
from heliosproxy.config.kinds import Json
from heliosproxy.config.model import Config
from heliosproxy.demo.local import LocalCluster
from heliosproxy.sandbox import LoadError, Plugin, Sandbox
from heliosproxy.sandbox.instance import Limits
from heliosproxy.sql.comments import blank_hints, hints
from heliosproxy.sql.shape import shape
from heliosproxy.switch.planner import Planner
from heliosproxy.switch.session import Session
from heliosproxy.switch.settings import from_parameters
from heliosproxy.wire.errors import PeerError

NAME = "hints"
SUMMARY = "reading hints, deciding (remembered and not), and what the proxy adds to a statement, against their targets"

T = TypeVar("T")

STATEMENTS = 20_000
PASSES = 10
"""Times that every shape is decided on afresh."""
QUICK_STATEMENTS = 2_000
BLOCK = 250
"""Statements that go one way before the same ones go the other way."""
SETTLE = 60.0
"""Seconds until the cluster is known, with its catalogue."""

PARSE_TARGET, DECISION_TARGET, UNREMEMBERED_TARGET, ADDED_TARGET = 10.0, 50.0, 60.0, 100.0
"""Microseconds at the 99th percentile (HINTS, "Targets")."""

TIMING_NOTES = (
    "Each call is timed by itself; the clock's own 0.1 µs is included.",
    "On the wire: one server, both ways; what is added is the difference of the two rows above it, p99 of p99.",
)
PARAMETERS = {
    "client_encoding": "UTF8", "standard_conforming_strings": "on", "DateStyle": "ISO, MDY", "TimeZone": "UTC",
    "IntervalStyle": "postgres",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table; times in µs."""

    what: str
    count: int
    mean: float
    p50: float
    p99: float
    target: float | None = None
    """What p99 must not exceed."""

    @property
    def held(self) -> bool | None:
        """Whether it did not; None without a target."""
        return None if self.target is None else self.p99 <= self.target

    def json(self) -> Json:
        """For `--json`."""
        return {
            "what": self.what, "count": self.count, "mean_us": self.mean, "p50_us": self.p50, "p99_us": self.p99,
            "target_p99_us": self.target, "held": self.held,
        }  # fmt: skip

    def cells(self) -> list[str]:
        """For the table."""
        target = "" if self.target is None else f"{self.target:g}"
        held = {None: "", True: "held", False: "MISSED"}[self.held]
        times = (f"{each:.1f}" for each in (self.mean, self.p50, self.p99))
        return [self.what, f"{self.count:,}", *times, target, held]


@dataclass(frozen=True, slots=True)
class HookRow:
    """Calls of one hook of one plugin, and their mean in µs, as the plugin's own statistics have it."""

    plugin: str
    hook: str
    calls: int
    mean: float

    def json(self) -> Json:
        """For `--json`."""
        return {"plugin": self.plugin, "hook": self.hook, "calls": self.calls, "mean_us": self.mean}


def run(options: Options, say: Say) -> Result:
    """Measure. Raises BenchError."""
    count, passes = (QUICK_STATEMENTS, 1) if options.quick else (STATEMENTS, PASSES)
    say("reading hints")
    rows = _reading(Workload(CLUSTER_HINTS).draw(count))
    decided, hooks, notes = _decisions(count, passes, say)
    rows += decided
    rows += _wire(count, say)
    figures: Json = {
        "rows": [row.json() for row in rows], "hooks": [hook.json() for hook in hooks], "notes": list[Json](notes),
    }  # fmt: skip
    return Result((_table(rows), _hook_table(hooks)), notes, figures)


# --- reading ---------------------------------------------------------------------------------------------------------


def _reading(drawn: Sequence[Drawn]) -> list[Row]:
    texts = [one.text for one in drawn]
    hinted = [one.text for one in drawn if one.hinted]
    return [
        _row("read the hints, all statements", _timed(hints, texts), PARSE_TARGET),
        _row("read the hints, statements that have some", _timed(hints, hinted), PARSE_TARGET),
        _row("blank the hints, statements that have some", _timed(blank_hints, hinted)),
        _row("find the shape, all statements", _timed(shape, texts)),
    ]


def _timed(call: Callable[[T], object], arguments: Iterable[T], before: Callable[[], None] | None = None) -> list[int]:
    """Nanoseconds of each call, the clock's own (some 0.1 µs) included. `before` is not timed."""
    clock, samples = perf_counter_ns, []
    gc.collect()
    for argument in arguments:
        if before is not None:
            before()
        started = clock()
        call(argument)
        samples.append(clock() - started)
    return samples


def _row(what: str, nanoseconds: Sequence[int], target: float | None = None) -> Row:
    p50, p99 = percentile(nanoseconds, 0.5) / 1e3, percentile(nanoseconds, 0.99) / 1e3
    return Row(what, len(nanoseconds), fmean(nanoseconds) / 1e3, p50, p99, target)


# --- deciding --------------------------------------------------------------------------------------------------------


def _decisions(count: int, passes: int, say: Say) -> tuple[list[Row], list[HookRow], tuple[str, ...]]:
    with ExitStack() as stack:
        local = stack.enter_context(_servers.postgres(say, standbys=True))
        _fill(local)
        config = _servers.proxy_config(local, _servers.bundled_plugins(local, say))
        cluster = trio.run(_observe, config, local.database)
        sandbox = stack.enter_context(Sandbox(Limits.of(config.plugins)))
        plugins = _load(stack, sandbox, config)
        say("deciding")
        rows, hooks, workload = _Deciding(cluster, plugins, config, local).rows(count, passes)
        calls = "the sandbox's fast frames" if sandbox.fast else "wasmtime's public API, which is slower"
        return rows, hooks, (workload, f"Hooks are called through {calls}.", *TIMING_NOTES)


def _load(stack: ExitStack, sandbox: Sandbox, config: Config) -> list[Plugin]:
    try:
        plugins = sandbox.load(config)
    except LoadError as error:
        raise BenchError(str(error)) from None
    for plugin in plugins:
        stack.callback(plugin.close)
    return plugins


async def _observe(config: Config, database: str) -> Cluster:
    """The cluster as its monitors saw it, all nodes up, with the catalogue. Nobody watches it any more afterwards."""
    cluster = Cluster(config.nodes, region=config.proxy.region, health=config.health)
    with trio.move_on_after(SETTLE):
        async with trio.open_nursery() as nursery:
            await nursery.start(Monitors(cluster).run)
            cluster.request_catalogue(database)
            while cluster.catalogue(database) is None or not _settled(cluster):
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        return cluster
    raise BenchError(f"the cluster was not up within {SETTLE:.0f} s: {[node.reason for node in cluster.nodes]}")


def _settled(cluster: Cluster) -> bool:
    standbys = [node for node in cluster.nodes if node is not cluster.primary]
    known = all(node.sync_mode is not None and node.lag_ms is not None for node in standbys)
    return cluster.primary is not None and known and all(node.healthy for node in cluster.nodes)


class _Deciding:
    """Times the planner: its table full, its table empty, and with nothing known at all."""

    def __init__(self, cluster: Cluster, plugins: Sequence[Plugin], config: Config, local: LocalCluster) -> None:
        self._cluster, self._plugins, self._config = cluster, plugins, config
        self._client = Client(local.user, local.database, "benchmark", "127.0.0.1", "", "scram-sha-256")
        self._session = self._fresh_session()
        self._workload = Workload(CLUSTER_HINTS)
        self._planner = self._fresh_planner()

    def rows(self, count: int, passes: int) -> tuple[list[Row], list[HookRow], str]:
        """Measure `count` remembered statements, and every shape `passes` times unremembered. Also returns a note."""
        note = self._check()
        remembered = _timed(self._decide, self._workload.draw(count))
        before = _calls(self._plugins)
        forgotten: list[int] = []
        for _ in range(passes):
            self._planner.table.flush()
            forgotten += _timed(self._decide, self._workload.each())
        hooks = _since(before, _calls(self._plugins))
        unseen: list[int] = []
        for _ in range(passes):
            self._planner, self._session = self._fresh_planner(), self._fresh_session()
            unseen += _timed(self._decide, self._workload.each())
        rows = [
            _row("decide, flow remembered", remembered, DECISION_TARGET),
            _row("decide, flow forgotten (plugins asked again)", forgotten, UNREMEMBERED_TARGET),
            _row("decide, shape never seen (parsed, proven, plugins asked)", unseen, UNREMEMBERED_TARGET),
        ]
        return rows, hooks, note

    def _decide(self, drawn: Drawn) -> None:
        self._planner.choose(self._planner.flow(self._session, drawn.text, drawn.shape))

    def _check(self) -> str:
        """Fill the table; make sure that decisions are measured and not refusals. A note on what the workload is."""
        reads, each = 0, self._workload.each()
        for drawn in each:
            flow = self._planner.flow(self._session, drawn.text, drawn.shape)
            if flow.verdict.reject is not None or self._planner.choose(flow) is None:
                raise BenchError(f"{drawn.text!r} would not run: {flow.verdict.reject or flow.qualified}")
            reads += flow.read_only
        hinted = sum(drawn.hinted for drawn in each)
        return (
            f"Workload: {len({drawn.shape for drawn in each}):,} shapes ({hinted:,} with hints, {reads:,} proven "
            f"read-only), Zipf-distributed; a primary and two standbys; plugins: "
            f"{', '.join(plugin.name for plugin in self._plugins)}."
        )

    def _fresh_planner(self) -> Planner:
        return Planner(self._cluster, self._plugins, flows=self._config.plugins.flows, balancer=Balancer())

    def _fresh_session(self) -> Session:
        return Session(1, (1, b"1234"), self._client, from_parameters(PARAMETERS))


def _calls(plugins: Sequence[Plugin]) -> dict[tuple[str, str], tuple[int, float]]:
    """Calls and µs by plugin and hook."""
    return {
        (plugin.name, hook): (counted.calls, counted.microseconds)
        for plugin in plugins
        for hook, counted in plugin.statistics().hooks.items()
    }


def _since(
    before: dict[tuple[str, str], tuple[int, float]], after: dict[tuple[str, str], tuple[int, float]]
) -> list[HookRow]:
    rows = []
    for (plugin, hook), (calls, spent) in after.items():
        calls_before, spent_before = before[plugin, hook]
        new = calls - calls_before
        if new:
            rows.append(HookRow(plugin, hook, new, (spent - spent_before) / new))
    return rows


# --- on the wire -----------------------------------------------------------------------------------------------------


def _wire(count: int, say: Say) -> list[Row]:
    with ExitStack() as stack:
        local = stack.enter_context(_servers.postgres(say))
        _fill(local)
        proxy = stack.enter_context(_servers.helios_proxy(local, _servers.bundled_plugins(local, say), say))
        login = _servers.login(local)
        through = stack.enter_context(connect(proxy.address, login))
        direct = stack.enter_context(connect(_servers.direct(local).address, login))
        say("one client, through the proxy and without it")
        try:
            return _added(through, direct, count)
        except (PeerError, OSError) as error:
            raise BenchError(f"one client: {error}") from None


def _added(through: Connection, direct: Connection, count: int) -> list[Row]:
    """The same statements in blocks, one way and then the other, every flow remembered."""
    workload = Workload(ONE_NODE_HINTS, writes=0.0)
    warm = [query_message(drawn.text) for drawn in workload.each()]
    for connection in (through, direct):
        _timed(connection.exchange, warm)
    messages = [query_message(drawn.text) for drawn in workload.draw(count)]
    mine: list[int] = []
    theirs: list[int] = []
    for start in range(0, count, BLOCK):
        block = messages[start : start + BLOCK]
        theirs += _timed(direct.exchange, block)
        mine += _timed(through.exchange, block)
    with_proxy, without = _row("one client, through the proxy", mine), _row("one client, no proxy", theirs)
    return [without, with_proxy, _difference(with_proxy, without)]


def _difference(mine: Row, theirs: Row) -> Row:
    return Row(
        "added by the proxy", mine.count, mine.mean - theirs.mean, mine.p50 - theirs.p50, mine.p99 - theirs.p99,
        ADDED_TARGET,
    )  # fmt: skip


def _fill(local: LocalCluster) -> None:
    """pgbench's tables with little in them; they need no pgbench."""
    local.psql(
        """
        create table pgbench_branches (bid int primary key, bbalance int, filler char(88));
        create table pgbench_tellers (tid int primary key, bid int, tbalance int, filler char(84));
        create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84));
        insert into pgbench_branches values (1, 0, '');
        insert into pgbench_tellers select i, 1, 0, '' from generate_series(1, 10) i;
        insert into pgbench_accounts select i, 1, 0, '' from generate_series(1, 100000) i;
        grant all on pgbench_branches, pgbench_tellers, pgbench_accounts to helios;
        analyze;
        """,
        database=local.database,
    )


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="Microseconds a statement", title_justify="left")
    table.add_column("what", no_wrap=True)
    for column in ("statements", "mean", "p50", "p99", "p99 at most"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(*row.cells())
    return table


def _hook_table(hooks: Sequence[HookRow]) -> Table:
    table = Table(title="A hook's call, while flows were forgotten", title_justify="left")
    for column in ("plugin", "hook"):
        table.add_column(column)
    for column in ("calls", "mean µs"):
        table.add_column(column, justify="right")
    for hook in hooks:
        table.add_row(hook.plugin, hook.hook, f"{hook.calls:,}", f"{hook.mean:.1f}")
    return table
