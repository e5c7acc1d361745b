"""A pool: the links to one node for one database and user, and who waits for one.

Decisions are synchronous: `take` answers at once or puts the session into the queue; whoever opens links is told how
many more there should be.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heliosproxy.cluster.node import Node
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.session import Session


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """One pool now; `longest_wait` in seconds."""

    node: str
    database: str
    user: str
    size: int
    idle: int
    active: int
    opening: int
    waiting: int
    longest_wait: float


class Pool:
    """Links are packed: the one released last is taken first, so that the others can go idle and be closed."""

    def __init__(self, node: Node, database: str, user: str, size: int) -> None:
        self.node = node
        self.database = database
        self.user = user
        self.size = size
        self.links: set[Link] = set()
        self.idle: list[Link] = []
        self.opening = 0
        self.waiting: deque[Session] = deque()

    def take(self, session: Session, now: float) -> Link | None:
        """A link, or a place in the queue."""
        if self.idle and not self.waiting:
            return self.idle.pop()
        session.pool = self
        session.waiting_since = now
        self.waiting.append(session)
        return None

    def next_waiting(self) -> Session | None:
        """The session that has waited longest, out of the queue."""
        if not self.waiting:
            return None
        session = self.waiting.popleft()
        session.pool = None
        return session

    def leave(self, session: Session) -> None:
        """A session no longer waits."""
        if session.pool is self:
            session.pool = None
            self.waiting.remove(session)

    @property
    def wanted(self) -> int:
        """Links to open now: one for each session that waits, as far as the size allows."""
        room = self.size - len(self.links) - self.opening
        return max(0, min(room, len(self.waiting) - self.opening))

    def add(self, link: Link) -> None:
        """A link that was opened."""
        self.opening -= 1
        self.links.add(link)
        link.pool = self

    def discard(self, link: Link) -> None:
        """A link that is closed."""
        self.links.discard(link)
        if link in self.idle:
            self.idle.remove(link)

    def statistics(self, now: float) -> PoolStatistics:
        """What it holds now."""
        return PoolStatistics(
            self.node.name,
            self.database,
            self.user,
            self.size,
            len(self.idle),
            len(self.links) - len(self.idle),
            self.opening,
            len(self.waiting),
            now - self.waiting[0].waiting_since if self.waiting else 0.0,
        )
