"""Hostile statements: none of them may reach the parser's recursion (S5)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosproxy.sql import facts
from heliosproxy.sql.depth import BRACKET, MAX_DEPTH, SHORT, depth, shallow
from heliosproxy.sql.tree import MAX_LENGTH, Json, parse

NESTED: dict[str, Callable[[int], str]] = {
    "operators": lambda n: "select " + "1+" * n + "1",
    "operators without blanks": lambda n: "select 1" + "||-+-" * n + "1",
    "signs": lambda n: "select " + "- " * n + "1",
    "glued signs": lambda n: "select " + "+-" * n + "1",
    "not": lambda n: "select " + "not " * n + "true",
    "parentheses": lambda n: "select " + "(" * n + "1" + ")" * n,
    "calls": lambda n: "select " + "f(" * n + "1" + ")" * n,
    "casts": lambda n: "select 1" + "::a" * n,
    "case": lambda n: "select " + "case when " * n + "true" + " then 1 end" * n,
    "sub-selects": lambda n: "select " + "(select " * n + "1" + ")" * n,
    "sub-selects in FROM": lambda n: "select * from " + "(select * from " * n + "t" + ")a" * n,
    "unions": lambda n: "select 1" + " union all select 1" * n,
    "unions with lists": lambda n: "select 1, 2" + " union all select 1, 2" * n,
    "joins": lambda n: "select * from a" + " join a on x and y" * n,
    "with": lambda n: "with a as (" * n + "select 1" + ") select 1" * n,
    "subscripts": lambda n: "select " + "a[" * n + "1" + "]" * n,
    "arrays": lambda n: "select array" + "[" * n + "1" + "]" * n,
    "is null": lambda n: "select 1" + " is null" * n,
    "is null between": lambda n: "select a" + " is null between 1 and 2" * n,
    "between not": lambda n: "select a" + " between 1 and not b" * n,
    "collate": lambda n: "select 1" + " collate a" * n,
    "and, or": lambda n: "select " + "(a and (b or " * n + "c" + "))" * n,
    "at time zone": lambda n: "select a" + " at time zone b" * n,
    "behind literals": lambda n: "select ')', E'\\'))', $a$)$a$, \")\" /* )/* */ */, " + "(select " * n + "1" + ")" * n,
    "literals that close": lambda n: "select " + "(select ')', " * n + "1" + ")" * n,
}  # fmt: skip


def levels(tree: Json) -> int:
    """How deep a tree is, in nodes."""
    deepest, pending = 0, [(tree, 0)]
    while pending:
        value, at = pending.pop()
        deepest = max(deepest, at)
        if isinstance(value, dict):
            pending += [(inner, at + key[0].isupper()) for key, inner in value.items()]
        elif isinstance(value, list):
            pending += [(inner, at) for inner in value]
    return deepest


def on_a_small_stack(work: Callable[[], object]) -> object:
    """Run it where a thread has 512 KB of stack, as on some systems."""
    found: list[object] = []
    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=lambda: found.append(work()))
        thread.start()
        thread.join(30)
    finally:
        threading.stack_size(before)
    return found[0]


@pytest.mark.parametrize("what", NESTED)
@pytest.mark.parametrize("n", [60, 200, 300, 1000, 30_000])
def test_S5_nested_statements_are_refused_or_shallow(what: str, n: int) -> None:
    text = NESTED[what](n)
    trees = on_a_small_stack(lambda: parse(text))
    if trees is not None:
        assert isinstance(trees, tuple)
        assert levels(list(trees)) <= max(2 * MAX_DEPTH, SHORT)
    if n >= 300:
        assert trees is None


@pytest.mark.parametrize("what", NESTED)
def test_S5_ordinary_nesting_is_no_obstacle(what: str) -> None:
    assert parse(NESTED[what](7)) is not None or what == "between not"


@pytest.mark.parametrize("text", [
    "select " + "1+" * 30_000 + "1",
    "select 1" + " union all select 1" * 20_000,
    "insert into t values " + ",".join(["(1, 'some text')"] * 120_000),
    "select " + "(" * 100_000 + "1" + ")" * 100_000,
    "/*" * 100_000, "'" * 99_999, "$" * 99_999, "(" * 100_000, "case " * 50_000, "\0" * 10, "select \udcff",
], ids=range(11))  # fmt: skip
def test_S5_hostile_texts_have_facts_but_no_tree(text: str) -> None:
    found = on_a_small_stack(lambda: facts.of(text))
    assert isinstance(found, facts.Facts)
    assert found.kind == "unknown"
    assert found.references is None


@pytest.mark.parametrize("row", ["(1)", "(';')", "('it''s; \"', -1 / 2, $1, \";\")", "('\\;')"])
def test_S5_a_long_insert_does_not_pin_its_session(row: str) -> None:
    found = facts.of("insert into t values " + ",".join([row] * 10_000) + " ; ")
    assert found.kind == "unknown"
    assert (found.pins, found.ddl, found.transaction_control) == ((), False, False)


@pytest.mark.parametrize("text", [
    "select 1; " + "select 1, " * 5_000, "set x = '" + "y" * 20_000 + "'",
    "-- hello\ncreate temp table x(" + "a int," * 5_000,
    "select '" + "y" * 20_000 + "'; set x = ''", "select E'\\'; set x = 1; '" + " " * 20_000,
    "select E'a'\n'\\''; set x = 1; '" + " " * 20_000, "select '" + "y" * 20_000 + "' --'\n; set x = '1'",
    "select '" + "y" * 20_000 + "' /*'*/; set x = '1'", "select '" + "y" * 20_000 + "', $$'$$; set x = '1'",
    "select pg_advisory_lock(1), '" + "y" * 20_000 + "'",
])  # fmt: skip
def test_S5_long_texts_that_may_keep_state_pin_their_session(text: str) -> None:
    assert facts.of(text).pins


def test_S5_several_assignments_do_not_swell_the_tree() -> None:
    # The parser repeats the source for each column: 2,000 columns of 2,000 constants would be 4,000,000 nodes.
    text = "update t set (" + ",".join("a" * 2_000) + ") = (select " + ",".join("1" * 2_000) + ")"
    assert len(text) < MAX_LENGTH
    assert parse(text) is None
    assert parse(text.replace(") = (", ") /* = */ = (")) is None
    assert parse("update t set (a, b) = (select " + ",".join("1" * 400) + ")") is not None


def test_wide_statements_are_not_deep() -> None:
    for text in (
        "select * from t where a in (" + ",".join(["1"] * 5_000) + ")",
        "insert into t values " + ",".join(["(1, -1, 2 + 2)"] * 900),
        "select * from t where " + " or ".join(f"(a = {i} and b > {i})" for i in range(300)),
        "select " + ",".join(f"coalesce(a{i}, 0) + 1 as x{i}" for i in range(400)),
    ):
        assert len(text) <= MAX_LENGTH
        assert parse(text) is not None


@pytest.mark.parametrize("text", ["select 'a", 'select "a', "select $a$ b", "select /* a", "select (1", "select 1)",
    "a]",
                                  "select case when 1)", "select E'a'\n'b'"])  # fmt: skip
def test_S5_texts_that_cannot_be_judged_have_no_depth(text: str) -> None:
    assert depth(text) is None


LITERALS = st.sampled_from(["1", "'('", "E'\\')'", "$$(($$", "$x$ ) $$ $x$", '"))"', "'it''s)'", "a", "b.c", "$1",
    "/* ( */ 1"])
EXPRESSIONS = st.recursive(
    LITERALS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "||", "=", "and", "or", "is distinct from", "->>"]),
            inner).map(" ".join),
        inner.map("({})".format), inner.map("f({})".format), inner.map("- {}".format), inner.map("not {}".format),
        inner.map("{}::text".format), inner.map("{} is null".format), inner.map("(select {})".format),
        inner.map("case when {} then 1 end".format), inner.map("array[{}]".format),
        st.tuples(inner, inner).map(lambda two: f"{two[0]} between 1 and {two[1]}"),
        st.tuples(inner, inner).map(lambda two: f"f({two[0]}, {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"(select {two[0]} union select {two[1]})"),
    ),
    max_leaves=16,  # with more, hypothesis takes a second for each example
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(EXPRESSIONS)
def test_S5_the_bound_is_never_below_the_trees_depth(expression: str) -> None:
    text = f"select {expression}"
    trees = parse(text)
    found = depth(text)
    if trees is None:
        return
    assert found is not None
    assert levels(list(trees)) <= 2 * found + 2 * BRACKET
    assert shallow(text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("'\"$()[]/*-; \neEa1=,"), max_size=700))
def test_S5_no_text_raises(text: str) -> None:
    shallow(text * 2)
    facts.of(text)
