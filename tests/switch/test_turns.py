"""What one session may do before it is others' turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from heliosproxy.switch.reactor import Reactor
from heliosproxy.switch.session import CUT_AT_ONCE
from heliosproxy.switch.switch import UNITS_AT_ONCE
from heliosproxy.wire import builders
from tests.switch.stage import IDLE, ONE_ROW, Speaker, Stage, sqlstate, tags

Make = Callable[..., Stage]
TERMINATE = b"X\0\0\0\4"
UNKNOWN = builders.describe_statement(b"x") + builders.SYNC


def let_go_on(play: Stage) -> int:
    """Round after round until nobody has more to do; how many there were."""
    rounds = 0
    while play.switch.go_on():
        rounds += 1
        assert rounds < 10_000
    return rounds


def answered(client: Speaker) -> int:
    """Units that were answered since the last call."""
    return tags(client.hears()).count("Z")


@pytest.mark.parametrize("unit", [builders.SYNC, UNKNOWN, builders.query(b"show helios.route")])
def test_whoever_asks_much_at_once_is_answered_in_turns(stage: Make, unit: bytes) -> None:
    play = stage()
    alice, bob = play.client(), play.client()
    alice.says(unit * 3000)
    assert answered(alice) == UNITS_AT_ONCE
    assert len(alice.session.units) <= CUT_AT_ONCE
    bob.says(unit)
    assert answered(bob) == 1
    play.switch.go_on()
    more = answered(alice)
    assert more > 0
    let_go_on(play)
    assert answered(alice) == 3000 - UNITS_AT_ONCE - more
    assert not alice.session.has_more
    assert not play.switch.go_on()


def test_a_pipeline_for_a_server_is_cut_as_it_is_answered(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(b"".join(builders.query(f"select {at}".encode()) for at in range(3000)))
    let_go_on(play)
    assert len(alice.session.units) < 3 * CUT_AT_ONCE
    sent = []
    for _ in range(3000):
        sent.append(play.server().takes())
        play.server().answers(ONE_ROW + IDLE)
        let_go_on(play)
    assert sent == [builders.query(f"select {at}".encode()) for at in range(3000)]
    assert answered(alice) == 3000


def test_one_long_unit_is_sent_as_it_is_cut(stage: Make) -> None:
    play = stage()
    alice = play.client()
    execution = builders.join_two(ord("B"), b"", b"", bytes(6)) + builders.execute()
    alice.says(builders.parse(b"", b"select 1") + execution * 1000 + builders.SYNC)
    let_go_on(play)
    assert tags(play.server().takes()) == "P" + 1000 * "BE" + "S"


def test_a_message_that_arrives_while_others_have_their_turn_comes_after_those_before_it(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.SYNC * 2000 + builders.query(b"show helios.route")[:7])
    alice.says(builders.query(b"show helios.route")[7:])
    let_go_on(play)
    assert tags(alice.hears()) == 2000 * "Z" + "TDCZ"


def test_all_that_was_said_before_terminate_is_done(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(b"".join(builders.query(f"set helios.k = '{at}'".encode()) for at in range(2000)) + TERMINATE)
    alice.leaves()
    assert play.switch.sessions
    let_go_on(play)
    assert alice.session.hints == {"k": "1999"}
    assert not play.switch.sessions


def test_whoever_leaves_without_a_word_is_forgotten_when_its_turns_are_over(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.SYNC * 2000)
    alice.leaves()
    let_go_on(play)
    assert not play.switch.sessions
    assert not play.switch.go_on()


def test_what_is_not_the_protocol_ends_it_after_what_came_before(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.SYNC * 2000 + b"?\0\0\0\4" + builders.SYNC * 2000)
    let_go_on(play)
    heard = alice.hears()
    assert tags(heard) == 2000 * "Z" + "E"
    assert sqlstate(heard) == "08P01"
    assert alice.closed


def test_a_bug_that_a_turn_meets_ends_that_session_only(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    play = stage()
    alice, bob = play.client(), play.client()
    for client in (alice, bob):
        client.says(UNKNOWN * 100)
    begin = play.switch._begin
    monkeypatch.setattr(
        play.switch, "_begin", lambda session, unit: 1 / 0 if session is alice.session else begin(session, unit)
    )
    let_go_on(play)
    assert alice.closed
    assert alice.hears().endswith(b"internal error\0\0")
    assert answered(bob) == 100


def test_those_who_have_more_to_do_take_turns(stage: Make) -> None:
    play = stage()
    clients = [play.client() for _ in range(50)]
    for client in clients:
        client.says(UNKNOWN * 200)
    counts = [answered(client) for client in clients]
    for _ in range(200):
        play.switch.go_on()
        counts = [count + answered(client) for count, client in zip(counts, clients, strict=True)]
        busy = [count for count in counts if count < 200]
        assert not busy or max(counts) - min(busy) <= 2 * UNITS_AT_ONCE
    let_go_on(play)
    assert all(count + answered(client) == 200 for count, client in zip(counts, clients, strict=True))


async def test_the_reactor_does_not_sleep_while_somebody_has_more_to_do() -> None:
    reactor, done, rounds = Reactor(), trio.Event(), 0

    def settle() -> None:
        nonlocal rounds
        rounds += 1
        reactor.has_more = rounds < 50
        if not reactor.has_more:
            done.set()

    reactor.has_more = True
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run, lambda now: None, 3600.0, settle)
            await done.wait()
            nursery.cancel_scope.cancel()
    reactor.close()
    assert rounds == 50
