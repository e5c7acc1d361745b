"""A pool: the links to one node for one database and role, and who waits for one.

Decisions are synchronous: `take` answers at once or puts the session into the queue; whoever opens links is told how
many more there should be. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from heliosproxy.switch.retry import Retry
from heliosproxy.switch.waiting import Queue

if TYPE_CHECKING:
    from heliosproxy.cluster.node import Node
    from heliosproxy.config.model import Pool as Policy
    from heliosproxy.switch.caps import Cap
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.session import Session

Ending: TypeAlias = Literal["idle", "lifetime", "evicted", "reset failed", "lost", "dropped"]
"""Why a link ended.

idle: unused for `idle_timeout`, or beyond `size` and not needed any more. lifetime: older than `max_lifetime`. evicted:
closed to make room for another pool under the same cap. reset failed: it could not be cleaned, or given a session's
settings. lost: it died. dropped: its client left in the middle of a statement, or the server broke the protocol.
"""


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """One pool now, and counters since its first use."""

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
    """Of those who wait now, in seconds."""
    taken: int
    """How often a session was given a link at once."""
    waited: int
    """How often a session had to wait."""
    timed_out: int
    """How often it waited in vain."""
    opened: int
    not_opened: int
    """Attempts that failed."""
    closed: Mapping[str, int]
    """Links by why they ended (`Ending`)."""
    problem: str
    """Why the last attempt to open a link failed; empty once one has succeeded."""


class Pool:
    """Links are packed: the one released last is taken first, so that the others can go idle and be closed."""

    def __init__(self, node: Node, database: str, user: str, policy: Policy, asked_by: str = "") -> None:
        self.node = node
        self.database = database
        self.user = user
        """Its role there."""
        self.asked_by = asked_by or user
        """The client's user that last wanted a link: the next one is opened with what is known of that user."""
        self.policy = policy
        """What `[pool]` and `[[pools]]` say of it: mode, sizes, time-outs."""
        self.retired = False
        """No link is opened for it any more: who asked for them has another role on the nodes."""
        self.caps: tuple[Cap, ...] = ()
        """The limits that it shares with others, the narrowest first."""
        self.links: dict[Link, float] = {}
        """Each with the moment from which on it is to be closed once it is idle."""
        self.idle: list[Link] = []
        self.opening = 0
        self.closing = 0
        """Links that are gone from here, and not yet at the server."""
        self.queue = Queue(policy.priority_ageing)
        self.retry = Retry()
        self.taken = self.waited = self.timed_out = self.opened = self.not_opened = 0
        self.closed: Counter[Ending] = Counter()
        self._seen = -1
        self._used = 0.0

    def __str__(self) -> str:
        return f"{self.user}@{self.database} on {self.node.name}"

    def take(self, session: Session) -> Link | None:
        """A link, or a place in the queue, which counts from when the session's unit was begun."""
        if self.idle and not self.queue.waiting:
            self.taken += 1
            return self.idle.pop()
        unit = session.units[0]
        flow = unit.flow
        session.pool = self
        self.waited += 1
        self.queue.push(session, unit.started, None if flow is None else flow.verdict.priority)
        return None

    def next_waiting(self) -> Session | None:
        """The session that comes first, out of the queue."""
        session = self.queue.pop()
        if session is not None:
            session.pool = None
        return session

    def leave(self, session: Session) -> None:
        """A session no longer waits."""
        if session.pool is self:
            session.pool = None
            self.queue.remove(session)

    # --- how many links there should be ---------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Links that the server has of it, or is about to have."""
        return len(self.links) + self.opening + self.closing

    @property
    def wanted(self) -> int:
        """Links to open now: one for each session that waits, as far as `size` allows, caps left aside."""
        room = min(self._attempts, self.policy.size - self.count)
        return max(0, min(room, len(self.queue.waiting) - self.opening))

    def wanted_of_reserve(self, now: float) -> int:
        """Links to open now beyond `size`, for those who have waited for long."""
        room = min(self._attempts, self.policy.size + self.policy.reserve - self.count)
        if room <= 0 or self.policy.reserve == 0:
            return 0
        return max(0, min(room, len(self.queue.since_before(now - self.policy.reserve_after)) - self.opening))

    def wanted_ahead(self, now: float) -> int:
        """Links to open now so that `min_size` are there, if it is in use."""
        missing = min(self._attempts, self.policy.min_size - self.count)
        return missing if missing > 0 and self._in_use(now) else 0

    @property
    def _attempts(self) -> int:
        """Attempts to open a link that may begin now."""
        if self.retired:
            return 0
        if not self.retry.failures:
            return self.policy.size + self.policy.reserve
        return 0 if self.retry.resting else 1 - self.opening

    @property
    def full_cap(self) -> Cap | None:
        """The narrowest cap that allows no link more."""
        return next((cap for cap in self.caps if cap.full), None)

    def _in_use(self, now: float) -> bool:
        return now - self._used < self.policy.max_lifetime

    # --- links come and go ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A link is about to be opened."""
        self.opening += 1
        for cap in self.caps:
            cap.used += 1

    def failed(self) -> None:
        """It could not be."""
        self.opening -= 1
        self.not_opened += 1
        for cap in self.caps:
            cap.used -= 1

    def add(self, link: Link, expires: float) -> None:
        """It was opened."""
        self.opening -= 1
        self.opened += 1
        self.links[link] = expires
        link.most_statements = self.policy.prepared_statements
        link.pool = self
        self.retry.succeeded()

    def put_back(self, link: Link, now: float) -> None:
        """Nobody uses the link."""
        link.released_at = now
        self.idle.append(link)

    def discard(self, link: Link, why: Ending, *, closing: bool = False) -> None:
        """A link that is closed; `closing`: it counts until `has_closed`."""
        del self.links[link]
        self.closed[why] += 1
        self.closing += 1
        if link in self.idle:
            self.idle.remove(link)
        if not closing:
            self.has_closed()

    def has_closed(self) -> None:
        """The server has one link less."""
        self.closing -= 1
        for cap in self.caps:
            cap.used -= 1

    # --- time -----------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Called with each tick, before anything is decided by time."""
        uses = self.taken + self.waited
        if len(self.links) > len(self.idle) or self.queue.waiting or uses != self._seen:
            self._used, self._seen = now, uses
        if self.node.healthy:
            self.retry.look(now)
        else:
            self.retry.succeeded()  # the monitors know better when to try again

    def to_close(self, now: float) -> tuple[Link, Ending] | None:
        """An idle link that should be closed, and why."""
        if not self.idle:
            return None
        first, policy = self.idle[0], self.policy
        if self.retired:
            return first, "dropped"
        spare = len(self.links) > policy.min_size or not self._in_use(now)
        if len(self.links) > policy.size or (spare and now - first.released_at > policy.idle_timeout):
            return first, "idle"
        oldest = min(self.idle, key=self.links.__getitem__)
        return (oldest, "lifetime") if now >= self.links[oldest] else None

    def statistics(self, now: float) -> PoolStatistics:
        """What it holds now."""
        policy = self.policy
        return PoolStatistics(
            self.node.name, self.database, self.user, policy.mode, policy.size, policy.reserve, policy.min_size,
            len(self.idle), len(self.links) - len(self.idle), self.opening,
            len(self.queue.waiting), self.queue.longest(now),
            self.taken, self.waited, self.timed_out, self.opened, self.not_opened,
            {str(why): count for why, count in self.closed.items()},
            "" if self.retry.error is None else self.retry.error.message,
        )  # fmt: skip
