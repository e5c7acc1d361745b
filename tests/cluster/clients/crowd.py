"""Crowds: several clients of the same kind that do the same work at once, over fewer links than there are clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from tests.cluster.proxies import DEADLINE

LINKS = 3
"""Links to the primary, and to each standby, that all clients of a database have to share."""
CLIENTS = 6
TRANSACTION_MODE = {
    "pool": {"mode": '"transaction"', "size": str(LINKS), "wait_timeout": '"20s"'},
    "routing": {"default_read_target": '"primary"'},
}
"""Of a proxy as an application would have it that reads its own writes, and with few links."""

OWN_LINK = "select pg_backend_pid()"

T = TypeVar("T")


@dataclass(slots=True)
class Member:
    """One of a crowd, counted from 0; `links` are the backends on which it has found itself."""

    number: int
    meet: Callable[[], object]
    links: set[int] = field(default_factory=set)

    def order(self, things: list[str]) -> list[str]:
        """The same things in an order of this member's: what drivers number in order of use differs between members."""
        turn = self.number % len(things)
        return things[turn:] + things[:turn]


@dataclass(slots=True)
class AsyncMember:
    """As `Member`, of asyncio's tasks."""

    number: int
    meet: Callable[[], Awaitable[object]]
    links: set[int] = field(default_factory=set)


def changed_hands(links: list[set[int]]) -> None:
    """Links were really shared, else a crowd shows no more than a single client does."""
    assert all(len(seen) > 1 for seen in links), f"members that were on one link only: {links}"
    assert len(set().union(*links)) <= LINKS


def crowd(play: Callable[[Member], None], clients: int = CLIENTS) -> None:
    """Play it in so many threads at once. The first failure ends the others where they next meet, and is raised."""
    barrier = threading.Barrier(clients)
    members = [Member(number, lambda: barrier.wait(DEADLINE)) for number in range(clients)]

    def play_one(member: Member) -> None:
        try:
            play(member)
        except threading.BrokenBarrierError:
            pass  # somebody else has failed, and says why
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(clients) as threads:
        results = [threads.submit(play_one, member) for member in members]
    for result in results:
        result.result()
    assert not barrier.broken, "the members did not meet in time"
    changed_hands([member.links for member in members])


def async_crowd(play: Callable[[AsyncMember], Awaitable[None]], clients: int = CLIENTS) -> None:
    """As `crowd`, with tasks of asyncio; all of it is done within a test's deadline."""

    async def scene() -> list[set[int]]:
        barrier = asyncio.Barrier(clients)
        members = [AsyncMember(number, barrier.wait) for number in range(clients)]
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
            for member in members:
                tasks.create_task(_awaited(play(member)))
        return [member.links for member in members]

    changed_hands(play_asyncio(scene()))


async def _awaited(action: Awaitable[None]) -> None:
    await action


def play_asyncio(scene: Coroutine[object, object, T]) -> T:
    """As `asyncio.run`, on asyncio's own loop: trio-asyncio puts another in its place, as applications do not have."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(scene)
