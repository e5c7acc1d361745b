"""Texts that would make too much work never become a tree (S5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.sql import facts
from heliosproxy.sql.size import MAX_RUN, MAX_WORK, modest
from heliosproxy.sql.tree import MAX_LENGTH, Json, parse

PATTERNS = [
    ("select ", "f(),", "1"), ("select ", "abs(a),", "1"), ("select ", "a,", "a"), ("select ", "a.b,", "a"),
    ("select ", "a::int,", "1"), ("select 1 from t where true", " and a=1", ""), ("select ", '"a",', "1"),
    ("select ", "f(a=>1),", "1"), ("insert into t values ", "(1),", "(1)"), ("select 1 from t", ",t", ""),
    ("select ", "1,", "1"), ("select ", "'a',", "1"), ("update t set ", "a=1,", "a=1"), ("select ", "a[1],", "1"),
    ("select ", "case when a then b end,", "1"), ("select ", "(select 1),", "1"), ("select ", "-a,", "1"),
    ("select ", "sum(a) over (order by b),", "1"), ("", "select 1;", ""), ("select ", "$1,", "1"),
    ("select a in (", "1,", "1)"), ("select ", "row(),", "1"), ("select ", "coalesce(a,b),", "1"),
]  # fmt: skip


def nodes(tree: Json) -> int:
    """Dicts and lists in a tree."""
    if isinstance(tree, dict):
        return 1 + sum(map(nodes, tree.values()))
    return 1 + sum(map(nodes, tree)) if isinstance(tree, list) else 0


@pytest.mark.parametrize(("head", "repeated", "tail"), PATTERNS)
def test_S5_however_dense_a_text_is_its_tree_has_a_bounded_number_of_nodes(head: str, repeated: str, tail: str) -> None:
    most = (MAX_LENGTH - len(head) - len(tail)) // len(repeated)
    text = next(
        text for times in range(most, 0, -25) if modest(text := head + repeated * times + tail)
    )  # the largest that passes
    found = parse(text)
    assert found is not None
    assert sum(map(nodes, found)) < 4 * MAX_WORK


@pytest.mark.parametrize("text", [
    "select 1" + "/**/" * 4_000, "select 1 " + "/*" * 4_000 + "*/" * 4_000, "select 1 " + "+-" * 2_000 + "1",
    "select 1 " + ("/*" * 8 + "*/" * 8) * 500,
])  # fmt: skip
def test_S5_runs_of_operators_and_comments_edges_never_reach_the_parser(text: str) -> None:
    assert parse(text) is None
    assert facts.of(text).kind == "unknown"


@pytest.mark.parametrize("text", [
    "select " + "f()," * 4_000 + "1", "select " + "a," * 8_000 + "a",
    "select E'\\'', " + "a," * 8_000 + " '", "select $$'$$, " + "a," * 8_000 + "'",
    "select 1 --'\n," + "a," * 8_000 + "'",
    "select /*'*/ " + "a," * 8_000 + " '", "select \"'\", " + "a," * 8_000 + "'",
])  # fmt: skip
def test_S5_what_looks_like_a_literal_hides_nothing(text: str) -> None:
    assert not modest(text)


@pytest.mark.parametrize("text", [
    "select * from t where id in (" + ",".join(map(str, range(2_700))) + ")",
    "insert into t values " + ",".join(["(1, 'some words, with a comma (and brackets)', 2)"] * 300),
    "insert into t values ('[" + ",".join(['{"key": "a\\nvalue", "other": -1}'] * 450) + "]')",
    "insert into t values ('" + "words, and more = words; " * 600 + "')",
    "select " + ",".join(f"t.column_{at}" for at in range(800)) + " from t",
    "/*" + "*" * 300 + "\n hello \n" + "*" * 300 + "*/ select 1 /* " + "words " * 300 + "*/",
    "-- " + "-" * 400 + "\nselect 1" + " " * 2_000,
])  # fmt: skip
def test_what_programs_write_is_read(text: str) -> None:
    assert len(text) <= MAX_LENGTH
    assert parse(text) is not None


@given(st.text(alphabet="a1'\"/*-+$(),; \n\\=", min_size=2_049, max_size=4_000))
def test_S5_what_is_read_has_no_long_run(text: str) -> None:
    longest = max(map(len, "".join(c if c in "/*-+=" else " " for c in text).split()), default=0)
    assert longest <= MAX_RUN or not modest(text)
