from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.flow.table import FlowTable


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
