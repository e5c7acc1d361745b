"""Settings that follow a client, and what keeps it on its link."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from heliosproxy.switch.settings import question
from heliosproxy.wire import builders
from tests.switch.stage import IDLE, IN_TRANSACTION, ONE_ROW, Server, Speaker, Stage, server_error, sqlstate

Make = Callable[..., Stage]
ASKED = {"role": "none", "search_path": '"$user", public', "work_mem": "4MB"}


@pytest.fixture
def play(stage: Make) -> Stage:
    return stage(size=1, asked=ASKED)


def done(tag: str, status: bytes = IDLE) -> bytes:
    return builders.command_complete(tag) + status


def tells(server: Server, **changed: str) -> None:
    """The server answers what its settings are."""
    values = {**ASKED, **changed}
    assert server.takes().startswith(builders.query(question(ASKED).encode()))
    row = builders.data_row_text([value.encode().hex() for value in values.values()])
    server.answers(builders.row_description_text(list(values)) + row + done("SELECT 1"))


def sets_search_path(play: Stage, alice: Speaker) -> None:
    alice.asks("set search_path to a")
    play.server().takes()
    play.server().answers(done("SET"))
    tells(play.server(), search_path="a")


def test_a_setting_that_the_server_does_not_report_follows_the_client(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    sets_search_path(play, alice)
    assert not alice.session.pin
    bob.asks("select 1")
    assert b"set_config('search_path', '\"$user\", public', false)" in play.server().takes()
    play.server().answers(ONE_ROW + IDLE)
    play.server().answers(ONE_ROW + IDLE)
    alice.asks("select 2")
    assert b"set_config('search_path', 'a', false)" in play.server().takes()


def test_the_clients_next_statement_waits_until_its_settings_are_known(play: Stage) -> None:
    alice = play.client()
    alice.asks("set search_path to a")
    play.server().takes()
    play.server().answers(done("SET"))
    alice.asks("select 1")
    tells(play.server(), search_path="a")
    assert play.server().takes() == builders.query(b"select 1")


def test_L8_a_rollback_takes_the_setting_back_as_the_server_does(play: Stage) -> None:
    alice = play.client()
    for text, status in (("begin", IN_TRANSACTION), ("set search_path to a", IN_TRANSACTION), ("rollback", IDLE)):
        alice.asks(text)
        play.server().takes()
        play.server().answers(done(text.split()[0].upper(), status))
    tells(play.server())
    assert alice.session.settings == alice.session.start


def test_S4_flows_are_the_clients_own_until_its_settings_are_known(play: Stage) -> None:
    alice = play.client()
    alice.asks("begin")
    play.server().answers(done("BEGIN", IN_TRANSACTION))
    alice.asks("set search_path to a")
    assert alice.session.salt
    play.server().answers(done("SET", IN_TRANSACTION))
    alice.asks("commit")
    play.server().takes()
    play.server().answers(done("COMMIT"))
    tells(play.server(), search_path="a")
    assert not alice.session.salt


def test_set_local_needs_no_question(play: Stage) -> None:
    alice = play.client()
    for text, status in (("begin", IN_TRANSACTION), ("set local search_path to a", IN_TRANSACTION), ("commit", IDLE)):
        alice.asks(text)
        assert play.server().takes() == builders.query(text.encode())
        play.server().answers(done(text.split()[0].upper(), status))
    assert play.server().takes() == b""
    assert not alice.session.salt


def test_set_config_of_a_followed_setting_does_not_pin(play: Stage) -> None:
    alice = play.client()
    alice.asks("select set_config('work_mem', '1MB', false)")
    play.server().takes()
    play.server().answers(ONE_ROW + IDLE)
    tells(play.server(), work_mem="1MB")
    assert not alice.session.pin
    assert alice.session.settings.value("work_mem") == "1MB"


@pytest.mark.parametrize("name", ["'other.thing'", "'work_' || 'mem'", "'work_mem', '1', true), set_config($1"])
def test_set_config_of_anything_else_does(play: Stage, name: str) -> None:
    alice = play.client()
    alice.asks(f"select set_config({name}, '1MB', false)")
    assert alice.session.pin == "set_config"


def test_a_client_that_leaves_while_its_settings_are_asked_for_takes_the_link_along(play: Stage) -> None:
    alice = play.client()
    alice.asks("set search_path to a")
    play.server().answers(done("SET"))
    alice.leaves()
    assert play.server().closed


def test_a_cancel_while_settings_are_asked_for_hits_the_statement_that_waits(play: Stage) -> None:
    alice = play.client()
    alice.asks("set search_path to a")
    play.server().answers(done("SET"))
    alice.asks("select 1")
    alice.hears()
    play.server().takes()
    assert play.switch.cancel(alice.session.key, lambda: None)
    assert sqlstate(alice.hears()) == "57014"
    assert not play.cancels


def test_settings_that_cannot_be_read_keep_the_client_on_its_link(play: Stage) -> None:
    alice = play.client()
    alice.asks("set search_path to a")
    play.server().answers(done("SET"))
    play.server().answers(server_error() + IDLE)
    assert alice.session.pin == "settings that could not be read"
    alice.asks("select 1")
    assert builders.query(b"select 1") in play.server().takes()


# --- RESET ---


def test_reset_all_brings_back_what_the_client_named_at_start_up(play: Stage) -> None:
    alice = play.client(TimeZone="Asia/Tokyo")
    alice.asks("reset all")
    play.server().answers(ONE_ROW + IDLE)  # to its TimeZone
    play.server().takes()
    play.server().answers(builders.command_complete("RESET") + builders.parameter_status("TimeZone", "UTC") + IDLE)
    assert alice.hears() == builders.command_complete("RESET")
    assert b"set_config('TimeZone', 'Asia/Tokyo', false)" in play.server().takes()
    play.server().answers(builders.parameter_status("TimeZone", "Asia/Tokyo") + ONE_ROW + IDLE)
    assert alice.hears() == IDLE, "its TimeZone is what it was"
    tells(play.server())


def test_a_link_that_dies_while_start_up_values_are_put_back_is_no_silence(play: Stage) -> None:
    alice = play.client(TimeZone="Asia/Tokyo")
    alice.asks("reset all")
    play.server().answers(ONE_ROW + IDLE)
    play.server().answers(done("RESET"))
    play.server().dies()
    assert sqlstate(alice.hears()[len(builders.command_complete("RESET")) :]) == "08007"


def test_reset_of_what_the_client_did_not_name_goes_straight_through(play: Stage) -> None:
    alice = play.client()
    alice.asks("reset timezone")
    play.server().answers(done("RESET"))
    assert alice.hears() == done("RESET")


def test_reset_role_goes_back_to_the_role_of_the_start_up(play: Stage) -> None:
    alice = play.client()
    alice.session.start = alice.session.settings = alice.session.settings.with_values({"role": "friend"})
    alice.asks("reset role")
    play.server().answers(ONE_ROW + IDLE)  # to its role
    play.server().takes()
    play.server().answers(done("RESET"))
    assert b"set_config('role', 'friend', false)" in play.server().takes()


def test_reset_all_leaves_the_role_alone(play: Stage) -> None:
    alice = play.client(TimeZone="Asia/Tokyo")
    alice.session.start = alice.session.settings = alice.session.settings.with_values({"role": "friend"})
    alice.asks("reset all")
    play.server().answers(ONE_ROW + IDLE)
    play.server().takes()
    play.server().answers(done("RESET"))
    sent = play.server().takes()
    assert b"Asia/Tokyo" in sent
    assert b"friend" not in sent


def test_a_role_that_was_given_up_does_not_come_back_with_a_statement_that_is_learned(play: Stage) -> None:
    """Its link still believes in the role: nobody has asked since."""
    alice = play.client()
    alice.says(builders.parse(b"s", b"select '1.2.2024'::date"), builders.describe_statement(b"s"), builders.SYNC)
    described = builders.PARSE_COMPLETE + builders.parameter_description(()) + builders.row_description_text(["date"])
    play.server().answers(described + IDLE)
    play.server().link.settings = play.server().link.settings.with_values({"role": "limited"})
    alice.session.settings = alice.session.settings.with_values({"role": "limited"})
    for text in ("listen a", "set role none", "set datestyle to german"):
        alice.asks(text)
        german = builders.parameter_status("DateStyle", "German, DMY") if "german" in text else b""
        play.server().answers(builders.command_complete("DONE") + german + IDLE)
    play.server().link.forget_statements()
    play.server().takes()
    alice.says(builders.join_two(ord("B"), b"", b"s", bytes(6)), builders.execute(), builders.SYNC)
    sent = play.server().takes()
    assert b"DateStyle" in sent
    assert b"role" not in sent.lower()


# --- pins ---


def pinned(play: Stage, *texts: str) -> Speaker:
    alice = play.client()
    for text in texts:
        alice.asks(text)
        play.server().takes()
        play.server().answers(done(text.split()[0].upper()))
    return alice


@pytest.mark.parametrize(
    ("pins", "releases"),
    [
        ("listen a", "unlisten *"),
        ("select pg_advisory_lock(1)", "select pg_advisory_unlock_all()"),
        ("declare c cursor with hold for select 1", "close all"),
        ("create temp table t ()", "discard temp"),
        ("set enable_sort = off", "reset enable_sort"),
        ("set enable_sort = off", "set enable_sort to default"),
        ("set enable_sort = off", "reset all"),
        ("set enable_sort = off", "discard all"),
    ],
)
def test_what_pinned_a_client_and_is_over_pins_it_no_more(play: Stage, pins: str, releases: str) -> None:
    alice = pinned(play, pins)
    assert alice.session.pins
    alice.asks(releases)
    play.server().answers(done("DONE"))
    assert not alice.session.pins


def test_one_reason_that_is_over_leaves_the_others(play: Stage) -> None:
    alice = pinned(play, "listen a", "set enable_sort = off", "reset all")
    assert alice.session.pin == "LISTEN"


def test_the_reset_query_of_asyncpgs_pool_pins_nobody(play: Stage) -> None:
    alice = pinned(play, "listen a", "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;")
    assert not alice.session.pins


def test_listening_again_in_the_same_text_pins(play: Stage) -> None:
    alice = pinned(play, "unlisten *; listen a")
    assert alice.session.pin == "LISTEN"


def test_L8_what_was_rolled_back_pins_nobody(play: Stage) -> None:
    alice = play.client()
    for text, status in (("begin", IN_TRANSACTION), ("listen a", IN_TRANSACTION), ("rollback", IDLE)):
        alice.asks(text)
        play.server().takes()
        play.server().answers(done(text.split()[0].upper(), status))
    assert not alice.session.pins


def test_an_advisory_lock_outlives_a_rollback(play: Stage) -> None:
    alice = play.client()
    for text, status in (("begin", IN_TRANSACTION), ("select pg_advisory_lock(1)", IN_TRANSACTION), ("rollback", IDLE)):
        alice.asks(text)
        play.server().takes()
        play.server().answers(done(text.split()[0].upper(), status))
    assert alice.session.pin == "advisory lock"


def test_a_statement_that_failed_pins_nobody(play: Stage) -> None:
    alice = play.client()
    alice.asks("create temp table t (a nonsense)")
    play.server().answers(server_error() + IDLE)
    assert not alice.session.pins
