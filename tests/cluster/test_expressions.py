"""Regular expressions of rules mean what they mean to a server that reads pg_hba.conf: advanced, in the C collation."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliosproxy.auth.expressions import Expression, ExpressionError

ATOMS = st.sampled_from(
    [
        *"abx_1 -@]}é", ".", "\\.", "\\$", "\\\\", "\\n", "^", "$", "\\A", "\\Z", "\\d", "\\w", "\\s", "\\D", "\\W",
        "[ab]", "[^a]", "[a-c]", "[]a]", "[^]a]", "[a-]", "\\S", "[\\w-]", "[\\d]", "[^\\W]", "[[a]", "[\\]]", "[b-é]",
        "[^[:alnum:]]", "[[:digit:]_]", "[[:alpha:]]", "[[:digit:]]", "[[:alnum:]]", "[[:upper:]]", "[[:lower:]]",
        "[[:punct:]]", "[[:space:]]", "[[:blank:]]", "[[:print:]]", "[[:graph:]]", "[[:cntrl:]]", "[[:xdigit:]]",
    ]
)  # fmt: skip
SIGNS = st.sampled_from(["", "*", "+", "?", "{2}", "{0}", "{0,1}", "{1,2}", "{2,}", "*?", "+?", "??", "{1,2}?"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda parts: (
        st.lists(parts, min_size=1, max_size=3).map("".join)
        | st.lists(parts, min_size=2, max_size=3).map("|".join)
        | st.builds("({}){}".format, parts, SIGNS)
        | st.builds("(?:{}){}".format, parts, SIGNS)
        | st.builds("{}{}".format, ATOMS, SIGNS)
    ),
    max_leaves=8,
)
NAMES = st.text("abxcA_1 .-@$]}\\é\n", max_size=6)


def test_an_expression_that_is_taken_matches_what_it_matches_in_postgresql(
    connect: Callable[..., psycopg.Connection],
) -> None:
    server = connect()

    @settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(EXPRESSIONS, st.lists(NAMES, min_size=8, max_size=8))
    def hold(text: str, names: list[str]) -> None:
        try:
            expression = Expression(text)
        except ExpressionError:
            return
        asked = 'select name ~ (%s collate "C") from unnest(%s::text[]) with ordinality as u (name, at) order by at'
        try:
            expected = [matches for (matches,) in server.execute(asked, [text, names])]
        except psycopg.errors.InvalidRegularExpression:
            return  # then nobody takes it over from there
        assert [expression.search(name) is not None for name in names] == expected

    hold()


def test_the_group_is_the_one_of_postgresql_where_there_is_no_choice(
    connect: Callable[..., psycopg.Connection],
) -> None:
    server = connect()
    for text, name in (
        ("^(.*)@example\\.com$", "bob@example.com"),
        ("^(.*)@(.*)$", "bob@x@y"),
        ("(.*)@x", "a@x@x"),
        ("^CN=([^,]*),.*$", "CN=bob,OU=sales,O=Example"),
        ("^(a)?b$", "b"),
        ("^(?:app|web)_(.+)$", "web_bob"),
    ):
        row = server.execute('select regexp_match(%s, %s collate "C")', [name, text]).fetchone()
        found = Expression(text).search(name)
        assert row is not None
        assert found is not None
        assert found.group == row[0][0]
