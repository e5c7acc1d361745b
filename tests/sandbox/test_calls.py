"""Both ways of calling a hook give the same, and give the guest no more than it reads."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from helios_sdk.contract import Answer, Client, Directive, Flush, Hint, Node, Outcome, Pair, Rewrite, Statement, Tag

from heliosproxy.sandbox import Plugin, Sandbox

CLIENT = Client("ann", "sales", "psql", "10.0.0.1", "acme", "scram-sha-256")
STATEMENT = Statement(
    "prepare-transaction",
    True,
    "select 'ü' from t",
    "select ? from t",
    (Hint("route", "async", 3), Hint("x", "", 0)),
    ("t", "s.u"),
    ("f",),
    (Pair("a", "1"), Pair("b", "2"), Pair("a", "3")),
    (Pair("traceparent", "00-1"), Pair("controller", "c")),
    ("1", None, ""),
    CLIENT,
)
NODES = (
    Node("p", "primary", None, (Pair("region", "eu"),)),
    Node("s", "standby", "semisync", ()),
)


def given(answer: Answer) -> str:
    """What the guest says it was given."""
    action = answer.directives[0].action
    assert isinstance(action, Tag | Rewrite)
    return action.value if isinstance(action, Tag) else action.text


@pytest.fixture
def echo(load) -> Plugin:
    return load("echo")


def test_the_way_of_calling_is_the_one_asked_for(sandbox: Sandbox, echo: Plugin, fast: bool) -> None:
    assert sandbox.fast is fast


def test_a_client_arrives_whole(echo: Plugin) -> None:
    assert given(echo.on_connect(CLIENT)) == repr(CLIENT)


def test_a_statement_arrives_with_the_tags_and_comments_that_are_read(echo: Plugin) -> None:
    seen = given(echo.on_parse(STATEMENT))
    assert seen == repr(
        Statement(
            "prepare-transaction",
            True,
            STATEMENT.text,
            STATEMENT.shape,
            STATEMENT.hints,
            STATEMENT.tables,
            STATEMENT.functions,
            tags=(Pair("a", "1"), Pair("a", "3")),
            comments=(Pair("traceparent", "00-1"),),
            parameters=STATEMENT.parameters,
            client=CLIENT,
        )
    )


def test_every_action_comes_back_as_it_was_answered(echo: Plugin) -> None:
    spec = importlib.util.spec_from_file_location("actions", Path(__file__).parent / "guests" / "honest" / "actions.py")
    assert spec is not None
    assert spec.loader is not None
    actions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(actions)
    answer = echo.on_parse(STATEMENT)
    assert answer.ttl_ms == 4_000_000_000
    assert tuple(each.action for each in answer.directives[1:]) == actions.ACTIONS
    assert {each.reason for each in answer.directives[1:]} == {"every action"}


def test_nodes_arrive_and_an_unread_statement_is_blank(echo: Plugin) -> None:
    blank = Statement("prepare-transaction", True)
    assert given(echo.on_route(STATEMENT, NODES)) == repr((blank, NODES))


def test_outcomes_arrive_and_effects_come_back(echo: Plugin) -> None:
    outcome = Outcome("select ?", "ann", "sales", "p", 2**40, 2**33, 0, "42P01", (Pair("tool", "x"),))
    assert echo.on_result([outcome]) == (Flush(), Flush(repr(outcome)))
    assert echo.on_result([]) == (Flush(),)
    assert echo.on_tick(2**53) == (Flush(str(2**53)),)


def test_what_a_hook_does_not_read_is_blank(load) -> None:
    hidden = load("hidden")
    assert given(hidden.on_parse(STATEMENT)) == repr(
        Statement(
            "prepare-transaction", True, tags=(Pair("a", "1"), Pair("a", "3")), client=Client(user="ann")
        )
    )
    assert given(hidden.on_route(STATEMENT, NODES)) == repr((Statement("prepare-transaction", True), ()))


@pytest.mark.parametrize("size", [16 * 1024, 16 * 1024 + 1, 300_000])
def test_long_text_and_many_items_arrive(echo: Plugin, size: int) -> None:
    text = "é" * (size // 2)
    tables = tuple(f"t{number}" for number in range(size // 1000))
    answer = echo.on_parse(Statement("select", text=text, tables=tables))
    assert given(answer) == repr(Statement("select", text=text, tables=tables))
    assert given(echo.on_parse(Statement("select"))) == repr(Statement("select"))


def test_text_that_is_no_unicode_arrives_replaced(echo: Plugin) -> None:
    assert given(echo.on_parse(Statement("select", text="a\udcffb"))) == repr(Statement("select", text="a?b"))


def test_a_clock_that_was_read_makes_an_answer_without_ttl_unrememberable_P1(load) -> None:
    granted = load("granted")
    used = granted.on_parse(Statement("select", hints=(Hint("clock", "0", 1),)))
    assert used.ttl_ms == 0
    assert int(used.directives[0].action.value) > 1_600_000_000_000
    assert granted.on_parse(Statement("select", hints=(Hint("clock", "500", 1),))).ttl_ms == 500
    assert granted.on_parse(Statement("select")) == Answer((), None)


def test_directives_keep_their_order(echo: Plugin) -> None:
    answer = echo.on_parse(STATEMENT)
    assert all(isinstance(each, Directive) for each in answer.directives)
    assert [type(each.action).__name__ for each in answer.directives[:4]] == ["Rewrite", "Route", "Route", "Rewrite"]


def test_statistics_count_calls_by_hook(echo: Plugin) -> None:
    for _ in range(3):
        echo.on_tick(1)
    echo.on_connect(CLIENT)
    statistics = echo.statistics()
    assert statistics.hooks["on-tick"].calls == 3
    assert statistics.hooks["on-parse"].calls == 0
    assert (statistics.calls, statistics.faults, statistics.instances) == (4, 0, 1)
    assert statistics.microseconds > 0
