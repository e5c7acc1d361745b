"""The switch without sockets: transactions, pinning, pools, reset, cancel, loss."""

from __future__ import annotations

import struct
from collections.abc import Callable
from time import monotonic

import pytest

from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError, encode_fields, parse_fields
from tests.switch.stage import (
    FAILED,
    IDLE,
    IN_TRANSACTION,
    ONE_ROW,
    Stage,
    server_error,
    sqlstate,
    tags,
)

Make = Callable[..., Stage]
BEGUN = builders.command_complete("BEGIN") + IN_TRANSACTION
DONE = builders.command_complete("INSERT 0 1") + IDLE
DISCARD_ALL = builders.query(b"DISCARD ALL")
DISCARDED = ONE_ROW + IDLE + builders.command_complete("DISCARD ALL") + IDLE
"""The answer to the two statements of a reset: setseed, DISCARD ALL."""


def test_a_query_goes_through_and_its_link_is_free_again(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    assert play.server().takes() == builders.query(b"select 1")
    play.server().answers(ONE_ROW + IDLE)
    assert alice.hears() == ONE_ROW + IDLE
    assert play.server().link.session is None


def test_two_clients_take_turns_on_one_link_between_statements(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    alice.asks("select 1")
    bob.asks("select 2")
    play.server().takes()
    play.server().answers(ONE_ROW + IDLE)
    assert alice.hears() == ONE_ROW + IDLE
    assert play.server().takes() == builders.query(b"select 2")
    play.server().answers(ONE_ROW + IDLE)
    assert bob.hears() == ONE_ROW + IDLE
    assert len(play.servers) == 1


def test_a_transaction_keeps_its_link(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    alice.asks("begin")
    play.server().answers(BEGUN)
    bob.asks("select 2")
    play.server().takes()
    alice.asks("insert into t values (1)")
    assert play.server().takes() == builders.query(b"insert into t values (1)")
    assert bob.hears() == b""


def test_an_answer_that_arrives_byte_by_byte_is_the_same(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    for byte in ONE_ROW + IDLE:
        play.server().answers(bytes((byte,)))
    assert alice.hears() == ONE_ROW + IDLE


def test_a_large_row_is_passed_on_before_it_is_whole(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    row = builders.data_row_text(["x" * 100_000])
    play.server().answers(row[:1000])
    assert alice.hears() == row[:1000]
    play.server().answers(row[1000:] + builders.command_complete("SELECT 1") + IDLE)
    assert alice.hears() == row[1000:] + builders.command_complete("SELECT 1") + IDLE


def test_pipelined_queries_are_answered_in_order(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.query(b"select 1"), builders.query(b"select 2"))
    assert play.server().takes() == builders.query(b"select 1")
    play.server().answers(ONE_ROW + IDLE)
    assert play.server().takes() == builders.query(b"select 2")


def test_L1_what_may_leave_something_is_reset_before_another_client_comes(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    alice.asks("call f()")
    bob.asks("select 2")
    play.server().takes()
    play.server().answers(builders.command_complete("CALL") + IDLE)
    assert play.server().takes().endswith(DISCARD_ALL), "bob's statement must wait"
    play.server().answers(DISCARDED)
    assert play.server().takes() == builders.query(b"select 2")


def test_L1_a_link_whose_reset_fails_is_closed(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("call f()")
    play.server().answers(builders.command_complete("CALL") + IDLE)
    play.server().answers(ONE_ROW + IDLE + server_error() + IDLE)
    assert play.server().closed
    assert not play.switch.links.pools[0].links


def test_what_stays_in_the_session_pins_it(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    alice.asks("create temp table t (a int)")
    play.server().answers(builders.command_complete("CREATE TABLE") + IDLE)
    assert "temp" in alice.session.pin
    bob.asks("select 1")
    assert bob.hears() == b""
    assert play.server().link.session is alice.session


def test_discard_all_unpins(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("listen news")
    play.server().answers(builders.command_complete("LISTEN") + IDLE)
    assert alice.session.pin
    alice.asks("discard all")
    play.server().answers(builders.command_complete("DISCARD ALL") + IDLE)
    assert not alice.session.pin
    assert play.server().link.session is None


def test_settings_that_the_server_reports_follow_the_client(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    alice.asks("set timezone to 'Europe/Berlin'")
    play.server().answers(
        builders.command_complete("SET") + builders.parameter_status("TimeZone", "Europe/Berlin") + IDLE
    )
    assert not alice.session.pin
    play.server().takes()
    bob.asks("select 1")
    assert b"set_config('TimeZone', 'UTC', false)" in play.server().takes()
    row = builders.row_description_text(["set_config"]) + builders.data_row_text(["UTC"])
    status = builders.parameter_status("TimeZone", "UTC")
    play.server().answers(row + builders.command_complete("SELECT 1") + status + IDLE)
    assert play.server().takes() == builders.query(b"select 1")
    play.server().answers(ONE_ROW + IDLE)
    assert bob.hears() == ONE_ROW + IDLE, "the proxy's own statement is not bob's to see"


def test_copy_data_is_passed_on_once_the_server_asks_for_it(stage: Make) -> None:
    play = stage()
    alice = play.client()
    data = b"d\0\0\0\x06a\n"
    done = b"c\0\0\0\4"
    alice.says(builders.query(b"copy t from stdin"), data)
    assert play.server().takes() == builders.query(b"copy t from stdin")
    play.server().answers(b"G\0\0\0\x07\0\0\0")
    assert play.server().takes() == data
    alice.says(data, done)
    assert play.server().takes() == data + done
    play.server().answers(builders.command_complete("COPY 2") + IDLE)
    assert tags(alice.hears()) == "GCZ"


def test_copy_data_after_a_refusal_is_dropped(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("copy t from stdin")
    play.server().takes()
    play.server().answers(server_error("42P01") + IDLE)
    alice.says(b"d\0\0\0\x06a\n", b"c\0\0\0\4")
    play.server().takes()  # the reset of a link that a COPY was on
    alice.asks("select 1")
    assert tags(alice.hears()) == "EZ"


def test_a_cancel_reaches_the_link_that_runs_the_statement(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    assert play.switch.cancel(alice.session.key, lambda: None)
    assert [link for link, _ in play.cancels] == [play.server().link]


def test_a_link_with_a_cancel_on_its_way_is_nobody_elses(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    alice.asks("select 1")
    play.switch.cancel(alice.session.key, lambda: None)
    bob.asks("select 2")
    play.server().takes()
    play.server().answers(ONE_ROW + IDLE)
    assert play.server().takes() == b"", "the cancel might hit bob"
    play.cancels[0][1]()
    assert play.server().takes() == builders.query(b"select 2")


def test_cancels_of_one_statement_are_one_request_at_a_time(stage: Make) -> None:
    """Each is a connection to the node: a client that sends them by the hundred must not open hundreds."""
    play = stage(size=1)
    alice = play.client()
    done: list[int] = []
    alice.asks("select 1")
    for number in range(5):
        play.switch.cancel(alice.session.key, lambda number=number: done.append(number))
    assert len(play.cancels) == 1
    play.cancels[0][1]()
    assert done == [0]
    assert len(play.cancels) == 2
    play.cancels[1][1]()
    assert done == [0, 1, 2, 3, 4]
    assert len(play.cancels) == 2


def test_cancels_that_come_too_late_are_not_sent(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    done: list[int] = []
    alice.asks("select 1")
    for number in range(2):
        play.switch.cancel(alice.session.key, lambda number=number: done.append(number))
    bob.asks("select 2")
    play.server().takes()
    play.server().answers(ONE_ROW + IDLE)
    assert play.server().takes() == b""
    play.cancels[0][1]()
    assert done == [0, 1]
    assert len(play.cancels) == 1
    assert play.server().takes() == builders.query(b"select 2")


def test_a_cancel_with_a_strange_key_does_nothing(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    assert not play.switch.cancel((alice.session.key[0], b"nope"), lambda: None)
    assert play.cancels == []


def test_a_cancel_ends_waiting_for_a_link(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    alice.asks("select 1")
    bob.asks("select 2")
    play.switch.cancel(bob.session.key, lambda: None)
    assert sqlstate(bob.hears()) == "57014"


def test_waiting_for_a_link_ends_with_53300(stage: Make) -> None:
    play = stage(size=1, wait_timeout=5.0)
    alice, bob = play.client(), play.client()
    alice.asks("select 1")
    bob.asks("select 2")
    play.switch.tick(monotonic() + 6)
    heard = bob.hears()
    assert sqlstate(heard) == "53300"
    assert heard.endswith(IDLE)


def test_waiting_for_a_primary_ends_with_57P03(stage: Make) -> None:
    play = stage(wait_timeout=5.0)
    play.cluster.primary = None
    play.cluster.by_name["primary"].healthy = False
    play.cluster.version += 1
    alice = play.client()
    alice.asks("insert into t values (1)")
    play.switch.tick(monotonic())
    assert alice.hears() == b""
    play.switch.tick(monotonic() + 6)
    assert sqlstate(alice.hears()) == "57P03"


def test_a_refused_login_is_the_clients_error(stage: Make) -> None:
    play = stage()
    play.open_at_once = False
    alice = play.client()
    alice.asks("select 1")
    play.switch.links.not_opened(play.opening[0], PeerError("no such database", "3D000"), unreachable=False)
    assert sqlstate(alice.hears()) == "3D000"


def test_L2_a_read_whose_link_dies_before_its_answer_runs_again(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    play.server().dies()
    assert alice.hears() == b""
    play.switch.tick(monotonic())  # there is no other node: by then it is known whether this one is there
    assert play.server(1).takes() == builders.query(b"select 1")
    play.server(1).answers(ONE_ROW + IDLE)
    assert alice.hears() == ONE_ROW + IDLE


def test_L2_not_once_a_byte_of_its_answer_was_forwarded(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    play.server().answers(builders.row_description_text(["n"]))
    play.server().dies()
    heard = alice.hears()
    assert tags(heard) == "TEZ"
    assert sqlstate(heard) == "08006"


def test_L2_in_the_middle_of_a_message_nothing_can_be_said(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    play.server().answers(builders.data_row_text(["x" * 50_000])[:1000])
    play.server().dies()
    assert alice.closed


def test_L4_a_read_runs_again_at_most_once(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    play.server(0).dies()
    play.switch.tick(monotonic())
    play.server(1).dies()
    assert len(play.servers) == 2
    assert sqlstate(alice.hears()) == "08006"


def test_L3_an_administrators_terminate_is_final(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    play.server().answers(server_error("57P01", "FATAL"))
    play.server().dies()
    heard = alice.hears()
    assert tags(heard) == "EZ"
    assert sqlstate(heard) == "57P01"
    assert len(play.servers) == 1


def test_a_write_whose_link_dies_has_an_unknown_outcome(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("insert into t values (1)")
    play.server().dies()
    heard = alice.hears()
    assert sqlstate(heard) == "08007"
    assert heard.endswith(IDLE)


def test_O1_a_commit_whose_link_dies_has_an_unknown_outcome(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("begin")
    play.server().answers(BEGUN)
    alice.hears()
    alice.asks("commit")
    play.server().dies()
    heard = alice.hears()
    assert sqlstate(heard) == "08007"
    assert heard.endswith(IDLE), "the transaction is over, however it ended"


def test_a_lost_transaction_refuses_everything_until_rollback(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("begin")
    play.server().answers(BEGUN)
    alice.asks("insert into t values (1)")
    alice.hears()
    play.server().dies()
    heard = alice.hears()
    assert sqlstate(heard) == "08006"
    assert heard.endswith(FAILED)
    alice.asks("select 1")
    heard = alice.hears()
    assert sqlstate(heard) == "25P02"
    assert heard.endswith(FAILED)
    alice.asks("rollback")
    assert alice.hears() == builders.command_complete("ROLLBACK") + IDLE
    alice.asks("select 1")
    assert play.server(1).takes() == builders.query(b"select 1")


def test_a_transaction_lost_between_statements_fails_at_the_next(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("begin")
    play.server().answers(BEGUN)
    alice.hears()
    play.server().dies()
    assert alice.hears() == b""
    alice.asks("commit")
    assert alice.hears() == builders.command_complete("ROLLBACK") + IDLE, "as PostgreSQL answers COMMIT of a failed one"


def test_a_session_ends_with_the_link_that_held_its_state(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("listen news")
    play.server().answers(builders.command_complete("LISTEN") + IDLE)
    alice.hears()
    play.server().dies()
    assert sqlstate(alice.hears()) == "08006"
    assert alice.closed


def test_a_client_that_leaves_in_a_transaction_has_it_rolled_back(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    alice.asks("begin")
    play.server().answers(BEGUN)
    play.server().takes()
    alice.leaves()
    sent = play.server().takes()
    assert sent.startswith(builders.query(b"ROLLBACK"))
    assert sent.endswith(DISCARD_ALL)
    bob.asks("select 1")
    play.server().answers(builders.command_complete("ROLLBACK") + IDLE + DISCARDED)
    assert play.server().takes() == builders.query(b"select 1")


def test_a_client_that_leaves_in_a_statement_has_it_cancelled_and_its_link_closed(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    alice.leaves()
    assert len(play.cancels) == 1
    assert play.server().closed


def test_statements_before_a_terminate_still_run(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.query(b"insert into t values (1)"), builders.TERMINATE)
    alice.leaves()
    assert play.server().takes() == builders.query(b"insert into t values (1)")
    play.server().answers(DONE)
    assert play.server().link.session is None
    assert not play.cancels


def test_notifications_reach_the_session_that_listens(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("listen news")
    play.server().answers(builders.command_complete("LISTEN") + IDLE)
    alice.hears()
    notification = b"A\0\0\0\x0e\0\0\0\1news\0\0"
    play.server().answers(notification)
    assert alice.hears() == notification


def test_a_server_that_does_not_speak_the_protocol_is_closed(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("insert into t values (1)")
    play.server().answers(b"D\0\0\0\1garbage")
    assert play.server().closed
    assert sqlstate(alice.hears()) == "08007"


def test_a_client_that_does_not_speak_the_protocol_is_closed(stage: Make) -> None:
    play = stage()
    alice, bob = play.client(), play.client()
    alice.asks("select 1")
    alice.says(b"y\0\0\0\4", builders.SYNC)
    assert not alice.closed
    play.server().answers(ONE_ROW + IDLE)
    heard = alice.hears()
    assert heard.startswith(ONE_ROW + IDLE), "what was asked before is answered, as by PostgreSQL"
    assert sqlstate(heard[len(ONE_ROW + IDLE) :]) == "08P01"
    assert alice.closed
    bob.asks("select 1")
    assert not bob.closed


@pytest.mark.parametrize("length", [0, 3, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_length_that_no_message_has_ends_the_connection_without_a_word(stage: Make, length: int) -> None:
    play = stage()
    alice = play.client()
    alice.says(b"Q" + length.to_bytes(4, "big"))
    assert alice.hears() == b""
    assert alice.closed


def test_shutdown_ends_the_idle_and_lets_the_busy_finish(stage: Make) -> None:
    play = stage()
    alice, bob = play.client(), play.client()
    alice.asks("insert into t values (1)")
    play.switch.shut_down(everyone=False)
    assert sqlstate(bob.hears()) == "57P01"
    assert bob.closed
    assert not alice.closed
    play.server().answers(DONE)
    assert alice.hears() == DONE
    play.switch.shut_down(everyone=False)
    assert alice.closed


def test_session_mode_keeps_the_link(stage: Make) -> None:
    play = stage(mode="session")
    alice = play.client()
    alice.asks("select 1")
    play.server().answers(ONE_ROW + IDLE)
    assert play.server().link.session is alice.session
    assert play.server().link.node.name == "primary"
    alice.says(builders.TERMINATE)
    play.server().takes()
    play.server().answers(DISCARDED)
    assert play.server().link.session is None


@pytest.mark.parametrize("code", ["25006", "0A000", "40001"])
def test_R2_what_a_standby_refuses_runs_again_on_the_primary(stage: Make, code: str) -> None:
    play = stage(reads_on_standbys=True)
    alice = play.client()
    alice.asks("select f()")
    assert play.server().link.node.name == "standby"
    play.server().answers(builders.row_description_text(["f"]) + server_error(code) + IDLE)
    assert alice.hears() == b""
    assert play.server(1).link.node.name == "primary"
    assert play.server(1).takes() == builders.query(b"select f()")
    play.server(1).answers(ONE_ROW + IDLE)
    assert alice.hears() == ONE_ROW + IDLE


@pytest.mark.parametrize(("code", "next_node"), [("25006", "primary"), ("0A000", "primary"), ("40001", "standby")])
def test_R2_what_a_standby_can_never_do_is_remembered(stage: Make, code: str, next_node: str) -> None:
    play = stage(reads_on_standbys=True)
    alice = play.client()
    alice.asks("select f()")
    play.server().answers(server_error(code) + IDLE)
    play.server(1).answers(ONE_ROW + IDLE)
    alice.asks("select f()")
    assert alice.session.link is not None
    assert alice.session.link.node.name == next_node


def test_R2_not_once_a_byte_was_forwarded(stage: Make) -> None:
    play = stage(reads_on_standbys=True)
    alice = play.client()
    alice.asks("select f()")
    play.server().answers(builders.row_description_text(["f"]))
    play.server().answers(server_error("25006") + IDLE)
    assert sqlstate(alice.hears()) == "25006"


def test_R2_not_in_a_transaction(stage: Make) -> None:
    play = stage(reads_on_standbys=True)
    alice = play.client()
    alice.session.status = ord("T")
    alice.asks("select f()")
    play.server().answers(server_error("25006") + FAILED)
    assert sqlstate(alice.hears()) == "25006"


def test_R2_in_the_extended_protocol(stage: Make) -> None:
    play = stage(reads_on_standbys=True)
    alice = play.client()
    alice.says(builders.parse(b"mine", b"select f()"), builders.SYNC)
    play.server().answers(server_error("0A000") + IDLE)
    assert alice.hears() == b""
    assert tags(play.server(1).takes()) == "PS"
    play.server(1).answers(builders.PARSE_COMPLETE + IDLE)
    assert alice.hears() == builders.PARSE_COMPLETE + IDLE
    assert list(alice.session.prepared) == [b"mine"]


def test_a_text_that_the_server_cannot_parse_makes_no_catalogue_doubtful(stage: Make) -> None:
    play = stage()
    alice = play.client()
    told: list[str] = []

    def ddl_happened(database: str, *, of_relations: bool = False) -> None:
        told.append(f"{database} {of_relations}")

    play.cluster.ddl_happened = ddl_happened  # type: ignore[method-assign]
    alice.asks("selectt 1")
    body = encode_fields({**parse_fields(server_error("42601")[5:]), "R": "scanner_yyerror"})
    play.server().answers(b"E" + struct.pack("!I", 4 + len(body)) + body + IDLE)
    assert told == []
    alice.asks("create table t ()")
    assert told == ["db True"]
    assert not play.server().link.dirt or play.server().link.session is alice.session
    play.server().answers(builders.command_complete("CREATE TABLE") + IDLE)
    alice.asks("create function f() returns int language sql as 'select 1'")
    assert told == ["db True", "db True", "db False"]


def test_who_loses_a_link_with_state_of_his_own_hears_why_in_the_servers_words(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("listen news")
    play.server().answers(builders.command_complete("LISTEN") + IDLE)
    alice.hears()
    farewell = server_error("57P01", "FATAL")
    play.server().answers(farewell)
    play.server().dies()
    assert alice.hears() == farewell
    assert alice.closed
