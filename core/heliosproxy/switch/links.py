"""The links of all pools: opened, queued for, lost, closed. Sans-IO, as the switch.

How a link passes from one session to the next is in `handover`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from heliosproxy.switch.handover import Handover, Sockets, Starts
from heliosproxy.switch.link import Link
from heliosproxy.switch.pool import Pool
from heliosproxy.wire.errors import PeerError

if TYPE_CHECKING:
    from heliosproxy.cluster.node import Node
    from heliosproxy.cluster.registry import Cluster
    from heliosproxy.config.model import Pool as PoolConfig
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.unit import Unit

log = logging.getLogger("heliosproxy.links")


class Port(Sockets, Protocol):
    """What the switch needs of whoever owns the sockets. Nothing here waits."""

    def to_client(self, session: Session, data: bytes) -> None:
        """Send bytes to a client."""

    def close_client(self, session: Session) -> None:
        """Send what is due and close."""

    def close_link(self, link: Link) -> None:
        """Say Terminate and close."""

    def open_link(self, pool: Pool) -> None:
        """Open a link; `Switch.link_opened` or `Switch.link_refused` follows."""

class Sessions(Starts, Protocol):
    """What links tell of the sessions that have them or wait for one."""

    def link_lost(self, session: Session, unit: Unit | None, link: Link, reason: str) -> None:
        """The session's link died; `unit` is what its client was waiting for."""

    def waited_too_long(self, session: Session, pool: Pool) -> None:
        """No link became free in time."""


class Links:
    """Pools by node, database and user."""

    def __init__(self, config: PoolConfig, cluster: Cluster, port: Port, sessions: Sessions) -> None:
        self.pools: dict[tuple[str, str, str], Pool] = {}
        self._config = config
        self._cluster = cluster
        self._port = port
        self._sessions = sessions
        self.handover = Handover(port, sessions, self._idle, self.close)

    def pool(self, node: Node, database: str, user: str) -> Pool:
        """The pool of a node for a database and a user."""
        key = (node.name, database, user)
        pool = self.pools.get(key)
        if pool is None:
            pool = self.pools[key] = Pool(node, database, user, self._config.size)
        return pool

    def take(self, session: Session, pool: Pool) -> None:
        """Give the session a link, now or when one is free."""
        link = pool.take(session, session.units[0].started)
        if link is not None:
            self.handover.give(session, link)
        else:
            self._open(pool)

    def _open(self, pool: Pool) -> None:
        for _ in range(pool.wanted):
            pool.opening += 1
            self._port.open_link(pool)

    # --- opened, or not -------------------------------------------------------------------------------------------

    def opened(self, pool: Pool, link: Link) -> None:
        """A link that was asked for is there, logged in and idle."""
        pool.add(link)
        self._idle(link)

    def not_opened(self, pool: Pool, error: PeerError, unreachable: bool) -> None:
        """A link that was asked for could not be had: `unreachable`, or refused by the server with an error."""
        pool.opening -= 1
        if unreachable:
            self._cluster.reported(pool.node, error)
            self._reroute(pool)
        elif not pool.links:
            for session in _leaving(pool):
                self._sessions.refused(session, error)

    def _reroute(self, pool: Pool) -> None:
        for session in _leaving(pool):
            self._sessions.look_elsewhere(session)

    def _idle(self, link: Link) -> None:
        """Hand the link to who has waited longest, or keep it."""
        pool = _pool_of(link)
        while (session := pool.next_waiting()) is not None:
            if session.units:
                self.handover.give(session, link)
                return
        link.released_at = monotonic()
        pool.idle.append(link)

    # --- gone -----------------------------------------------------------------------------------------------------

    def close(self, link: Link, reason: str = "closed by the proxy") -> None:
        """Close a link; whoever uses it is told."""
        self._port.close_link(link)
        self.lost(link, reason)

    def lost(self, link: Link, reason: str) -> None:
        """A link died."""
        pool = _pool_of(link)
        if link not in pool.links:
            return
        link.closed = True
        pool.discard(link)
        session, link.session = link.session, None
        units = [unit for unit in link.units if unit.session is not None]
        link.units.clear()
        link.node.in_flight -= len(units)
        if session is not None:
            session.link = None
            self._sessions.link_lost(session, units[0] if units else None, link, link.failure or reason)
        self._open(pool)

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look after those who wait, and close what has idled long enough."""
        for pool in list(self.pools.values()):
            while pool.waiting and now - pool.waiting[0].waiting_since > self._config.wait_timeout:
                session = pool.waiting[0]
                pool.leave(session)
                self._sessions.waited_too_long(session, pool)
            while pool.idle and now - pool.idle[0].released_at > self._config.idle_timeout:
                self.close(pool.idle[0], "idle")
            if pool.waiting and not pool.node.healthy:
                self._reroute(pool)
            self._open(pool)


def _leaving(pool: Pool) -> Iterator[Session]:
    """Everyone who waits, out of the queue."""
    while (session := pool.next_waiting()) is not None:
        if session.units:
            yield session


def _pool_of(link: Link) -> Pool:
    assert link.pool is not None
    return link.pool
