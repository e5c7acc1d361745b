"""No text takes more than its length in time, however many ways there are to cut it (SAFETY S5)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from heliosproxy.sql import facts
from heliosproxy.sql.comments import blank_hints, hints, sqlcommenter
from heliosproxy.sql.depth import depth
from heliosproxy.sql.prepare import prepared
from heliosproxy.sql.shape import printable, shape
from heliosproxy.sql.unread import guess

DEADLINE = 60.0
"""Seconds for all texts, which take two. A pattern that takes for ever can only be ended with its process."""
COUNT = 3_000
PIECES = (
    *("-", "--", "--\n", "/", "/*", "*/", "/**/", "/* */", "'", "''", "E'", "E''", "E'\\'", '"', '""', "$", "$$"),
    *("(", ")", "[", " ", "\n", "\t", ",", ";", "=", "1", "1.", ".1", "1e", "_", "a", "a ", "é", "\udcff", "\\", "U&'"),
    *("b'", ") =", "limit ", "set_config(", "set_config ", "now ", "temp ", "/*helios:", "/*helios:a=b*/", "a='b',"),
    *("k='\\", "case ", "not ", "::", "$a$"),
)


def texts() -> Iterator[str]:
    """What patterns could cut in many ways; the first three once took for ever."""
    yield "-" * 78 + "\udcff" * 77 + "-" * 29
    yield "-" * 4_000 + "1" + "\n" * 16_384
    yield "select E'' " + "-" * 4_000 + "\n;" + "+" * 600
    for piece in PIECES:
        many = piece * COUNT
        yield from (many, f"select {many}", f"select E''{many}\udcff", f"{many}'")


def look() -> None:
    """Everything that reads a text which somebody has sent. Says which it is looking at."""
    for text in texts():
        print(ascii(text[:40]), len(text), flush=True)
        raw = text.encode("utf-8", "surrogateescape")
        for read in (facts.of, guess, depth, prepared):
            read(text)
        printable(shape(raw))
        for read_bytes in (hints, blank_hints, sqlcommenter):
            read_bytes(raw)


def test_S5_no_text_takes_for_ever() -> None:
    command = [sys.executable, "-c", "from tests.sql.test_time import look; look()"]
    try:
        subprocess.run(command, cwd=Path(__file__).parents[2], timeout=DEADLINE, check=True, capture_output=True)
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode().splitlines()
        raise AssertionError(f"takes for ever: {said[-1:]}") from None
