"""How far a standby is behind, in time, measured by the proxy's clock alone.

The primary's write position is sampled; a standby lags by the age of the first sample that it has not replayed. So
clocks of different machines need not agree (as with pg_last_xact_replay_timestamp), and an idle primary lags nobody.
The value is as fine as the samples are apart: a lag that is shorter than `[health] lag_interval` may read as 0.
"""

from __future__ import annotations

from bisect import bisect_right

PAGE = 8192
HEADERS = (24, 40)
"""Sizes of a WAL page's header: of any page, and of a segment's first page."""


def settled(lsn: int) -> int:
    """`lsn` without a page header that ends there.

    The primary gives its insert position behind the header of a page that holds nothing yet; a standby that has
    replayed all there is stands before it, and on an idle primary would never seem to have caught up. No record can end
    between a page's start and its header's end, so nothing is lost for the pages that do hold something.
    """
    offset = lsn % PAGE
    return lsn - offset if offset in HEADERS else lsn


class WriteHistory:
    """When the primary was first seen at which position: (seconds, LSN) with both growing."""

    __slots__ = ("_latest", "_limit", "_lsns", "_times", "_trimmed")

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        """Forget everything: another primary's positions do not compare."""
        self._times: list[float] = []
        self._lsns: list[int] = []
        self._latest = 0.0
        self._trimmed = False

    def add(self, now: float, lsn: int) -> None:
        """The primary was at `lsn`, in a sample asked for at `now`."""
        self._latest = now
        if not self._lsns or lsn > self._lsns[-1]:
            self._times.append(now)
            self._lsns.append(lsn)
        if len(self._lsns) > self._limit:
            half = self._limit // 2
            del self._times[:half], self._lsns[:half]
            self._trimmed = True

    def lag_ms(self, now: float, replayed: int, fresh: float) -> float | None:
        """Milliseconds by which a standby that has replayed up to `replayed` is behind; None where it is not known.

        One that has replayed every sample lags 0 ms while the last sample is at most `fresh` seconds old. After that
        (the primary does not answer) nobody knows what it has written since, so the age of the last sample is its lag.
        """
        if not self._lsns:
            return None
        first_missing = bisect_right(self._lsns, replayed)
        if first_missing == len(self._lsns):
            age = now - self._latest
            return 0.0 if age <= fresh else age * 1000
        if first_missing == 0 and self._trimmed:
            return None
        return (now - self._times[first_missing]) * 1000
