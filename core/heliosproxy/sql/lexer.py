"""PostgreSQL's lexical rules as regular expressions over bytes (SAFETY S1).

Source: `src/backend/parser/scan.l` of PostgreSQL 14 to 18, read with standard_conforming_strings on and an encoding
whose multi-byte characters have no ASCII bytes (S3: the caller's matter). Non-ASCII bytes are identifier characters.

Each pattern consumes one telling character first and looks back at it in each alternative. It reads oddly; what it
buys is that `re` finds the next candidate by a character set, at some 5 ns a byte, instead of trying every alternative
at every byte. Everything inside is possessive, so no text makes a pattern backtrack: time is linear in the length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

HINT_START: Final = b"/*helios:"
"""How a comment that carries hints starts, to the letter."""


class DoubtError(Exception):
    """The text cannot be told apart into tokens with certainty: unterminated, junk, or read differently by versions."""


_I = rb"[\w$\x80-\xff]"  # what an identifier goes on with
_START = rb"[A-Za-z_\x80-\xff]"  # what it starts with
_FRESH = rb"(?<![\w$\x80-\xff])"  # not in the middle of an identifier or number
_NUMBER_STARTS = rb"(?<![\w$.\x80-\xff])"
_NUMBER_ENDS = rb"(?![\w$.\x80-\xff])"

# Two string literals with a newline between them are one, `--` comments notwithstanding.
_CONTINUED = rb"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:\s|--[^\n\r]*+[\n\r])*+'"
_PLAIN_BODY = rb"[^']*+(?:''[^']*+)*+'"
_ESCAPE_BODY = rb"[^'\\]*+(?:(?:\\[\s\S]|'')[^'\\]*+)*+'"
_E_PREFIX = rb"(?<=(?<![\w$\x80-\xff])[eE]')"
_BIT_PREFIX = rb"(?<=(?<![\w$\x80-\xff])[bBxX]')"
_NEITHER = rb"(?<!(?<![\w$\x80-\xff])[eEbBxX]')(?<![0-9][eE]')"  # 1e'…' is E'…' to PostgreSQL 14 and an error to 15
# What follows the opening quote. The first alternative is the common case: no backslash, hence the same for all kinds
# of literal, and certainly not continued. A bit string knows no doubled quote: b'0''1' is two literals.
STRING_REST: Final = (
    rb"(?:[^'\\]*+'(?!'|[ \t\f\v]*+(?:[\n\r]|--))"
    rb"|" + _E_PREFIX + _ESCAPE_BODY + rb"(?:" + _CONTINUED + _ESCAPE_BODY + rb")*+"
    rb"|" + _BIT_PREFIX + rb"[^']*+'(?!')(?:" + _CONTINUED + rb"[^']*+'(?!'))*+(?!" + _CONTINUED + rb")"
    rb"|" + _NEITHER + _PLAIN_BODY + rb"(?:" + _CONTINUED + _PLAIN_BODY + rb")*+)"
)  # fmt: skip
# A block comment without another in it; those need counting.
_BLOCK_REST = rb"(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/"
BLANK: Final = rb"(?:\s|--[^\n\r]*+|/\*" + _BLOCK_REST + rb")"
"""One white space character or comment."""

_DIGITS = rb"[0-9]++(?:_[0-9]++)*+"
_EXPONENT = rb"(?:[eE][+-]?" + _DIGITS + rb")?+"
_NUMBER = (
    rb"(?<=" + _NUMBER_STARTS + rb"[0-9])[0-9]*+(?:_[0-9]++)*+(?:\.(?:" + _DIGITS + rb")?+)?+"
    + _EXPONENT + _NUMBER_ENDS
    + rb"|(?<=" + _NUMBER_STARTS + rb"0)(?:[xX](?:_?[0-9a-fA-F])++|[oO](?:_?[0-7])++|[bB](?:_?[01])++)" + _NUMBER_ENDS
)  # fmt: skip

# Kinds of token. Where nothing matches, the byte is white space, an operator or part of a word: it stands for itself.
_SHORT = rb"(?<=" + _NUMBER_STARTS + rb"[0-9])[0-9]{0,8}+" + _NUMBER_ENDS + rb"(?P<short>)"
_STRING = rb"(?<=')" + STRING_REST + rb"(?P<string>)"
_COMMENT = rb"(?:(?<=-)-[^\n\r]*+|(?<=/)\*(?!helios:|\+)" + _BLOCK_REST + rb")(?P<comment>)"
_HINT = rb"(?<=/)\*" + _BLOCK_REST + rb"(?P<hint>)"
# Several quoted names and the plain text between them in one match: fewer calls for statements that quote every name.
_QUOTED = rb"(?<=\")[^\"]*+\"(?:[^0-9'\"$;/\-]*+\"[^\"]*+\")*+(?P<quoted>)"
# .5 is met at its 5, and its point stands for itself: stopping at each point of a.b would cost far more.
_FRACTION = (
    rb"(?<=(?<!\.)\.[0-9])[0-9]*+(?:_[0-9]++)*+" + _EXPONENT + _NUMBER_ENDS + rb"(?P<fraction>)"
)
_OTHER_NUMBER = rb"(?:" + _NUMBER + rb")(?P<number>)"
_TAIL = rb"(?<=;)[\s;]*+\Z(?P<tail>)"
_JUNK = rb"(?:(?<=['\"])|(?<=" + _FRESH + rb"[0-9]))(?P<junk>)"
_PARAMETER = rb"(?<=\$)[0-9]++(?!" + _I + rb")"
# The row count of LIMIT, OFFSET and FETCH FIRST, with what stands in between.
_AMOUNT = (
    rb"(?!" + _I + rb")(?:[(+]|" + BLANK + rb")*+"
    rb"(?P<amount>[0-9][\w.]*+(?:[\s+*()]*+[0-9][\w.]*+)*+(?![$'\x80-\xff])"
    rb"|'[^'\\]*+'(?!'|[ \t\f\v]*+(?:[\n\r]|--)))(?P<limit>)"
)
_FETCH = rb"(?<=" + _FRESH + rb"[fF])(?i:etch" + BLANK + rb"++(?:first|next))"
_LIMIT = rb"(?:(?<=" + _FRESH + rb"[lL])(?i:imit)|(?<=" + _FRESH + rb"[oO])(?i:ffset)|" + _FETCH + rb")" + _AMOUNT
# The same met at a letter that is rare in SQL. It matters: each `l` or `o` of a text would be a candidate.
_LIMIT_INSIDE = (
    rb"(?:(?<=" + _FRESH + rb"[lL][iI][mM])(?i:it)|(?<=" + _FRESH + rb"[oO][fF])(?i:fset)|" + _FETCH + rb")" + _AMOUNT
)
_WORD = rb"(?<=" + _FRESH + _START + rb")" + _I + rb"*+(?P<word>)"
# What follows a dollar quote at once would look like the middle of a word to the other alternatives: in doubt.
_DOLLAR = (
    rb"(?<=" + _FRESH + rb"\$)(?P<tag>(?:" + _START + rb"[\w\x80-\xff]*+)?+)"
    rb"\$(?>[\s\S]*?\$(?P=tag)\$)(?!" + _I + rb")(?P<dollar>)"
)


def _pattern(first: bytes, *kinds: bytes) -> re.Pattern[bytes]:
    return re.compile(first + rb"(?:" + rb"|".join(kinds) + rb")")


_COMMON = (_SHORT, _STRING, _COMMENT, _HINT, _QUOTED, _OTHER_NUMBER, _FRACTION)
_HARD = rb"(?:(?<=\$)(?![0-9]++(?!" + _I + rb"))|(?<=/)\*|(?<=;))(?P<hard>)"
QUICK: Final = _pattern(rb"[0-9'\"$;/\-]", *_COMMON, _TAIL, _HARD, _JUNK)
"""The next token of a text without dollar quotes and nested comments; `hard` where it has one after all."""
QUICK_LIMIT: Final = _pattern(
    rb"[0-9'\"$;/\-mMfF]",
    rb"(?<![mMfF])(?:" + rb"|".join((*_COMMON, _TAIL, _HARD, _JUNK)) + rb")",
    _LIMIT_INSIDE,
)
"""`QUICK` for a text with LIMIT, OFFSET or FETCH in it."""
_FULL: Final = _pattern(
    rb"[0-9A-Za-z_\x80-\xff'\"$;/\-]",
    *_COMMON, _LIMIT, _WORD, _DOLLAR, _PARAMETER + rb"(?P<parameter>)",
    rb"(?<=/)\*(?P<nested>)", rb"(?<=;)[\s;]*+(?P<semicolon>)", rb"(?<=\$)(?P<stray>)", _JUNK,
)  # fmt: skip


def tokens(text: bytes) -> Iterator[tuple[str, int, int, re.Match[bytes]]]:
    """Yield (kind, start, end, match) for what is not white space or an operator.

    Kinds: short (an integer of at most nine digits), number, fraction (without its point), string (without its prefix),
    dollar, quoted, word, parameter, limit, semicolon, comment, hint (`/*helios:` and `/*+`), nested (a comment with
    others in it: `end` is the whole's, the match its beginning). Raises DoubtError at what is unterminated or junk.
    """
    at = 0
    while match := _FULL.search(text, at):
        kind, start, at = match.lastgroup or "junk", match.start(), match.end()
        if kind in ("junk", "stray"):
            raise DoubtError(start)
        if kind == "nested":
            at = block_end(text, start)
        yield kind, start, at, match


_EDGE = re.compile(rb"/\*|\*/")


def block_end(text: bytes, start: int) -> int:
    """The offset behind the block comment that starts at `start`; comments nest. DoubtError if it does not end."""
    depth = 0
    for edge in _EDGE.finditer(text, start):
        depth += 1 if edge.group() == b"/*" else -1
        if not depth:
            return edge.end()
    raise DoubtError(start)


_SKIPPED = (
    rb"'" + STRING_REST + rb"|\"[^\"]*+\"|--[^\n\r]*+|-|/(?!\*)|/\*(?!helios:)" + _BLOCK_REST
)  # fmt: skip
_SKIP = re.compile(rb"(?:[^'\"/\-]++|" + _SKIPPED + rb")*+")
# With a `$` about, words must be taken whole: a$b$ is a name.
_SKIP_DOLLAR = re.compile(
    rb"(?:[^'\"/\-$\w\x80-\xff]++|" + _START + _I + rb"*+|[0-9][\w\x80-\xff]*+|\$[0-9]++(?!" + _I + rb")|"
    + _SKIPPED + rb")*+"
)  # fmt: skip
_DOLLAR_START = re.compile(rb"(?<![\w$\x80-\xff])\$(?:" + _START + rb"[\w\x80-\xff]*+)?+\$")
_GLUED = re.compile(_I)


def marked_comments(text: bytes) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each outermost block comment that carries hints or holds other comments.

    The rest is skipped inside one pattern, so that a long text costs little. Raises DoubtError as `tokens` does.
    """
    skip = _SKIP_DOLLAR if b"$" in text else _SKIP
    at = _skip(skip, text, 0)
    while at < len(text):
        if text.startswith(b"/*", at):
            end = block_end(text, at)
            yield at, end
        else:
            end = _dollar_end(text, at)
        at = _skip(skip, text, end)


def _skip(skip: re.Pattern[bytes], text: bytes, at: int) -> int:
    """Where the next marked comment, dollar quote or unterminated literal starts, or the text ends."""
    match = skip.match(text, at)
    return match.end() if match else at


def _dollar_end(text: bytes, start: int) -> int:
    """The offset behind the dollar quote that starts at `start`. DoubtError if there is none or it does not end."""
    opening = _DOLLAR_START.match(text, start)
    closing = text.find(opening.group(), opening.end()) if opening else -1
    if opening is None or closing < 0:
        raise DoubtError(start)
    end = closing + len(opening.group())
    if _GLUED.match(text, end):
        raise DoubtError(end)
    return end
