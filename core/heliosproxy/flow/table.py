"""The flow table: verdicts remembered by flow, bounded, least recently used out.

The table does not know what an entry or a key is made of. A lookup is one dictionary access and a stamp: well under a
microsecond. Who is least recently used is found out when somebody must go, from a heap that is by then out of date
where an entry was used since. (Moving each entry to the end of an ordered dictionary when it is used costs about as
much as the lookup itself.)

Whoever puts entries there may be given a `Share`: so many and no more, so that he forgets his own before anybody
else's. To use another's entry costs him nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeVar, cast

Key = TypeVar("Key", bound=Hashable)
Entry = TypeVar("Entry")

LOOKS = 256
"""Entries that are looked at, at most, to find the least recently used one; then the oldest of those goes."""
MOST_DEAD = 64
"""Places of entries that are gone which a heap may hold beside as many others."""


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """Counters since start; `size` and `limit` are entries."""

    size: int
    limit: int
    hits: int
    misses: int
    evicted: int
    flushed: int

    @property
    def remembered(self) -> float:
        """Share of the lookups that needed no plugin, 0 to 1."""
        return self.hits / max(1, self.hits + self.misses)


class _Place:
    """An entry's key, whose it is, and when it was last used: how many hits the table had had by then."""

    __slots__ = ("key", "share", "used")

    def __init__(self, key: Hashable, used: int, share: Share) -> None:
        self.key = key
        self.used = used
        self.share: Share | None = share
        """None: it is gone."""


class _Slot(_Place, Generic[Entry]):
    """The entry as well."""

    __slots__ = ("entry",)

    def __init__(self, key: Hashable, used: int, share: Share, entry: Entry) -> None:
        super().__init__(key, used, share)
        self.entry = entry


class Share:
    """What one owner may have of one table: `limit` ≥ 1 entries."""

    __slots__ = ("_heap", "_season", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        """Entries that he has. What was flushed counts until the next one is put there."""
        self._heap: list[tuple[int, int, _Place]] = []
        """When each was last used, as far as is known here; then in which order they were put there."""
        self._season = 0

    def add(self, place: _Place, number: int, season: int) -> None:
        """An entry more. Those of other seasons are gone."""
        if season != self._season:
            self._season, self.size = season, 0
            self._heap.clear()
        self.size += 1
        heappush(self._heap, (place.used, number, place))
        if len(self._heap) > 2 * self.size + MOST_DEAD:
            self._heap = [item for item in self._heap if item[2].share is not None]
            heapify(self._heap)

    def oldest(self) -> _Place:
        """The least recently used one."""
        looks = 0
        while True:
            used, number, place = self._heap[0]
            if place.share is None:
                heappop(self._heap)
            elif place.used == used or looks >= LOOKS:
                return place
            else:
                looks += 1
                heapreplace(self._heap, (place.used, number, place))


class FlowTable(Generic[Key, Entry]):
    """Entries by key. `limit` ≥ 1 entries."""

    __slots__ = ("_all", "_entries", "_numbers", "_season", "evicted", "flushed", "hits", "limit", "misses")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: dict[Key, _Slot[Entry]] = {}
        self._all = Share(limit)
        """Of everything, and whose it is what nobody else has put there."""
        self._numbers = count()
        self._season = 0
        """How often all of it was flushed."""
        self.hits = self.misses = self.evicted = self.flushed = 0

    def get(self, key: Key) -> Entry | None:
        """The remembered entry, now the most recently used one; None where there is none."""
        slot = self._entries.get(key)
        if slot is None:
            self.misses += 1
            return None
        slot.used = self.hits = self.hits + 1
        return slot.entry

    def put(self, key: Key, entry: Entry, share: Share | None = None) -> None:
        """Remember an entry; the least recently used one makes room, of the share if that has too many."""
        before = self._entries.get(key)
        if before is not None:
            self._remove(before)
        share = share or self._all
        slot = self._entries[key] = _Slot(key, self.hits, share, entry)
        number = next(self._numbers)
        self._all.add(slot, number, self._season)
        if share is not self._all:
            share.add(slot, number, self._season)
            if share.size > share.limit:
                self._evict(share.oldest())
        if len(self._entries) > self.limit:
            self._evict(self._all.oldest())

    def _evict(self, place: _Place) -> None:
        self._remove(place)
        self.evicted += 1

    def _remove(self, place: _Place) -> None:
        del self._entries[cast("Key", place.key)]
        self._all.size -= 1
        if place.share is not None and place.share is not self._all:
            place.share.size -= 1
        place.share = None

    def discard(self, key: Key) -> None:
        """Forget one entry, if it is there."""
        slot = self._entries.get(key)
        if slot is not None:
            self._remove(slot)
            self.flushed += 1

    def flush(self, concerns: Callable[[Entry], bool] | None = None) -> int:
        """Forget the entries that `concerns` holds for, or all; return how many they were."""
        if concerns is None:
            flushed = len(self._entries)
            self._entries.clear()
            self._all = Share(self.limit)
            self._season += 1
        else:
            gone = [slot for slot in self._entries.values() if concerns(slot.entry)]
            flushed = len(gone)
            for slot in gone:
                self._remove(slot)
        self.flushed += flushed
        return flushed

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Entries, in no order."""
        return (slot.entry for slot in self._entries.values())

    def statistics(self) -> TableStatistics:
        """Counters since start."""
        return TableStatistics(len(self._entries), self.limit, self.hits, self.misses, self.evicted, self.flushed)
