"""PREPARE, EXECUTE and DEALLOCATE: kept per session while links change."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from heliosproxy.wire import builders
from tests.switch.stage import (
    FAILED,
    IDLE,
    IN_TRANSACTION,
    ONE_ROW,
    Speaker,
    Stage,
    run,
    server_error,
    split,
    sqlstate,
    tags,
)

Make = Callable[..., Stage]
PREPARED = builders.command_complete("PREPARE") + IDLE


@pytest.fixture
def play(stage: Make) -> Stage:
    return stage(size=1)


def prepares(play: Stage, alice: Speaker, text: str) -> None:
    alice.asks(text)
    play.server().takes()
    play.server().answers(PREPARED)
    assert alice.hears() == PREPARED


def queries(play: Stage) -> list[bytes]:
    """The texts of the simple queries that the server was sent."""
    return [message[5:-1] for message in split(play.server().takes()) if message[:1] == b"Q"]


def test_a_prepare_pins_nobody(play: Stage) -> None:
    alice = play.client()
    prepares(play, alice, "prepare p as select 1")
    assert not alice.session.pins
    alice.asks("execute p")
    assert queries(play) == [b"execute p"]


def test_another_clients_statement_of_that_name_is_replaced_and_brought_back(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    prepares(play, alice, "prepare p as select 1")
    bob.asks("prepare p as select 2")
    assert tags(play.server().received) == "CSQ"
    assert queries(play) == [b"prepare p as select 2"]
    play.server().answers(builders.CLOSE_COMPLETE + IDLE + PREPARED)
    assert bob.hears() == PREPARED
    alice.asks("execute p")
    assert queries(play) == [b"prepare p as select 1", b"execute p"]
    play.server().answers(builders.CLOSE_COMPLETE + IDLE + PREPARED + ONE_ROW + IDLE)
    assert alice.hears() == ONE_ROW + IDLE


def test_clients_that_mean_the_same_share_it(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    prepares(play, alice, "prepare p as select 1")
    bob.asks("prepare p as select 1")
    play.server().answers(builders.CLOSE_COMPLETE + IDLE + PREPARED)
    play.server().takes()
    alice.asks("execute p")
    assert queries(play) == [b"execute p"]


def test_L7_under_other_settings_it_is_not_shared(play: Stage) -> None:
    alice, bob = play.client(), play.client(DateStyle="German")
    prepares(play, alice, "prepare p as select '1.2.2024'::date")
    bob.asks("prepare p as select '1.2.2024'::date")
    play.server().takes()
    play.server().answers(ONE_ROW + builders.parameter_status("DateStyle", "German") + IDLE)
    assert tags(play.server().takes()) == "CSQ"


def test_L7_a_text_with_today_in_it_is_shared_with_nobody(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    prepares(play, alice, "prepare p as select 'today'::date")
    bob.asks("prepare p as select 'today'::date")
    assert tags(play.server().takes()) == "CSQ"


def test_what_another_client_prepared_is_not_there(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    prepares(play, alice, "prepare p as select 1")
    bob.asks("execute p")
    assert tags(play.server().takes()) == "CSQ"
    play.server().answers(builders.CLOSE_COMPLETE + IDLE + server_error("26000") + IDLE)
    assert sqlstate(bob.hears()) == "26000"


def test_preparing_a_name_twice_is_the_servers_error(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    prepares(play, alice, "prepare p as select 1")
    bob.asks("prepare p as select 3")
    play.server().answers(builders.CLOSE_COMPLETE + IDLE + PREPARED)
    play.server().takes()
    alice.asks("prepare p as select 2")
    assert queries(play) == [b"prepare p as select 1", b"prepare p as select 2"]
    play.server().answers(builders.CLOSE_COMPLETE + IDLE + PREPARED + server_error("42P05") + IDLE)
    assert sqlstate(alice.hears()) == "42P05"
    alice.asks("execute p")
    assert queries(play) == [b"execute p"]


def test_what_cannot_be_prepared_again_explains_the_failure(play: Stage) -> None:
    alice = play.client()
    prepares(play, alice, "prepare p as select * from t")
    play.server().link.forget_statements()
    alice.asks("execute p")
    play.server().answers(server_error("42P01") + IDLE + server_error("26000") + IDLE)
    assert sqlstate(alice.hears()) == "42P01"


@pytest.mark.parametrize("text", ["deallocate p", "deallocate all", "DEALLOCATE PREPARE p"])
def test_deallocating_needs_no_server(play: Stage, text: str) -> None:
    alice = play.client()
    prepares(play, alice, "prepare p as select 1")
    alice.asks(text)
    assert play.server().takes() == b""
    assert tags(alice.hears()) == "CZ"
    alice.asks("execute p")
    assert tags(play.server().takes()) == "CSQ", "the link still had it"


def test_deallocating_what_there_is_not_is_an_error(play: Stage) -> None:
    alice = play.client()
    alice.asks("deallocate p")
    assert sqlstate(alice.hears()) == "26000"


def test_in_a_transaction_that_error_aborts_it(play: Stage) -> None:
    alice = play.client()
    alice.asks("begin")
    play.server().answers(builders.command_complete("BEGIN") + IN_TRANSACTION)
    play.server().takes()
    alice.hears()
    alice.asks("deallocate p")
    assert queries(play) == [b"!"]
    play.server().answers(server_error("42601") + FAILED)
    heard = alice.hears()
    assert sqlstate(heard) == "26000"
    assert heard.endswith(FAILED)


def test_S2_execute_runs_where_what_it_executes_may(stage: Make) -> None:
    play = stage(reads_on_standbys=True)
    alice = play.client()
    for name, text in (("r", "select 1"), ("w", "insert into t values (1)")):
        alice.asks(f"prepare {name} as {text}")
        play.servers[0].answers(PREPARED)
    alice.asks("execute r")
    assert alice.session.link is not None
    assert alice.session.link.node.name == "standby"
    play.servers[-1].answers(PREPARED + ONE_ROW + IDLE)
    alice.asks("execute w")
    assert alice.session.link.node.name == "primary"


def test_S2_an_argument_that_is_not_proven_keeps_it_on_the_primary(stage: Make) -> None:
    play = stage(reads_on_standbys=True)
    alice = play.client()
    alice.asks("prepare r as select $1")
    play.servers[0].answers(PREPARED)
    alice.asks("execute r(f())")
    assert alice.session.link is not None
    assert alice.session.link.node.name == "primary"


def test_names_of_the_proxys_own_are_reserved(play: Stage) -> None:
    alice = play.client()
    alice.asks("prepare helios_1 as select 1")
    assert sqlstate(alice.hears()) == "42939"
    assert not play.servers


# --- the extended protocol ---


def test_prepare_execute_and_deallocate_in_the_extended_protocol(play: Stage) -> None:
    alice = play.client()
    alice.says(builders.parse(b"", b"prepare p as select 1"), run(b""), builders.SYNC)
    assert tags(play.server().takes()) == "PBES"
    play.server().answers(builders.PARSE_COMPLETE + builders.BIND_COMPLETE + PREPARED)
    assert alice.hears() == builders.PARSE_COMPLETE + builders.BIND_COMPLETE + PREPARED
    play.server().link.forget_statements()
    alice.says(builders.parse(b"", b"execute p"), run(b""), builders.SYNC)
    sent = split(play.server().takes())
    assert [message[:1] for message in sent] == [b"P", b"B", b"E", b"C", b"C", b"P", b"B", b"E", b"S"]
    assert b"prepare p as select 1" in sent[0]
    ours = builders.PARSE_COMPLETE + builders.BIND_COMPLETE + builders.command_complete("PREPARE")
    ours += 2 * builders.CLOSE_COMPLETE
    theirs = builders.PARSE_COMPLETE + builders.BIND_COMPLETE + ONE_ROW + IDLE
    play.server().answers(ours + theirs)
    assert alice.hears() == theirs
    alice.says(builders.parse(b"", b"deallocate p"), run(b""), builders.SYNC)
    assert tags(alice.hears()) == "12CZ"
    assert not alice.session.prepared.get(b"p")


def test_a_statement_prepared_by_the_protocol_can_be_executed_by_sql(play: Stage) -> None:
    alice = play.client()
    alice.says(builders.parse(b"p", b"select 1"), builders.SYNC)
    play.server().answers(builders.PARSE_COMPLETE + IDLE)
    play.server().takes()
    alice.hears()
    alice.asks("execute p")
    sent = split(play.server().takes())
    assert [message[:1] for message in sent] == [b"P", b"S", b"Q"]
    assert sent[0].startswith(b"P\0\0\0\x11p\0select 1")
    play.server().answers(builders.PARSE_COMPLETE + IDLE + ONE_ROW + IDLE)
    assert alice.hears() == ONE_ROW + IDLE


def test_a_statement_prepared_by_sql_can_be_bound(play: Stage) -> None:
    alice = play.client()
    prepares(play, alice, "prepare p as select 1")
    alice.says(run(b"p"), builders.SYNC)
    sent = play.server().takes()
    assert tags(sent) == "BES"
    assert b"\0p\0" in sent


def test_a_prepare_that_fails_in_the_extended_protocol_is_not_there(play: Stage) -> None:
    alice = play.client()
    alice.says(builders.parse(b"", b"prepare p as select nonsense"), run(b""), builders.SYNC)
    play.server().answers(builders.PARSE_COMPLETE + builders.BIND_COMPLETE + server_error("42703") + IDLE)
    assert b"p" not in alice.session.prepared


def test_L1_several_statements_with_a_prepare_keep_their_link(play: Stage) -> None:
    alice = play.client()
    alice.asks("prepare p as select 1; execute p")
    play.server().answers(builders.command_complete("PREPARE") + ONE_ROW + IDLE)
    assert alice.session.pin == "PREPARE"
    alice.leaves()
    assert b"DISCARD ALL" in play.server().takes()
