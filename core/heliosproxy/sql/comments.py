"""What comments say: routing hints and sqlcommenter's pairs (S6, S7).

Only real comments count, as `heliosproxy.sql.lexer` finds them: never text inside a literal, a quoted name, a dollar
quote or a `--` comment, and of nested comments the outermost alone. Past the point where a text is no longer certain
to be read as PostgreSQL reads it, nothing is a comment. Each function is linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final
from urllib.parse import unquote

from helios_sdk.contract import Hint, Pair

from heliosproxy.sql.lexer import HINT_START, DoubtError, marked_comments

MAX_HINT_COMMENTS: Final = 64
"""Further hint comments in one statement are neither read nor blanked: they are comments."""


MAX_HINT_BYTES: Final = 16_384
"""Nor those in which they would be longer than that, all together: what they say is remembered with the flow."""


def hints(text: bytes) -> tuple[Hint, ...]:
    """The hints in the `/*helios:key=value,…*/` comments of a statement, in order, duplicates included.

    Keys are lower-cased, blanks around keys and values stripped, empty items skipped; an item without `=` has the
    value "". `at` is the key's position in characters from 1, as PostgreSQL's error field P counts.
    """
    if HINT_START not in text:
        return ()
    found: list[Hint] = []
    counter = _Characters(text)
    for start, end in _hint_comments(text):
        found += _items(text[start + len(HINT_START) : end - 2], start + len(HINT_START), counter)
    return tuple(found)


class _Characters:
    """Turns growing byte offsets into character positions, each part of the text counted once."""

    __slots__ = ("_ascii", "_at", "_count", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._ascii = text.isascii()
        self._at = 0
        self._count = 0

    def position(self, offset: int) -> int:
        """The position, from 1, of the character at this byte offset, which must not be less than the last one."""
        if self._ascii:
            return offset + 1
        self._count += len(_decoded(self._text[self._at : offset]))
        self._at = offset
        return self._count + 1


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _items(body: bytes, at: int, counter: _Characters) -> Iterator[Hint]:
    for item in body.split(b","):
        if stripped := item.lstrip():
            position = counter.position(at + len(item) - len(stripped))
            key, _, value = stripped.partition(b"=")
            yield Hint(_decoded(key.rstrip()).lower(), _decoded(value.strip()), position)
        at += len(item) + 1


def _hint_comments(text: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of the real comments that start as a hint does, as far as they are read."""
    left = MAX_HINT_BYTES
    for start, end in islice(_all_hint_comments(text), MAX_HINT_COMMENTS):
        left -= end - start
        if left < 0:
            return
        yield start, end


def _all_hint_comments(text: bytes) -> Iterator[tuple[int, int]]:
    last = text.rfind(HINT_START)
    try:
        for start, end in marked_comments(text):
            if text.startswith(HINT_START, start):
                yield start, end
            if start >= last:
                return  # what follows cannot be a hint and need not be read
    except DoubtError:
        return


# A string literal comes next. Blanks in place of the comment could then join it to one before: 'a'<newline>'b' is 'ab'.
_LITERAL_NEXT = re.compile(rb"(?:\s|--[^\n\r]*+)*+'")


def blank_hints(text: bytes) -> bytes:
    """The statement with its hint comments blanked to as many characters (UTF-8), so that error positions hold.

    Where blanks alone would make two string literals one, the blanks stay inside `/*` and `*/`. ASCII hints keep the
    text's length in bytes too.
    """
    if HINT_START not in text:
        return text
    parts: list[bytes] = []
    at = 0
    quotes = False
    for start, end in _hint_comments(text):
        between = text[at:start]
        quotes = quotes or b"'" in between
        parts += between, _blanks(text, start, end, joins=quotes)
        at = end
    parts.append(text[at:])
    return b"".join(parts)


def _blanks(text: bytes, start: int, end: int, *, joins: bool) -> bytes:
    count = len(_decoded(text[start:end]))
    if joins and _LITERAL_NEXT.match(text, end):
        return b"/*" + b" " * (count - 4) + b"*/"
    return b" " * count


# key='value', percent-encoded; a quote inside the value is written \'.
_PAIR = re.compile(rb"\s*+([^=,'\s]++)\s*+=\s*+'((?:[^'\\]++|\\[\s\S])*+)'\s*+(?:,|\Z)")
_ESCAPED = re.compile(rb"\\([\s\S])")


def sqlcommenter(text: bytes) -> tuple[Pair, ...]:
    """The pairs of the `/*key='value',…*/` comment at the statement's end, decoded; () if there is none.

    White space, semicolons and hint comments may follow it. A comment of any other form gives ().
    """
    span = _last_comment(text)
    if span is None or not _is_comment(text, span[0]):
        return ()
    return _pairs(text[span[0] + 2 : span[1] - 2])


_AFTER = b"; \t\r\n\f\v"


def _last_comment(text: bytes) -> tuple[int, int] | None:
    """Where what looks like the last comment starts and ends, if only `_AFTER` and hints follow it."""
    text = text.rstrip(_AFTER)
    for _ in range(MAX_HINT_COMMENTS):
        start = text.rfind(b"/*")
        if start < 0 or not text.endswith(b"*/"):
            return None
        if not text.startswith(HINT_START, start):
            return start, len(text)
        text = text[:start].rstrip(_AFTER)
    return None


def _is_comment(text: bytes, start: int) -> bool:
    """Whether a token starts here: then a hint comment put in place of the text's rest would be found."""
    try:
        return any(found == start for found, _ in marked_comments(text[:start] + HINT_START + b"*/"))
    except DoubtError:
        return False


def _pairs(body: bytes) -> tuple[Pair, ...]:
    pairs = []
    at = 0
    while match := _PAIR.match(body, at):
        key, value = match.groups()
        pairs.append(Pair(_unquoted(key), _unquoted(_ESCAPED.sub(rb"\1", value))))
        at = match.end()
    return tuple(pairs) if at == len(body) else ()


def _unquoted(text: bytes) -> str:
    return unquote(_decoded(text), errors="replace")
