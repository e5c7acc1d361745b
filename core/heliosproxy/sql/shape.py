"""The shape of a statement: its text with literals and comments masked: equal work has one name (S1, S2, S6).

Equal shapes mean equal tokens to PostgreSQL's scanner, the literals' values and the comments aside. A mark for a
literal starts with a NUL byte, which no statement can contain, so that a masked text never equals a raw one; its length
follows from its second byte, so that what comes next cannot be taken for a part of it:

    NUL i, j, f   an integer that fits int4, int8, neither (numeric): which of them decides types, hence functions
    NUL s         a string; E, U&, N, B or X before the quote stays and tells the class
    NUL d         a dollar-quoted string: apart from `s`, because U&$$x$$ is a name, an operator and a string
    NUL l c n     a row count after LIMIT, OFFSET or FETCH FIRST: the class (i, j, f, s) and its digits' number
    NUL h …       a text too long to keep: its length and digest

Integers in ORDER BY 1 and GROUP BY 2 are masked like others: which output column sorts changes neither the tables and
functions of a statement nor where it may run, and a plugin that cares reads the text. White space stays as it is:
texts that programs send do not vary in it, and collapsing would cost each of them time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from heliosproxy.sql.lexer import BLANK, HINT_START, QUICK, QUICK_LIMIT, DoubtError, tokens

MAX_SHAPED: Final = 16384
"""Longer texts (in bytes) are known by their digest."""

# Matched against the lower-cased text. EXPLAIN (…) is left out: its options are literals that decide what it does.
_MASKABLE = re.compile(
    rb"(?:\(|" + BLANK + rb")*+(?:explain\s++(?:(?:analyze|verbose)\s++)*+)?"
    rb"(?:select|insert|update|delete|with|values|table|merge)(?![\w$\x80-\xff])"
)
# float(24) is float4 and float(25) is float8: there a literal picks the type.
_FLOAT = re.compile(rb"float\s*+(?:\(|/\*|--)")

_FIXED: Final[Mapping[str | None, bytes]] = {
    "short": b"\0i", "fraction": b"\0f", "string": b"\0s", "dollar": b"\0d", "comment": b" ",
}  # fmt: skip
_AFTER_END = frozenset({"comment", "hint", "nested", "semicolon"})

# An integer that fits only with the minus sign before it: the parser joins the two, so the sign decides the type.
_EDGES = frozenset({2**31, 2**63})


def shape(text: bytes) -> bytes:
    """The shape of a statement as the client sent it, without a terminating NUL.

    The text must be in an encoding for which `maskable_encoding` holds, with standard_conforming_strings on. Utility
    statements, several statements in one string and what is not certain to be read as PostgreSQL reads it are their own
    shape. Never raises.
    """
    if len(text) > MAX_SHAPED or b"\0" in text:
        return _digest(text)
    lowered = text.lower()
    if not _MASKABLE.match(lowered) or b"uescape" in lowered or (b"float" in lowered and _FLOAT.search(lowered)):
        return text  # UESCAPE 'x' decides what the name U&"…" is
    limited = b"limit" in lowered or b"offset" in lowered or b"fetch" in lowered
    try:
        return (QUICK_LIMIT if limited else QUICK).sub(_mark, text)
    except DoubtError:
        return _carefully(text)


def _mark(match: re.Match[bytes]) -> bytes:
    """What stands in the shape for a token."""
    kind = match.lastgroup
    return _FIXED.get(kind) or _mark_other(kind, match)


def _mark_other(kind: str | None, match: re.Match[bytes]) -> bytes:
    if kind == "number":
        return _number(match.group())
    if kind == "limit":
        return _limit(match)
    if kind in ("hard", "junk"):
        raise DoubtError(match.start())
    return match.group()


def _carefully(text: bytes) -> bytes:
    """The same token by token, for dollar quotes, nested comments and comments behind the last semicolon."""
    try:
        return b"".join(_marks(text))
    except DoubtError:
        return text


def _marks(text: bytes) -> list[bytes]:
    marks: list[bytes] = []
    at = 0
    ended = False
    for kind, start, end, match in tokens(text):
        between = text[at:start]
        if ended and (kind not in _AFTER_END or between.strip()):
            raise DoubtError(start)
        ended = ended or kind == "semicolon"
        marks += between, _nested(text, start, end) if kind == "nested" else _mark(match)
        at = end
    if ended and text[at:].strip():
        raise DoubtError(at)
    marks.append(text[at:])
    return marks


def _nested(text: bytes, start: int, end: int) -> bytes:
    return text[start:end] if text.startswith((HINT_START, b"/*+"), start) else b" "


_INTEGER = re.compile(rb"[0-9]++(?:_[0-9]++)*+|0[xX](?:_?[0-9a-fA-F])++|0[oO](?:_?[0-7])++|0[bB](?:_?[01])++")
_BASES: Final[Mapping[bytes, int]] = {b"0x": 16, b"0o": 8, b"0b": 2}
_PAST_INT8 = 10**20


def _integer(digits: bytes) -> int:
    """An integer literal's value; anything past int8 is just large, since decimal conversion is not linear."""
    if base := _BASES.get(digits[:2].lower()):
        return int(digits, base)
    digits = digits.replace(b"_", b"").lstrip(b"0")
    return int(digits or b"0") if len(digits) <= 20 else _PAST_INT8


def _number(text: bytes) -> bytes:
    if not _INTEGER.fullmatch(text):
        return b"\0f"
    value = _integer(text)
    return text if value in _EDGES else b"\0" + _integer_class(value)


def _integer_class(value: int) -> bytes:
    if value < 2**31:
        return b"i"
    return b"j" if value < 2**63 else b"f"


_AMOUNT = re.compile(rb"[0-9][\w.]*+")


def _limit(match: re.Match[bytes]) -> bytes:
    """A row count with what stands before it. The class and the number of digits stay."""
    amount = match.group("amount")
    head = QUICK.sub(_mark, match.group()[: -len(amount)])
    if amount.startswith(b"'"):
        return head + b"\0ls" + _magnitude(len(amount) - 2)
    return head + _AMOUNT.sub(_amount, amount)


def _amount(match: re.Match[bytes]) -> bytes:
    digits = match.group()
    if not _INTEGER.fullmatch(digits) or (value := _integer(digits)) in _EDGES:
        return digits
    return b"\0l" + _integer_class(value) + _magnitude(len(str(min(value, _PAST_INT8))))


def _magnitude(digits: int) -> bytes:
    return bytes((48 + min(digits, 64),))


def _digest(text: bytes) -> bytes:
    return b"\0h%d:" % len(text) + blake2b(text, digest_size=16).digest()


# The multi-byte ones (UTF-8, EUC, MULE) have no ASCII byte inside a character; the rest are single-byte.
_ENCODINGS = re.compile(
    r"utf8|unicode|sqlascii|muleinternal|euc(cn|jp|jis2004|kr|tw)|latin\d+|iso8859\d+|koi8[ru]?"
    r"|win|win(dows)?(866|874|125\d)|alt|abc|tcvn(5712)?|vscii"
)


def maskable_encoding(name: str) -> bool:
    """Whether texts in this client_encoding may be given to `shape` (S3). Spelt as PostgreSQL takes it; unknown: no."""
    return bool(_ENCODINGS.fullmatch("".join(filter(str.isalnum, name)).lower()))


_MARK = re.compile(rb"\0(?:l[\s\S]{2}|[a-z])")
_SHOWN = 500


def printable(shape: bytes) -> str:
    """A shape for people, on one line, at most 500 characters: literals are `?`, those of an unmasked text '…'.

    No string literal's content is ever in it: a text is shown only as far as its literals are certain.
    """
    if shape.startswith(b"\0h"):
        return f"<a statement of {shape[2:].split(b':')[0].decode()} bytes>"
    text = (_MARK.sub(b"?", shape) if b"\0" in shape else _redacted(shape)).decode("utf-8", "replace")
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


_REDACTED = "'…'".encode()
_ESCAPE_STRING = re.compile(rb"(?<![\w$\x80-\xff])[eE]'")


def _redacted(text: bytes) -> bytes:
    """An unmasked text without its strings and comments, cut where it is not certain what is a string.

    A backslash ends it outside E'…', since we may be looking at a text sent with standard_conforming_strings off.
    """
    shown: list[bytes] = []
    at = 0
    try:
        for kind, start, end, match in tokens(text):
            shown += text[at:start], _shown(kind, text, start, match)
            at = end
    except DoubtError as doubt:
        return b"".join(shown) + text[at : int(doubt.args[0])] + "…".encode()
    return b"".join(shown) + text[at:]


def _shown(kind: str, text: bytes, start: int, match: re.Match[bytes]) -> bytes:
    token = match.group()
    if kind == "string" and b"\\" in token and not _ESCAPE_STRING.match(text, start - 1):
        raise DoubtError(start)
    if kind == "limit" and token.endswith(b"'"):
        return QUICK.sub(_mark, token[: -len(match.group("amount"))]) + _REDACTED
    if kind in ("comment", "nested"):
        return b" "
    return _REDACTED if kind in ("string", "dollar") else token


def query_hash(shape: bytes) -> str:
    """16 hexadecimal digits that name a shape in statistics and logs; an unmasked text's strings do not enter it."""
    return blake2b(shape if b"\0" in shape else _redacted(shape), digest_size=8).hexdigest()
