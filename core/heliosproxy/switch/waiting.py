"""The queue for a link: who came first goes first, a higher priority ahead of a lower one, and nobody starves.

Each level of priority is worth a fixed time of waiting (`ageing`), so that the order of two sessions never changes
while they wait: by the moment they began to wait, less their level times the ageing. A heap can hold that.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush, nsmallest
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from helios_sdk.contract import PriorityLevel

if TYPE_CHECKING:
    from heliosproxy.switch.session import Session

LEVELS: Mapping[PriorityLevel | None, int] = MappingProxyType(
    {"low": -1, None: 0, "normal": 0, "high": 1, "critical": 2}
)
"""What each priority is worth, in times of `ageing`."""
MOST_GONE = 64
"""Entries of sessions that have left which the heap may hold beside as many others."""


class Waiter(NamedTuple):
    """A place in the queue. Compares by rank, then by when it was taken."""

    rank: float
    number: int
    since: float
    session: Session


class Queue:
    """Sessions that wait; times are seconds of the monotonic clock."""

    def __init__(self, ageing: float) -> None:
        self.waiting: dict[Session, Waiter] = {}
        """Who waits. Empty is the ordinary case, which the hot path asks for by this dictionary's truth alone."""
        self._ageing = ageing
        self._heap: list[Waiter] = []  # of those who wait, and of some who have left
        self._numbers = count()
        self._oldest = float("inf")  # nobody has waited since before this

    def push(self, session: Session, since: float, priority: PriorityLevel | None) -> None:
        """A session begins to wait; it counts as waiting `since`."""
        waiter = Waiter(since - LEVELS[priority] * self._ageing, next(self._numbers), since, session)
        self.waiting[session] = waiter
        heappush(self._heap, waiter)
        self._oldest = min(self._oldest, since)

    def remove(self, session: Session) -> None:
        """A session that waits leaves."""
        del self.waiting[session]
        if len(self._heap) > 2 * len(self.waiting) + MOST_GONE:
            self._heap = list(self.waiting.values())
            heapify(self._heap)

    def first(self) -> Waiter | None:
        """Who is next."""
        heap, waiting = self._heap, self.waiting
        while heap and waiting.get(heap[0].session) is not heap[0]:
            heappop(heap)
        return heap[0] if heap else None

    def pop(self) -> Session | None:
        """Who is next, out of the queue."""
        waiter = self.first()
        if waiter is None:
            return None
        heappop(self._heap)
        del self.waiting[waiter.session]
        return waiter.session

    def after(self, served: int) -> Waiter | None:
        """Who is next once so many have been served."""
        if not served:
            return self.first()
        if served >= len(self.waiting):
            return None
        return nsmallest(served + 1, self.waiting.values())[-1]

    def since_before(self, moment: float) -> list[Waiter]:
        """Those who have waited since before a moment, next one first."""
        if self._oldest >= moment:
            return []
        self._oldest = min((waiter.since for waiter in self.waiting.values()), default=float("inf"))
        return sorted(waiter for waiter in self.waiting.values() if waiter.since < moment)

    def longest(self, now: float) -> float:
        """How long the one who has waited longest has waited; 0.0 if nobody waits."""
        return max((now - waiter.since for waiter in self.waiting.values()), default=0.0)
