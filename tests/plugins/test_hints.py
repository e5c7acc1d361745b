"""The hints plugin, natively: each key and value, bad ones, what a write gets."""

from __future__ import annotations

from dataclasses import replace

import hypothesis
import pytest
from helios_sdk import (
    ANY,
    LOCAL,
    PRIMARY,
    STANDBY,
    Answer,
    Cache,
    Directive,
    Kind,
    Notice,
    Pool,
    Priority,
    Retry,
    Route,
    Tag,
    Timeout,
    WaitReplay,
)
from hints_support import (
    ASYNC,
    BRANCHES,
    SEMISYNC,
    SYNC,
    actions,
    directives,
    listed,
    node,
    of,
    only_notice,
    plugin,
    reject,
    routes,
    statement,
    strict,
    write,
)
from hypothesis import strategies as st

from heliosproxy.flow.merge import merge
from plugins.hints.durations import milliseconds
from plugins.hints.spelling import one_edit

# --- defaults


def test_a_read_without_hints_goes_to_a_standby_or_else_the_primary() -> None:
    assert directives(plugin(), statement()) == [
        Directive(Route((STANDBY,), otherwise=(PRIMARY,)), "Default: read target standby")
    ]


def test_a_write_without_hints_goes_to_the_primary() -> None:
    assert directives(plugin(), write()) == [Directive(Route((PRIMARY,)), "Default: write target primary")]


@pytest.mark.parametrize("kind", ["begin", "commit", "rollback", "set", "show", "discard"])
def test_what_steers_the_session_is_not_routed(kind: str) -> None:
    assert directives(plugin(), statement(kind=kind, read_only=False)) == []


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("primary", Route((PRIMARY,))),
        ("any", Route((ANY,))),
        ("sync", Route((SYNC,), otherwise=(PRIMARY,))),
        ("Vector", Route((node("v1"),), otherwise=(PRIMARY,))),
    ],
)
def test_default_read_target(target: str, route: Route) -> None:
    hints = plugin({"default_read_target": target, "aliases": {"vector": ["v1"]}})
    assert routes(hints, statement()) == [route]


def test_a_default_consistency_that_allows_the_primary_prefers_the_default_target() -> None:
    hints = plugin({"default_consistency": "strong"})
    assert routes(hints, statement()) == [
        Route((ANY,), prefer=(STANDBY,)),
        Route((PRIMARY, SYNC), consistency="strong", max_lag_ms=0),
    ]


def test_a_default_consistency_applies_to_hinted_reads_too() -> None:
    hints = plugin({"default_consistency": "bounded"})
    assert routes(hints, statement("route=async"))[1].consistency == "bounded"
    assert routes(hints, statement("consistency=eventual"))[1:] == [Route((ANY,), consistency="eventual")]


def test_a_default_consistency_concerns_no_writes() -> None:
    assert routes(plugin({"default_consistency": "strong"}), write()) == [Route((PRIMARY,))]


# --- route, node


@pytest.mark.parametrize(
    ("value", "route"),
    [
        ("primary", Route((PRIMARY,), otherwise=(STANDBY,))),
        ("standby", Route((STANDBY,), otherwise=(PRIMARY,))),
        ("sync", Route((SYNC,), otherwise=(STANDBY,))),
        ("semisync", Route((SEMISYNC,), otherwise=(STANDBY,))),
        ("async", Route((ASYNC,), otherwise=(STANDBY,))),
        ("any", Route((ANY,))),
        ("local", Route((LOCAL,), otherwise=(STANDBY,))),
    ],
)
def test_route(value: str, route: Route) -> None:
    assert directives(plugin(), statement(f"route={value}")) == [Directive(route, f"Hint: route={value}")]


def test_keys_and_enumerated_values_are_case_insensitive() -> None:
    assert directives(plugin(), statement(" ROUTE = Async ")) == directives(plugin(), statement("route=async"))
    assert of(Priority, plugin(), statement("Priority=HIGH")) == [Priority("high")]


def test_the_verdict_names_the_hint_as_its_reason() -> None:
    said = tuple(directives(plugin(), statement("route=standby")))
    assert merge([("hints", "on-route", Answer(said))]).reason == "Hint: route=standby"


def test_an_alias_is_a_route_to_its_nodes() -> None:
    hints = plugin({"aliases": {"Vector": ["v1", "v2"], "local": "auto", "near": "auto"}})
    assert routes(hints, statement("route=vector")) == [Route((node("v1"), node("v2")), otherwise=(STANDBY,))]
    assert routes(hints, statement("route=local")) == routes(hints, statement("route=near"))


def test_an_unknown_route_is_refused_with_its_position_and_the_legal_values() -> None:
    hints = plugin({"aliases": {"vector": ["v1"]}})
    said = reject(hints, statement("tool=x, route=asnyc"))
    assert said.message == "unknown value in hint route=asnyc"
    assert said.position == len("/*helios:tool=x, ") + 1
    assert said.hint == ("Did you mean async? Values: primary, standby, sync, semisync, async, any, local, vector.")


def test_node() -> None:
    assert directives(plugin(), statement("node=standby-async-1")) == [
        Directive(Route((node("standby-async-1"),), otherwise=(STANDBY,)), "Hint: node=standby-async-1")
    ]


def test_an_unknown_node_is_refused_with_the_nodes_there_are() -> None:
    said = reject(plugin(), statement("node=standby-9"))
    assert said.message == "unknown node in hint node=standby-9"
    assert said.hint is not None
    assert "standby-sync-1" in said.hint
    assert reject(plugin(), write("node=standby-9")).position == 10


def test_node_hints_can_be_switched_off() -> None:
    hints = plugin({"hints": {"allow_node_hints": False}})
    assert reject(hints, statement("node=primary")).message == "hint node=primary: node hints are switched off"


def test_a_node_within_the_route_satisfies_both() -> None:
    assert [route.select for route in routes(plugin(), statement("route=async,node=standby-async-2"))] == [
        (node("standby-async-2"),),
        (ASYNC,),
    ]


# --- consistency, lag


def test_consistency_is_a_requirement() -> None:
    target = Route((ANY,), prefer=(STANDBY,))
    assert directives(plugin(), statement("consistency=strong")) == [
        Directive(target, "Default: read target standby"),
        Directive(Route((PRIMARY, SYNC), consistency="strong", max_lag_ms=0), "Hint: consistency=strong"),
    ]
    bounded = Route((PRIMARY, SYNC, SEMISYNC), consistency="bounded", max_lag_ms=1000)
    assert routes(plugin(), statement("consistency=bounded")) == [target, bounded]
    assert routes(plugin(), statement("consistency=eventual")) == [
        Route((STANDBY,), otherwise=(PRIMARY,)),
        Route((ANY,), consistency="eventual"),
    ]


def test_consistency_levels_are_configured() -> None:
    every = ["standby", "standby-async", "standby-semisync", "Standby-Sync", "node-7"]
    levels = {"strong": {"allowed_nodes": every}, "bounded": {"max_lag_ms": -1}, "eventual": {"max_lag_ms": 5}}
    hints = plugin({"consistency": levels})
    assert routes(hints, statement("consistency=strong"))[1].select == (STANDBY, ASYNC, SEMISYNC, SYNC, node("node-7"))
    assert routes(hints, statement("consistency=bounded"))[1].max_lag_ms is None
    assert routes(hints, statement("consistency=eventual"))[1].max_lag_ms == 5


def test_the_primary_meets_every_consistency() -> None:
    hints = plugin({"consistency": {"strong": {"allowed_nodes": ["standby-sync"]}}, "default_consistency": "strong"})
    primary = Route((PRIMARY,), otherwise=(STANDBY,))
    assert routes(hints, statement("route=primary,consistency=strong")) == [primary]
    assert routes(hints, statement("route=primary")) == [primary]


def test_lag_is_a_requirement_beside_the_target() -> None:
    assert directives(plugin(), statement("route=async,lag=10s")) == [
        Directive(Route((ASYNC,), otherwise=(STANDBY,)), "Hint: route=async"),
        Directive(Route((ANY,), max_lag_ms=10_000), "Hint: lag=10s"),
    ]


@pytest.mark.parametrize(
    ("text", "ms"),
    [("100ms", 100), ("1s", 1000), ("1.5 s", 1500), ("2min", 120_000), ("1h", 3_600_000), ("0.2ms", 1), ("0s", 0)],
)
def test_durations(text: str, ms: int) -> None:
    assert milliseconds(text) == ms


NO_DURATIONS = ["10", "s", "", "-1s", "1m", "1e3s", "nan", "inf s", "1_0s", "\u0661s", ".s", "1.s", "9" * 99]


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration(text: str) -> None:
    assert milliseconds(text) is None


def test_a_duration_needs_a_unit() -> None:
    assert reject(plugin(), statement("lag=10")).hint == "Write a number with a unit: ms, s, min or h."
    assert reject(plugin(), statement("timeout=5")).message == "unknown duration in hint timeout=5"


# --- what has nothing to do with nodes


@pytest.mark.parametrize(
    ("hint", "action"),
    [
        *((f"pool={mode}", Pool(mode)) for mode in ("session", "transaction", "statement")),
        *((f"priority={level}", Priority(level)) for level in ("low", "normal", "high", "critical")),
        ("cache=skip", Cache("skip")),
        ("cache=refresh", Cache("refresh")),
        ("cache=ttl=60", Cache("store", ttl_ms=60_000)),
        ("cache=ttl=60s", Cache("store", ttl_ms=60_000)),
        ("cache=TTL = 100ms", Cache("store", ttl_ms=100)),
        ("timeout=5s", Timeout(5000)),
        ("timeout=100ms", Timeout(100)),
        ("retry=true", Retry(2)),
        ("retry=false", Retry(0)),
        ("retry=7", Retry(7)),
        ("tool=knowledge_search", Tag("tool", "knowledge_search")),
        ("workflow=planning", Tag("workflow", "planning")),
        ("prefetch=true", Tag("prefetch", "true")),
        ("agent=A 7", Tag("agent", "A 7")),
        ("team=blue", Tag("team", "blue")),
    ],
)
def test_hints_beside_routing(hint: str, action: object) -> None:
    (said,) = listed(plugin().on_parse(statement(hint)))
    assert said.action == action
    assert said.reason.startswith("Hint: ")


@pytest.mark.parametrize(
    "hint",
    [
        "route=nowhere", "consistency=weak", "pool=swimming", "priority=11", "cache=maybe", "cache=ttl=x",
        "cache=ttl=0", "timeout=0s", "timeout=soon", "retry=-1", "retry=101", "retry=often", "branch=none", "twr=yes",
        "lag=far", "route=", "standby", "=x", "",
    ],
)  # fmt: skip
def test_bad_hints_are_refused_with_their_position(hint: str) -> None:
    for text in (statement(f"/*helios:{hint}*/"), write(f"/*helios:{hint}*/")):
        said = reject(plugin(), text)
        assert said.position == 10
        assert said.hint


def test_a_key_one_edit_from_a_known_one_is_a_tag_with_a_notice() -> None:
    given = statement("routr=async")
    assert of(Tag, plugin(), given) == [Tag("routr", "async")]
    said = only_notice(plugin(), given)
    assert said.message == "hint routr is taken as a tag; did you mean route?"
    assert (said.severity, said.sqlstate, said.position) == ("notice", "01000", 10)
    assert not of(Notice, plugin(strict("ignore")), given)


def test_a_key_far_from_any_known_one_is_silently_a_tag() -> None:
    assert of(Notice, plugin(), statement("team=blue,request_id=7")) == []


def test_a_known_key_is_never_taken_for_a_misspelt_one() -> None:
    # pool and tool are one letter apart.
    assert of(Notice, plugin(), statement("tool=x,pool=statement,agent=y")) == []


@hypothesis.given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_one_edit_is_what_trying_every_edit_finds(one: str, other: str) -> None:
    cuts = [(one[:i], one[i:]) for i in range(len(one) + 1)]
    edits = {a + b[1:] for a, b in cuts if b}
    edits |= {a + letter + b for a, b in cuts for letter in "abc"}
    edits |= {a + letter + b[1:] for a, b in cuts if b for letter in "abc"}
    edits |= {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    assert one_edit(one, other) == (other in edits - {one})


# --- writes


@pytest.mark.parametrize("hint", ["route=standby", "route=sync", "route=async", "route=slow", "node=standby-sync-1"])
@pytest.mark.parametrize("kind", ["insert", "select", "unknown", "multi", "ddl", "call"])
def test_R3_a_hint_never_sends_a_write_to_a_standby_and_the_client_is_told(hint: str, kind: Kind) -> None:
    hints = plugin({"aliases": {"slow": ["standby-async-1"]}})
    for given in (write(hint), write(session=hint)):
        asked = replace(given, kind=kind)
        assert routes(hints, asked) == [Route((PRIMARY,))]
        said = only_notice(hints, asked)
        assert said.message == f"hint {hint} ignored: only the primary runs what is not proven to be read-only"
        assert (said.severity, said.sqlstate, said.position) == ("notice", "01000", given.hints[0].at or None)


@pytest.mark.parametrize("hint", ["route=primary", "node=primary", "route=any", "route=local", "lag=1s", "twr=false"])
def test_what_includes_the_primary_is_silent_on_a_write(hint: str) -> None:
    assert routes(plugin(), write(hint)) == [Route((PRIMARY,))]
    assert not of(Notice, plugin(), write(hint))


def test_route_primary_is_the_reason_of_a_write_that_says_so() -> None:
    assert directives(plugin(), write("route=primary"))[0].reason == "Hint: route=primary"


def test_twr_waits_for_the_standby_of_the_route() -> None:
    assert directives(plugin(), write("route=sync,twr=true")) == [
        Directive(Route((SYNC,)), "Hint: route=sync"),
        Directive(WaitReplay(), "Hint: twr=true"),
    ]
    assert actions(plugin(), write("twr=TRUE,node=standby-sync-1")) == [Route((node("standby-sync-1"),)), WaitReplay()]
    assert actions(plugin(), write("twr=true")) == [Route((STANDBY,)), WaitReplay()]
    assert actions(plugin(), write("twr=true,route=any")) == [Route((STANDBY,)), WaitReplay()]


def test_twr_contradicts_the_primary_and_a_read() -> None:
    assert reject(plugin(), write("route=primary,twr=true")).message == "hint twr=true contradicts route=primary"
    assert reject(plugin(), write("node=primary,twr=true")).message == "hint twr=true contradicts node=primary"
    said = reject(plugin(), statement("route=sync,twr=true"))
    assert said.message == "hint twr=true contradicts a statement that only reads"
    assert said.position == len("/*helios:route=sync,") + 1


def test_twr_of_the_session_concerns_writes_only() -> None:
    assert routes(plugin(), statement(session="twr=true")) == routes(plugin(), statement())
    assert actions(plugin(), write(session="twr=true")) == [Route((STANDBY,)), WaitReplay()]


# --- branches


def test_a_branch_is_its_nodes_and_its_database() -> None:
    hints = plugin({"branches": {**BRANCHES, "both": {"nodes": ["standby-sync-1"], "database": "b"}}})
    held = Route((node("standby-async-1"),), prefer=(STANDBY,))
    assert directives(hints, statement("branch=analytics")) == [Directive(held, "Hint: branch=analytics")]
    assert routes(hints, statement("branch=dev")) == [
        Route((STANDBY,), otherwise=(PRIMARY,)),
        Route((ANY,), database="dev"),
    ]
    assert routes(hints, statement("branch=both,route=local")) == [
        Route((LOCAL,), otherwise=(STANDBY,)),
        Route((node("standby-sync-1"),), prefer=(STANDBY,), database="b"),
    ]


def test_an_unknown_branch_is_refused() -> None:
    assert reject(plugin({"branches": BRANCHES}), statement("branch=Dev")).hint == (
        "Did you mean dev? Values: analytics, dev."
    )
    assert reject(plugin(), statement("branch=dev")).hint == "None is configured in [routing.branches]."


def test_R3_a_write_to_a_branch_runs_on_the_primary_in_the_branch_database() -> None:
    far = {"nodes": ["standby-async-1"], "database": "dev"}
    hints = plugin({"branches": {**BRANCHES, "main": {"nodes": ["primary"]}, "far": far}})
    assert routes(hints, write("branch=main")) == [Route((node("primary"),)), Route((PRIMARY,))]
    assert not of(Notice, hints, write("branch=main"))
    assert routes(hints, write("branch=far")) == [Route((ANY,), database="dev"), Route((PRIMARY,))]
    assert only_notice(hints, write("branch=far")).message.startswith("the nodes of hint branch=far ignored: ")
    assert routes(hints, write("branch=analytics")) == [Route((PRIMARY,))]
