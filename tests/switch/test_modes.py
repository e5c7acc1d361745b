"""Pool modes: what statement mode refuses, what session mode keeps, and sequences' values."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from heliosproxy.cluster.proof import Proof
from heliosproxy.switch import planner
from heliosproxy.wire import builders
from tests.switch.stage import FAILED, IDLE, IN_TRANSACTION, ONE_ROW, Stage, server_error, sqlstate

Make = Callable[..., Stage]


@pytest.fixture
def play(stage: Make) -> Stage:
    return stage(mode="statement", size=1)


def test_a_transaction_block_is_refused_before_a_server_sees_it(play: Stage) -> None:
    alice = play.client()
    alice.asks("begin")
    assert sqlstate(alice.hears()) == "0A000"
    assert not play.servers
    alice.asks("select 1")
    play.server().answers(ONE_ROW + IDLE)
    assert alice.hears() == ONE_ROW + IDLE, "the session goes on"


@pytest.mark.parametrize("text", ["begin; select 1", "select 1; commit and chain", "start transaction read only"])
def test_so_is_a_text_that_leaves_one_open(play: Stage, text: str) -> None:
    alice = play.client()
    alice.asks(text)
    assert sqlstate(alice.hears()) == "0A000"


@pytest.mark.parametrize("text", ["begin; select 1; commit", "select 1; select 2", "commit"])
def test_a_text_that_leaves_none_open_runs(play: Stage, text: str) -> None:
    alice = play.client()
    alice.asks(text)
    assert play.server().takes() == builders.query(text.encode())


def test_in_the_extended_protocol_too(play: Stage) -> None:
    alice = play.client()
    alice.says(builders.parse(b"", b"begin"), builders.SYNC)
    assert sqlstate(alice.hears()) == "0A000"


def test_a_block_that_nobody_could_foresee_ends_the_session_and_is_rolled_back(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    alice.asks("call p()")
    play.server().takes()
    play.server().answers(builders.command_complete("CALL") + IN_TRANSACTION)
    assert b"transaction blocks are not allowed" in alice.hears()
    assert alice.closed
    assert builders.query(b"ROLLBACK") in play.server().takes()
    assert not bob.closed


def test_a_reject_in_a_failed_transaction_stays_one(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("begin")
    play.server().answers(builders.command_complete("BEGIN") + IN_TRANSACTION)
    alice.asks("nonsense")
    play.server().answers(server_error("42601") + FAILED)
    alice.hears()
    alice.asks("set helios.route = 'any'")
    assert sqlstate(alice.hears()) == "25P02"
    alice.says(builders.parse(b"", b"set helios.route = 'any'"), builders.SYNC)
    play.server().answers(server_error("42601") + FAILED)
    assert sqlstate(alice.hears()) == "25P02"


def test_session_mode_keeps_the_link_and_gives_it_back_reset(stage: Make) -> None:
    play = stage(mode="session", size=1)
    alice = play.client()
    alice.asks("select 1")
    play.server().answers(ONE_ROW + IDLE)
    assert play.server().link.session is alice.session
    play.server().takes()
    alice.leaves()
    assert b"DISCARD ALL" in play.server().takes()


@pytest.mark.parametrize(("values", "pinned"), [("reset", ""), ("pin", "sequence values")])
def test_what_nextval_leaves_pins_where_that_is_asked_for(
    stage: Make, monkeypatch: pytest.MonkeyPatch, values: str, pinned: str
) -> None:
    play = stage(sequence_values=values)
    monkeypatch.setattr(planner, "prove", lambda facts, catalogue: Proof(False, "sequences", "it writes"))
    alice = play.client()
    alice.asks("insert into t values (1)")
    play.server().takes()
    play.server().answers(builders.command_complete("INSERT 0 1") + IDLE)
    assert alice.session.pin == pinned
    assert (b"DISCARD SEQUENCES" in play.server().takes()) is (not pinned)
    alice.asks("discard sequences")
    play.servers[-1].answers(builders.command_complete("DISCARD SEQUENCES") + IDLE)
    assert not alice.session.pins
