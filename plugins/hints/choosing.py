"""Which of a statement's hints count: a later one wins over an earlier one, a comment over the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from helios_sdk import Hint, Statement

STEERING: Final = frozenset(
    (
        "begin", "commit", "rollback", "savepoint", "prepare-transaction", "commit-prepared", "set", "reset", "show",
        "discard", "prepare", "deallocate", "fetch", "close", "listen", "unlisten", "empty",
    )
)  # fmt: skip
"""Kinds that steer the session or its transaction. A session's hints do not concern them: a bad one must not keep
anyone from rolling back or from setting it right."""

_BETWEEN_COMMENTS: Final = len("*/") + len("/*helios:")
"""Characters at least between the last hint of one comment and the first of the next."""


def steers(statement: Statement) -> bool:
    """Whether the statement only steers. BEGIN READ ONLY does not: it chooses the node of its transaction."""
    return statement.kind in STEERING and not (statement.kind == "begin" and statement.read_only)


def winners(hints: tuple[Hint, ...], steering: bool) -> dict[str, Hint]:
    """The hint that counts, by key, in the order in which the keys first appear."""
    chosen: dict[str, Hint] = {}
    for hint in hints:
        if hint.at or (not steering and hint.value and hint.key not in chosen):
            chosen[hint.key] = hint
    return chosen


def duplicates(hints: tuple[Hint, ...]) -> Iterator[Hint]:
    """Hints whose key stands in the same comment before.

    Hints come without the comments around them, but their positions tell: two neighbours with fewer characters
    between them than the end of one comment and the start of another are in one. (Ten blanks in a row look like
    two comments; then the later key just wins.)
    """
    seen: set[str] = set()
    end = -_BETWEEN_COMMENTS
    for hint in hints:
        if not hint.at:
            return
        if hint.at - end >= _BETWEEN_COMMENTS:
            seen.clear()
        if hint.key in seen:
            yield hint
        seen.add(hint.key)
        end = hint.at + len(hint.key) + len(hint.value) + (1 if hint.value else 0)
