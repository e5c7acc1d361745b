"""The catalogue snapshots that are held, one for each database that was asked for. `keeper.py` fills them.

A snapshot counts only while nothing speaks against it: from DDL through the proxy until the catalogue was looked at
again, `get` answers None, and nothing is proven.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliosproxy.cluster.bell import Bell

if TYPE_CHECKING:
    from heliosproxy.cluster.catalogue import Catalogue

LIMIT = 64
"""Databases whose snapshots are held; the one that was not asked for the longest goes first."""


@dataclass(frozen=True, slots=True)
class SnapshotStatistics:
    """A database's snapshot, as status pages show it. `error` says why the last reading failed, if it did."""

    database: str
    valid: bool
    readings: int
    error: str


class Snapshot:
    """One database's: the last catalogue that was read, with its fingerprint, and whether it may be believed.

    generation: goes up with every DDL, so that a reading which began before it is not believed.
    """

    __slots__ = (
        "bell", "catalogue", "database", "dropped", "error", "fingerprint", "functions_valid", "generation", "readings",
        "used", "valid",
    )  # fmt: skip

    def __init__(self, database: str) -> None:
        self.database = database
        self.catalogue: Catalogue | None = None
        self.fingerprint = ""
        self.valid = False
        self.functions_valid = False
        """Whether it may at least be believed of what is no relation."""
        self.generation = 0
        self.readings = 0
        self.used = 0
        self.error = ""
        self.dropped = False
        self.bell = Bell()


class Snapshots:
    """All of them, by database. `version` goes up whenever `get` begins to answer differently."""

    def __init__(self) -> None:
        self.version = 0
        self.news = Bell()
        self._held: dict[str, Snapshot] = {}
        self._new: list[Snapshot] = []
        self._clock = 0

    def get(self, database: str) -> Catalogue | None:
        """The catalogue, where it may be believed now."""
        snapshot = self._held.get(database)
        if snapshot is None:
            return None
        snapshot.used = self._clock = self._clock + 1
        return snapshot.catalogue if snapshot.valid else None

    def functions(self, database: str) -> Catalogue | None:
        """The catalogue, where it may be believed now for what names no relation."""
        snapshot = self._held.get(database)
        return snapshot.catalogue if snapshot is not None and snapshot.functions_valid else None

    def generation(self, database: str) -> int:
        """Goes up with every DDL, and whenever the catalogue was read anew."""
        snapshot = self._held.get(database)
        return snapshot.generation + snapshot.readings if snapshot is not None else 0

    def request(self, database: str) -> None:
        """Hold one for this database from now on. Returns at once."""
        if database in self._held:
            return
        if len(self._held) >= LIMIT:
            self._drop(min(self._held.values(), key=lambda snapshot: snapshot.used))
        snapshot = self._held[database] = Snapshot(database)
        snapshot.used = self._clock = self._clock + 1
        self._new.append(snapshot)
        self.news.ring_nowait()

    def ddl_happened(self, database: str, *, of_relations: bool = False) -> None:
        """Do not believe what was read, or began to be read, before now; `of_relations`: about relations."""
        snapshot = self._held.get(database)
        if snapshot is not None:
            snapshot.generation += 1
            self._believe(snapshot, False, functions=of_relations and snapshot.functions_valid)
            snapshot.bell.ring_nowait()

    def recheck(self) -> None:
        """Compare every snapshot with the server again soon, since it is another server. Until then they count."""
        for snapshot in self._held.values():
            snapshot.bell.ring_nowait()

    def take_new(self) -> Iterator[Snapshot]:
        """The snapshots that were asked for since the last call: each wants a keeper."""
        while self._new:
            yield self._new.pop()

    def checked(self, snapshot: Snapshot, generation: int) -> None:
        """The server's catalogue was still `snapshot.catalogue` in a look that began in `generation`."""
        if generation == snapshot.generation and not snapshot.dropped:
            self._believe(snapshot, True)

    def install(self, snapshot: Snapshot, catalogue: Catalogue, fingerprint: str, generation: int) -> None:
        """`catalogue` was read, `fingerprint` just before it, both after `generation` was noted."""
        snapshot.readings += 1
        if generation == snapshot.generation and not snapshot.dropped:
            snapshot.catalogue, snapshot.fingerprint = catalogue, fingerprint
            snapshot.valid = snapshot.functions_valid = True
            self.version += 1

    def statistics(self) -> tuple[SnapshotStatistics, ...]:
        """Each database's, by name."""
        held = (snapshot for _, snapshot in sorted(self._held.items()))
        return tuple(SnapshotStatistics(s.database, s.valid, s.readings, s.error) for s in held)

    def _believe(self, snapshot: Snapshot, valid: bool, *, functions: bool = False) -> None:
        functions = functions or valid
        if (snapshot.valid, snapshot.functions_valid) != (valid, functions):
            snapshot.valid, snapshot.functions_valid = valid, functions
            self.version += 1

    def _drop(self, snapshot: Snapshot) -> None:
        del self._held[snapshot.database]
        self._believe(snapshot, False)
        snapshot.dropped = True
        snapshot.bell.ring_nowait()
