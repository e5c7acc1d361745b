from __future__ import annotations

from typing import cast

import pytest
import trio

from heliosproxy.cluster.catalogue import Catalogue
from heliosproxy.cluster.snapshots import LIMIT, Snapshot, Snapshots

READ = cast(Catalogue, "a catalogue")  # only handed through here


def held(snapshots: Snapshots, database: str = "d") -> Snapshot:
    snapshots.request(database)
    (snapshot,) = snapshots.take_new()
    snapshots.install(snapshot, READ, "f", snapshot.generation)
    return snapshot


def test_a_catalogue_is_there_once_it_was_asked_for_and_read() -> None:
    snapshots = Snapshots()
    assert snapshots.get("d") is None
    snapshots.request("d")
    assert snapshots.get("d") is None
    (snapshot,) = snapshots.take_new()
    snapshots.request("d")
    assert list(snapshots.take_new()) == []
    snapshots.install(snapshot, READ, "f", snapshot.generation)
    assert snapshots.get("d") is READ
    assert snapshots.version == 1


def test_R1_after_ddl_nothing_is_proven_until_it_was_looked_at_again() -> None:
    snapshots = Snapshots()
    snapshot = held(snapshots)
    snapshots.ddl_happened("d")
    assert snapshots.get("d") is None
    assert snapshots.version == 2
    snapshots.checked(snapshot, snapshot.generation)
    assert snapshots.get("d") is READ
    assert snapshots.version == 3


def test_R1_what_was_read_while_ddl_happened_is_not_believed() -> None:
    snapshots = Snapshots()
    snapshot = held(snapshots)
    began = snapshot.generation
    snapshots.ddl_happened("d")
    snapshots.install(snapshot, READ, "f", began)
    snapshots.checked(snapshot, began)
    assert snapshots.get("d") is None


async def test_ddl_wakes_the_keeper_even_while_it_is_reading() -> None:
    snapshots = Snapshots()
    snapshot = held(snapshots)
    snapshots.ddl_happened("d")
    with trio.fail_after(1):
        await snapshot.bell.wait()
    with trio.move_on_after(0.01) as rest:
        await snapshot.bell.wait()
    assert rest.cancelled_caught


def test_ddl_in_a_database_that_nobody_asked_for_is_nothing() -> None:
    snapshots = Snapshots()
    snapshots.ddl_happened("d")
    assert snapshots.version == 0


def test_the_number_of_databases_is_bounded_and_the_least_used_goes() -> None:
    snapshots = Snapshots()
    first = [held(snapshots, f"d{i}") for i in range(LIMIT)]
    assert snapshots.get("d0") is READ
    held(snapshots, "one more")
    assert [snapshot.database for snapshot in first if snapshot.dropped] == ["d1"]
    assert snapshots.get("d1") is None
    assert len(snapshots.statistics()) == LIMIT


@pytest.mark.parametrize("valid", [True, False])
def test_statistics_say_whether_a_snapshot_counts(valid: bool) -> None:
    snapshots = Snapshots()
    held(snapshots)
    if not valid:
        snapshots.ddl_happened("d")
    assert [(s.database, s.valid, s.readings, s.error) for s in snapshots.statistics()] == [("d", valid, 1, "")]


def test_R1_after_ddl_of_relations_functions_are_still_known() -> None:
    snapshots = Snapshots()
    snapshot = held(snapshots)
    snapshots.ddl_happened("d", of_relations=True)
    assert snapshots.get("d") is None
    assert snapshots.functions("d") is READ
    snapshots.ddl_happened("d")
    assert snapshots.functions("d") is None
    snapshots.ddl_happened("d", of_relations=True)
    assert snapshots.functions("d") is None, "what was doubtful before is so still"
    snapshots.checked(snapshot, snapshot.generation)
    assert snapshots.functions("d") is READ
