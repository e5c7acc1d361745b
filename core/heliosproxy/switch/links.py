"""The links of all pools: opened, queued for, lost, closed. Sans-IO, as the switch.

How a link passes from one session to the next is in `handover`; how many links there may be, and who is next, say the
pools and the caps that they share.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from random import SystemRandom
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from heliosproxy.switch.caps import Caps
from heliosproxy.switch.handover import Handover, Sockets, Starts
from heliosproxy.switch.link import Link
from heliosproxy.switch.pool import Ending, Pool
from heliosproxy.switch.retry import for_good
from heliosproxy.switch.shortage import no_link
from heliosproxy.wire.errors import PeerError

if TYPE_CHECKING:
    from heliosproxy.cluster.node import Node
    from heliosproxy.cluster.registry import Cluster
    from heliosproxy.switch.policies import Policies
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.unit import Unit

log = logging.getLogger("heliosproxy.links")

JITTER = 0.1
"""The share of `max_lifetime` by which, at most, a link is closed earlier, so that not all go at once."""


class Port(Sockets, Protocol):
    """What the switch needs of whoever owns the sockets. Nothing here waits."""

    def to_client(self, session: Session, data: bytes) -> None:
        """Send bytes to a client."""

    def close_client(self, session: Session) -> None:
        """Send what is due and close."""

    def close_link(self, link: Link, done: Callable[[], None]) -> None:
        """Say Terminate and close; `done` once the server has closed as well, or does not within some seconds."""

    def open_link(self, pool: Pool) -> None:
        """Open a link; `Links.opened` or `Links.not_opened` follows, at once or later."""


class Sessions(Starts, Protocol):
    """What links tell of the sessions that have them or wait for one."""

    def link_lost(self, session: Session, unit: Unit | None, link: Link, reason: str) -> None:
        """The session's link died; `unit` is what its client was waiting for."""

    def waited_too_long(self, session: Session, error: PeerError) -> None:
        """No link became free in time."""


class Links:
    """Pools by node, database and the client's user; users with the same role there, and the same keys of `[[pools]]`,
    share one."""

    def __init__(self, policies: Policies, cluster: Cluster, port: Port, sessions: Sessions) -> None:
        self.pools: list[Pool] = []
        self._of: dict[tuple[str, str, str], Pool] = {}
        self._policies = policies
        self._caps = Caps(policies)
        self._cluster = cluster
        self._port = port
        self._sessions = sessions
        self._random = SystemRandom()
        self.handover = Handover(port, sessions, self._idle, partial(self._close, "reset failed"))

    def pool(self, node: Node, database: str, user: str) -> Pool:
        """The pool of a node for a database and a client's user."""
        key = (node.name, database, user)
        pool = self._of.get(key)
        if pool is None:
            pool = self._of[key] = self._shared(node, database, user)
        return pool

    def _shared(self, node: Node, database: str, user: str) -> Pool:
        policy, role = self._policies.of(database, user), self._policies.role(database, user)
        for pool in self.pools:
            if pool.retired:
                continue
            if pool.policy is policy and (pool.node, pool.database, pool.user) == (node, database, role):
                return pool
        pool = Pool(node, database, role, policy, user)
        self.pools.append(pool)
        self._caps.join(pool)
        return pool

    def policies_changed(self) -> None:
        """Users may have other roles on the nodes from here on: they are found their pools anew. A pool that nobody
        uses any more runs empty as it is."""
        self._of.clear()
        for pool in self.pools:
            if self._policies.role(pool.database, pool.asked_by) == pool.user:
                pool.policy = self._policies.of(pool.database, pool.asked_by)
            else:
                pool.retired = True
                self._reroute(pool)

    def take(self, session: Session, pool: Pool) -> None:
        """Give the session a link, now or when it is its turn."""
        link = pool.take(session)
        pool.asked_by = session.client.user
        if link is not None:
            self.handover.give(session, link)
        else:
            self._open(pool)

    # --- opening --------------------------------------------------------------------------------------------------

    def _open(self, pool: Pool) -> None:
        """Open what those who wait need, as far as it is allowed."""
        while pool.wanted and self._open_one(pool):
            pass

    def _open_one(self, pool: Pool) -> bool:
        """Open a link, in the place of an idle one of another pool if need be; False if a cap forbids it."""
        cap = pool.full_cap
        if cap is not None:
            other = cap.idlest()
            if other is None:
                cap.blocked[pool] = None
                return False
            self._remove(other.idle[0], "evicted")  # which makes room under a wider cap too
        pool.begin()
        self._port.open_link(pool)
        return True

    def _room_after(self, pool: Pool) -> None:
        """The pool has a link less than it had: whose client comes first has the room."""
        if not pool.caps:
            self._open(pool)
            return
        *narrower, widest = pool.caps
        for cap in narrower:  # which now has room itself, so that it is the widest one that its pools wait for
            widest.blocked.update(cap.blocked)
            cap.blocked.clear()
        widest.blocked[pool] = None  # its own clients stand in line with the others'
        while (following := widest.next_pool()) is not None and self._open_one(following):
            pass

    def opened(self, pool: Pool, link: Link) -> None:
        """A link that was asked for is there, logged in and idle."""
        lifetime = pool.policy.max_lifetime * (1 - JITTER * self._random.random())
        now = monotonic()
        pool.add(link, now + lifetime)
        if pool.queue.waiting:
            self._hand_on(pool, link, now)  # even if others come first: connecting should not have been in vain
        else:
            self._idle(link)
        self._open(pool)  # if this was the first to succeed after some that failed

    def not_wanted(self, pool: Pool) -> None:
        """A link that was asked for is not to be had any more: who asked for it has another role by now."""
        pool.failed()
        self._reroute(pool)
        self._room_after(pool)

    def not_opened(self, pool: Pool, error: PeerError, unreachable: bool) -> None:
        """A link that was asked for could not be had: `unreachable`, or refused by the server with an error."""
        pool.failed()
        pool.retry.failed(error, monotonic(), self._random.random())
        if unreachable or error.sqlstate == "57P03":
            self._cluster.reported(pool.node, error)
        if unreachable:
            self._reroute(pool)
        else:
            self._tell_refused(pool)
        self._room_after(pool)

    def _tell_refused(self, pool: Pool) -> None:
        """Where the server lets nobody in and no link is left, there is nothing to wait for."""
        error = pool.retry.error
        if error is not None and pool.retry.resting and not pool.links and for_good(error):
            for session in _leaving(pool):
                self._sessions.refused(session, error)

    def _reroute(self, pool: Pool) -> None:
        for session in _leaving(pool):
            self._sessions.look_elsewhere(session)

    # --- idle -----------------------------------------------------------------------------------------------------

    def _idle(self, link: Link) -> None:
        """Hand the link to whose turn it is, keep it, or close it."""
        pool = _pool_of(link)
        now = monotonic()
        if pool.retired:
            self._close("dropped", link)
            return
        if now >= pool.links[link]:
            self._close("lifetime", link)
            return
        for cap in pool.caps:
            if cap.blocked and cap.gives_up(pool):
                self._close("evicted", link)
                return
        if pool.queue.waiting:
            self._hand_on(pool, link, now)
        else:
            pool.put_back(link, now)

    def _hand_on(self, pool: Pool, link: Link, now: float) -> None:
        while (session := pool.next_waiting()) is not None:
            if session.units:
                self.handover.give(session, link)
                return
        pool.put_back(link, now)

    # --- gone -----------------------------------------------------------------------------------------------------

    def close(self, link: Link, reason: str = "closed by the proxy") -> None:
        """Close a link; whoever uses it is told."""
        self._close("dropped", link, reason)

    def _close(self, why: Ending, link: Link, reason: str = "") -> None:
        pool = _pool_of(link)
        closes = link in pool.links
        self._gone(link, why, reason or why, closing=True)
        self._port.close_link(link, partial(self._has_closed, pool) if closes else _nothing)

    def _has_closed(self, pool: Pool) -> None:
        """The server has taken note: there is room for another link."""
        pool.has_closed()
        self._room_after(pool)

    def lost(self, link: Link, reason: str) -> None:
        """A link died."""
        self._gone(link, "lost", reason)

    def _gone(self, link: Link, why: Ending, reason: str, *, closing: bool = False) -> None:
        pool = _pool_of(link)
        if link not in pool.links:
            return
        link.closed = True
        pool.discard(link, why, closing=closing)
        session, link.session = link.session, None
        units = [unit for unit in link.units if unit.session is not None]
        link.units.clear()
        link.node.in_flight -= len(units)
        if session is not None:
            session.link = None
            self._sessions.link_lost(session, units[0] if units else None, link, link.failure or reason)
        self._room_after(pool)

    def _remove(self, link: Link, why: Ending) -> None:
        """Close an idle link whose room is spoken for."""
        self._port.close_link(link, _nothing)
        link.closed = True
        _pool_of(link).discard(link, why)

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look after those who wait, close what is too old or has idled long enough, open what is missing."""
        for pool in list(self.pools):
            if pool.retired and not (pool.count or pool.queue.waiting):
                self.pools.remove(pool)
                self._caps.leave(pool)
                continue
            pool.look(now)
            self._time_out(pool, now)
            while (found := pool.to_close(now)) is not None:
                self._close(found[1], found[0])
            if pool.node.healthy:
                self._tell_refused(pool)
                self._replenish(pool, now)
            else:
                self._reroute(pool)
        self._caps.look(now)

    def _time_out(self, pool: Pool, now: float) -> None:
        late = pool.queue.since_before(now - pool.policy.wait_timeout)
        for waiter, error in zip(late, no_link(pool, late), strict=True):
            if pool.queue.waiting.get(waiter.session) is waiter:
                pool.timed_out += 1
                pool.leave(waiter.session)
                self._sessions.waited_too_long(waiter.session, error)

    def _replenish(self, pool: Pool, now: float) -> None:
        self._open(pool)
        while pool.wanted_of_reserve(now) and self._open_one(pool):
            pass
        while pool.wanted_ahead(now) and pool.full_cap is None and not any(cap.blocked for cap in pool.caps):
            pool.begin()
            self._port.open_link(pool)


def _leaving(pool: Pool) -> Iterator[Session]:
    """Everyone who waits, out of the queue."""
    while (session := pool.next_waiting()) is not None:
        if session.units:
            yield session


def _pool_of(link: Link) -> Pool:
    assert link.pool is not None
    return link.pool


def _nothing() -> None:
    """Nobody waits for it."""
