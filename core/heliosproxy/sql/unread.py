"""What can be said of a text that has no tree: too long, too deep, or beyond the grammar.

A 2 MB INSERT is an ordinary thing and must neither pin its session nor flush the catalogue; a long text that may hold
several statements is treated as if it did everything. Takes time linear in the text's length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from heliosproxy.sql.session import names_session_state


@dataclass(frozen=True, slots=True)
class Guess:
    """The cautious facts of an unread text; fields as in `facts.Facts`."""

    pins: tuple[str, ...]
    transaction_control: bool
    ddl: bool


# Possessive, all of it: a line of dashes is a comment in exponentially many ways.
_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n\r]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+([A-Za-z]+)")
_ROWS = frozenset(("select", "insert", "update", "delete", "merge", "with", "values", "table", "copy"))
_KEEPS_STATE = frozenset(("set", "reset", "listen", "prepare", "declare", "create", "load", "discard", "import"))


_ONE = re.compile(r"""(?:[^;'"$/\-]++|'[^']*+'|"[^"]*+"|\$[0-9]|/(?!\*)|-(?!-))*+""")
_ENDING = "; \t\r\n\f\v"


def _is_one_statement(text: str) -> bool:
    # Plain literals may hold semicolons. Dollar quotes and comments end the match; where backslashes and E'' occur
    # together, where a literal ends is not worth finding out.
    if ";" not in text.rstrip(_ENDING):
        return True
    if "\\" in text and ("e'" in text or "E'" in text):
        return False
    found = _ONE.match(text)
    return found is not None and not text[found.end() :].strip(_ENDING)


def guess(text: str) -> Guess:
    """What an unread text may do."""
    if not _is_one_statement(text):
        return Guess(("several statements that could not be read",), True, True)
    start = _FIRST_WORD.match(text[:4096])
    word = start.group(1).lower() if start else ""
    if word in _ROWS:
        return Guess(names_session_state(text), False, False)
    return Guess(("a statement that could not be read",) if word in _KEEPS_STATE else (), True, True)
