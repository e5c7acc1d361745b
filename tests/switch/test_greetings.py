"""Greetings: found out once, by few logins at a time, and refusals remembered for a moment."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import partial

import pytest
import trio
import trio.testing

from heliosproxy.switch import greetings
from heliosproxy.switch.greetings import AT_ONCE, AT_ONCE_OF_ONE, Greetings
from heliosproxy.switch.opening import Opened
from heliosproxy.wire.errors import PeerError


class Node:
    """Lets in whoever asks, once `go` is set; or refuses."""

    def __init__(self, refusal: PeerError | None = None) -> None:
        self.refusal = refusal
        self.go = trio.Event()
        self.now = self.most = self.asked = 0
        self.greetings = Greetings(self.look)

    async def look(self, database: str, user: str, settings: Mapping[str, str]) -> Opened:
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await self.go.wait()
        self.now -= 1
        if self.refusal is not None:
            raise self.refusal
        return Opened(socket.socketpair()[0], {"server_version": "16.1", "application_name": ""}, (1, b"key!"))


async def test_few_logins_are_under_way_and_fewer_of_one_user() -> None:
    node = Node()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(node.greetings.of, "db", "alice", {"x.y": str(number)})
            await trio.testing.wait_all_tasks_blocked()
            assert node.now == AT_ONCE_OF_ONE
            for user in range(20):
                nursery.start_soon(node.greetings.of, "db", f"user{user}", {})
            await trio.testing.wait_all_tasks_blocked()
            assert node.now == AT_ONCE
            node.go.set()
    assert (node.asked, node.most) == (40, AT_ONCE)


async def test_a_refusal_is_remembered_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(PeerError('database "nonsense" does not exist', "3D000", hint="a hint"))
    node.go.set()
    ask = partial(node.greetings.of, "nonsense", "alice", {})
    for _ in range(3):
        with pytest.raises(PeerError, match="does not exist") as caught:
            await ask()
        assert (caught.value.sqlstate, caught.value.hint) == ("3D000", "a hint")
    assert node.asked == 1
    later = greetings.monotonic() + greetings.REFUSAL_AGE
    monkeypatch.setattr(greetings, "monotonic", lambda: later)
    with pytest.raises(PeerError):
        await ask()
    assert node.asked == 2


async def test_that_there_is_no_node_is_not_remembered() -> None:
    node = Node(PeerError("no node is up", "57P03"))
    node.go.set()
    for _ in range(2):
        with pytest.raises(PeerError):
            await node.greetings.of("db", "alice", {})
    assert node.asked == 2


async def test_a_login_that_is_given_up_leaves_its_turn_to_others() -> None:
    node = Node()
    with trio.fail_after(5):
        for _ in range(5):
            with trio.move_on_after(0):
                await node.greetings.of("db", "alice", {"x.y": "1"})
        node.go.set()
        await node.greetings.of("db", "alice", {})


async def test_clients_are_greeted_alike_but_for_the_name_of_the_application() -> None:
    node = Node()
    node.go.set()
    greeting = await node.greetings.of("db", "alice", {"application_name": "one"})
    assert await node.greetings.of("db", "alice", {"application_name": "two"}) is greeting
    assert greeting.to("one").settings.value("application_name") == "one"
    assert b"application_name\0two\0" in greeting.to("two").said
    assert greeting.to("two") is greeting.to("two")
