"""Hints and sqlcommenter's pairs come from real comments only, and blanking changes nothing else."""

from __future__ import annotations

import time

import pytest
from helios_sdk.contract import Hint, Pair
from hypothesis import assume, given, settings
from pglast.parser import ParseError, Token, scan

from heliosproxy.sql.comments import MAX_HINT_BYTES, MAX_HINT_COMMENTS, blank_hints, hints, sqlcommenter
from tests.sql.strategies import hostile_bytes, soup


def scanned(text: str) -> list[Token]:
    """PostgreSQL's tokens; discards what its scanner refuses."""
    try:
        return list(scan(text))
    except ParseError:
        assume(False)
        raise


def real_hint_comments(text: str) -> list[str]:
    """The comments that PostgreSQL's scanner sees and that start as hints do."""
    comments = [text[token.start : token.end + 1] for token in scanned(text) if token.name == "C_COMMENT"]
    return [comment for comment in comments if comment.startswith("/*helios:")]


class TestHints:
    def test_items_have_keys_values_and_positions_in_characters(self) -> None:
        text = "select 'é' /*helios: Route = async , lag=10s,é=ü,x*/ + 1 /*helios:tool=A=b*/".encode()
        assert hints(text) == (
            Hint("route", "async", 22),
            Hint("lag", "10s", 38),
            Hint("é", "ü", 46),
            Hint("x", "", 50),
            Hint("tool", "A=b", 67),
        )

    def test_positions_point_at_the_key(self) -> None:
        text = "/*helios:a=1*/ select 'é本' /*helios:\n b=2,,c=3*/, $1"
        assert [text[hint.at - 1] for hint in hints(text.encode())] == ["a", "b", "c"]

    def test_duplicates_stay_in_order(self) -> None:
        assert hints(b"/*helios:a=1,A=2*/select 1") == (Hint("a", "1", 10), Hint("a", "2", 14))

    def test_empty_comments_have_no_hints(self) -> None:
        assert hints(b"/*helios:*/ /*helios: , ,*/ select 1") == ()

    @pytest.mark.parametrize(
        "text",
        [
            "select '/*helios:a=b*/'",
            "select 'a''/*helios:a=b*/'",
            "select 'a' -- x\n  '/*helios:a=b*/'",
            "select 'a\\' || '/*helios:a=b*/'",
            "select E'\\'/*helios:a=b*/'",
            "select E'a'\n'\\'/*helios:a=b*/'",
            "select U&'/*helios:a=b*/'",
            "select B'/*helios:a=b*/'",
            'select "/*helios:a=b*/"',
            'select "a""/*helios:a=b*/"',
            "select $$/*helios:a=b*/$$",
            "select $a$ $b$ /*helios:a=b*/ $b$ $a$",
            "select a$b, $b$/*helios:a=b*/$b$",
            "select $1, $$/*helios:a=b*/$$",
            "select 1 -- /*helios:a=b*/",
            "select 1 -- \f/*helios:a=b*/\n",
            "select 1 /* /*helios:a=b*/ */",
            "select 1 /* -- \n /*helios:a=b*/ */",
            "select 1 /* helios:a=b */",
            "select 1 /*Helios:a=b*/",
            "select 1 /**helios:a=b*/",
            "select 1 /*helios:a=b",
            "select 1 'x /*helios:a=b*/",
            'select 1 "x /*helios:a=b*/',
            "select 1 $$x /*helios:a=b*/",
            "select 1e'\\'' /*helios:a=b*/ '",  # PostgreSQL 14 and 15 read it differently
        ],
    )
    def test_S7_what_is_no_real_hint_comment_gives_no_hints(self, text: str) -> None:
        assert hints(text.encode()) == ()
        assert blank_hints(text.encode()) == text.encode()

    @pytest.mark.parametrize(
        "before",
        [
            *("", "select 'a' ", "select '\\' ", "select E'\\\\' ", "select E'\\'' ", 'select "\'" ', "select $$'$$ "),
            *("-- '\n", "-- \r", "/* ' */", "/* /* */ ' */", "select a$$ ", "select a$b$ ", "select $1 ", "select 1 -"),
            *("select 1 /", "select x$a$ ", "select $a$ $$ $a$ ", "select b'0' ", "select u&'\\' ", "select 'a'\n'b' "),
            *("select ae'\\' ",),
        ],
    )
    def test_S7_a_real_hint_comment_is_found_behind_anything(self, before: str) -> None:
        text = before + "/*helios:a=b*/ select 1"
        assert [(hint.key, hint.value) for hint in hints(text.encode())] == [("a", "b")]
        assert len(real_hint_comments(text)) == 1

    def test_of_nested_comments_the_outermost_counts_as_a_whole(self) -> None:
        text = b"select 1 /*helios:a=b /* c=d */*/ + 1"
        assert hints(text) == (Hint("a", "b /* c=d */", 19),)
        assert blank_hints(text) == b"select 1 " + b" " * 24 + b" + 1"

    def test_hint_comments_past_the_bound_are_just_comments(self) -> None:
        text = b"/*helios:a=b*/" * (MAX_HINT_COMMENTS + 3)
        assert len(hints(text)) == MAX_HINT_COMMENTS
        assert blank_hints(text).strip() == b"/*helios:a=b*/" * 3

    def test_hint_comments_that_are_too_long_together_are_just_comments(self) -> None:
        long = b"/*helios:a=" + b"x" * (MAX_HINT_BYTES // 2) + b"*/"
        text = b"/*helios:a=b*/" + long + long + b"/*helios:a=b*/"
        assert len(hints(text)) == 2
        assert blank_hints(text).strip() == long + b"/*helios:a=b*/"


class TestBlanking:
    def test_S7_all_else_stays_where_it_was(self) -> None:
        text = b"select /*helios:a=b*/ '/*helios:c=d*/' /* x */ /*+ y */ -- z"
        assert blank_hints(text) == text.replace(b"/*helios:a=b*/", b" " * 14)

    def test_S7_positions_hold_in_characters_behind_a_hint_that_is_not_ascii(self) -> None:
        text = "select /*helios:a=é本*/ x"
        blanked = blank_hints(text.encode()).decode()
        assert blanked.index("x") == text.index("x")
        assert "helios" not in blanked

    @pytest.mark.parametrize(
        "text",
        [
            "select 'a'\n/*helios:a=b*/'b'",
            "select 'a' /*helios:a=b*/ \n 'b'",
            "select 'a' --x\n /*helios:a=b*/ --y\n 'b'",
            "select 'a'\n/*helios:a=b*/ /*helios:a=b*/'b'",
            "select 'a'\n/*helios:a=b*/ --\n /*helios:a=b*/'b'",
        ],
    )
    def test_S7_blanking_does_not_join_two_literals(self, text: str) -> None:
        blanked = blank_hints(text.encode()).decode()
        assert [token.name for token in scan(blanked) if token.name == "SCONST"] == ["SCONST", "SCONST"]
        assert len(blanked) == len(text)
        assert "helios" not in blanked

    def test_a_statement_without_hints_is_handed_back_itself(self) -> None:
        text = b"select 1 /* a */"
        assert blank_hints(text) is text

    @settings(max_examples=400, deadline=None)
    @given(soup)
    def test_S7_hints_are_real_comments_and_blanking_keeps_tokens_and_positions(self, text: str) -> None:
        places = [(token.start, token.end) for token in scanned(text) if token.name == "C_COMMENT"]
        blanked = blank_hints(text.encode()).decode()
        assert all(any(start < hint.at - 1 < end for start, end in places) for hint in hints(text.encode()))
        assert len(blanked) == len(text)
        assert tokens(blanked) == tokens(text)
        if "$" not in text and "\\" not in text and "''" not in text:  # nothing in it is in doubt
            assert not real_hint_comments(blanked)


def tokens(text: str) -> list[tuple[str, int, int]]:
    """Kinds and places of PostgreSQL's tokens, comments left out."""
    return [(t.name, t.start, t.end) for t in scanned(text) if t.name not in ("C_COMMENT", "SQL_COMMENT")]


class TestSqlcommenter:
    def test_pairs_are_decoded(self) -> None:
        text = b"select 1 /*db_driver='x%20y', route='%2Fpolls%201', a%3D='it\\'s',traceparent='00-5b-01'*/ ; "
        assert sqlcommenter(text) == (
            Pair("db_driver", "x y"),
            Pair("route", "/polls 1"),
            Pair("a=", "it's"),
            Pair("traceparent", "00-5b-01"),
        )

    def test_a_hint_comment_may_follow(self) -> None:
        assert sqlcommenter(b"select 1 /*a='b'*/ /*helios:route=async*/;") == (Pair("a", "b"),)

    @pytest.mark.parametrize(
        "text",
        [
            "select 1",
            "select 1 /*a='b'*/ + 2",
            "select 1 /* a comment */",
            "select 1 /*a='b*/",
            "select 1 /*a='b' c='d'*/",
            "select 1 /**/",
            "select '/*a=''b''*/",
            "select 1 -- /*a='b'*/",
            "select $$ /*a='b'*/",
            'select "x /*a=\'b\'*/',
            "select 1 /* /*a='b'*/",
            "select 1 /* /*a='b'*/ */",
            "select 1 /*helios:a='b'*/",
            "*/",
            "/*/",
        ],
    )
    def test_S6_all_else_gives_none(self, text: str) -> None:
        assert sqlcommenter(text.encode()) == ()

    @pytest.mark.parametrize(
        "before", ["'\\' ", "E'\\'' ", "$a$ ' $a$ ", '"/*" ', "-- '\n", "/* ' */ ", "a$b$ ", "/* /**/ */"]
    )
    def test_S6_a_real_comment_is_found_behind_anything(self, before: str) -> None:
        assert sqlcommenter(f"select {before}/*a='b'*/".encode()) == (Pair("a", "b"),)


@settings(max_examples=300, deadline=None)
@given(hostile_bytes)
def test_random_bytes_never_raise(text: bytes) -> None:
    hints(text)
    assert len(blank_hints(text)) <= len(text)
    sqlcommenter(text + b" /*a='b'*/")


HOSTILE = [b"/*", b"'", b'"', b"$", b"$a$b", b"$$", b"*/", b"/**/", b"/*helios:", b"/*helios:a=b*/", b"--\n", b"e'\\' "]
HOSTILE += [b"'a'\n", b"'a'--\n", b"a$", b"\xc3\xa9", b"1$", b"'a'/*helios:a=b*/", b"\\", b"/*k='v'*/", b", "]
HOSTILE += [b"/*/**/*/"]


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_grows_with_length_and_no_faster(unit: bytes) -> None:
    """A megabyte, by the clock, generously: quadratic work takes minutes."""
    text = b"select " + unit * (2**20 // len(unit)) + b"/*a='b'*//*helios:a=b*/"
    begun = time.process_time()
    hints(text)
    blank_hints(text)
    sqlcommenter(text)
    assert time.process_time() - begun < 5
