"""Regular expressions of rules: what they match is what everybody's do, and no name makes them work long.

That they mean what PostgreSQL's mean is held against a server in tests/cluster/test_expressions.py.
"""

from __future__ import annotations

import re
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosproxy.auth.expressions import LENGTH_MOST, SIZE_MOST, Expression, Found
from heliosproxy.auth.expressions_read import DEPTH_MOST, ExpressionError

NAME_LENGTH = 63
ATOMS = st.sampled_from(
    [*"abx_1-", ".", "\\.", "\\d", "\\w", "\\S", "[ab]", "[^a]", "[a-c]", "[]a]", "[^]a]", "[a-]", "[\\w-]", "[\\]]"]
)  # fmt: skip
PLACES = st.sampled_from(["^", "$", "\\A"])
SIGNS = st.sampled_from(["*", "+", "?", "{2}", "{0,1}", "{1,3}", "{2,}", "*?", "+?", "??", "{1,2}?"])


def repeated(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("{}{}".format, parts.map("({})".format) | parts.map("(?:{})".format) | ATOMS, SIGNS)


EXPRESSIONS = st.recursive(
    ATOMS | PLACES,
    lambda parts: (
        st.lists(parts, max_size=3).map("".join)
        | st.lists(parts, min_size=2, max_size=3).map("|".join).map("({})".format)
        | st.lists(parts, min_size=2, max_size=2).map("|".join)
        | repeated(parts)
    ),
    max_leaves=12,
)
NAMES = st.text("abx_1]-.\né", max_size=7)


def parsed(text: str) -> Expression | None:
    try:
        return Expression(text)
    except ExpressionError:
        return None


@settings(max_examples=1000, deadline=None)
@given(EXPRESSIONS, st.lists(NAMES, min_size=1, max_size=4))
def test_what_it_matches_and_what_its_group_is_are_as_with_python(text: str, names: list[str]) -> None:
    expression = parsed(text)
    if expression is None:
        return
    # Python's $ is also before a line end at the end, and its classes are of Unicode.
    other = re.compile(text.replace("$", "\\Z"), re.DOTALL | re.ASCII)
    for name in names:
        found, expected = expression.search(name), other.search(name)
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert found.group == (expected[1] if other.groups else None)


@pytest.mark.parametrize(
    "text",
    [
        "^(\\w+\\.?)+$", "^(a+)+$", "^(a|a)*$", "^(a|aa|aaa)+$", "(a*)(a*)(a*)(a*)(a*)(a*)(a*)x",
        "^" + "a?" * 60 + "a" * 60 + "$", "^(((a{1,3}){1,3})+)+$", "(.*a){20}", "^([a-z]+\\d*)+!$", "(a|[ab]|\\w|.)+x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a" * NAME_LENGTH, "a" * (NAME_LENGTH - 1) + "!", "ab" * 31 + "-"])
def test_no_name_makes_an_expression_work_for_ever(text: str, name: str) -> None:
    """Those that Python's needs years for, and more. Counted in calls, not timed."""
    expression = Expression(text)
    assert calls(expression, name) < 8 * (len(name) + 1) * expression.size


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS, st.text("ab1_.-", min_size=NAME_LENGTH, max_size=NAME_LENGTH))
def test_whatever_is_taken_is_done_with_any_name_in_bounded_time(text: str, name: str) -> None:
    expression = parsed(text)
    if expression is not None:
        assert calls(expression, name) < 8 * (len(name) + 1) * expression.size


def calls(expression: Expression, name: str) -> int:
    """The calls that a search makes, of what is written in C as well: some for each step at each character."""
    counted = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        expression.search(name)
    finally:
        sys.setprofile(before)
    return counted


def test_the_largest_expression_is_done_with_the_longest_name_within_a_second() -> None:
    expression = Expression("a?" * 240 + "$")
    assert 0.8 * SIZE_MOST < expression.size <= SIZE_MOST
    began = time.thread_time()
    expression.search("a" * NAME_LENGTH + "!")
    assert time.thread_time() - began < 1


def test_text_that_no_user_can_be_named_matches_nothing() -> None:
    assert Expression("a").search("a" * LENGTH_MOST) is not None
    assert Expression("a").search("a" * (LENGTH_MOST + 1)) is None


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("", ["", "a"], []),
        ("^[[:digit:]]+$", ["12345"], ["", "d", ":", "12a", "\u0665"]),
        ("^[^[:alpha:]_]$", ["1", "\n", "é"], ["a", "_"]),
        ("^\\w$", ["a", "Z", "_", "9"], ["é", "-", "\udcff"]),
        ("^.$", ["a", "\n", "é", "\udcff", "\0"], ["", "ab"]),
        ("^\\W$", ["é", "-", "\n"], ["a"]),
        ("^[[:space:]]$", [" ", "\t", "\v", "\n"], ["\u00a0", "a"]),
        ("^[[:punct:]-]$", ["-", "~", "!"], ["a", " "]),
        ("^bob$", ["bob"], ["bob\n", "bob\n\n", "\nbob"]),
        ("\\Abob\\Z", ["bob"], ["bob\n"]),
        ("^(a|b|)c?$", ["", "a", "bc", "c"], ["ab"]),
        ("a{0}b", ["b"], ["a"]),
        ("^a{255}$", ["a" * 255], ["a" * 254, "a" * 256]),
        ("^[a\\-z]$", ["a", "-", "z"], ["b", "\\"]),
        ("^[]-]$", ["]", "-"], ["a"]),
        ("^[[]$", ["["], ["]"]),
        ("^}\\{\\$]$", ["}{$]"], []),
        ("^\\n$", ["\n"], ["n"]),
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
        ("(a+?)(a*)", "aaa", "a"),
        ("(a|b)+", "abab", "b"),
        ("()x", "x", ""),
    ],
)
def test_the_first_group_is_what_it_matched(text: str, name: str, group: str | None) -> None:
    assert Expression(text).search(name) == Found(group)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("(", "a parenthesis is not closed (at character 2)", "write \\( for the character"),
        ("a)b", "a parenthesis is closed that was not opened (at character 2)", "write \\) for the character"),
        ("[a", "a bracket is not closed (at character 3)", "write \\[ for the character"),
        ("[]", "a bracket is not closed", ""),
        ("*a", "there is nothing that is to be repeated (at character 1)", "write a backslash before it"),
        ("a|+", "there is nothing that is to be repeated", ""),
        ("{", "there is nothing that is to be repeated", ""),
        ("a**", "a repeat is repeated", "put the first one into parentheses"),
        ("a{2}{2}", "a repeat is repeated", ""),
        ("a*+", "a repeat is repeated", ""),
        ("^*", "what is repeated may be empty", "repeat only what is at least one character"),
        ("(a*)*", "what is repeated may be empty", ""),
        ("(a|b?c?){2,3}", "what is repeated may be empty", ""),
        ("a{1", "a brace begins no {m}, {m,} or {m,n}", "write \\{ for the character"),
        ("a{,2}", "a brace begins no {m}, {m,} or {m,n}", ""),
        ("a{x}", "a brace begins no {m}, {m,} or {m,n}", ""),
        ("a{\u0662}", "a brace begins no {m}, {m,} or {m,n}", ""),
        ("a{256}", "{m,n} goes from 0 to 255, the greater one last", ""),
        ("a{3,2}", "{m,n} goes from 0 to 255, the greater one last", ""),
        ("a{" + "9" * 5000 + "}", "{m,n} goes from 0 to 255", ""),
        ("(?i)bob", "after a parenthesis only ?: is understood (at character 2)", "write [Aa] for a letter"),
        ("(?=a)", "after a parenthesis only ?: is understood", ""),
        ("(?P<n>a)", "after a parenthesis only ?: is understood", ""),
        ("***=bob", "there is nothing that is to be repeated", ""),
        ("(a)\\1", "\\1 is not understood", "escapes are"),
        ("\\ybob", "\\y is not understood", ""),
        ("\\bbob", "\\b is not understood", ""),
        ("bob\\", "\\ is not understood", ""),
        ("[\\b]", "\\b is not understood", ""),
        ("[[.a.]]", "collating elements are not understood", "write the character itself"),
        ("[[=a=]]", "collating elements are not understood", ""),
        ("[[:<:]]", "no class of characters that is known", "they are alnum, alpha"),
        ("[[:digits:]]", "no class of characters that is known", ""),
        ("[z-a]", "a range within brackets goes from a character to a later one", ""),
        ("[a-\\d]", "a range within brackets goes from a character to a later one", ""),
        ("[[:digit:]-z]", "a range within brackets goes from a character to a later one", ""),
        ("[a-", "a range within brackets goes from a character to a later one", ""),
        ("[a-c-e]", "a dash within brackets that is neither first nor last", "write \\- for the character"),
        ("a{255}a{255}", f"it is too large: more than {SIZE_MOST} steps", "repeat less often"),
        ("(((a{255}){255}){255}){255}", "it is too large", ""),
        ("(" * (DEPTH_MOST + 1), f"more than {DEPTH_MOST} parentheses within each other", ""),
    ],
)
def test_what_is_not_understood_is_refused_with_what_to_write(text: str, message: str, hint: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert str(caught.value).startswith(message)
    assert caught.value.hint.startswith(hint)


@settings(max_examples=500, deadline=None)
@given(st.text("ab(|)[]^$*+?{},-\\:.=dwA1", max_size=15))
def test_any_text_is_an_expression_or_is_refused(text: str) -> None:
    expression = parsed(text)
    if expression is not None:
        expression.search("ab")
