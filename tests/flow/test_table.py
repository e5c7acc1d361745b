from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from heliosproxy.flow import table as table_module
from heliosproxy.flow.table import FlowTable, Share


def test_what_was_put_is_found_and_counted() -> None:
    table: FlowTable[str, int] = FlowTable(10)
    assert table.get("a") is None
    table.put("a", 1)
    assert table.get("a") == 1
    statistics = table.statistics()
    assert (statistics.hits, statistics.misses, statistics.remembered) == (1, 1, 0.5)


def test_the_least_recently_used_leaves_first() -> None:
    table: FlowTable[str, int] = FlowTable(2)
    table.put("a", 1)
    table.put("b", 2)
    table.get("a")
    table.put("c", 3)
    assert table.get("b") is None
    assert table.get("a") == 1
    assert table.statistics().evicted == 1


def test_a_flush_takes_what_it_concerns() -> None:
    table: FlowTable[int, int] = FlowTable(10)
    for number in range(6):
        table.put(number, number)
    assert table.flush(lambda entry: entry % 2 == 0) == 3
    assert sorted(table) == [1, 3, 5]
    assert table.flush() == 3
    assert len(table) == 0


@given(st.integers(1, 8), st.lists(st.tuples(st.sampled_from("gp"), st.integers(0, 12)), max_size=80))
def test_it_never_holds_more_than_its_limit_and_never_lies(limit: int, calls: list[tuple[str, int]]) -> None:
    table: FlowTable[int, int] = FlowTable(limit)
    for call, key in calls:
        if call == "p":
            table.put(key, key * 10)
        else:
            assert table.get(key) in (None, key * 10)
        assert len(table) <= limit


def test_whoever_has_his_share_forgets_his_own_and_nobody_elses() -> None:
    table: FlowTable[str, int] = FlowTable(100)
    table.put("theirs", 0)
    mine = Share(3)
    for number in range(50):
        table.put(f"mine {number}", number, mine)
    assert sorted(table) == [0, 47, 48, 49]
    assert (mine.size, table.statistics().evicted) == (3, 47)


def test_of_a_share_the_least_recently_used_leaves_whoever_has_used_it() -> None:
    table: FlowTable[str, int] = FlowTable(100)
    mine = Share(2)
    table.put("a", 1, mine)
    table.put("b", 2, mine)
    assert table.get("a") == 1  # somebody
    table.put("c", 3, mine)
    assert table.get("b") is None
    assert table.get("a") == 1


def test_what_another_has_put_there_costs_nothing() -> None:
    table: FlowTable[str, int] = FlowTable(100)
    table.put("a", 1, Share(5))
    mine = Share(1)
    assert table.get("a") == 1
    assert mine.size == 0


def test_what_somebody_else_puts_there_again_is_his() -> None:
    table: FlowTable[str, int] = FlowTable(100)
    one, other = Share(2), Share(2)
    table.put("a", 1, one)
    table.put("a", 2, other)
    assert (one.size, other.size, len(table)) == (0, 1, 1)


@pytest.mark.parametrize("concerns", [None, lambda entry: True])
def test_after_a_flush_a_share_is_whole_again(concerns: object) -> None:
    table: FlowTable[int, int] = FlowTable(100)
    mine = Share(2)
    for number in range(2):
        table.put(number, number, mine)
    table.flush(concerns)  # type: ignore[arg-type]
    for number in range(2):
        table.put(number + 10, number, mine)
    assert (len(table), mine.size, table.statistics().evicted) == (2, 2, 0)


def test_finding_the_least_recently_used_takes_a_bounded_time() -> None:
    table: FlowTable[int, int] = FlowTable(5000)
    for number in range(5000):
        table.put(number, number)
    for number in range(5000):
        table.get(number)
    looked = 0

    class Counting(int):
        def __eq__(self, other: object) -> bool:
            nonlocal looked
            looked += 1
            return int(self) == other

        __hash__ = int.__hash__

    for slot in table._entries.values():
        slot.used = Counting(slot.used)
    table.put(5000, 5000)
    assert 0 < looked <= 2 * table_module.LOOKS + 2
    assert len(table) == 5000


def test_what_is_gone_takes_no_room_in_a_share() -> None:
    table: FlowTable[int, int] = FlowTable(10)
    mine = Share(5)
    for number in range(10_000):
        table.put(number, number, mine if number % 2 else None)
        table.discard(number - 3)
    assert len(mine._heap) < 200
    assert len(table._all._heap) < 200


class Tables(RuleBasedStateMachine):
    """The table against a list of its keys, least recently used first."""

    @initialize(limit=st.integers(1, 12), own=st.lists(st.integers(1, 6), min_size=3, max_size=3))
    def start(self, limit: int, own: list[int]) -> None:
        self.table: FlowTable[int, int] = FlowTable(limit)
        self.shares: list[Share | None] = [None, *map(Share, own)]
        self.limit = limit
        self.limits = [None, *own]
        self.order: list[int] = []
        self.owners: dict[int, int] = {}

    @rule(key=st.integers(0, 20), owner=st.integers(0, 3))
    def put(self, key: int, owner: int) -> None:
        self.table.put(key, key * 10, self.shares[owner])
        self._forget(key)
        self.order.append(key)
        self.owners[key] = owner
        own = [one for one in self.order if self.owners[one] == owner]
        limit = self.limits[owner]
        if limit is not None and len(own) > limit:
            self._forget(own[0])
        if len(self.order) > self.limit:
            self._forget(self.order[0])

    def _forget(self, key: int) -> None:
        if key in self.owners:
            self.order.remove(key)
            del self.owners[key]

    @rule(key=st.integers(0, 20))
    def get(self, key: int) -> None:
        assert self.table.get(key) == (key * 10 if key in self.owners else None)
        if key in self.owners:
            self.order.remove(key)
            self.order.append(key)

    @rule(key=st.integers(0, 20))
    def discard(self, key: int) -> None:
        self.table.discard(key)
        self._forget(key)

    @rule(odd=st.booleans(), everything=st.booleans())
    def flush(self, *, odd: bool, everything: bool) -> None:
        concerned = [key for key in self.order if everything or key % 2 == odd]
        concerns = None if everything else lambda entry: entry // 10 % 2 == odd
        assert self.table.flush(concerns) == len(concerned)
        for key in concerned:
            self._forget(key)

    @invariant()
    def it_holds_what_the_list_holds(self) -> None:
        if hasattr(self, "table"):
            assert sorted(self.table) == sorted(key * 10 for key in self.order)


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
