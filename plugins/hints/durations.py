"""Durations as hints spell them: `100ms`, `1.5s`, `10 min`."""

from __future__ import annotations

UNITS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000}
"""Unit to milliseconds. `m` is none: it could be minutes or a lost `ms`."""

LONGEST_MS = 2**32 - 1
"""What the contract's u32 holds: 49 days."""


def milliseconds(text: str, bare: str = "") -> int | None:
    """The duration in ms, rounded up; None where it is none. `bare`: the unit of a number without one."""
    number, unit = _split(text)
    factor = UNITS.get(unit or bare)
    whole, _, fraction = number.partition(".")
    if factor is None or not _digits(whole) or (number != whole and not _digits(fraction)):
        return None
    # Integers only: a float would let through what it reads as inf, and round what is exact.
    scale = 10 ** len(fraction)
    value = -(-int(whole + fraction) * factor // scale)
    return value if value <= LONGEST_MS else None


def _split(text: str) -> tuple[str, str]:
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return number.rstrip(), text[len(number) :]


def _digits(text: str) -> bool:
    # The length keeps int() cheap: a comment may hold 16,000 digits.
    return 0 < len(text) <= 12 and text.isascii() and text.isdigit()
