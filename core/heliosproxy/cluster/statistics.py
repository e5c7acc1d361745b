"""What status pages show of the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from heliosproxy.cluster.node import Node
from heliosproxy.cluster.snapshots import SnapshotStatistics


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """A node, as status pages show it."""

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


@dataclass(frozen=True, slots=True)
class ClusterStatistics:
    """The cluster, as status pages show it."""

    version: int
    topology_version: int
    catalogue_version: int
    primary: str
    timeline: int
    write_lsn: int
    nodes: tuple[NodeStatistics, ...]
    catalogues: tuple[SnapshotStatistics, ...]


def node_statistics(node: Node) -> NodeStatistics:
    """The node as it is now."""
    address = node.addresses[0] if node.addresses else node.config.address
    return NodeStatistics(
        node.name, str(address), node.role or "", node.sync_mode or "", node.healthy, node.reason, node.lag_ms,
        node.lag_bytes, node.round_trip_ms, node.timeline, node.server_version, node.in_flight, node.config.weight,
        dict(node.labels),
    )  # fmt: skip
