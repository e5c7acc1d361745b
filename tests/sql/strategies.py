"""Hypothesis strategies for SQL text: token soup with literals of every class, glued or apart, and hostile bytes."""

from __future__ import annotations

from hypothesis import strategies as st

_BODY = st.text(alphabet="ab1'\\-/*\"$;% \n\ré", max_size=8)


def _doubled(text: str) -> str:
    return text.replace("'", "''")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


plain_strings = _BODY.map(lambda body: f"'{_doubled(body)}'")
escape_strings = st.builds(lambda e, body: f"{e}'{_escaped(body)}'", st.sampled_from("eE"), _BODY)
bit_strings = st.builds(lambda p, body: f"{p}'{body}'", st.sampled_from("bBxX"), st.text("01", max_size=6))
unicode_strings = st.builds(lambda p, body: f"{p}'{_doubled(body)}'", st.sampled_from(["U&", "u&"]), _BODY)
national_strings = st.builds(lambda p, body: f"{p}'{_doubled(body)}'", st.sampled_from("nN"), _BODY)
dollar_strings = st.builds(
    lambda tag, body: f"${tag}${body}${tag}$",
    st.sampled_from(["", "a", "e", "tag_1", "é"]),
    st.text(alphabet="ab1'\\-/*\";\n ", max_size=8),
)
integers = st.one_of(
    st.integers(0, 10**6).map(str),
    st.integers(2**31 - 2, 2**31 + 2).map(str),
    st.integers(2**63 - 2, 2**63 + 2).map(str),
    st.integers(0, 10**25).map(str),
    st.sampled_from(["007", "0000000000000000000001", "1_000", "2_147_483_647", "2_147_483_648", "0x1F", "0x7fffffff"]),
    st.sampled_from(["0x80000000", "0o17", "0b1_01", "0XFFFFFFFFFFFFFFFFFF", "0x", "1__0", "1_", "123abc", "0b2"]),
)
floats = st.sampled_from(["1.5", ".5", "5.", "1e5", "1.5e-3", ".5E+2", "1e", "1e+", "1_0.2_5", "1..2", "1.5.5", "1.e5"])
literals = st.one_of(
    plain_strings, escape_strings, bit_strings, unicode_strings, national_strings, dollar_strings, integers, floats
)

hint_comments = st.sampled_from(
    ["/*helios:route=async*/", "/*helios:*/", "/*helios:é=1,b = c,,*/", "/*helios:a=/* x */b*/", "/*helios:a='b*/"]
)
comments = st.one_of(
    hint_comments,
    st.sampled_from(["/**/", "/* ' */", "/* /* \" */ $$ */", "/***/", "/*/ */", "--\n", "-- ' x\n", "--x\r"]),
    st.sampled_from(["--", "/*+ x */", "/*k='v'*/", "/*trace='0-1%27'*/", "/* helios:a=b */", "--/*helios:a=b*/\n"]),
)
words = st.sampled_from(
    [
        *("a", "e", "x", "b", "n", "u", "U&", "é", "a$b", "a$", "e1", "a1e", "x_", "$1", "$12", "$", "$a"),
        *('"q"', '"a""b"', '"e\'"', '"/*"', 'U&"a"', "from", "and", "null", "order by"),
        *("limit", "offset", "LIMIT", "fetch first", "fetch next"),
    ]
)
spaces = st.sampled_from(["", "", " ", " ", "\n", "\r", "\t", "  \n "])
operators = st.sampled_from([*"+-*/=<,()[].;|&%:", "->>", "::"])
pieces = st.one_of(literals, literals, comments, words, spaces, spaces, operators)

soup = st.builds(
    lambda head, tokens: head + "".join(tokens),
    st.sampled_from(["select ", "select", "", "values(", "/*x*/ with ", "explain analyze select ", "insert into t "]),
    st.lists(pieces, max_size=14),
)
"""A text that starts mostly as a statement that is masked, and goes on anyhow."""

templates = st.lists(st.one_of(st.none(), comments, words, spaces, operators), min_size=1, max_size=6)
"""What follows `select`, with None where a literal goes."""

statements = st.builds(
    lambda items, where, limit: f"select {', '.join(items)} from t where a = {where} limit {limit}",
    st.lists(literals, min_size=1, max_size=4),
    literals,
    integers,
)
"""Well-formed statements, but for a few malformed numbers."""

hostile_bytes = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.sampled_from([b"'", b'"', b"$", b"$$", b"$a$", b"/*", b"*/", b"--", b"\n", b"\\", b"e'", b"b'", b"U&"])
        | st.sampled_from([b"select ", b"limit ", b"/*helios:", b"a", b"\xe9", b"\xff", b"\0", b"=", b",", b" ", b"("])
        | st.sampled_from([b"1", b".", b";"]),
        max_size=40,
    ).map(b"".join),
)
