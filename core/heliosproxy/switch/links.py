"""The links of all pools: opened, handed to sessions, brought back clean, closed. Sans-IO, as the switch.

A link goes round: opened → idle → a session's → reset if anything may be left on it (L1) → idle. While a cancel request
is on its way to it, it is nobody's, since the cancel would hit whoever came next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from random import SystemRandom
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from heliosproxy.switch.link import Link
from heliosproxy.switch.loss import IDLE
from heliosproxy.switch.pool import Pool
from heliosproxy.switch.settings import Settings, change
from heliosproxy.switch.unit import Unit
from heliosproxy.wire.errors import PeerError

if TYPE_CHECKING:
    from heliosproxy.cluster.node import Node
    from heliosproxy.cluster.registry import Cluster
    from heliosproxy.config.model import Pool as PoolConfig
    from heliosproxy.switch.session import Session

log = logging.getLogger("heliosproxy.links")


class Port(Protocol):
    """What the switch needs of whoever owns the sockets. Nothing here waits."""

    def to_client(self, session: Session, data: bytes) -> None:
        """Send bytes to a client."""

    def to_link(self, link: Link) -> None:
        """Send what is in `link.outgoing`."""

    def close_client(self, session: Session) -> None:
        """Send what is due and close."""

    def close_link(self, link: Link) -> None:
        """Say Terminate and close."""

    def open_link(self, pool: Pool) -> None:
        """Open a link; `Switch.link_opened` or `Switch.link_refused` follows."""

    def cancel(self, link: Link, done: Callable[[], None]) -> None:
        """Ask the node to cancel what the link runs; `done` once the node has taken note."""


class Sessions(Protocol):
    """What links tell of the sessions that have them or wait for one."""

    def start(self, session: Session, link: Link) -> None:
        """The link is the session's; its unit may go."""

    def link_lost(self, session: Session, unit: Unit | None, link: Link, reason: str) -> None:
        """The session's link died; `unit` is what its client was waiting for."""

    def refused(self, session: Session, error: PeerError) -> None:
        """The server lets nobody in for this session."""

    def look_elsewhere(self, session: Session) -> None:
        """The node that it waited for is not there."""

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
        self._random = SystemRandom()

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
            self._give(session, link)
        else:
            self._open(pool)

    def _open(self, pool: Pool) -> None:
        for _ in range(pool.wanted):
            pool.opening += 1
            self._port.open_link(pool)

    def _give(self, session: Session, link: Link) -> None:
        """The link is the session's once it has the session's settings.

        A statement must not run under another's search_path because setting this one's has failed: it waits for the
        answer, unless the settings differ only in what has no meaning (application_name).
        """
        session.link, link.session = link, session
        wanted = session.settings
        sql = change(link.settings, wanted)
        if not sql:
            self._sessions.start(session, link)
        elif link.settings.meaning == wanted.meaning:
            link.run(sql)
            self._sessions.start(session, link)
        else:
            link.run(sql, lambda done: self._adopted(session, link, wanted, done))
            self._port.to_link(link)

    def _adopted(self, session: Session, link: Link, wanted: Settings, done: Unit) -> None:
        if done.sqlstate:
            self.release(session, link)
            self._sessions.refused(session, PeerError(done.problem, done.sqlstate))
        else:
            link.settings = Settings(link.settings.reported, wanted.extra)
            self._sessions.start(session, link)

    # --- opened, or not -------------------------------------------------------------------------------------------

    def opened(self, pool: Pool, link: Link) -> None:
        """A link that was asked for is there, logged in and idle."""
        pool.add(link)
        self._idle(pool, link)

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

    # --- brought back ---------------------------------------------------------------------------------------------

    def release(self, session: Session, link: Link) -> None:
        """The session needs it no more; its transaction, if it was in one, is rolled back."""
        session.link = link.session = None
        if link.status != IDLE:
            link.dirt = 2
            link.run("ROLLBACK")
        if not link.cancels:
            self._clean(link)

    def _clean(self, link: Link) -> None:
        """Give a link back once nothing is left on it."""
        if not link.dirt:
            self._idle(_pool_of(link), link)
            return
        everything = link.dirt > 1
        if everything:
            link.forget_statements()
            link.settings = Settings(link.settings.reported)
            # What DISCARD ALL leaves: with a known seed, random() would give the next client known values.
            link.run(f"SELECT pg_catalog.setseed({self._random.uniform(-1, 1):.17f})")
        link.dirt = 0
        link.cleaning = True
        link.run("DISCARD ALL" if everything else "DISCARD SEQUENCES", lambda done: self._cleaned(link, done))
        self._port.to_link(link)

    def _cleaned(self, link: Link, done: Unit) -> None:
        link.cleaning = False
        if done.sqlstate:
            self.close(link, f"reset failed with {done.sqlstate}")
        elif not link.cancels:
            self._idle(_pool_of(link), link)

    def _idle(self, pool: Pool, link: Link) -> None:
        """Hand the link to who has waited longest, or keep it."""
        while (session := pool.next_waiting()) is not None:
            if session.units:
                self._give(session, link)
                return
        link.released_at = monotonic()
        pool.idle.append(link)

    # --- cancelled ------------------------------------------------------------------------------------------------

    def cancel(self, link: Link) -> None:
        """Cancel what the link runs."""
        link.cancels += 1
        self._port.cancel(link, lambda: self._cancelled(link))

    def _cancelled(self, link: Link) -> None:
        link.cancels -= 1
        held_back = link.session is None and not link.cleaning and link in _pool_of(link).links
        if not link.cancels and held_back:
            self._clean(link)

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
