"""A client that has long been there, and how long its statements take while others do something else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from benchmarks._client import Connection, query_message
from benchmarks._harness import BenchError, percentile
from heliosproxy.config.kinds import Json
from heliosproxy.wire.errors import PeerError

INTERVAL = 0.010
"""Seconds from one statement to the next."""
STATEMENT = query_message(b"select 1")


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds that statements took, from when each was due."""

    p50: float
    p99: float
    longest: float

    def json(self) -> Json:
        """For `--json`."""
        return {"p50": self.p50, "p99": self.p99, "max": self.longest}


@dataclass(slots=True)
class Steady:
    """What `steady` has measured so far. Read it after the block."""

    taken: list[float] = field(default_factory=list)
    error: str = ""

    def waits(self) -> Waits:
        """Of all statements. Raises BenchError if one failed, or none came to its end."""
        if self.error or not self.taken:
            raise BenchError(f"the established client: {self.error or 'no statement was answered'}")
        return Waits(percentile(self.taken, 0.5), percentile(self.taken, 0.99), max(self.taken))


@contextmanager
def steady(connection: Connection, interval: float = INTERVAL) -> Iterator[Steady]:
    """While the block runs, `select 1` each `interval` seconds on a thread of its own, one after the other.

    A statement's time counts from when it was due, so that one that waits for a second is not one slow statement but as
    many as would have been asked in that second. The connection must be used by nobody else meanwhile.
    """
    found, stop = Steady(), threading.Event()
    thread = threading.Thread(target=_ask, args=(connection, interval, found, stop))
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def _ask(connection: Connection, interval: float, found: Steady, stop: threading.Event) -> None:
    due = perf_counter()
    try:
        while not stop.wait(max(0.0, due - perf_counter())):
            connection.exchange(STATEMENT)
            found.taken.append(perf_counter() - due)
            due += interval
    except (OSError, PeerError) as error:
        found.error = str(error) or type(error).__name__
