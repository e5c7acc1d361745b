"""Somebody who has done no harm, in a process of its own: a client that works steadily, and one that logs in now and
then, with TLS each other time. Says on its standard output, as JSON, what it has seen, once its standard input has
ended.

Its first line is its cancel key, for those who would like to have it.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import dataclass, field
from time import monotonic

from tests.cluster import raw
from tests.cluster.secure.tls import secured

PAUSE = 0.005
"""Seconds between statements, so that it is a client and no load."""


@dataclass(slots=True)
class Seen:
    """What befell a client."""

    count: int = 0
    longest: float = 0.0
    """Seconds that it has waited at most."""
    failures: list[str] = field(default_factory=list)

    def note(self, since: float) -> None:
        """Something is done that began then."""
        self.count += 1
        self.longest = max(self.longest, monotonic() - since)


def works(client: raw.Client, seen: Seen, over: threading.Event) -> None:
    """Ask, in either protocol, until it is over."""
    client.send(raw.parse("s", "select $1::int") + raw.SYNC)
    client.answer()
    while not over.wait(PAUSE):
        since, wanted = monotonic(), str(seen.count)
        if seen.count % 2:
            client.send(raw.bind("s", wanted) + raw.execute() + raw.SYNC)
            answer = client.answer()
        else:
            answer = client.query(f"select {wanted}")
        seen.note(since)
        if answer.rows != [(wanted,)] or answer.errors:
            seen.failures.append(f"{answer.errors} {answer.rows[:3]} for {wanted}")


def guarded(client: raw.Client, seen: Seen, over: threading.Event) -> None:
    """The same; to lose the connection is a failure like any other."""
    try:
        works(client, seen, over)
    except OSError as error:
        seen.failures.append(repr(error))


def logs_in(place: dict[str, str], seen: Seen, over: threading.Event) -> None:
    """Log in, ask, leave; and again."""
    while not over.wait(20 * PAUSE):
        since = monotonic()
        try:
            with connected(place, tls=seen.count % 2 == 1) as client:
                if client.value("select 'in'") != "in":
                    seen.failures.append("a wrong answer")
        except (raw.Refused, OSError) as error:
            seen.failures.append(repr(error))
        seen.note(since)


def connected(place: dict[str, str], *, tls: bool = False) -> raw.Client:
    """A client of the proxy."""
    address, parameters = (place["host"], int(place["port"])), {"user": place["user"], "database": place["database"]}
    return raw.Client(address, parameters, place["password"], over=secured(address) if tls else None)


def main() -> None:
    """Begin with a place on the first line of standard input; end when that ends."""
    place = json.loads(sys.stdin.readline())
    over, work, login = threading.Event(), Seen(), Seen()
    with connected(place) as client:
        print(json.dumps([client.key[0], client.key[1].hex()]), flush=True)
        newcomer = threading.Thread(target=logs_in, args=(place, login, over))
        worker = threading.Thread(target=guarded, args=(client, work, over))
        for thread in (newcomer, worker):
            thread.start()
        sys.stdin.read()
        over.set()
        for thread in (newcomer, worker):
            thread.join()
    for seen in (work, login):
        print(json.dumps([seen.count, seen.longest, seen.failures[:20]]), flush=True)


if __name__ == "__main__":
    main()
