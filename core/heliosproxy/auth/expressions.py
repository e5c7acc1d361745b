"""Regular expressions of rules and maps, in time that is linear in the name.

Whoever can reach the proxy chooses the name that an expression is held against, before it has proved anything. Python's
`re` tries one way after another, and there may be 2^63 of them; RE2 follows all at once, as PostgreSQL's engine does in
pg_hba.conf, from where people take expressions over. What RE2 does not know (back references, `(?=`, collating
elements) is a mistake when the file is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import re2

from heliosproxy.auth.scram import shown

_COLLATING = re.compile(r"\[[^\]]*\[[.=]")
_MOST_MEMORY = 1 << 20
"""Bytes that an expression may take, all states that it may be in included."""


class ExpressionError(ValueError):
    """Not a regular expression, or one that is not taken."""


@dataclass(frozen=True, slots=True)
class Found:
    """An expression fits."""

    group: str | None
    """What its first group matched; None if it has none, or that one was not part of the match."""


class Expression:
    """A regular expression, ready for use. Not anchored, as in PostgreSQL; `.` is any character."""

    def __init__(self, text: str) -> None:
        """Raises ExpressionError."""
        if _COLLATING.search(text):  # which RE2 reads as a set of these characters
            raise ExpressionError("collating elements are not understood: write the character itself")
        options = re2.Options()
        options.dot_nl = True
        options.log_errors = False
        options.max_mem = _MOST_MEMORY
        try:
            self._compiled = re2.compile(text, options)
        except UnicodeEncodeError:
            raise ExpressionError("it is not UTF-8") from None
        except re2.error as error:
            raise ExpressionError(bytes(error.args[0]).decode("utf-8", "replace")) from None

    def search(self, name: str) -> Found | None:
        """The first place where it fits; None: nowhere. What is not UTF-8 in a name is U+FFFD here."""
        match = self._compiled.search(shown(name))
        if match is None:
            return None
        return Found(match[1] if self._compiled.groups else None)
