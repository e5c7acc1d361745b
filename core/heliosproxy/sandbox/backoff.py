"""When a plugin that faults may run again, and when it may not any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

WINDOW = 60.0
"""Seconds in which faults are counted."""
FIRST_PAUSE, LONGEST_PAUSE = 0.010, 10.0


class Backoff:
    """Pauses that double with each fault in a row, and a verdict after more than `max_faults` within a minute."""

    def __init__(self, max_faults: int, clock: Callable[[], float]) -> None:
        self._max_faults = max_faults
        self._clock = clock
        self._faults: deque[float] = deque(maxlen=max_faults + 1)
        self._in_a_row = 0
        self._until = 0.0

    @property
    def pausing(self) -> bool:
        """It may not run yet."""
        return self._in_a_row > 0 and self._clock() < self._until

    def success(self) -> None:
        """It ran well: the next fault begins with the shortest pause again."""
        self._in_a_row = 0

    def fault(self) -> bool:
        """It faulted. True: too often, it is to be disabled."""
        now = self._clock()
        self._faults.append(now)
        self._until = now + min(FIRST_PAUSE * 2**self._in_a_row, LONGEST_PAUSE)
        self._in_a_row = min(self._in_a_row + 1, 30)
        return len(self._faults) > self._max_faults and now - self._faults[0] <= WINDOW
