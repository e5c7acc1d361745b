"""Runs cases, many at a time, and says what came of each."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import trio

from heliosproxy.wire.errors import PeerError
from heliosproxy.wire.messages_authentication import AuthenticationOk, AuthenticationSASLContinue
from heliosproxy.wire.messages_backend import ErrorResponse
from heliosproxy.wire.startup import CancelRequest
from tests.cluster.differential.talking import Place
from tests.cluster.differential.vocabulary import SYNC, close, describe, parse, query, startup
from tests.cluster.hostile.cases import CLIENT_HELLO, Case
from tests.cluster.hostile.talking import (
    BEFORE,
    DEADLINE,
    GSS_REQUEST,
    HANDSHAKE,
    PROBE,
    SSL_REQUEST,
    STATES,
    Talker,
    Wrong,
)

AT_ONCE = 40
"""Connections of a kind at a time."""
FLOOD = 1 << 16
"""Bytes of small messages that are sent at once."""
FLOODS = 2 * (
    SYNC, describe("nowhere") + SYNC, close("nowhere") + SYNC, parse("select 1") + SYNC, query("show helios.route"),
    query("set helios.route = 'primary'"), query(""), query("select 1"),
)  # fmt: skip
LATE = "canceling authentication due to timeout"
ENEMY = "127.0.0.66"
"""Where enemies come from; those who are many have an address each."""


@dataclass(slots=True)
class Report:
    """What came of it."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    longest: float = 0.0
    """Seconds of the longest case."""

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.outcomes.values()) + len(self.failures)


async def attack(place: Place, cases: Iterable[Case], report: Report) -> None:
    """Run them all."""
    await _each(cases, report, lambda one: play(place, one))


async def _each(
    things: Iterable[object], report: Report, play: Callable[[object], Awaitable[str]], limit: int = AT_ONCE
) -> None:
    limiter = trio.CapacityLimiter(limit)

    async def run(one: object) -> None:
        async with limiter:
            began = monotonic()
            try:
                with trio.fail_after(DEADLINE):
                    report.outcomes[await play(one)] += 1
            except (AssertionError, OSError, trio.TooSlowError) as error:
                report.failures.append(f"{one}: {error!r}")
            report.longest = max(report.longest, monotonic() - began)

    async with trio.open_nursery() as nursery:
        for one in things:
            nursery.start_soon(run, one)


async def play(place: Place, case: Case) -> str:
    """One case, to its end; in a word, what that was. Raises Wrong, or TooSlowError."""
    talker = await Talker.to(place, ENEMY)
    async with talker.stream:
        if case.tls:
            await talker.secure()
        await STATES[case.state](talker)
        before = len(talker.heard)
        data = case.change(await _honest(talker, case))
        begins_tls = talker.tls is None and (case.state, data[:1]) == ("connected", HANDSHAKE)
        talker.tls_is_due = talker.tls_is_due or begins_tls
        await talker.send(data, within_tls=case.tls != "broken")
        if case.ends == "probed":
            await talker.send(PROBE)
        elif case.ends == "with us":
            await _follow(talker, case)
            await talker.ends()
        answered = await talker.to_the_end(probed=case.ends == "probed")
        return _judged(case, talker, before, answered)


async def _honest(talker: Talker, case: Case) -> bytes:
    if case.state == "asked for SCRAM":
        return talker.first()
    return await talker.final() if case.state == "challenged by SCRAM" else b""


async def _follow(talker: Talker, case: Case) -> None:
    """Whoever is asked for a proof gives the right one: what went before must not be forgotten for that."""
    if (case.group, case.state) == ("SCRAM", "asked for SCRAM"):
        found = await talker.message()
        if isinstance(found, AuthenticationSASLContinue):
            try:
                await talker.send(await talker.final())
            except PeerError:
                return


def _judged(case: Case, talker: Talker, before: int, answered: bool) -> str:
    heard = talker.heard[before:]
    last = heard[-1] if heard else None
    if case.state in BEFORE and any(isinstance(each, AuthenticationOk) for each in heard):
        raise Wrong(f"let in: {heard}")
    if answered:
        return "answered"
    if isinstance(last, ErrorResponse):
        if case.state in BEFORE and last.fields.get("V") != "FATAL":
            raise Wrong(f"closed after what is no FATAL error: {last}")
        if case.ends == "at once" and LATE in last.message:
            raise Wrong("it was waited for although nothing could come")
        return f"refused {last.sqlstate}"
    return "closed"


# --- floods -----------------------------------------------------------------------------------------------------------


async def cancels(place: Place, keys: Sequence[tuple[int, bytes]], report: Report) -> None:
    """Cancel requests with these keys, none of which may do anything."""

    async def ask(key: object) -> str:
        talker = await Talker.to(place, ENEMY)
        async with talker.stream:
            assert isinstance(key, tuple)
            await talker.send(CancelRequest(*key).encode())
            if not await talker.is_silent():
                raise Wrong("a cancel request was answered")
            return "closed"

    await _each(keys, report, ask)


async def floods(place: Place, report: Report) -> None:
    """Clients that know the password, and send small things by the ten thousand at once; each is answered."""

    async def flood(thing: object) -> str:
        assert isinstance(thing, bytes)
        talker = await Talker.to(place, ENEMY)
        async with talker.stream, trio.open_nursery() as nursery:
            await talker.log_in()
            count = FLOOD // len(thing)
            nursery.start_soon(talker.send, thing * count)
            for _ in range(count):
                await talker.until("Z")
        return "flooded"

    await _each(FLOODS, report, flood)


async def connections(place: Place, count: int, report: Report) -> None:
    """Connections without a byte, that end in any way."""

    async def connect(number: object) -> str:
        talker = await Talker.to(place, ENEMY)
        async with talker.stream:
            if number % 3 == 0:  # type: ignore[operator]
                await talker.ends()
                if not await talker.is_silent():
                    raise Wrong("an answer to nothing")
            elif number % 3 == 1:  # type: ignore[operator]
                talker.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "left"

    await _each(range(count), report, connect)


async def slow(place: Place, count: int, report: Report, *, from_one_address: bool) -> None:
    """All at once: a byte at a time, then nothing. They must be shown out."""
    begun = trio.Event()
    left = count

    async def crawl(number: object) -> str:
        nonlocal left
        assert isinstance(number, int)
        talker = await Talker.to(place, ENEMY if from_one_address else f"127.1.{number // 200}.{number % 200 + 1}")
        async with talker.stream:
            left -= 1
            if not left:
                begun.set()
            await begun.wait()
            packet = place.fill(startup())
            if number % 4 == 1:
                await talker.send(packet)
                packet = talker.first()
            elif number % 4 == 2:
                await talker.send(GSS_REQUEST)
            elif number % 4 == 3:
                await talker.send(SSL_REQUEST)
                packet = CLIENT_HELLO
            for at in range(number % 20 if number % 4 else 0):
                await talker.send(packet[at : at + 1])
            await talker.to_the_end(probed=False)
            last = talker.heard[-1] if talker.heard else None
            return f"refused {last.sqlstate}" if isinstance(last, ErrorResponse) else "closed"

    await _each(range(count), report, crawl, limit=count)

