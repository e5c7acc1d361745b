"""The hints plugin, natively: which of several hints, rules and defaults counts, and what contradicts what."""

from __future__ import annotations

import pytest
from helios_sdk import (
    ANY,
    PRIMARY,
    STANDBY,
    Client,
    Directive,
    Node,
    Notice,
    Priority,
    Reject,
    Route,
    Tag,
    Timeout,
)
from hints_support import (
    ASYNC,
    BRANCHES,
    NODES,
    SYNC,
    Config,
    actions,
    directives,
    node,
    of,
    only_notice,
    plugin,
    reject,
    routes,
    rule,
    statement,
    strict,
    write,
)

# --- several hints


def test_a_later_comment_wins_over_an_earlier_one() -> None:
    given = statement("/*helios:route=sync*//*helios:route=async*/ select 1")
    assert routes(plugin(), given) == [Route((ASYNC,), otherwise=(STANDBY,))]
    given = statement("/*helios:route=any,tool=x*/ select /*helios:workflow=y,route=sync*/ 1")
    assert routes(plugin(), given)[0].select == (SYNC,)
    assert of(Tag, plugin(), given) == [Tag("tool", "x"), Tag("workflow", "y")]


def test_a_key_twice_in_one_comment_follows_on_error() -> None:
    text = "/*helios:route=sync,tool=x , route=async*/ select 1"
    assert reject(plugin(), statement(text)).message == "hint route is given twice"
    assert reject(plugin(), statement(text)).position == text.index("route=async") + 1
    assert only_notice(plugin(strict("notice")), statement(text)).position == text.index("route=async") + 1
    for on_error in ("notice", "ignore"):
        assert routes(plugin(strict(on_error)), statement(text))[0].select == (ASYNC,)


def test_a_comment_wins_over_the_session_key_by_key() -> None:
    given = statement("route=async", session="route=sync,timeout=5s")
    assert directives(plugin(), given)[:2] == [
        Directive(Timeout(5000), "Session: timeout=5s"),
        Directive(Route((ASYNC,), otherwise=(STANDBY,)), "Hint: route=async"),
    ]


def test_session_hints_are_obeyed() -> None:
    assert directives(plugin(), statement(session="route=async")) == [
        Directive(Route((ASYNC,), otherwise=(STANDBY,)), "Session: route=async")
    ]
    assert routes(plugin(), statement(session="route=")) == routes(plugin(), statement())


def test_a_bad_session_hint_is_refused_without_a_position() -> None:
    assert reject(plugin(), statement(session="route=asnyc")).position is None


@pytest.mark.parametrize("kind", ["commit", "rollback", "set", "reset", "show", "discard"])
def test_a_bad_session_hint_does_not_lock_the_session_up(kind: str) -> None:
    assert not of(Reject, plugin(), statement(session="route=asnyc", kind=kind))


def test_begin_read_only_follows_the_session() -> None:
    given = statement(session="route=async", kind="begin")
    assert routes(plugin(), given) == [Route((ASYNC,), otherwise=(STANDBY,))]


# --- contradictions


@pytest.mark.parametrize(
    ("hints", "message", "position_of"),
    [
        ("route=async,consistency=strong", "hint route=async contradicts consistency=strong", "route"),
        ("consistency=bounded,route=async", "hint route=async contradicts consistency=bounded", "route"),
        ("route=slow,consistency=strong", "hint route=slow contradicts consistency=strong", "route"),
        ("node=standby-async-1,consistency=strong", "hint node=standby-async-1 contradicts consistency=strong", "node"),
        ("route=sync,node=standby-async-1", "hint node=standby-async-1 contradicts route=sync", "node"),
        ("route=slow,node=standby-sync-1", "hint node=standby-sync-1 contradicts route=slow", "node"),
        ("node=primary,route=standby", "hint node=primary contradicts route=standby", "node"),
        ("lag=1s,route=primary", "hint lag=1s contradicts route=primary", "lag"),
        ("branch=analytics,node=standby-async-2", "hint node=standby-async-2 contradicts branch=analytics", "node"),
        ("branch=analytics,route=sync", "hint route=sync contradicts branch=analytics", "route"),
    ],
)
def test_contradictions_are_refused(hints: str, message: str, position_of: str) -> None:
    configured = {"aliases": {"slow": ["standby-async-1", "standby-async-2"]}, "branches": BRANCHES}
    for given in (statement(hints), write(hints)):
        said = reject(plugin(configured), given)
        assert said.message == message
        assert said.position == f"/*helios:{hints}".index(position_of + "=") + 1
    notice = only_notice(plugin({**configured, **strict("notice")}), statement(hints))
    assert notice.message == f"{message}; the hint is ignored"
    assert not of(Notice, plugin({**configured, **strict("ignore")}), statement(hints))


@pytest.mark.parametrize(
    "hints",
    [
        "route=standby,consistency=strong", "route=any,consistency=strong", "route=local,consistency=strong",
        "route=primary,consistency=strong", "node=primary,consistency=bounded", "route=async,consistency=eventual",
        "route=local,node=standby-async-1", "branch=analytics,route=async", "branch=analytics,node=standby-async-1",
        "branch=dev,node=primary", "lag=1s,route=standby", "route=sync,twr=false",
    ],
)  # fmt: skip
def test_what_is_no_contradiction(hints: str) -> None:
    assert not of(Reject, plugin({"branches": BRANCHES}), statement(hints))


def test_a_standby_of_unknown_sync_mode_contradicts_nothing() -> None:
    nodes = (NODES[0], Node("new", "standby"))
    said = directives(plugin(), statement("node=new,route=async"), nodes)
    assert not any(isinstance(directive.action, Reject) for directive in said)


def test_ignored_contradictions_never_weaken_the_consistency() -> None:
    given = statement("route=async,consistency=strong")
    kept = routes(plugin(strict("ignore")), given)
    assert kept == routes(plugin(), statement("consistency=strong"))


def test_a_session_route_gives_way_to_a_comment_that_contradicts_it() -> None:
    given = statement("consistency=strong", session="route=async")
    assert routes(plugin(), given) == routes(plugin(), statement("consistency=strong"))
    assert routes(plugin(), statement("lag=1s", session="route=primary")) == routes(plugin(), statement("lag=1s"))
    given = statement("route=primary", session="lag=1s")
    assert routes(plugin(), given) == routes(plugin(), statement("route=primary"))


def test_O4_a_session_consistency_holds_against_a_comment_that_contradicts_it() -> None:
    kept = routes(plugin(), statement("route=async", session="consistency=strong"))
    assert [(route.select, route.consistency) for route in kept] == [((ASYNC,), None), ((PRIMARY, SYNC), "strong")]


def test_a_session_branch_holds_against_a_comment() -> None:
    hints = plugin({"branches": BRANCHES})
    said = reject(hints, statement("route=sync", session="branch=analytics"))
    assert said.message == "hint route=sync contradicts branch=analytics"


# --- rules

RULES: Config = {
    "rules": [
        {"when": {"tool": "knowledge_search"}, "use": "route=async,lag=10s"},
        {"when": {"table": ["orders", "billing.items"], "user": "bi"}, "use": "Route = async, timeout=30s, team=bi"},
        {"when": {"user": ["bi", "etl"]}, "use": "priority=low"},
        {"when": {"database": "reports"}, "use": "route=sync"},
        {"when": {"application_name": "psql"}, "use": "route=primary"},
        {"when": {"kind": "explain"}, "use": "node=standby-sync-1"},
        {"when": {"Workflow": "step"}, "use": "consistency=strong"},
    ]
}


def test_a_rule_by_tag() -> None:
    said = directives(plugin(RULES), statement("tool=knowledge_search"))
    assert said[1:] == [
        Directive(Route((ASYNC,), otherwise=(STANDBY,)), "Rule 1: use route=async (tool=knowledge_search)"),
        Directive(Route((ANY,), max_lag_ms=10_000), "Rule 1: use lag=10s (tool=knowledge_search)"),
    ]
    assert routes(plugin(RULES), statement("tool=other")) == routes(plugin(), statement())


def test_the_first_rule_that_matches_counts_and_lists_are_alternatives() -> None:
    bi = Client(user="bi")
    for table in ("orders", "public.orders", "billing.items"):
        said = actions(plugin(RULES), statement(client=bi, tables=("x", table)))
        assert said == [Timeout(30_000), Tag("team", "bi"), Route((ASYNC,), otherwise=(STANDBY,))]
    for tables in (("items",), ("other.items",), ()):
        assert of(Priority, plugin(RULES), statement(client=bi, tables=tables)) == [Priority("low")]
    assert of(Priority, plugin(RULES), statement(client=Client(user="etl"))) == [Priority("low")]
    assert routes(plugin(RULES), statement(client=Client(user="web"), tables=("orders",)))[0].select == (STANDBY,)


def test_rules_by_other_facts() -> None:
    hints = plugin(RULES)
    assert routes(hints, statement(client=Client(database="reports")))[0].select == (SYNC,)
    assert routes(hints, statement(client=Client(application_name="psql")))[0].select == (PRIMARY,)
    assert routes(hints, statement(kind="explain"))[0].select == (node("standby-sync-1"),)
    assert routes(hints, statement("workflow=step"))[1].consistency == "strong"


def test_a_hint_wins_over_a_rule_key_by_key() -> None:
    bi = Client(user="bi")
    said = actions(plugin(RULES), statement("route=sync,timeout=1s", client=bi, tables=("orders",)))
    assert said == [Timeout(1000), Tag("team", "bi"), Route((SYNC,), otherwise=(STANDBY,))]
    said = actions(plugin(RULES), statement(session="timeout=2s", client=bi, tables=("orders",)))
    assert said == [Timeout(2000), Tag("team", "bi"), Route((ASYNC,), otherwise=(STANDBY,))]


def test_a_rule_gives_way_to_a_hint_that_contradicts_it() -> None:
    given = statement("tool=knowledge_search,consistency=strong")
    assert [route.select for route in routes(plugin(RULES), given)] == [(ANY,), (PRIMARY, SYNC), (ANY,)]


def test_O4_a_rule_consistency_holds_against_a_hint_that_contradicts_it() -> None:
    kept = routes(plugin(RULES), statement("workflow=step,route=async"))
    assert [route.consistency for route in kept] == [None, "strong"]


def test_R3_a_rule_never_sends_a_write_to_a_standby() -> None:
    given = write("tool=knowledge_search")
    assert routes(plugin(RULES), given) == [Route((PRIMARY,))]
    assert not of(Notice, plugin(RULES), given)


def test_a_rule_with_a_node_that_is_not_there_does_not_trouble_the_client() -> None:
    hints = plugin(rule({"kind": "select"}, "node=gone"))
    assert actions(hints, statement()) == [Route((node("gone"),), otherwise=(STANDBY,))]


def test_rules_may_name_nodes_where_hints_may_not() -> None:
    rules = [{"when": {"kind": "select"}, "use": "node=primary"}]
    hints = plugin({"hints": {"allow_node_hints": False, "allow_primary_reads": False}, "rules": rules})
    assert routes(hints, statement())[0].select == (node("primary"),)
