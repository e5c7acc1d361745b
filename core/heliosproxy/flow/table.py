"""The flow table: verdicts remembered by flow, bounded, least recently used out.

The table does not know what an entry or a key is made of. A lookup is one dictionary access and one move to the end:
well under a microsecond.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Entry = TypeVar("Entry")


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


class FlowTable(Generic[Key, Entry]):
    """Entries by key. `limit` ≥ 1 entries."""

    __slots__ = ("_entries", "evicted", "flushed", "hits", "limit", "misses")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self.hits = self.misses = self.evicted = self.flushed = 0

    def get(self, key: Key) -> Entry | None:
        """The remembered entry, now the most recently used one; None where there is none."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        """Remember an entry; the least recently used one makes room."""
        self._entries[key] = entry
        if len(self._entries) > self.limit:
            self._entries.popitem(last=False)
            self.evicted += 1

    def discard(self, key: Key) -> None:
        """Forget one entry, if it is there."""
        if self._entries.pop(key, None) is not None:
            self.flushed += 1

    def flush(self, concerns: Callable[[Entry], bool] | None = None) -> int:
        """Forget the entries that `concerns` holds for, or all; return how many they were."""
        if concerns is None:
            count = len(self._entries)
            self._entries.clear()
        else:
            gone = [key for key, entry in self._entries.items() if concerns(entry)]
            count = len(gone)
            for key in gone:
                del self._entries[key]
        self.flushed += count
        return count

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Entries, most recently used last."""
        return iter(self._entries.values())

    def statistics(self) -> TableStatistics:
        """Counters since start."""
        return TableStatistics(len(self._entries), self.limit, self.hits, self.misses, self.evicted, self.flushed)
