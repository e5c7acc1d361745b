"""The benchmarks' command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bulk, connect, hints, throughput, tpcb
from benchmarks.__main__ import BENCHMARKS, parse
from benchmarks._harness import Options


def test_quick_is_one_round_of_a_second() -> None:
    assert parse(["throughput", "--quick"]).options == Options(quick=True, rounds=1, seconds=1)


def test_without_quick_the_usual_is_measured() -> None:
    assert parse(["throughput"]).options == Options()


def test_rounds_seconds_and_jobs_can_be_chosen_even_with_quick() -> None:
    chosen = ["--rounds", "3", "--seconds", "2", "--jobs", "2"]
    assert parse(["tpcb", *chosen]).options == Options(rounds=3, seconds=2, jobs=2)
    assert parse(["tpcb", "--quick", *chosen]).options == Options(quick=True, rounds=3, seconds=2, jobs=2)


def test_names_are_run_in_their_order_and_once() -> None:
    assert parse(["hints", "throughput", "hints"]).benchmarks == (hints, throughput)


def test_json_names_a_file() -> None:
    assert parse(["tpcb", "--json", "figures.json"]).json == Path("figures.json")
    assert parse(["tpcb"]).json is None


@pytest.mark.parametrize(
    "arguments",
    [[], ["speed"], ["tpcb", "--rounds", "0"], ["tpcb", "--seconds", "-1"], ["tpcb", "--jobs", "1.5"], ["--quick"]],
)
def test_what_makes_no_sense_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert "usage: python -m benchmarks" in capsys.readouterr().err


def test_every_benchmark_has_a_name_of_its_own_and_a_summary() -> None:
    assert list(BENCHMARKS) == [throughput, tpcb, hints, bulk, connect]
    assert len({benchmark.NAME for benchmark in BENCHMARKS}) == len(BENCHMARKS)
    assert all(benchmark.SUMMARY for benchmark in BENCHMARKS)
