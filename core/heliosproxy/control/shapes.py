"""The admin API's answers, key by key: what `views.py` makes and the command line reads.

Times are in seconds unless the key says ms or microseconds; sizes are bytes; shares are of 1.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class ReadyShown(TypedDict):
    """`GET /readyz`; status 503 unless `ready`."""

    ready: bool
    reasons: list[str]


class ProxyShown(TypedDict):
    """Counters since start."""

    clients: int
    logins: int
    logging_in: int
    refused: dict[str, int]
    statements: int
    uptime: float


class ReloadShown(TypedDict):
    """Sections that say something else than before: those that now hold, and those that need a restart."""

    changed: list[str]
    needs_restart: list[str]


class NodeShown(TypedDict):
    """A configured server as it is now. `reason`: why it is not healthy; lag is None where it is not known."""

    name: str
    address: str
    role: str
    sync: str
    healthy: bool
    reason: str
    lag_ms: float | None
    lag_bytes: int | None
    round_trip_ms: float | None
    timeline: int
    server_version: str
    in_flight: int
    weight: int
    labels: dict[str, str]


class CatalogueShown(TypedDict):
    """The snapshot of a database's catalogue, on which proofs rest."""

    database: str
    valid: bool
    readings: int
    error: str


class ClusterShown(TypedDict):
    """The nodes as a whole."""

    version: int
    topology_version: int
    catalogue_version: int
    primary: str
    timeline: int
    write_lsn: int
    catalogues: list[CatalogueShown]


class PoolShown(TypedDict):
    """The links to one node for one database and user; `switch.pool.PoolStatistics`. Counters since its first use.

    `closed`: links by why they ended. `problem`: why the last attempt to open one failed, until one succeeds.
    """

    node: str
    database: str
    user: str
    mode: str
    size: int
    reserve: int
    min_size: int
    idle: int
    active: int
    opening: int
    waiting: int
    longest_wait: float
    taken: int
    waited: int
    timed_out: int
    opened: int
    not_opened: int
    closed: dict[str, int]
    problem: str


class FlowsShown(TypedDict):
    """The flow table. `remembered`: the share of lookups that needed no plugin."""

    size: int
    limit: int
    hits: int
    misses: int
    evicted: int
    flushed: int
    remembered: float


class PluginState(TypedDict):
    """A loaded plugin in brief. `reason`: why it is disabled."""

    name: str
    version: str
    state: str
    reason: str


class StatusShown(TypedDict):
    """`GET /status`."""

    version: str
    listen: str
    uptime: float
    proxy: ProxyShown
    nodes: list[NodeShown]
    cluster: ClusterShown
    pools: list[PoolShown]
    flows: FlowsShown
    plugins: list[PluginState]


class HookShown(TypedDict):
    """A hook; the counters are there for loaded plugins, and the mean once it was called."""

    hook: str
    reads: list[str]
    only_with: list[str]
    on_failure: str
    calls: NotRequired[int]
    faults: NotRequired[int]
    microseconds_per_call: NotRequired[float | None]


class PluginShown(TypedDict):
    """A plugin of `GET /plugins`. `state`: enabled, disabled (`reason` says why), not enabled, broken.

    What is broken may have no manifest and hence little beside its name; only loaded plugins have counters.
    `remembered`: the share of statements for which its answer was not needed anew.
    """

    name: str
    origin: str
    hooks: list[HookShown]
    state: str
    reason: str
    version: NotRequired[str]
    summary: NotRequired[str]
    contract: NotRequired[str]
    stage: NotRequired[str]
    capabilities: NotRequired[list[str]]
    tables: NotRequired[list[str]]
    calls: NotRequired[int]
    faults: NotRequired[int]
    refused: NotRequired[int]
    microseconds_per_call: NotRequired[float | None]
    memory: NotRequired[int]
    instances: NotRequired[int]
    remembered: NotRequired[float | None]


class PluginsShown(TypedDict):
    """`GET /plugins`: the loaded ones in the order in which they decide, then the others."""

    plugins: list[PluginShown]


class HintShown(TypedDict):
    """A hint that statements may carry; values in angle brackets stand for a kind of value."""

    name: str
    values: list[str]


class FoundHint(TypedDict):
    """A hint in an explained statement; `at` 0: of the session."""

    key: str
    value: str
    at: int


class SaidShown(TypedDict):
    """A directive and its reason."""

    action: str
    reason: str


class StepShown(TypedDict):
    """A hook in an explanation."""

    plugin: str
    hook: str
    microseconds: float | None
    skipped: str
    directives: list[SaidShown]


class CandidateShown(TypedDict):
    """A node in an explanation."""

    name: str
    role: str
    sync: str
    healthy: bool
    lag_ms: float | None
    qualifies: bool
    why_not: str


class ExplanationShown(TypedDict):
    """`/routing/explain`: `switch.explain.Explanation`, and for whom. `note`: what makes it less certain."""

    query: str
    query_hash: str
    kind: str
    read_only: bool
    proof: str
    tables: list[str]
    functions: list[str]
    hints: list[FoundHint]
    remembered: bool
    hooks: list[StepShown]
    verdict: dict[str, str]
    answered: str
    candidates: list[CandidateShown]
    fallback: str
    node: str
    reason: str
    sent: str
    user: str
    database: str
    note: str
