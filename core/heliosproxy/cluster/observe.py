"""What one look at a server says, which of several primaries to believe, and what the primary says of its standbys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg
from helios_sdk.contract import SyncMode

from heliosproxy.cluster.lag import settled
from heliosproxy.cluster.node import Node

LOOK = r"""
select pg_is_in_recovery(),
       case when pg_is_in_recovery() then 0 else (pg_current_wal_insert_lsn() - '0/0')::bigint end,
       case when pg_is_in_recovery() then 0 else (pg_current_wal_flush_lsn() - '0/0')::bigint end,
       coalesce((pg_last_wal_replay_lsn() - '0/0')::bigint, 0),
       case when pg_is_in_recovery()
            then coalesce((select received_tli from pg_stat_wal_receiver),
                          (select timeline_id from pg_control_checkpoint()))
            else ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int end,
       array(select concat_ws(E'\t', coalesce(host(client_addr), ''), coalesce(sync_state, ''), application_name)
               from pg_stat_replication),
       current_setting('server_version')
"""
"""One row. The timeline of a primary is that of the file it writes: the control file's is late after a promotion."""

SYNC_MODES: Mapping[str, SyncMode] = {"sync": "sync", "quorum": "semisync", "potential": "async", "async": "async"}


class Replica(NamedTuple):
    """A row of the primary's pg_stat_replication."""

    address: str
    sync_state: str
    name: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server said of itself at `at` (the proxy's monotonic clock, when asked), in `round_trip` seconds.

    `insert` is the end of what a primary has written and `flush` of what standbys can have; both are 0 on a standby.
    """

    at: float
    round_trip: float
    in_recovery: bool
    insert: int = 0
    flush: int = 0
    replay: int = 0
    timeline: int = 1
    replicas: tuple[Replica, ...] = ()
    version: str = ""


def seen(row: asyncpg.Record, at: float, round_trip: float) -> Seen:
    """`LOOK`'s row as Seen."""
    in_recovery, insert, flush, replay, timeline, replicas, version = row
    return Seen(
        at, round_trip, in_recovery, settled(insert), settled(flush), replay, timeline,
        tuple(Replica(*text.split("\t", 2)) for text in replicas), version.split()[0],
    )  # fmt: skip


def choose_primary(claims: Mapping[Node, int], fence: int) -> tuple[Node | None, dict[Node, str]]:
    """Of the nodes that say they are primary, with their timelines: whom to believe, and what is wrong with the rest.

    The highest timeline wins, and among equals the first in order. One below `fence`, the highest timeline that a
    primary was ever seen on, was left behind by a promotion and is not believed even when it is alone (SAFETY F2).
    """
    valid = {node: timeline for node, timeline in claims.items() if timeline >= fence}
    best = max(valid, key=valid.__getitem__, default=None)
    wrong = {}
    for node, timeline in claims.items():
        if node not in valid:
            wrong[node] = f"an old primary: on timeline {timeline}, and {fence} has begun"
        elif best is not None and node is not best:
            wrong[node] = f"a second primary: {best.name} is on timeline {valid[best]}, this one on {timeline}"
    return best, wrong


def sync_mode(node: Node, replicas: Iterable[Replica], nodes: Iterable[Node]) -> SyncMode | None:
    """The mode in which the primary replicates to `node`, None where no row is its own.

    A row is a node's if its application_name is the node's name; else, if it bears no node's name, by the address it
    comes from, where no other node has that address.
    """
    rows = list(replicas)
    mine = [row for row in rows if row.name == node.name]
    if not mine:
        everyone = list(nodes)
        names = {other.name for other in everyone}
        hosts = {address.host for address in node.addresses}
        for other in everyone:
            if other is not node:
                hosts -= {address.host for address in other.addresses}
        mine = [row for row in rows if row.name not in names and row.address in hosts]
    return SYNC_MODES.get(mine[0].sync_state) if len(mine) == 1 else None
