"""Good messages made bad: cut short, flipped, with lengths and counts that are not true."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from random import Random
from typing import Final

from tests.cluster.differential.vocabulary import (
    DONE,
    FLUSH,
    SYNC,
    TERMINATE,
    bind,
    call,
    close,
    data,
    describe,
    execute,
    fail,
    message,
    parse,
    query,
)

GOOD: Final = (
    query("select 1"), parse("select $1::int", "s", [23]), bind("1", name="s", formats=[0], results=[1]),
    bind("1", None, "x" * 50), describe("s"), describe("", "P"), execute(2), close("s"), close("", "P"),
    call(1598, formats=[0]), call(47, "a", None, "b"), data("1\tone\n"), fail("no"), DONE, FLUSH, SYNC, TERMINATE,
    message("p", b"SCRAM-SHA-256\0", struct.pack("!I", 3), b"n,,"),
)  # fmt: skip
"""One of each kind that a client may send, at least."""
LENGTHS: Final = (0, 1, 3, 5, 9_999, 10_001, 65_536, 0x3FFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
NUMBERS: Final = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
WIDE: Final = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def cut(good: bytes) -> Iterator[bytes]:
    """Its beginnings."""
    return (good[:at] for at in range(1, len(good)))


def wrong_length(good: bytes, at: int = 1) -> Iterator[bytes]:
    """Its length word, which is at `at`, says something else."""
    true = int.from_bytes(good[at : at + 4], "big")
    for length in (*LENGTHS, true - 1, true + 1, true + 1000):
        yield good[:at] + struct.pack("!I", length & 0xFFFFFFFF) + good[at + 4 :]


def wrong_inside(good: bytes, random: Random, count: int) -> Iterator[bytes]:
    """Its frame holds, and some number in it does not: any two or four bytes of the body are set to an extreme."""
    body = good[5:]
    for _ in range(count if len(body) > 1 else 0):
        width = random.choice((2, 4) if len(body) >= 4 else (2,))
        at = random.randrange(len(body) - width + 1)
        number = random.choice(NUMBERS if width == 2 else WIDE)
        yield framed(good[:1], body[:at] + number.to_bytes(width, "big") + body[at + width :])


def flipped(good: bytes, random: Random, count: int, start: int = 0) -> Iterator[bytes]:
    """Some bytes behind `start` are others."""
    for _ in range(count):
        changed = bytearray(good)
        for _ in range(random.choice((1, 1, 2, 5))):
            at = random.randrange(min(start, len(good) - 1), len(good))
            changed[at] = random.choice((random.randrange(256), changed[at] ^ 1 << random.randrange(8), 0, 0xFF))
        yield bytes(changed)


def resized(good: bytes, random: Random, count: int) -> Iterator[bytes]:
    """Its frame holds, and its body is longer or shorter than what is in it says."""
    body = good[5:]
    for _ in range(count):
        at = random.randrange(len(body) + 1)
        more = random.choice((b"\0", b"\0\0", b"\xff", random.randbytes(random.randrange(1, 40))))
        yield framed(good[:1], random.choice((body[:at], body[:at] + more + body[at:], body + more, body[at:])))


def framed(tag: bytes, body: bytes) -> bytes:
    """A message whose length is true."""
    return tag + struct.pack("!I", len(body) + 4) + body
