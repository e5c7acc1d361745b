"""Prepared statements, virtualised: what a client says, what a link is told, and what comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from heliosproxy.wire import builders
from tests.switch.stage import (
    FAILED,
    IDLE,
    IN_TRANSACTION,
    Speaker,
    Stage,
    bind,
    run,
    server_error,
    split,
    sqlstate,
    tags,
)

Make = Callable[..., Stage]
ROW = builders.data_row_text(["1"]) + builders.command_complete("SELECT 1")
DESCRIBED = builders.row_description_text(["n"])
PARSED, BOUND, CLOSED = builders.PARSE_COMPLETE, builders.BIND_COMPLETE, builders.CLOSE_COMPLETE


def prepare(who: Speaker, name: bytes, sql: bytes = b"select 1") -> None:
    """Parse and Sync, with the server's answers if it is asked."""
    who.says(builders.parse(name, sql), builders.SYNC)


def test_an_unnamed_statement_passes_as_it_is(stage: Make) -> None:
    play = stage()
    alice = play.client()
    unit = builders.parse(b"", b"select 1") + bind() + builders.execute() + builders.SYNC
    alice.says(unit)
    assert play.server().takes() == unit
    play.server().answers(PARSED + BOUND + ROW + IDLE)
    assert alice.hears() == PARSED + BOUND + ROW + IDLE


def test_a_named_statement_has_the_proxys_name_on_the_link(stage: Make) -> None:
    play = stage()
    alice = play.client()
    prepare(alice, b"mine")
    sent = split(play.server().takes())
    assert sent[0] == builders.parse(b"helios_1", b"select 1")
    play.server().answers(PARSED + IDLE)
    assert alice.hears() == PARSED + IDLE
    alice.says(bind(b"mine"), builders.execute(), builders.SYNC)
    assert split(play.server().takes())[0] == bind(b"helios_1")


def test_a_second_client_shares_what_the_link_knows(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    prepare(alice, b"a")
    play.server().answers(PARSED + IDLE)
    play.server().takes()
    bob.says(builders.parse(b"b", b"select 1"), bind(b"b"), builders.execute(), builders.SYNC)
    assert tags(play.server().takes()) == "BES"
    play.server().answers(BOUND + ROW + IDLE)
    assert bob.hears() == PARSED + BOUND + ROW + IDLE


def test_L7_not_under_other_settings(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client(DateStyle="German, DMY")
    prepare(alice, b"a")
    play.server().answers(PARSED + IDLE)
    play.server().takes()
    prepare(bob, b"b")
    assert tags(play.server().takes()) == "Q", "the settings first"
    play.server().answers(builders.command_complete("SELECT 1") + IDLE)
    assert tags(play.server().takes()) == "PS", "a preparation of its own"


def test_L7_text_that_means_the_moment_is_prepared_each_time(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    text = b"select 'now'::timestamptz"
    prepare(alice, b"a", text)
    play.server().answers(PARSED + IDLE)
    play.server().takes()
    prepare(bob, b"b", text)
    assert tags(play.server().takes()) == "PS"


def test_a_link_that_does_not_know_a_statement_learns_it_on_the_way(stage: Make) -> None:
    play = stage(size=2)
    alice, bob = play.client(), play.client()
    prepare(alice, b"a")
    play.server(0).answers(PARSED + IDLE)
    alice.hears()
    bob.asks("select 2")  # takes the link that knows it
    alice.says(bind(b"a"), builders.execute(), builders.SYNC)
    assert tags(play.server(1).takes()) == "PBES"
    play.server(1).answers(PARSED + BOUND + ROW + IDLE)
    assert alice.hears() == BOUND + ROW + IDLE, "the proxy's own Parse is not alice's to see"


def test_an_unnamed_statement_from_an_earlier_unit_is_brought_along(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    prepare(alice, b"")
    play.server().answers(PARSED + IDLE)
    prepare(bob, b"", b"select 2")
    play.server().answers(PARSED + IDLE)
    play.server().takes()
    alice.hears()
    alice.says(bind(), builders.execute(), builders.SYNC)
    sent = split(play.server().takes())
    assert sent[0] == builders.parse(b"", b"select 1")
    play.server().answers(PARSED + BOUND + ROW + IDLE)
    assert alice.hears() == BOUND + ROW + IDLE


def test_a_failed_parse_leaves_no_statement_behind(stage: Make) -> None:
    play = stage()
    alice = play.client()
    prepare(alice, b"a", b"select nonsense")
    play.server().answers(server_error("42703") + IDLE)
    assert sqlstate(alice.hears()) == "42703"
    assert b"a" not in alice.session.prepared
    assert not play.server().link.prepared
    alice.says(bind(b"a"), builders.execute(), builders.SYNC)
    heard = alice.hears()
    assert sqlstate(heard) == "26000"
    assert heard.endswith(IDLE)


def test_a_name_cannot_be_given_twice(stage: Make) -> None:
    play = stage()
    alice = play.client()
    prepare(alice, b"a")
    play.server().answers(PARSED + IDLE)
    alice.hears()
    prepare(alice, b"a", b"select 2")
    assert sqlstate(alice.hears()) == "42P05"
    alice.says(builders.close_statement(b"a"), builders.SYNC)
    assert alice.hears() == CLOSED + IDLE
    prepare(alice, b"a", b"select 2")
    assert alice.hears() == b""  # on its way


def test_an_error_of_the_proxys_in_a_transaction_aborts_it_on_the_server_too(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("begin")
    play.server().answers(builders.command_complete("BEGIN") + IN_TRANSACTION)
    alice.hears()
    play.server().takes()
    alice.says(bind(b"unknown"), builders.execute(), builders.SYNC)
    sent = split(play.server().takes())
    assert sent[0] == builders.parse(b"", b"!"), "a text that every server refuses"
    play.server().answers(server_error("42601") + FAILED)
    heard = alice.hears()
    assert sqlstate(heard) == "26000"
    assert tags(heard) == "EZ"


def test_what_comes_before_the_error_is_answered(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"", b"select 1"), bind(), builders.execute(), bind(b"unknown"), builders.SYNC)
    assert tags(play.server().takes()) == "PBEPS"
    play.server().answers(PARSED + BOUND + ROW + server_error("42601") + IDLE)
    heard = alice.hears()
    assert tags(heard) == "12DCEZ"
    assert sqlstate(heard) == "26000"


def test_closing_is_the_proxys_own_affair(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.close_statement(b"never was"), builders.SYNC)
    assert alice.hears() == CLOSED + IDLE
    assert play.servers == []


def test_a_link_forgets_what_was_used_longest_ago(stage: Make) -> None:
    play = stage(size=1, prepared_statements=2)
    alice = play.client()
    for number in range(3):
        prepare(alice, b"s%d" % number, b"select %d + a" % number)
        sent = play.server().takes()
        play.server().answers((CLOSED if number == 2 else b"") + PARSED + IDLE)
    assert split(sent)[0] == builders.close_statement(b"helios_1")
    assert tags(alice.hears()) == "1Z1Z1Z"
    assert list(play.server().link.prepared) == [b"helios_2", b"helios_3"]


def test_a_flush_is_answered_before_its_sync(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"a", b"select 1"), builders.describe_statement(b"a"), builders.FLUSH)
    assert tags(play.server().takes()) == "PDH"
    play.server().answers(PARSED + builders.parameter_description(()) + DESCRIBED)
    assert tags(alice.hears()) == "1tT"
    alice.says(bind(b"a"), builders.execute(), builders.SYNC)
    assert tags(play.server().takes()) == "BES"
    play.server().answers(BOUND + ROW + IDLE)
    assert alice.hears() == BOUND + ROW + IDLE


def test_a_flush_with_nothing_before_it_asks_for_nothing(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.FLUSH)
    alice.asks("select 1")
    assert play.server().takes() == builders.query(b"select 1")


def test_after_an_error_everything_up_to_the_sync_is_skipped(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"a", b"select nonsense"), builders.FLUSH)
    play.server().takes()
    play.server().answers(server_error("42703"))
    alice.says(bind(b"a"), builders.execute())
    alice.says(builders.SYNC)
    assert play.server().takes() == builders.SYNC
    play.server().answers(IDLE)
    assert tags(alice.hears()) == "EZ"


def test_a_sync_alone_is_answered_at_once(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.SYNC)
    assert alice.hears() == IDLE


def test_a_query_in_an_open_unit_ends_it(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"", b"select 1"), builders.query(b"select 2"))
    assert tags(play.server().takes()) == "PQ"
    play.server().answers(PARSED + DESCRIBED + ROW + IDLE)
    assert tags(alice.hears()) == "1TDCZ"


@pytest.mark.parametrize("message", [b"B\0\0\0\x05x", b"P\0\0\0\x05x", b"D\0\0\0\5S", b"C\0\0\0\6Sx"])
def test_a_malformed_message_is_an_error_and_the_session_lives(stage: Make, message: bytes) -> None:
    """As in PostgreSQL: its length was right, so what follows can be read."""
    play = stage()
    alice = play.client()
    alice.says(message, builders.SYNC)
    heard = alice.hears()
    assert sqlstate(heard) == "08P01"
    assert heard.endswith(IDLE)
    assert not alice.closed


def test_a_message_of_an_unknown_type_ends_the_connection(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(b"y\0\0\0\4")
    assert sqlstate(alice.hears()) == "08P01"
    assert alice.closed


def test_the_proxys_settings_are_set_and_shown_without_a_server(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("set helios.route = 'async'")
    assert alice.hears() == builders.command_complete("SET") + IDLE
    alice.asks("show helios.route")
    assert builders.data_row_text(["async"]) in alice.hears()
    alice.asks("reset helios.route")
    alice.hears()
    alice.asks("show helios.route")
    assert builders.data_row_text([""]) in alice.hears()
    assert play.servers == []


def test_the_proxys_settings_in_the_extended_protocol(stage: Make) -> None:
    play = stage()
    alice = play.client()
    text = b"set helios.route = 'async'"
    alice.says(builders.parse(b"", text), bind(), builders.describe_statement(b""), builders.execute(), builders.SYNC)
    assert tags(alice.hears()) == "12tnCZ"
    assert alice.session.hints == {"route": "async"}
    assert play.servers == []


def test_the_proxys_settings_among_a_servers_statements(stage: Make) -> None:
    play = stage()
    alice = play.client()
    ours = builders.parse(b"", b"show helios.route") + bind() + builders.execute()
    theirs = builders.parse(b"", b"select 1") + bind() + builders.execute()
    alice.says(theirs, ours, theirs, builders.SYNC)
    assert tags(play.server().takes()) == "PBEPBES"
    play.server().answers(PARSED + BOUND + ROW)
    assert tags(alice.hears()) == "12DC12DC"
    play.server().answers(PARSED + BOUND + ROW + IDLE)
    assert tags(alice.hears()) == "12DCZ"


@pytest.mark.parametrize("text", ["deallocate all; select 1", "discard all"])
def test_a_link_whose_statements_were_discarded_is_told_them_again(stage: Make, text: str) -> None:
    play = stage(size=1)
    alice = play.client()
    prepare(alice, b"a")
    play.server().answers(PARSED + IDLE)
    alice.asks(text)
    play.server().answers(builders.command_complete(text.upper()) + IDLE)
    assert not play.server().link.prepared
    assert not alice.session.prepared


@pytest.mark.parametrize("types", [b"\0\1", b"\0\0\0\0\0\1", b"\0\2\0\0\0\1"])
def test_parameter_types_that_contradict_their_count_are_refused(stage: Make, types: bytes) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.join_two(ord("P"), b"", b"select $1", types))
    alice.says(builders.SYNC)
    assert sqlstate(alice.hears()) == "08P01"


def test_a_type_of_the_users_own_is_proven_too(stage: Make) -> None:
    """A domain's CHECK may do anything, and the text does not show it (R1)."""
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"", b"select $1", [16385]), builders.SYNC)
    session = alice.session
    text = b"select $1"
    shaped = play.planner.shape(session, text)
    assert play.planner.flow(session, text, shaped).read_only
    assert not play.planner.flow(session, text, shaped, (16385,)).read_only


def test_the_servers_error_comes_before_ours_that_is_behind_it(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(b"D\0\0\0\6P\0", builders.describe_statement(b"nothing"), builders.SYNC)
    play.server().answers(server_error("34000") + IDLE)
    assert sqlstate(alice.hears()) == "34000"


def test_an_error_of_ours_waits_its_turn(stage: Make) -> None:
    play = stage()
    play.open_at_once = False
    alice = play.client()
    alice.says(builders.parse(b"", b"select 1"), run(b""), builders.describe_statement(b"nothing"), builders.SYNC)
    server = play.open(play.opening[0])
    assert tags(server.takes()) == "PBEPS", "what comes before it runs"
    server.answers(PARSED + BOUND + ROW + server_error("42601") + IDLE)
    heard = alice.hears()
    assert tags(heard) == "12DCEZ"
    assert sqlstate(heard) == "26000"


def test_a_parse_of_the_unnamed_statement_that_fails_leaves_none(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"", b"selectt"), run(b""), builders.SYNC)
    play.server().answers(server_error("42601") + IDLE)
    alice.hears()
    alice.says(run(b""), builders.SYNC)
    assert sqlstate(alice.hears()) == "26000"


def test_a_bind_that_fails_leaves_the_unnamed_statement(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"", b"select 1"), run(b""), builders.SYNC)
    play.server().answers(PARSED + server_error("22023") + IDLE)
    assert b"" in alice.session.prepared


def test_a_simple_query_drops_the_unnamed_statement(stage: Make) -> None:
    play = stage()
    alice = play.client()
    prepare(alice, b"")
    play.server().answers(PARSED + IDLE)
    alice.asks("select 1")
    assert b"" not in alice.session.prepared


# --- rows that change ---


def described(play: Stage, client: Speaker, columns: bytes) -> None:
    """The client prepares a statement, has it described, and loses its link's copy of it."""
    client.says(builders.parse(b"s", b"select * from t"), builders.describe_statement(b"s"), builders.SYNC)
    play.server().takes()
    play.server().answers(PARSED + builders.parameter_description(()) + columns + IDLE)
    client.hears()
    play.server().link.forget_statements()


NARROW, WIDE = builders.row_description_text(["a"]), builders.row_description_text(["a", "b"])


@pytest.mark.parametrize(("now", "answered"), [(NARROW, "2DCZ"), (WIDE, "EZ")], ids=["the same", "changed"])
def test_a_link_that_learns_a_statement_says_whether_its_rows_are_as_the_client_knows(
    stage: Make, now: bytes, answered: str
) -> None:
    play = stage(size=1)
    alice = play.client()
    described(play, alice, NARROW)
    alice.says(run(b"s"), builders.SYNC)
    assert tags(play.server().takes()) == "PDS"
    play.server().answers(PARSED + builders.parameter_description(()) + now + IDLE)
    if now is NARROW:
        assert tags(play.server().takes()) == "BES"
        play.server().answers(BOUND + ROW + IDLE)
    else:
        play.server().takes()
        play.server().answers(server_error("42601") + IDLE)
    heard = alice.hears()
    assert tags(heard) == answered
    assert (sqlstate(heard), b"RevalidateCachedQuery" in heard) == (("0A000", True) if now is WIDE else ("", False))


def test_a_statement_that_changed_is_refused_until_it_is_prepared_again(stage: Make) -> None:
    play = stage(size=1)
    alice = play.client()
    described(play, alice, NARROW)
    alice.says(run(b"s"), builders.SYNC)
    play.server().answers(PARSED + builders.parameter_description(()) + WIDE + IDLE + server_error("42601") + IDLE)
    alice.hears()
    play.server().takes()
    alice.says(builders.describe_statement(b"s"), builders.SYNC)
    play.server().answers(server_error("42601") + IDLE)
    assert sqlstate(alice.hears()) == "0A000"
    alice.says(builders.close_statement(b"s"), builders.parse(b"s", b"select * from t"), run(b"s"), builders.SYNC)
    play.server().answers(BOUND + ROW + IDLE)
    assert tags(alice.hears()) == "312DCZ"


def test_a_statement_that_cannot_be_learned_is_explained_by_that(stage: Make) -> None:
    play = stage(size=1)
    alice = play.client()
    described(play, alice, NARROW)
    alice.says(run(b"s"), builders.SYNC)
    play.server().answers(server_error("42P01") + IDLE)
    play.server().takes()
    play.server().answers(server_error("42P01") + IDLE)
    assert sqlstate(alice.hears()) == "42P01"


def test_a_statement_that_the_link_knew_outlives_an_error_of_its_bind(stage: Make) -> None:
    play = stage()
    alice, bob = play.client(), play.client()
    prepare(bob, b"b", b"select 1 / $1")
    play.server().answers(PARSED + IDLE)
    alice.says(builders.parse(b"a", b"select 1 / $1"), run(b"a"), builders.SYNC)
    play.server().answers(server_error("22012") + IDLE)
    assert tags(alice.hears()) == "1EZ"
    alice.says(run(b"a"), builders.SYNC)
    play.server().answers(BOUND + ROW + IDLE)
    assert tags(alice.hears()) == "2DCZ"


def test_an_error_of_the_proxys_is_told_although_part_of_the_unit_was_sent(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"", b"select 1") + run() + builders.FLUSH)
    play.server().answers(PARSED + BOUND + ROW)
    assert alice.hears() == PARSED + BOUND + ROW
    play.server().takes()
    alice.says(bind(b"unknown") + builders.FLUSH)
    assert play.server().takes() == builders.parse(b"", b"!")  # so that the server's implicit transaction fails as well
    play.server().answers(server_error("42601"))
    assert sqlstate(alice.hears()) == "26000"
    alice.says(builders.SYNC)
    assert play.server().takes() == builders.SYNC
    play.server().answers(IDLE)
    assert alice.hears() == IDLE


def test_a_sync_with_a_body_is_an_error_and_a_sync(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(b"S\0\0\0\x05x")
    heard = alice.hears()
    assert (tags(heard), sqlstate(heard)) == ("EZ", "08P01")
    prepare(alice, b"")
    play.server().answers(PARSED + IDLE)
    assert alice.hears() == PARSED + IDLE
