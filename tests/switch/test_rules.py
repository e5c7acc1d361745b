"""Rules of docs/safety.md that no other test of this layer is about."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
import trio.testing

from heliosproxy.switch.conversation import Conversation
from heliosproxy.switch.stream import Stream
from heliosproxy.wire import builders
from heliosproxy.wire.startup import StartupMessage
from tests.switch.stage import FAILED, IDLE, IN_TRANSACTION, ONE_ROW, Speaker, Stage, server_error, sqlstate

Make = Callable[..., Stage]
TEXT = b"select * from t where n = 1"


def flow_of(play: Stage, speaker: Speaker, text: bytes = TEXT) -> object:
    session = speaker.session
    return play.planner.flow(session, text, play.planner.shape(session, text))


def test_S4_sessions_of_one_class_share_a_flow(stage: Make) -> None:
    play = stage()
    first = flow_of(play, play.client(application_name="a"))
    assert flow_of(play, play.client(application_name="b")) is first


@pytest.mark.parametrize(
    "settings", [{"search_path": "other"}, {"TimeZone": "Europe/Berlin"}, {"DateStyle": "SQL, DMY"}], ids=str
)
def test_S4_what_changes_a_meaning_parts_flows(stage: Make, settings: dict[str, str]) -> None:
    play = stage()
    first = flow_of(play, play.client(search_path="public"))
    assert flow_of(play, play.client(**{"search_path": "public", **settings})) is not first


@pytest.mark.parametrize("fact", ["user", "database"])
def test_S4_so_do_role_and_database(stage: Make, fact: str) -> None:
    play = stage()
    alice, other = play.client(), play.client()
    other.session.client = replace(other.session.client, **{fact: "other"})
    assert flow_of(play, other) is not flow_of(play, alice)


def test_S4_a_setting_that_cannot_be_followed_makes_flows_the_sessions_own(stage: Make) -> None:
    play = stage()
    alice, bob = play.client(), play.client()
    shared = flow_of(play, alice)
    alice.asks("set work_mem to '1MB'")
    play.server().answers(builders.command_complete("SET") + IDLE)
    assert flow_of(play, alice) is not shared
    assert flow_of(play, bob) is shared


def test_L6_a_clients_second_statement_waits_for_the_first_although_a_link_is_free(stage: Make) -> None:
    play = stage(size=2)
    alice = play.client()
    alice.says(builders.query(b"select 1"), builders.query(b"select 2"))
    assert play.server().takes() == builders.query(b"select 1")
    assert len(play.servers) == 1
    play.server().answers(ONE_ROW + IDLE)
    assert play.server().takes() == builders.query(b"select 2")
    play.server().answers(builders.command_complete("SELECT 0") + IDLE)
    assert alice.hears() == ONE_ROW + IDLE + builders.command_complete("SELECT 0") + IDLE


def test_L8_after_a_rollback_the_settings_are_those_from_before(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    before = alice.session.settings
    alice.asks("begin")
    play.server().answers(builders.command_complete("BEGIN") + IN_TRANSACTION)
    alice.asks("set timezone to 'Europe/Berlin'")
    berlin = builders.parameter_status("TimeZone", "Europe/Berlin")
    play.server().answers(builders.command_complete("SET") + berlin + IN_TRANSACTION)
    assert alice.session.settings.value("TimeZone") == "Europe/Berlin"
    alice.asks("rollback")
    play.server().answers(builders.command_complete("ROLLBACK") + builders.parameter_status("TimeZone", "UTC") + IDLE)
    assert alice.session.settings == before
    play.server().takes()
    bob.asks("select 1")
    assert play.server().takes() == builders.query(b"select 1")


@pytest.mark.parametrize("text", ["do $$ begin end $$", "call p()", "select 1; commit; select 2"])
def test_O2_what_may_have_committed_is_not_repeated(stage: Make, text: str) -> None:
    play = stage()
    alice = play.client()
    alice.asks(text)
    play.server().dies()
    assert sqlstate(alice.hears()) == "08007"
    assert len(play.servers) == 1


def test_O2_ddl_that_failed_ends_what_was_remembered_while_it_ran(stage: Make) -> None:
    play = stage()
    alice, bob = play.client(), play.client()
    alice.asks("create table t (n int)")
    remembered = flow_of(play, bob)
    play.server().answers(server_error() + IDLE)
    assert flow_of(play, bob) is not remembered


async def test_H1_what_came_with_the_login_is_kept_for_the_reactor() -> None:
    ours, theirs = map(Stream, socket.socketpair())
    talk = Conversation(ours)
    startup, query = StartupMessage({"user": "alice"}).encode(), builders.query(b"select 1")
    await theirs.send_all(startup + query)
    with trio.fail_after(5):
        assert await talk.packet(None, trio.Lock()) is not None
    assert talk.rest() == query


async def test_H1_bytes_behind_the_last_message_of_the_login_too() -> None:
    ours, theirs = map(Stream, socket.socketpair())
    talk = Conversation(ours)
    password, query = b"p\0\0\0\x09abcde", builders.query(b"select 1")
    await theirs.send_all(StartupMessage({"user": "alice"}).encode())
    with trio.fail_after(5):
        await talk.packet(None, trio.Lock())
        await theirs.send_all(password + query + query[:7])
        assert await talk.message() == (ord("p"), b"abcde")
    assert talk.rest() == query + query[:7]


def _begun(play: Stage, who: Speaker) -> None:
    who.asks("begin")
    play.server().answers(builders.command_complete("BEGIN") + IN_TRANSACTION)


def _ended(play: Stage, who: Speaker, command: str) -> None:
    who.asks(command)
    play.server().answers(builders.command_complete(command.upper()) + IDLE)


@pytest.mark.parametrize(("end", "left"), [("commit", {"route": "async"}), ("rollback", {"route": "any"})])
def test_L8_a_rollback_takes_back_the_proxys_own_settings_too(
    stage: Make, end: str, left: dict[str, str]
) -> None:
    play = stage()
    alice = play.client()
    alice.asks("set helios.route = 'any'")
    _begun(play, alice)
    alice.asks("set helios.route = 'async'")
    assert alice.session.hints == {"route": "async"}
    _ended(play, alice, end)
    assert alice.session.hints == left


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_L8_set_local_ends_with_the_transaction(stage: Make, end: str) -> None:
    play = stage()
    alice = play.client()
    _begun(play, alice)
    alice.asks("set local helios.route = 'async'")
    assert alice.session.hints == {"route": "async"}
    _ended(play, alice, end)
    assert alice.session.hints == {}


def test_L8_set_local_outside_a_transaction_has_no_effect(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("set local helios.route = 'async'")
    assert alice.session.hints == {}


@pytest.mark.parametrize("command", ["reset all", "discard all"])
def test_the_proxys_own_settings_are_reset_with_all_others(stage: Make, command: str) -> None:
    play = stage()
    alice = play.client()
    alice.asks("set helios.route = 'async'")
    _ended(play, alice, command)
    assert alice.session.hints == {}


def test_L8_a_rollback_to_a_savepoint_takes_back_what_came_after_it(stage: Make) -> None:
    play = stage()
    alice = play.client()
    _begun(play, alice)
    alice.asks("set helios.route = 'any'")
    for text in ("savepoint a", "set helios.route = 'async'", "savepoint b", "set local helios.lag = '1s'"):
        alice.asks(text)
        if text.startswith("savepoint"):
            play.server().answers(builders.command_complete("SAVEPOINT") + IN_TRANSACTION)
    alice.asks("rollback to b")
    play.server().answers(builders.command_complete("ROLLBACK") + IN_TRANSACTION)
    assert alice.session.hints == {"route": "async"}
    alice.asks("rollback to a")
    play.server().answers(builders.command_complete("ROLLBACK") + IN_TRANSACTION)
    assert alice.session.hints == {"route": "any"}
    alice.asks("rollback to b")
    play.server().answers(server_error("3B001") + FAILED)
    assert alice.session.hints == {"route": "any"}


def test_L8_a_savepoint_that_was_released_is_none(stage: Make) -> None:
    play = stage()
    alice = play.client()
    _begun(play, alice)
    for text in ("savepoint a", "release a"):
        alice.asks(text)
        play.server().answers(builders.command_complete(text.split()[0].upper()) + IN_TRANSACTION)
    assert alice.session.savepoints == []
