"""A node as the proxy knows it: what was configured, and what the monitors last saw."""

from __future__ import annotations

from dataclasses import dataclass, field

from helios_sdk.contract import Role, SyncMode

from heliosproxy.config.kinds import Address
from heliosproxy.config.model import NodeConfig


@dataclass(slots=True, eq=False)
class Node:
    """A configured server. The monitors write it, the switch reads it; `in_flight` is the switch's.

    Identity, not value, compares: there is one object per configured server and process.
    """

    config: NodeConfig
    addresses: tuple[Address, ...] = ()
    """What the configured host resolves to, newest; empty until it was resolved."""
    role: Role | None = None
    """None until it was seen."""
    sync_mode: SyncMode | None = None
    healthy: bool = False
    reason: str = "not seen yet"
    """Why it is not healthy."""
    failures: int = 0
    lag_ms: float | None = None
    """Replication lag in ms; 0 on the primary; None: not known."""
    lag_bytes: int | None = None
    replay_lsn: int = 0
    timeline: int = 0
    round_trip_ms: float | None = None
    server_version: str = ""
    protocol_minor: int = 2
    """The newest minor version of the protocol to ask it for; 0 once it has refused a newer one. The switch's."""
    in_flight: int = 0
    """Units that the switch has sent to it and that are not yet answered."""
    labels: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.labels = dict(self.config.labels)

    @property
    def name(self) -> str:
        return self.config.name
