"""Every path that tomllib finds has its place, however oddly the document is written."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosproxy.config.errors import KeyPath
from heliosproxy.config.positions import Positions

FILE = Path("a.toml")


def scan(text: str) -> Positions:
    return Positions.scan(FILE, text)


def paths_of(value: object, path: KeyPath = ()) -> dict[KeyPath, object]:
    """Every path below, with its value."""
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found: dict[KeyPath, object] = {path: value} if path else {}
    for key, item in items:
        found |= paths_of(item, (*path, key))
    return found


ODD = '''
title = "odd"   # a comment with [brackets] and "quotes" = 1
a.b . "c d" = [ 1, # one
  [2, "]"], { x = 1, "y.z" = [ ] } ,
]
date = 1979-05-27 07:32:00
float = -1.5e+3
text = """
[not.a.table]
key = "value"  \\""" more \\
""quoted"" end"""""
raw = \'\'\'C:\\path ''it'' # no comment\'\'\'
empty = ""
[ table . "quo\\"ted" ]
k = {}
[[nodes]]
name = 'a'
  [nodes.labels]
  region = "x"
  [[nodes.deep]]
  z = true
  [[nodes.deep]]
[[nodes]]
[nodes.labels]
[table]
last = 1'''


@pytest.mark.parametrize("text", [ODD, ODD.replace("\n", "\r\n"), "", "# nothing\n", "a=1", "[a]", "[[a]]\n[[a]]"])
def test_paths_are_those_of_tomllib(text: str) -> None:
    assert scan(text).paths() == frozenset(paths_of(tomllib.loads(text)))


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("title",), (2, 1), (2, 9)),
        (("a",), (3, 1), (3, 1)),
        (("a", "b", "c d"), (3, 7), (3, 15)),
        (("a", "b", "c d", 1, 1), (4, 7), (4, 7)),
        (("a", "b", "c d", 2, "y.z"), (4, 22), (4, 30)),
        (("table", 'quo"ted'), (14, 11), (14, 11)),
        (("nodes",), (16, 3), (16, 3)),
        (("nodes", 0, "name"), (17, 1), (17, 8)),
        (("nodes", 0, "labels", "region"), (19, 3), (19, 12)),
        (("nodes", 0, "deep", 1), (22, 11), (22, 11)),
        (("nodes", 1), (23, 3), (23, 3)),
        (("table",), (25, 2), (25, 2)),
        (("table", "last"), (26, 1), (26, 8)),
    ],
)
def test_lines_and_columns_are_exact(path: KeyPath, key: tuple[int, int], value: tuple[int, int]) -> None:
    assert (scan(ODD).key(path), scan(ODD).value(path)) == (key, value)


def test_what_is_not_there_stands_at_what_would_hold_it() -> None:
    positions = scan("[pool]\nsize = 1\n")
    assert positions.value(("pool", "mode")) == (1, 2)
    assert positions.value(("auth", "users")) == (1, 1)


def test_a_path_is_found_by_its_dotted_name() -> None:
    positions = scan('[[nodes]]\nlabels = { "a.b" = 1 }\n')
    assert positions.named('nodes[0].labels."a.b"') == ("nodes", 0, "labels", "a.b")
    assert positions.named("nodes[1]") is None


def test_an_error_carries_its_line_without_the_carriage_return() -> None:
    error = scan("[pool]\r\n\tsize = 0\r\n").error(("pool", "size"), "too small", "at least 1")
    assert str(error) == "a.toml:2:9: too small (at least 1)"
    assert error.render().splitlines()[1:] == ["    \tsize = 0", "    \t       ^"]


# --- documents written in every way that TOML allows -----------------------------------------------------------------

BLANK = st.sampled_from(["", " ", "\t", "  "])
NEWLINE = st.sampled_from(["\n", "\r\n", "\n\n", "  # a [comment] = \"x\" '''\n", " # ] } ,\r\n"])
KEYS = st.one_of(
    st.from_regex(r"[a-z0-9_-]{1,3}", fullmatch=True), st.text("ab.\"' [#=]{},é\\", min_size=1, max_size=4)
)
SCALARS = st.one_of(
    st.booleans(), st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False),
    st.text("ab\"'\\#[]{},=\n\t é$", max_size=8),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(KEYS, v, max_size=3)), max_leaves=8
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, object]]:
    """A document and what it says, of tables, arrays of tables, dotted keys and inline everything."""
    value = draw(st.dictionaries(KEYS, VALUES, max_size=4))
    return _Writer(draw).document(value), value


class _Writer:
    """Renders a value as TOML, choosing among the spellings."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def document(self, value: dict[str, object]) -> str:
        return self.draw(NEWLINE) + self.table((), value)

    def table(self, path: tuple[str, ...], value: dict[str, object]) -> str:
        """Pairs first, since what follows a header belongs to it."""
        below = {key: item for key, item in value.items() if self.has_header(item)}
        text = "".join(self.pair([key], item) for key, item in value.items() if key not in below)
        for key, item in below.items():
            here = (*path, key)
            if isinstance(item, dict):
                text += self.header("[", here, "]") + self.table(here, item)
            elif isinstance(item, list):
                text += "".join(self.header("[[", here, "]]") + self.table(here, each) for each in item)
        return text

    def has_header(self, item: object) -> bool:
        tables = isinstance(item, dict) or (isinstance(item, list) and item and all(isinstance(i, dict) for i in item))
        return bool(tables) and self.draw(st.booleans())

    def header(self, opening: str, path: tuple[str, ...], closing: str) -> str:
        dot = self.draw(BLANK) + "." + self.draw(BLANK)
        blank = self.draw(BLANK)
        return self.draw(BLANK) + opening + blank + dot.join(map(self.key, path)) + closing + self.draw(NEWLINE)

    def pair(self, path: list[str], item: object) -> str:
        if isinstance(item, dict) and item and self.draw(st.booleans()):
            return "".join(self.pair([*path, key], each) for key, each in item.items())
        return self.assignment(path, item) + self.draw(NEWLINE)

    def assignment(self, path: list[str], item: object) -> str:
        dot = self.draw(BLANK) + "." + self.draw(BLANK)
        return (
            self.draw(BLANK)
            + dot.join(map(self.key, path))
            + self.draw(BLANK)
            + "="
            + self.draw(BLANK)
            + self.value(item)
        )

    def key(self, key: str) -> str:
        spellings = [json.dumps(key, ensure_ascii=self.draw(st.booleans()))]
        if all(character.isascii() and (character.isalnum() or character in "_-") for character in key):
            spellings.append(key)
        if "'" not in key:
            spellings.append(f"'{key}'")
        return self.draw(st.sampled_from(spellings))

    def value(self, item: object) -> str:
        if isinstance(item, str):
            return self.draw(st.sampled_from(self.strings(item)))
        if isinstance(item, list):
            gap = self.draw(st.one_of(BLANK, NEWLINE))
            return "[" + gap + "".join(f"{self.value(each)}{gap},{gap}" for each in item) + "]"
        if isinstance(item, dict):
            return "{" + ",".join(self.assignment([key], each) for key, each in item.items()) + " }"
        return json.dumps(item)

    def strings(self, text: str) -> list[str]:
        spellings = [json.dumps(text)]
        spellings.append('"""\n' + text.replace("\\", "\\\\").replace('"""', '""\\"').replace('"""', '""\\"') + '"""')
        if "'" not in text and "\n" not in text:
            spellings.append(f"'{text}'")
        if "'''" not in text and not text.endswith("'"):
            spellings.append(f"'''\n{text}'''")
        return spellings


@settings(deadline=None)
@given(documents())
def test_every_path_of_any_document_has_its_place(document: tuple[str, dict[str, object]]) -> None:
    text, value = document
    assert tomllib.loads(text) == value
    found = paths_of(value)
    positions = scan(text)
    assert positions.paths() == frozenset(found)
    for path, item in found.items():
        place = positions.place(path)
        assert place is not None
        if isinstance(path[-1], str):
            assert text[place.key :].startswith((path[-1], json.dumps(path[-1]), f"'{path[-1]}'", '"'))
        if not isinstance(item, (dict, list)):
            assert _value_at(text, place.value) == item


def _value_at(text: str, start: int) -> object:
    """What TOML reads at the offset: the shortest piece from there that is a value and ends as one must."""
    for end in range(start + 1, len(text) + 1):
        if end == len(text) or text[end] in " \t\r\n,]}#":
            try:
                return tomllib.loads(f"x = {text[start:end]}")["x"]
            except tomllib.TOMLDecodeError:
                continue
    raise AssertionError(f"no value at {start}")
