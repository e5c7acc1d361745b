"""What nodes have said of users: how long it holds, who asks for it, and what becomes of it when nobody answers."""

from __future__ import annotations

import contextlib
import logging

import pytest
import trio
import trio.testing

from heliosproxy.auth import answers as module
from heliosproxy.auth.answers import RETRY, Answers
from heliosproxy.auth.known import Crowd, Known
from heliosproxy.auth.md5 import md5_secret
from heliosproxy.auth.secrets import ScramSecret
from heliosproxy.wire.errors import PeerError


class Node:
    """What answers: secrets by name, questions as they came, and perhaps trouble; `gate` holds answers back."""

    def __init__(self, **secrets: str) -> None:
        self.secrets: dict[str, str] = secrets
        self.asked: list[str] = []
        self.trouble: Exception | None = None
        self.gate = trio.Event()
        self.gate.set()
        self.under_way = self.most = 0

    async def __call__(self, name: str) -> str | None:
        self.asked.append(name)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.trouble is not None:
            raise self.trouble
        return self.secrets.get(name)


BOB, BOBS_NEXT = md5_secret("bob", "first"), md5_secret("bob", "second")


def answers(node: Node, keep: float = 60.0, keep_negative: float = 5.0) -> Answers:
    return Answers(node, keep, keep_negative)


async def test_an_answer_holds_for_its_time(mock_clock: trio.testing.MockClock) -> None:
    node = Node(bob=BOB)
    found = answers(node)
    for _ in range(3):
        assert await found.get("bob") == Known("bob", md5=BOB)
        assert await found.get("nobody") is None
    assert node.asked == ["bob", "nobody"]
    mock_clock.jump(5)
    assert (await found.get("bob"), await found.get("nobody")) == (Known("bob", md5=BOB), None)
    assert node.asked == ["bob", "nobody", "nobody"]
    mock_clock.jump(55)
    assert await found.get("bob") is not None
    assert node.asked == ["bob", "nobody", "nobody", "bob"]


async def test_a_name_changes_sides(mock_clock: trio.testing.MockClock) -> None:
    node = Node(bob=BOB)
    found = answers(node)
    assert await found.get("bob") is not None
    del node.secrets["bob"]
    mock_clock.jump(60)
    assert await found.get("bob") is None
    assert found.peek("bob") is None
    node.secrets["bob"] = BOBS_NEXT
    mock_clock.jump(5)
    assert await found.get("bob") == Known("bob", md5=BOBS_NEXT)
    assert found.crowd.md5 == {True: 1}


async def test_a_failed_login_has_the_node_asked_anew_but_once_a_second(mock_clock: trio.testing.MockClock) -> None:
    node = Node(bob=BOB)
    found = answers(node)
    await found.get("bob")
    node.secrets["bob"] = BOBS_NEXT
    for _ in range(3):
        found.failed("bob")
        assert await found.get("bob") == Known("bob", md5=BOB)
    mock_clock.jump(RETRY)
    for _ in range(3):
        assert await found.get("bob") == Known("bob", md5=BOBS_NEXT)
        found.failed("bob")
    assert node.asked == ["bob", "bob"]


async def test_users_and_strangers_are_asked_for_alike_after_failed_logins(
    mock_clock: trio.testing.MockClock,
) -> None:
    """Or the time that it takes would tell which is which. Counted, not timed."""
    node = Node(bob=BOB)
    found = answers(node)
    for _ in range(20):
        for name in ("bob", "nobody"):
            await found.get(name)
            found.failed(name)
        assert node.asked.count("bob") == node.asked.count("nobody")
        mock_clock.jump(0.4)
    assert node.asked.count("bob") == 7


async def test_the_users_that_are_remembered_are_counted(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who come, change their secret, are dropped, are driven out by others, and come again."""
    monkeypatch.setattr(module, "USERS_MOST", 3)
    monkeypatch.setattr(module, "STRANGERS_MOST", 2)
    node, names = Node(), [f"u{number}" for number in range(6)]
    found = answers(node, keep=3.0, keep_negative=2.0)
    scram = [ScramSecret.from_password("x", iterations, b"salt").format() for iterations in (1, 2)]
    for turn in range(60):
        name = names[turn * 5 % 7 % 6]
        node.secrets[name] = [*scram, md5_secret(name, "x")][turn % 3]
        if turn % 4 == 3:
            del node.secrets[name]
        await found.get(name)
        mock_clock.jump(0.9)
        remembered = Crowd(known for each in names if (known := found.peek(each)) is not None)
        assert (found.crowd.iterations, found.crowd.md5) == (remembered.iterations, remembered.md5)
    assert found.crowd.md5.total() == 3


async def test_one_asks_and_the_others_wait_for_that() -> None:
    node = Node(bob=BOB)
    node.gate = trio.Event()
    found, got = answers(node), list[Known | None]()

    async def get() -> None:
        got.append(await found.get("bob"))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(get)
        await trio.testing.wait_all_tasks_blocked()
        node.gate.set()
    assert node.asked == ["bob"]
    assert got == [Known("bob", md5=BOB)] * 10


async def test_who_gives_up_does_not_let_the_others_down() -> None:
    node = Node(bob=BOB)
    node.gate = trio.Event()
    found, got = answers(node), list[Known | None]()
    first = trio.CancelScope()

    async def give_up() -> None:
        with first:
            await found.get("bob")

    async def get() -> None:
        got.append(await found.get("bob"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(get)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        node.gate.set()
    assert node.asked == ["bob", "bob"]
    assert got == [Known("bob", md5=BOB)] * 3


async def test_so_many_questions_at_once_and_no_more() -> None:
    node = Node()
    node.gate = trio.Event()
    found = answers(node)
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(found.get, f"nobody{number}")
        await trio.testing.wait_all_tasks_blocked()
        assert node.under_way == module.AT_ONCE
        node.gate.set()
    assert node.most == module.AT_ONCE
    assert len(node.asked) == 50


async def test_made_up_names_drive_out_no_user_and_fill_no_memory() -> None:
    node = Node(bob=BOB)
    found = answers(node)
    await found.get("bob")
    for number in range(module.STRANGERS_MOST + 100):
        await found.get(f"nobody{number}")
    asked = len(node.asked)
    await found.get("bob")
    await found.get(f"nobody{module.STRANGERS_MOST + 99}")
    assert len(node.asked) == asked, "still known"
    await found.get("nobody0")
    assert len(node.asked) == asked + 1, "the oldest was forgotten"


async def test_users_are_bounded_as_well_least_recently_used_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USERS_MOST", 2)
    node = Node(a=BOB, b=BOB, c=BOB)
    found = answers(node)
    for name in ("a", "b", "a", "c", "a", "b"):
        await found.get(name)
    assert node.asked == ["a", "b", "c", "b"]


async def test_where_nobody_answers_what_was_said_last_holds_for_an_hour(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(bob=BOB)
    found = answers(node)
    await found.get("bob")
    node.trouble = OSError("no route")
    mock_clock.jump(60)
    for _ in range(5):
        assert await found.get("bob") == Known("bob", md5=BOB)
    assert [record.levelno for record in caplog.records] == [logging.WARNING], "once"
    assert "no route" in caplog.text
    mock_clock.jump(3600)
    with pytest.raises(PeerError):
        await found.get("bob")
    node.trouble = None
    assert await found.get("bob") is not None
    node.trouble = OSError("no route")
    mock_clock.jump(60)
    await found.get("bob")
    assert len(caplog.records) == 3, "once more each time that it is asked so much later"


async def test_one_trouble_is_logged_once_a_minute_whatever_names_are_asked_for(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node()
    found = answers(node)
    for number in range(100):
        node.trouble = OSError(["no route", "no answer"][number % 2]) if number % 3 else None
        with contextlib.suppress(PeerError):
            await found.get(f"u{number}")
    assert len(caplog.records) == 2
    mock_clock.jump(module.COMPLAIN)
    for number in range(1000):
        node.trouble = OSError(f"of {number}")
        with pytest.raises(PeerError):
            await found.get(f"v{number}")
    assert len(caplog.records) == 2 + module.TROUBLES_MOST


async def test_who_was_never_heard_of_cannot_be_checked_where_nobody_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = Node()
    node.trouble = RuntimeError("of the node's own")
    found = answers(node)
    with pytest.raises(PeerError) as caught:
        await found.get("bo\udcffb")
    assert caught.value.sqlstate == "58000"
    assert caught.value.message == 'user "bo\ufffdb" cannot be checked now'
    assert "node's own" in caplog.text


async def test_that_there_was_nobody_of_that_name_is_not_held_on_to(mock_clock: trio.testing.MockClock) -> None:
    node = Node()
    found = answers(node)
    assert await found.get("bob") is None
    node.trouble = OSError("no route")
    mock_clock.jump(5)
    with pytest.raises(PeerError, match="cannot be checked"):
        await found.get("bob")


async def test_who_waits_for_a_question_that_fails_does_not_ask_in_turn() -> None:
    node = Node()
    node.gate, node.trouble = trio.Event(), OSError("no route")
    found, refused = answers(node), list[str]()

    async def get() -> None:
        with pytest.raises(PeerError) as caught:
            await found.get("bob")
        refused.append(caught.value.sqlstate)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(get)
        await trio.testing.wait_all_tasks_blocked()
        node.gate.set()
    assert refused == ["58000"] * 10
    assert node.asked == ["bob"]


async def test_a_secret_that_cannot_be_used_lets_nobody_in_and_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    damaged = "SCRAM-SHA-256$4096:c2FsdA==$c2VjcmV0:c2VjcmV0"
    assert await answers(Node(bob=damaged)).get("bob") == Known("bob")
    assert "lets nobody in" in caplog.text
    assert "c2VjcmV0" not in caplog.text
