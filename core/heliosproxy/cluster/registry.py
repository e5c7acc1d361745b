"""The configured nodes, what is known of them, and a version that tells when a choice among them may differ.

Synchronous and without a clock or a socket of its own: monitors report what they saw, the switch and the plugins' side
read. `version` lets a flow keep its candidates until something about them changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from helios_sdk import contract

from heliosproxy.cluster.lag import WriteHistory
from heliosproxy.cluster.node import Node
from heliosproxy.cluster.observe import Seen, choose_primary, sync_mode
from heliosproxy.cluster.snapshots import Snapshots
from heliosproxy.cluster.statistics import ClusterStatistics, node_statistics
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Health, NodeConfig
from heliosproxy.config.tls import Contexts

if TYPE_CHECKING:
    from heliosproxy.cluster.catalogue import Catalogue

log = logging.getLogger("heliosproxy.cluster")

MAX_LAG_LIMITS = 64
"""So many different limits are watched; with more, every sample counts as a change."""
NEARER = 0.8
NEARER_MS = 0.5
"""A node becomes the nearest when its round trip is below this share of the present one's and shorter by so much.

Without either, noise among nodes at the same place would change `version` all the time.
"""
SMOOTHING = 0.3
"""Weight of a new round trip in the running mean."""


class Cluster:
    """All nodes of a configuration, in its order. `region` is `[proxy] region`.

    version: goes up whenever a node's role, sync mode, health, address or standing against a lag limit in use changes.
    topology_version: goes up when `facts()` changes.
    write_lsn: last sampled write position of the primary, or a later one that `wrote` told of.
    nearest: the healthy node with the shortest round trip.
    """

    def __init__(self, nodes: Iterable[NodeConfig], *, region: str = "", health: Health | None = None) -> None:
        self.nodes = tuple(Node(config) for config in nodes)
        self.by_name = {node.name: node for node in self.nodes}
        self.region = region
        self.health = health or Health()
        self.version = 0
        self.topology_version = 0
        self.write_lsn = 0
        self.timeline = 0
        self.primary: Node | None = None
        self.nearest: Node | None = None
        self.snapshots = Snapshots()
        self.contexts = Contexts()
        """Of TLS with the nodes, for all that connect to them."""
        self.reported: Callable[[Node, BaseException], None] = _nobody_listens
        """Tell the monitors of a refused or lost link, so that the node is looked at now."""
        self._seen: dict[Node, Seen] = {}
        self._wrong: dict[Node, str] = {}
        self._claims: dict[Node, int] = {}
        self._history = WriteHistory()
        self._source: tuple[Node, int] | None = None
        self._sampled = 0
        self._lag_limits: set[int] = set()
        self._view: tuple[object, ...] = ()
        for node in self.nodes:
            node.role = None if node.config.role == "auto" else node.config.role
            node.sync_mode = None if node.config.sync == "auto" else node.config.sync
        self._facts = self._topology()

    # What others ask.

    def facts(self) -> tuple[contract.Node, ...]:
        """The nodes as plugins see them: only what changes with the topology. The same object until that changes.

        A node that was not seen yet and whose role is not configured counts as a standby.
        """
        return self._facts

    def meets(self, node: Node, limit_ms: int) -> bool:
        """Whether `node` lags at most `limit_ms`; 0: it has replayed past `write_lsn`. Unknown lag meets nothing.

        From its first use on, a change of the answer for any node changes `version`.
        """
        if len(self._lag_limits) <= MAX_LAG_LIMITS:  # with more, every sample counts as a change anyway
            self._lag_limits.add(limit_ms)
        return self._meets(node, limit_ms)

    def wrote(self, lsn: int) -> None:
        """An acknowledged write is at or before `lsn` (SAFETY O3): for a limit of 0, nodes must have replayed it."""
        if lsn > self.write_lsn:
            self.write_lsn = lsn
            if 0 in self._lag_limits:
                self._count_changes()

    def statistics(self) -> ClusterStatistics:
        """Everything worth showing, as it is now."""
        return ClusterStatistics(
            self.version, self.topology_version, self.snapshots.version, self.primary.name if self.primary else "",
            self.timeline, self.write_lsn, tuple(map(node_statistics, self.nodes)), self.snapshots.statistics(),
        )  # fmt: skip

    # Catalogue snapshots: what proofs about statements rest on.

    @property
    def catalogue_version(self) -> int:
        """Goes up whenever `catalogue(…)` begins to answer differently for some database."""
        return self.snapshots.version

    def catalogue(self, database: str) -> Catalogue | None:
        """The snapshot of that database; None while there is none or DDL has made it doubtful."""
        return self.snapshots.get(database)

    def catalogue_of_functions(self, database: str) -> Catalogue | None:
        """The snapshot, also where DDL has made doubtful what it says of relations."""
        return self.snapshots.functions(database)

    def generation(self, database: str) -> int:
        """Goes up with every change of that database's catalogue that is known of, and now and then without one."""
        return self.snapshots.generation(database)

    def request_catalogue(self, database: str) -> None:
        """See that there will be a snapshot, and that it is kept fresh. Returns at once; may be called often."""
        self.snapshots.request(database)

    def ddl_happened(self, database: str, *, of_relations: bool = False) -> None:
        """The snapshot may be wrong from here on and is read again soon.

        Call it when a statement that may change the catalogue is sent and again when it, or its transaction, has ended:
        what is read in between still shows the old state.
        """
        self.snapshots.ddl_happened(database, of_relations=of_relations)

    # What monitors report.

    def saw(self, node: Node, seen: Seen) -> None:
        """A look at `node` succeeded."""
        node.failures = 0
        self._wrong.pop(node, None)
        self._seen[node] = seen
        trip, new = node.round_trip_ms, seen.round_trip * 1000
        node.round_trip_ms = new if trip is None else trip + SMOOTHING * (new - trip)
        node.timeline, node.server_version = seen.timeline, seen.version
        self._settle(seen.at)

    def lost(self, node: Node, reason: str, *, at_once: bool, now: float) -> None:
        """A look at `node` failed. It is down `at_once`, or after as many failures in a row as configured."""
        node.failures += 1
        if at_once or node not in self._seen or node.failures >= self.health.failures:
            self._seen.pop(node, None)
            self._wrong[node] = reason
        self._settle(now)

    def moved(self, node: Node, addresses: tuple[Address, ...]) -> None:
        """`node` is now at `addresses`, best first."""
        if node.addresses != addresses:
            if node.addresses and set(node.addresses) != set(addresses):
                log.info("%s moved to %s", node.name, ", ".join(map(str, addresses)))
            node.addresses = addresses
            self._count_changes()

    # What follows from it.

    def _settle(self, now: float) -> None:
        before = [(node.healthy, node.reason, node.role) for node in self.nodes]
        wrong = self._wrong | self._misfits()
        self._elect(wrong)
        for node in self.nodes:
            seen = self._seen.get(node)
            if seen is not None:
                node.role = "standby" if seen.in_recovery else "primary"
            node.reason = wrong.get(node, "" if seen is not None else "not seen yet")
            node.healthy = not node.reason
        self._follow_primary()
        for node in self.nodes:
            self._measure(node, now)
        self._count_changes()
        facts = self._topology()
        if facts != self._facts:
            self._facts = facts
            self.topology_version += 1
        for node, old in zip(self.nodes, before, strict=True):
            _log_change(node, *old)

    def _misfits(self) -> dict[Node, str]:
        roles = {node: "standby" if seen.in_recovery else "primary" for node, seen in self._seen.items()}
        return {
            node: f"configured as {node.config.role}, but is a {role}"
            for node, role in roles.items()
            if node.config.role not in ("auto", role)
        }

    def _elect(self, wrong: dict[Node, str]) -> None:
        """Set `primary`; what is wrong with other claimants goes into `wrong`."""
        claims = {n: seen.timeline for n, seen in self._seen.items() if not seen.in_recovery and n not in wrong}
        # In the order in which they began to claim it, which a node that goes away loses.
        known = {node: claims[node] for node in self._claims if node in claims}
        self._claims = {**known, **claims}
        best, false = choose_primary(self._claims, self.timeline)
        wrong.update(false)
        if best is not None and (best, claims[best]) != self._source:
            self._source = best, claims[best]
            self.timeline = claims[best]
            self._restart_history()
            self.snapshots.recheck()
        self.primary = best

    def _restart_history(self) -> None:
        self._history.clear()
        self.write_lsn = 0

    def _follow_primary(self) -> None:
        """Take positions and sync modes from what the primary said."""
        primary = self.primary
        if primary is None:
            return
        seen = self._seen[primary]
        if seen.insert < self._sampled:
            # It crashed and lost what was not flushed: nobody will ever replay that.
            self._restart_history()
        self._sampled = seen.insert
        self._history.add(seen.at, seen.flush)
        self.write_lsn = max(self.write_lsn, seen.insert)
        for node in self.nodes:
            if node.config.sync == "auto":
                # A standby that is away keeps its mode: what it is does not change because it is late.
                mode = None if node is primary else sync_mode(node, seen.replicas, self.nodes) or node.sync_mode
                node.sync_mode = mode

    def _measure(self, node: Node, now: float) -> None:
        seen = self._seen.get(node)
        if node is self.primary:
            node.lag_ms, node.lag_bytes, node.replay_lsn = 0.0, 0, self.write_lsn
        elif seen is None or not seen.in_recovery or seen.timeline != self.timeline:
            # Positions on different timelines do not compare.
            node.lag_ms, node.lag_bytes = None, None
        else:
            # Without a primary nobody knows what it wrote after its last sample; with one the next is under way.
            fresh = 0.0 if self.primary is None else 2 * self.health.lag_interval + self.health.timeout
            node.replay_lsn = seen.replay
            node.lag_ms = self._history.lag_ms(now, seen.replay, fresh)
            node.lag_bytes = max(0, self.write_lsn - seen.replay)

    def _meets(self, node: Node, limit_ms: int) -> bool:
        if node is self.primary:
            return True
        if node.lag_ms is None:
            return False
        if limit_ms == 0:
            # A primary that does not answer may have written more than was sampled, which its lag then shows.
            return node.replay_lsn >= self.write_lsn and node.lag_ms == 0
        return node.lag_ms <= limit_ms

    def _count_changes(self) -> None:
        limits = self._lag_limits
        view = tuple(
            (node.healthy, node.role, node.sync_mode, node.addresses, *[self._meets(node, limit) for limit in limits])
            for node in self.nodes
        )
        nearest = self._find_nearest()
        if view != self._view or nearest is not self.nearest or len(limits) > MAX_LAG_LIMITS:
            self._view, self.nearest = view, nearest
            self.version += 1

    def _find_nearest(self) -> Node | None:
        measured = [(node.round_trip_ms, index, node) for index, node in enumerate(self.nodes)
                    if node.healthy and node.round_trip_ms is not None]  # fmt: skip
        if not measured:
            return None
        trip, _, node = min(measured)
        now = self.nearest
        if now is None or not now.healthy or now.round_trip_ms is None:
            return node
        return node if trip < min(now.round_trip_ms * NEARER, now.round_trip_ms - NEARER_MS) else now

    def _topology(self) -> tuple[contract.Node, ...]:
        return tuple(
            contract.Node(
                node.name, node.role or "standby", node.sync_mode,
                tuple(contract.Pair(key, value) for key, value in sorted(node.labels.items())),
            )
            for node in self.nodes
        )  # fmt: skip


def _nobody_listens(node: Node, error: BaseException) -> None:
    """`reported` before the monitors run."""


def _log_change(node: Node, was_healthy: bool, old_reason: str, old_role: contract.Role | None) -> None:
    if node.healthy and not was_healthy:
        address = node.addresses[0] if node.addresses else node.config.address
        log.info("%s is up: %s at %s, PostgreSQL %s", node.name, node.role, address, node.server_version)
    elif node.healthy and node.role != old_role:
        log.warning("%s is now %s, was %s", node.name, node.role, old_role)
    elif not node.healthy and (was_healthy or node.reason != old_reason):
        log.warning("%s is down: %s", node.name, node.reason)
