"""The tree is the parser's, and what we believe of its nodes is so."""

from __future__ import annotations

import pytest
from pglast import ast

from heliosproxy.sql.grammar import FIXED, LEAVES
from heliosproxy.sql.tree import MAX_LENGTH, child, constant, items, parse


def test_a_text_becomes_one_tree_per_statement() -> None:
    trees = parse("select 1; ; select 2;")
    assert trees is not None
    assert [list(tree) for tree in trees] == [["SelectStmt"], ["SelectStmt"]]
    assert parse("  -- nothing\n ;") == ()


@pytest.mark.parametrize("text", ["selct 1", "select 'a", "select 1 \0", "select '\udcff'",
    "select 1" + " " * MAX_LENGTH])
def test_what_cannot_be_parsed_has_no_tree(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(("text", "value"), [
    ("1", "1"), ("0", "0"), ("-1.5", "-1.5"), ("'a'", "a"), ("''", ""), ("true", True), ("false", False),
    ("null", None),
    ("b'1'", "b1"), ("1 + 1", None),
])  # fmt: skip
def test_constants_are_read(text: str, value: str | bool | None) -> None:
    trees = parse(f"select {text}")
    assert trees is not None
    [target] = items(child(trees[0], "SelectStmt"), "targetList")
    assert constant(child(child(target, "ResTarget"), "val")) == value


NOT_NODES = {"Node", "List", "char"}


@pytest.mark.parametrize("kind", sorted(set(FIXED) - {"List"}))
def test_R1_fixed_fields_are_those_of_the_grammar(kind: str) -> None:
    slots = getattr(ast, kind).__slots__
    pointers = {name: info.c_type[:-1] for name, info in slots.items() if info.c_type.endswith("*")}
    inline = {name: type_ for name, type_ in pointers.items() if type_ not in NOT_NODES and type_ != "Expr"}
    assert dict(FIXED[kind]) == inline


@pytest.mark.parametrize("kind", sorted(LEAVES - {"A_Const"}))
def test_R1_leaves_have_no_inner_nodes(kind: str) -> None:
    slots = getattr(ast, kind).__slots__
    assert not [name for name, info in slots.items() if info.c_type in ("Node*", "List*")]
