"""Regular expressions of rules: they mean what they mean in pg_hba.conf, and no name makes them work long.

That they mean what PostgreSQL's mean is held against a server in tests/cluster/test_expressions.py.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.auth.expressions import Expression, ExpressionError, Found

NAME_LENGTH = 63


@pytest.mark.parametrize(
    "text",
    [
        "^(\\w+\\.?)+$", "^(a+)+$", "^(a|a)*$", "^(a|aa|aaa)+$", "(a*)(a*)(a*)(a*)(a*)(a*)(a*)x",
        "^" + "a?" * 60 + "a" * 60 + "$", "^(((a{1,3}){1,3})+)+$", "(.*a){20}", "^([a-z]+\\d*)+!$", "(a|[ab]|\\w|.)+x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a" * NAME_LENGTH, "a" * (NAME_LENGTH - 1) + "!", "ab" * 31 + "-"])
def test_no_name_makes_an_expression_work_for_ever(text: str, name: str) -> None:
    """Those that Python's needs years for: a bound that a machine under any load keeps, and they never would."""
    began = time.thread_time()
    Expression(text).search(name)
    assert time.thread_time() - began < 1


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("", ["", "a"], []),
        ("^[[:digit:]]+$", ["12345"], ["", "d", ":", "12a", "\u0665"]),
        ("^[^[:alpha:]_]$", ["1", "\n", "é"], ["a", "_"]),
        ("^\\w$", ["a", "Z", "_", "9"], ["é", "-", "\udcff"]),
        ("^.$", ["a", "\n", "é", "\udcff", "\0"], ["", "ab"]),
        ("^[[:space:]]$", [" ", "\t", "\v", "\n"], ["\u00a0", "a"]),
        ("^bob$", ["bob"], ["bob\n", "bob\n\n", "\nbob"]),
        ("^(a|b|)c?$", ["", "a", "bc", "c"], ["ab"]),
        ("^a{255}$", ["a" * 255], ["a" * 254, "a" * 256]),
        ("^[]-]$", ["]", "-"], ["a"]),
        ("a|^b", ["ca", "b"], ["cb"]),
    ],
)
def test_what_is_written_is_what_is_meant(text: str, yes: list[str], no: list[str]) -> None:
    expression = Expression(text)
    assert [name for name in (*yes, *no) if expression.search(name) is not None] == yes


@pytest.mark.parametrize(
    ("text", "name", "group"),
    [
        ("^(.*)@x$", "bob@x", "bob"),
        ("^(?:.*)@x$", "bob@x", None),
        ("^(a)|b$", "b", None),
        ("^(?:a)(b)(c)$", "abc", "b"),
        ("()x", "x", ""),
    ],
)
def test_the_first_group_is_what_it_matched(text: str, name: str, group: str | None) -> None:
    assert Expression(text).search(name) == Found(group)


@pytest.mark.parametrize(
    "text",
    ["(", "a)b", "[a", "*a", "(?=a)", "(a)\\1", "\\ybob", "bob\\", "[[.a.]]", "[[:digits:]]", "[z-a]", "a{1001}",
     "(((a{255}){255}){255}){255}", "\udcff"],
)  # fmt: skip
def test_what_is_not_understood_is_refused_in_words(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"\w"):
        Expression(text)


@given(st.text("ab(|)[]^$*+?{},-\\:.=dwA1", max_size=15))
def test_any_text_is_an_expression_or_is_refused(text: str) -> None:
    try:
        expression = Expression(text)
    except ExpressionError:
        return
    expression.search("ab")
