"""The benchmarks' arithmetic: percentiles, paired ratios, rounds in turn, and what pgbench prints."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._harness import BenchError, Spread, busy, in_turn, percentile, ratios, spread
from benchmarks._pgbench import Case, Comparison, throughput
from benchmarks._servers import DIRECT, HELIOS, PGBOUNCER

REPORT = """\
transaction type: <builtin: select only>
number of transactions actually processed: 12345
number of failed transactions: {failed} (0.000%)
latency average = 0.648 ms
initial connection time = 12.3 ms
tps = 1234.567890 (without initial connection time)
"""


def test_spread_is_median_least_and_greatest() -> None:
    assert spread([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)])
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


@given(st.lists(st.integers(), min_size=1), st.floats(0, 1))
def test_percentile_is_a_value_that_its_share_does_not_exceed(values: list[int], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) * (1 - 1e-12)


def test_ratios_are_those_of_runs_that_followed_each_other() -> None:
    # The machine was half as fast in the second round, for both.
    assert ratios([200.0, 100.0, 210.0], [100.0, 50.0, 100.0]) == Spread(2.0, 2.0, 2.1)


def test_ratios_of_nothing_are_none() -> None:
    assert ratios([], [1.0]) is None
    assert ratios([1.0], [0.0]) is None


def test_rounds_go_in_turn_and_leave_out_who_failed() -> None:
    order: list[str] = []

    def run(name: str) -> Callable[[], float]:
        def measure() -> float:
            order.append(name)
            if name == "b" and len(order) > 3:
                raise BenchError("b broke")
            return float(len(order))

        return measure

    rounds = in_turn({name: run(name) for name in "abc"}, 3)
    assert order == ["a", "b", "c", "a", "b", "c", "a", "c"]
    assert rounds.figures == {"a": [1.0, 4.0, 7.0], "b": [2.0], "c": [3.0, 6.0, 8.0]}
    assert rounds.failures == {"b": "b broke"}


def test_throughput_is_read_from_pgbench() -> None:
    assert throughput(REPORT.format(failed=0)) == pytest.approx(1234.56789)


def test_failed_transactions_are_no_throughput() -> None:
    with pytest.raises(BenchError, match="7 transactions failed"):
        throughput(REPORT.format(failed=7))


def test_a_report_without_a_figure_is_refused() -> None:
    with pytest.raises(BenchError, match="did not report"):
        throughput("initial connection time = 12.3 ms\n")


def test_a_comparison_keeps_every_run_and_divides_by_each_peer() -> None:
    rounds = in_turn({HELIOS: lambda: 150.0, DIRECT: lambda: 100.0}, 2)
    comparison = Comparison(Case("simple", 8, ("-S",)), rounds)
    document = comparison.json()
    assert isinstance(document, dict)
    assert document["runs"] == {HELIOS: [150.0, 150.0], DIRECT: [100.0, 100.0]}
    assert document["ratio"] == {PGBOUNCER: None, DIRECT: {"median": 1.5, "min": 1.5, "max": 1.5}}
    assert comparison.cells() == ["8", "150 (150-150)", "-", "100 (100-100)", "-", "1.50 (1.50-1.50)"]


def test_a_loaded_machine_counts_as_busy() -> None:
    assert busy({"load": [1.5, 0.0, 0.0], "cores": 2})
    assert not busy({"load": [0.5, 9.0, 9.0], "cores": 2})
