from __future__ import annotations

import pytest
from helios_sdk.contract import (
    ANY,
    PRIMARY,
    STANDBY,
    Action,
    Answer,
    Cache,
    Directive,
    Notice,
    Pair,
    Pool,
    Priority,
    Reject,
    Retry,
    Rewrite,
    Route,
    Rows,
    Settings,
    Tag,
    Timeout,
    WaitReplay,
)

from heliosproxy.flow.merge import Contradiction, merge
from heliosproxy.flow.verdict import Verdict


def answer(*actions: Action, ttl: int | None = None) -> Answer:
    return Answer(tuple(Directive(action, f"because {type(action).__name__}") for action in actions), ttl)


def merged(*answers: Answer) -> Verdict:
    return merge((f"plugin{number}", "on-parse", one) for number, one in enumerate(answers))


def test_nothing_said_is_nothing_decided() -> None:
    assert merged() == Verdict()


def test_routes_are_all_kept_since_they_intersect() -> None:
    first, second = Route((STANDBY,)), Route((ANY,), max_lag_ms=5)
    assert merged(answer(first), answer(second)).routes == (first, second)


def test_a_reject_ends_it() -> None:
    verdict = merged(answer(Reject("42601", "no"), Timeout(5)), answer(Timeout(7)))
    assert verdict.reject is not None
    assert verdict.timeout_ms is None
    assert len(verdict.applied) == 1


def test_the_most_restrictive_wins() -> None:
    verdict = merged(
        answer(Timeout(500), Retry(2), Priority("high"), Pool("statement"), Cache("store", 60), ttl=1000),
        answer(Timeout(100), Retry(5), Priority("low"), Pool("session"), Cache("skip"), ttl=10),
    )
    assert (verdict.timeout_ms, verdict.retry, verdict.priority, verdict.pool) == (100, 2, "low", "session")
    assert verdict.cache == Cache("skip", 60)
    assert verdict.ttl_ms == 10


def test_cache_dependencies_add_up_and_the_shorter_ttl_counts() -> None:
    verdict = merged(
        answer(Cache("store", 60, ("a",), 5)), answer(Cache("store", 30, ("a", "b"), 7)), answer(Cache("refresh", None))
    )
    assert verdict.cache == Cache("refresh", 30, ("a", "b"), None)


def test_tags_and_notices_add_up() -> None:
    verdict = merged(answer(Tag("a", "1"), Notice("notice", "00000", "x")), answer(Tag("b", "2"), WaitReplay()))
    assert [tag.key for tag in verdict.tags] == ["a", "b"]
    assert len(verdict.notices) == 1
    assert verdict.wait_replay


def test_the_last_rewrite_stands() -> None:
    assert merged(answer(Rewrite("select 1")), answer(Rewrite("select 2"))).rewrite == "select 2"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Rows(("a",), (("1",),)), Rows(("a",), (("2",),))),
        (Settings((Pair("role", "a"),)), Settings((Pair("role", "b"),))),
        (Route((PRIMARY,), database="a"), Route((PRIMARY,), database="b")),
        (Route((PRIMARY,), sticky="a"), Route((PRIMARY,), sticky="b")),
    ],
)
def test_a_contradiction_names_both_plugins(first: Action, second: Action) -> None:
    with pytest.raises(Contradiction, match="plugin0 and plugin1"):
        merged(answer(first), answer(second))


def test_within_one_plugin_the_later_directive_wins() -> None:
    verdict = merged(answer(Settings((Pair("role", "a"),)), Settings((Pair("role", "b"),))))
    assert verdict.settings == (Pair("role", "b"),)


def test_two_plugins_may_agree() -> None:
    settings = Settings((Pair("role", "a"),))
    assert merged(answer(settings), answer(settings)).settings == settings.values


def test_the_reason_is_that_of_what_decided() -> None:
    assert merged(answer(Tag("a", "1"), Route((STANDBY,)))).reason == "because Route"
    assert merged(answer(Route((STANDBY,)), Reject("42601", "no"))).reason == "because Reject"
