"""Words as people see them: what a misspelt one was probably meant to be, and long ones cut short."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

LONGEST_SHOWN: Final = 200
"""Characters of a message or a reason: a client may write a hint of many kilobytes."""


def one_edit(one: str, other: str) -> bool:
    """Whether one letter added, dropped, replaced, or swapped with its neighbour makes one word the other."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    left, right = one[start:], other[start:]
    if left[1:] == right[1:] or left[1:] == right or left == right[1:]:
        return True
    return left[:2] == right[1::-1] and left[2:] == right[2:]


def near(word: str, words: Iterable[str]) -> str | None:
    """The first of `words` that is one edit away, or None."""
    return next((candidate for candidate in words if one_edit(word, candidate)), None)


def short(text: str) -> str:
    """The text, cut to what is worth showing."""
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
