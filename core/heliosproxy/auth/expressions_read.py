"""Reads a regular expression: what PostgreSQL and everybody else agree on. The rest is refused with a word on what to
write, never taken for something that it may not mean.

Source: PostgreSQL, "POSIX Regular Expressions": advanced ones in the C collation, as pg_hba.conf has them, where `\\d`
and `[[:alpha:]]` are of ASCII and `.` is any character at all. What is not taken: what looks ahead or back
(`(?=`, `\\1`, `\\y`), options (`(?i)`), collating elements (`[.a.]`, `[=a=]`), and repeats of what may be empty.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

REPEATS_MOST = 255
"""As in PostgreSQL."""
DEPTH_MOST = 50
"""Parentheses within parentheses."""
_LAST = 0x10FFFF


class ExpressionError(ValueError):
    """What is wrong with an expression, and a hint, perhaps empty, on what to write."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of these ranges, bounds included."""

    ranges: tuple[tuple[str, str], ...]

    def holds(self, char: str) -> bool:
        """Whether it is one of them."""
        for low, high in self.ranges:  # noqa: SIM110  # what all matching turns on, and thrice as fast as `any`
            if low <= char <= high:
                return True
        return False


@dataclass(frozen=True, slots=True)
class Place:
    """The very beginning, or the very end."""

    end: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these; the first is preferred."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """So many times; None: any number."""

    body: Node
    least: int
    most: int | None
    greedy: bool


@dataclass(frozen=True, slots=True)
class Capture:
    """The first group."""

    body: Node


Node: TypeAlias = Chars | Place | Row | Choice | Repeat | Capture
_Ranges: TypeAlias = tuple[tuple[int, int], ...]


def _ranges(characters: Iterable[str]) -> _Ranges:
    return tuple((ord(char), ord(char)) for char in sorted(characters))


_ALNUM: _Ranges = ((48, 57), (65, 90), (97, 122))
_CLASSES: Mapping[str, _Ranges] = MappingProxyType(
    {
        "alnum": _ALNUM,
        "alpha": _ALNUM[1:],
        "blank": _ranges("\t "),
        "cntrl": ((0, 31), (127, 127)),
        "digit": _ALNUM[:1],
        "graph": ((33, 126),),
        "lower": ((97, 122),),
        "print": ((32, 126),),
        "punct": _ranges(string.punctuation),
        "space": ((9, 13), (32, 32)),
        "upper": ((65, 90),),
        "word": ((48, 57), (65, 90), (95, 95), (97, 122)),
        "xdigit": ((48, 57), (65, 70), (97, 102)),
    }
)
_ESCAPED_CLASSES: Mapping[str, str] = MappingProxyType({"d": "digit", "s": "space", "w": "word"})
_ESCAPED: Mapping[str, str] = MappingProxyType({"t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r"})
_REPEATS: Mapping[str, tuple[int, int | None]] = MappingProxyType({"*": (0, None), "+": (1, None), "?": (0, 1)})


def read(text: str) -> Node:
    """The expression as a tree. Raises ExpressionError."""
    reader = _Reader(text)
    node = reader.choice(0)
    if reader.rest:
        raise reader.error("a parenthesis is closed that was not opened", "write \\) for the character")
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._captured = False

    @property
    def rest(self) -> str:
        """What has not been read."""
        return self._text[self._at :]

    def error(self, message: str, hint: str = "") -> ExpressionError:
        return ExpressionError(f"{message} (at character {self._at + 1})", hint)

    def choice(self, depth: int) -> Node:
        branches = [self._row(depth)]
        while self._takes("|"):
            branches.append(self._row(depth))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _row(self, depth: int) -> Node:
        parts: list[Node] = []
        while self.rest and not self.rest.startswith(("|", ")")):
            atom = self._atom(depth)
            parts.append(self._repeated(atom))
        return parts[0] if len(parts) == 1 else Row(tuple(parts))

    def _takes(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _char(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        return char

    # --- one thing, and how often -----------------------------------------------------------------------------------

    def _atom(self, depth: int) -> Node:
        if self._text[self._at] in "*+?{":
            raise self.error("there is nothing that is to be repeated", "write a backslash before it for the character")
        char = self._char()
        special: Mapping[str, Callable[[], Node]] = {
            "(": lambda: self._group(depth),
            "[": self._bracket,
            "\\": self._escape,
            "^": lambda: Place(end=False),
            "$": lambda: Place(end=True),
            ".": lambda: Chars((("\0", chr(_LAST)),)),
        }
        return special[char]() if char in special else Chars(((char, char),))

    def _group(self, depth: int) -> Node:
        if depth >= DEPTH_MOST:
            raise self.error(f"more than {DEPTH_MOST} parentheses within each other")
        only_grouped = self._takes("?:")
        if self.rest.startswith("?"):
            hint = "write [Aa] for a letter in either case" if self.rest.startswith("?i") else ""
            raise self.error("after a parenthesis only ?: is understood", hint)
        captures = not only_grouped and not self._captured
        self._captured = self._captured or captures
        body = self.choice(depth + 1)
        if not self._takes(")"):
            raise self.error("a parenthesis is not closed", "write \\( for the character")
        return Capture(body) if captures else body

    def _repeated(self, atom: Node) -> Node:
        if not self.rest or self.rest[0] not in "*+?{":
            return atom
        here, sign = self._at, self._char()
        least, most = self._bounds() if sign == "{" else _REPEATS[sign]
        if isinstance(atom, Place) or (most != 1 and _may_be_empty(atom)):
            self._at = here
            raise self.error("what is repeated may be empty", "repeat only what is at least one character")
        node = Repeat(atom, least, most, greedy=not self._takes("?"))
        if self.rest and self.rest[0] in "*+?{":
            raise self.error("a repeat is repeated", "put the first one into parentheses")
        return node

    def _bounds(self) -> tuple[int, int | None]:
        inside, brace, _ = self.rest.partition("}")
        low, comma, high = inside.partition(",")
        if not brace or not all(part.isascii() and part.isdecimal() for part in (low, high or low)):
            raise self.error("a brace begins no {m}, {m,} or {m,n}", "write \\{ for the character")
        least = _number(low)
        most = _number(high) if high else None if comma else least
        if max(least, most or 0) > REPEATS_MOST or (most is not None and most < least):
            raise self.error(f"{{m,n}} goes from 0 to {REPEATS_MOST}, the greater one last")
        self._at += len(inside) + 1
        return least, most

    # --- characters -------------------------------------------------------------------------------------------------

    def _escape(self) -> Node:
        if self._takes("A"):
            return Place(end=False)
        return Place(end=True) if self._takes("Z") else _chars(self._escaped())

    def _escaped(self) -> _Ranges:
        """What follows a backslash."""
        char = self._char()
        if char.lower() in _ESCAPED_CLASSES:
            ranges = _CLASSES[_ESCAPED_CLASSES[char.lower()]]
            return ranges if char.islower() else _others(ranges)
        if not char or (char.isalnum() and char not in _ESCAPED):
            self._at -= 1
            raise self.error(f"\\{char} is not understood", "escapes are \\d, \\s, \\w, \\D, \\S, \\W, \\A, \\Z")
        return _ranges(_ESCAPED.get(char, char))

    def _bracket(self) -> Node:
        negated = self._takes("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not self._takes("]"):
            if not self.rest:
                raise self.error("a bracket is not closed", "write \\[ for the character")
            ranges += self._member(first)
            first = False
        return _chars(_others(tuple(ranges)) if negated else tuple(ranges))

    def _member(self, first: bool) -> _Ranges:
        """A character, a range or a class within brackets."""
        if self.rest.startswith("-") and not first and not self.rest.startswith("-]"):
            raise self.error("a dash within brackets that is neither first nor last", "write \\- for the character")
        low = self._one()
        if not self.rest.startswith("-") or self.rest.startswith("-]"):
            return low
        self._at += 1
        high = self._one() if self.rest else ()
        if not (len(low) == len(high) == 1 and low[0][0] == low[0][1] <= high[0][0] == high[0][1]):
            raise self.error("a range within brackets goes from a character to a later one")
        return ((low[0][0], high[0][0]),)

    def _one(self) -> _Ranges:
        if self._takes("\\"):
            return self._escaped()
        if self.rest.startswith(("[.", "[=")):
            raise self.error("collating elements are not understood", "write the character itself")
        if not self.rest.startswith("[:"):
            return _ranges(self._char())
        name = self.rest[2:].partition(":]")[0]
        if name not in _CLASSES:
            raise self.error("no class of characters that is known", f"they are {', '.join(_CLASSES)}")
        self._at += len(name) + 4
        return _CLASSES[name]


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 10 else REPEATS_MOST + 1


def _may_be_empty(node: Node) -> bool:
    if isinstance(node, Row):
        return all(map(_may_be_empty, node.parts))
    if isinstance(node, Choice):
        return any(map(_may_be_empty, node.branches))
    if isinstance(node, Capture):
        return _may_be_empty(node.body)
    return node.least == 0 if isinstance(node, Repeat) else isinstance(node, Place)


def _chars(ranges: _Ranges) -> Chars:
    return Chars(tuple((chr(low), chr(high)) for low, high in ranges))


def _others(ranges: _Ranges) -> _Ranges:
    """All characters but these."""
    others, after = [], 0
    for low, high in sorted(ranges):
        if low > after:
            others.append((after, low - 1))
        after = max(after, high + 1)
    return (*others, (after, _LAST)) if after <= _LAST else tuple(others)
