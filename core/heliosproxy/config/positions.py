"""Where each key and value of a TOML document stands.

Neither tomllib nor tomlkit tells. This scan reads text that tomllib has already accepted, so it only has to find its
way, not to judge: every path that tomllib's result has gets the offsets of its key and its value. A test holds it to
tomllib on documents of odd formatting.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heliosproxy.config.errors import ConfigError, KeyPath, dotted

_BLANK = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_SPACE = re.compile(r"[ \t]*+")
_KEY = re.compile(r'"(?:[^"\\\n]|\\.)*+"|\'[^\'\n]*+\'|[A-Za-z0-9_-]++')
_SCALAR = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*+'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|[^,\]}#\r\n]++",  # a bare value; a date may hold a blank
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Offsets in characters. An element of an array has its value for a key, a table its name for a value."""

    key: int
    value: int


class _Scanner:
    """One pass over a valid document. `places` grows; everything else is where the pass stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[KeyPath, Place] = {}
        self._last: dict[KeyPath, int] = {}  # of an array of tables: the index of its newest one

    def document(self) -> dict[KeyPath, Place]:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self.places

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _header(self) -> KeyPath:
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        parts = self._keys()
        self.at += 2 if array else 1
        path: KeyPath = ()
        for name, offset in parts[:-1]:
            path = (*path, name)
            self.places.setdefault(path, Place(offset, offset))
            if path in self._last:
                path = (*path, self._last[path])
        name, offset = parts[-1]
        path = (*path, name)
        if not array:
            self.places[path] = Place(offset, offset)
            return path
        self.places.setdefault(path, Place(offset, offset))
        index = self._last[path] = self._last.get(path, -1) + 1
        self.places[(*path, index)] = Place(offset, offset)
        return (*path, index)

    def _keys(self) -> list[tuple[str, int]]:
        """A dotted key's parts with their offsets; leaves off at what follows it."""
        parts: list[tuple[str, int]] = []
        while True:
            self._skip(_SPACE)
            start = self.at
            self._skip(_KEY)
            parts.append((_unquote(self.text[start : self.at]), start))
            self._skip(_SPACE)
            if self.text[self.at : self.at + 1] != ".":
                return parts
            self.at += 1

    def _pair(self, table: KeyPath) -> None:
        path = table
        parts = self._keys()
        for name, offset in parts:
            path = (*path, name)
            self.places.setdefault(path, Place(offset, offset))
        self.at += 1  # the equals sign
        self._skip(_SPACE)
        self.places[path] = Place(parts[-1][1], self.at)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self.text[self.at]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        index = 0
        while self._next_item("]"):
            self.places[(*path, index)] = Place(self.at, self.at)
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while self._next_item("}"):
            self._pair(path)

    def _next_item(self, closing: str) -> bool:
        """Steps over the bracket or comma here, to the next item or past the closing bracket."""
        self._skip(_BLANK)
        if self.text[self.at] != closing:
            self.at += 1
            self._skip(_BLANK)
        if self.text[self.at] == closing:
            self.at += 1
            return False
        return True


def _unquote(key: str) -> str:
    return next(iter(tomllib.loads(f"{key} = 0"))) if key[0] in "\"'" else key


class Positions:
    """Line and column of every key path of one file. A path that is not there stands at what would hold it."""

    def __init__(self, file: Path, text: str, places: Mapping[KeyPath, Place]) -> None:
        self.file = file
        self._text = text
        self._places = places
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    @classmethod
    def scan(cls, file: Path, text: str) -> Positions:
        """Of a document that tomllib accepts; `file` is for the errors made here."""
        return cls(file, text, _Scanner(text).document())

    def __contains__(self, path: KeyPath) -> bool:
        return path in self._places

    def paths(self) -> frozenset[KeyPath]:
        """Every path there is."""
        return frozenset(self._places)

    def named(self, text: str) -> KeyPath | None:
        """The path that `dotted` writes so; None if there is none. For messages that name a path."""
        return next((path for path in self._places if dotted(path) == text), None)

    def place(self, path: KeyPath) -> Place | None:
        """The offsets of a path; None if it is not there."""
        return self._places.get(path)

    def key(self, path: KeyPath) -> tuple[int, int]:
        """Line and column of the path's last key."""
        place = self._nearest(path)
        return self._line_column(place.key)

    def value(self, path: KeyPath) -> tuple[int, int]:
        """Line and column of the path's value."""
        place = self._nearest(path)
        return self._line_column(place.value if path in self._places else place.key)

    def error(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> ConfigError:
        """A mistake in the path's value, or in its key."""
        line, column = self.key(path) if at_key else self.value(path)
        return ConfigError(self.file, line, column, dotted(path), message, hint, self.line(line))

    def line(self, number: int) -> str:
        """A line's text without its end; empty past the last."""
        lines = self._text.split("\n")
        return lines[number - 1].rstrip("\r") if 0 < number <= len(lines) else ""

    def _nearest(self, path: KeyPath) -> Place:
        for length in range(len(path), 0, -1):
            place = self._places.get(path[:length])
            if place is not None:
                return place
        return Place(0, 0)

    def _line_column(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1
