"""Clients and statements that take too long. The clock is a number: `tick` is told that time has passed."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import pytest

from heliosproxy.config.model import Pool
from heliosproxy.switch.timeouts import AGAIN, OBEY
from heliosproxy.wire import builders
from heliosproxy.wire.errors import error_response, parse_fields
from tests.switch.stage import FAILED, IDLE, IN_TRANSACTION, ONE_ROW, Speaker, Stage, bind, split, sqlstate, tags

Make = Callable[..., Stage]
MODES = ("session", "transaction", "statement")
BEGUN = builders.command_complete("BEGIN") + IN_TRANSACTION
CANCELED = error_response("ERROR", "57014", "canceling statement due to user request")
TIMED_OUT = "canceling statement due to statement timeout"
READS = builders.query(b"select 1")
EXTENDED = builders.parse(b"", b"select 1") + bind() + builders.execute() + builders.SYNC


def later(play: Stage, seconds: float) -> None:
    """So much time has passed since now."""
    play.switch.tick(monotonic() + seconds)


def fields(data: bytes) -> dict[str, str]:
    """The first ErrorResponse."""
    return next((parse_fields(message[5:]) for message in split(data) if message[0] == ord("E")), {})


def told(client: Speaker) -> tuple[str, str, str]:
    """Severity, SQLSTATE and words of the first ErrorResponse that a client has heard."""
    said = fields(client.hears())
    return said.get("S", ""), said.get("C", ""), said.get("M", "")


def begun(play: Stage, server: int = 0) -> Speaker:
    """A client in a transaction."""
    alice = play.client()
    alice.asks("begin")
    play.server(server).answers(BEGUN)
    alice.hears()
    play.server(server).takes()
    return alice


# --- idle -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_whoever_idles_too_long_is_told_57P05_and_closed(stage: Make, mode: str) -> None:
    play = stage(idle_session_timeout=10.0, mode=mode)
    alice = play.client()
    later(play, 9)
    assert not alice.closed
    later(play, 11)
    assert told(alice) == ("FATAL", "57P05", "terminating connection due to idle-session timeout")
    assert alice.closed
    assert not play.switch.sessions


def test_idling_counts_from_the_last_answer(stage: Make) -> None:
    play = stage(idle_session_timeout=10.0)
    alice = play.client()
    alice.asks("select pg_sleep(60)")
    later(play, 60)
    assert not alice.closed
    play.server().answers(ONE_ROW + IDLE)
    alice.hears()
    later(play, 9)
    assert not alice.closed
    later(play, 11)
    assert told(alice)[1] == "57P05"


def test_part_of_a_message_does_not_put_idling_off(stage: Make) -> None:
    play = stage(idle_session_timeout=10.0)
    alice = play.client()
    alice.says(READS[:7])
    later(play, 11)
    assert told(alice)[1] == "57P05"


def test_a_parse_without_a_sync_does_not_put_idling_off_for_ever(stage: Make) -> None:
    play = stage(idle_session_timeout=10.0)
    alice = play.client()
    alice.says(builders.parse(b"s", b"set helios.route = 'primary'"), builders.FLUSH)
    assert tags(alice.hears()) == "1"
    later(play, 11)
    assert told(alice)[1] == "57P05"


def test_what_a_pinned_session_held_is_reset_when_it_idles_too_long(stage: Make) -> None:
    play = stage(idle_session_timeout=10.0, mode="session")
    alice = play.client()
    alice.asks("listen x")
    play.server().answers(builders.command_complete("LISTEN") + IDLE)
    play.server().takes()
    later(play, 11)
    assert alice.closed
    assert b"DISCARD ALL" in play.server().takes()


def test_who_is_in_a_transaction_does_not_idle_outside_of_one(stage: Make) -> None:
    play = stage(idle_session_timeout=10.0)
    alice = begun(play)
    later(play, 100)
    assert not alice.closed


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("failed", [False, True])
def test_whoever_idles_in_a_transaction_is_told_25P03_and_its_transaction_rolled_back(
    stage: Make, mode: str, *, failed: bool
) -> None:
    play = stage(idle_in_transaction_session_timeout=5.0, mode=mode)
    alice = begun(play)
    if failed:
        alice.asks("select 1/0")
        play.server().answers(error_response("ERROR", "22012", "division by zero") + FAILED)
        alice.hears()
        play.server().takes()
    later(play, 4)
    assert not alice.closed
    later(play, 6)
    assert told(alice) == ("FATAL", "25P03", "terminating connection due to idle-in-transaction timeout")
    assert alice.closed
    sent = play.server().takes()
    assert sent.index(b"ROLLBACK") < sent.index(b"DISCARD ALL")
    play.server().answers(
        builders.command_complete("ROLLBACK") + IDLE + ONE_ROW + IDLE + builders.command_complete("DISCARD ALL") + IDLE
    )
    assert play.server().link in play.server().link.pool.idle  # type: ignore[union-attr]


def test_who_does_something_in_time_may_stay_in_its_transaction(stage: Make) -> None:
    play = stage(idle_in_transaction_session_timeout=5.0)
    alice = begun(play)
    alice.asks("select 1")
    later(play, 60)
    play.server().answers(ONE_ROW + IN_TRANSACTION)
    assert not alice.closed
    alice.asks("commit")
    play.server().answers(builders.command_complete("COMMIT") + IDLE)
    later(play, 60)
    assert not alice.closed


def test_without_time_outs_nobody_is_looked_at(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("begin")
    assert alice.session.clock is None
    assert not play.switch.timeouts._heap
    later(play, 1e6)
    assert not alice.closed


def test_a_tick_does_not_walk_those_who_idle(stage: Make) -> None:
    play = stage(idle_session_timeout=600.0, statement_timeout=10.0)
    clients = [play.client() for _ in range(1000)]
    looked: list[object] = []
    due = play.switch.timeouts._due
    play.switch.timeouts._due = lambda *args: looked.append(args) or due(*args)  # type: ignore[method-assign]
    for seconds in range(1, 500):
        later(play, seconds / 10)
    assert looked == []
    later(play, 601)
    assert len(looked) == 1000
    assert all(client.closed for client in clients)


def test_places_of_those_who_have_left_are_given_up(stage: Make) -> None:
    play = stage(idle_session_timeout=3600.0)
    staying = play.client()
    for _ in range(2000):
        play.client().leaves()
    assert len(play.switch.timeouts._heap) < 200
    later(play, 3601)
    assert staying.closed


def test_another_policy_holds_from_then_on(stage: Make) -> None:
    play = stage(idle_session_timeout=10.0)
    alice, bob = play.client(), play.client()
    play.switch.timeouts.watch(alice.session, Pool())
    play.switch.timeouts.watch(bob.session, Pool(idle_session_timeout=100.0))
    later(play, 50)
    assert (alice.closed, bob.closed) == (False, False)
    later(play, 101)
    assert (alice.closed, bob.closed) == (False, True)


# --- statements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("asked", [READS, EXTENDED], ids=["simple", "extended"])
def test_a_statement_that_runs_too_long_is_cancelled_and_its_client_told_why(
    stage: Make, mode: str, asked: bytes
) -> None:
    play = stage(statement_timeout=2.0, mode=mode)
    alice = play.client()
    alice.says(asked)
    later(play, 1)
    assert not play.cancels
    later(play, 3)
    [(link, arrived)] = play.cancels
    assert link is play.server().link
    arrived()
    play.server().answers(CANCELED + IDLE)
    heard = alice.hears()
    assert tags(heard) == "EZ"
    assert fields(heard)["C"] == "57014"
    assert fields(heard)["M"] == TIMED_OUT
    assert not alice.closed
    alice.asks("select 2")
    play.server().takes()
    play.server().answers(ONE_ROW + IDLE)
    assert alice.hears() == ONE_ROW + IDLE


def test_another_error_is_told_as_it_is(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = play.client()
    alice.asks("select 1")
    later(play, 3)
    play.server().answers(error_response("ERROR", "22012", "division by zero") + IDLE)
    assert told(alice) == ("ERROR", "22012", "division by zero")


def test_a_users_own_cancel_is_told_as_the_server_tells_it(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = play.client()
    alice.asks("select 1")
    play.switch.cancel(alice.session.key, lambda: None)
    play.server().answers(CANCELED + IDLE)
    assert told(alice)[2] == "canceling statement due to user request"


def test_L3_a_cancel_of_ours_never_hits_the_statement_after(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = begun(play)
    alice.asks("select 1")
    later(play, 3)
    play.server().takes()
    play.server().answers(ONE_ROW + IN_TRANSACTION)  # it has ended just before the cancel request arrives
    assert alice.hears() == ONE_ROW + IN_TRANSACTION
    alice.asks("select 2")
    assert play.server().takes() == b""
    play.cancels[0][1]()
    assert play.server().takes() == builders.query(b"select 2")
    play.server().answers(ONE_ROW + IN_TRANSACTION)
    assert alice.hears() == ONE_ROW + IN_TRANSACTION


def test_L3_nor_does_it_hit_whoever_has_the_link_next(stage: Make) -> None:
    play = stage(statement_timeout=2.0, size=1)
    alice, bob = play.client(), play.client()
    alice.asks("select 1")
    later(play, 3)
    play.server().takes()
    play.server().answers(ONE_ROW + IDLE)
    bob.asks("select 2")
    assert play.server().takes() == b""
    play.cancels[0][1]()
    assert play.server().takes() == builders.query(b"select 2")


def test_L3_settings_are_asked_for_when_the_cancel_request_has_arrived(stage: Make) -> None:
    play = stage(statement_timeout=2.0, asked={"work_mem": "4MB"})
    alice = play.client()
    alice.asks("select f()")
    alice.session.ask = True
    play.server().takes()
    later(play, 3)
    play.server().answers(ONE_ROW + IDLE)
    assert play.server().takes() == b""
    play.cancels[0][1]()
    assert b"current_setting" in play.server().takes()


def test_a_statement_that_waits_for_a_link_is_given_up(stage: Make) -> None:
    play = stage(statement_timeout=2.0, size=1)
    begun(play)
    bob = play.client()
    bob.asks("select 2")
    later(play, 3)
    heard = bob.hears()
    assert (tags(heard), fields(heard)["M"]) == ("EZ", TIMED_OUT)
    assert not play.cancels
    assert bob.session.pool is None


def test_a_statement_that_waits_for_a_node_is_given_up(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    for node in play.cluster.nodes:
        node.healthy = False
    play.cluster.primary = None
    alice = play.client()
    alice.asks("select 2")
    later(play, 3)
    heard = alice.hears()
    assert (tags(heard), fields(heard)["M"]) == ("EZ", TIMED_OUT)


def test_the_time_in_the_queue_and_on_the_link_add_up(stage: Make) -> None:
    play = stage(statement_timeout=100.0, wait_timeout=1000.0, size=1)
    alice = begun(play)
    bob = play.client()
    bob.asks("select 2")
    bob.session.units[0].started -= 90
    later(play, 5)
    alice.asks("commit")
    play.server().answers(builders.command_complete("COMMIT") + IDLE)
    later(play, 9)
    assert not play.cancels
    later(play, 101)
    assert [link for link, _ in play.cancels] == [play.server().link]


def test_a_unit_of_several_messages_counts_as_one(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = play.client()
    alice.says(builders.parse(b"", b"select 1") + 3 * (bind() + builders.execute()) + builders.SYNC)
    play.server().answers(builders.PARSE_COMPLETE + builders.BIND_COMPLETE + ONE_ROW[-14:])
    later(play, 3)
    assert len(play.cancels) == 1


def test_copy_counts(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = play.client()
    alice.asks("copy t from stdin")
    play.server().answers(b"G\0\0\0\x07\0\0\0")
    alice.says(b"d\0\0\0\x06x\n")
    later(play, 3)
    assert len(play.cancels) == 1


def test_a_server_that_does_not_obey_is_asked_again_and_then_loses_its_link(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = play.client()
    alice.asks("select 1")
    later(play, 3)
    play.cancels[0][1]()
    later(play, 3 + AGAIN + 0.1)
    assert len(play.cancels) == 2
    later(play, 3 + 2 * AGAIN + 0.2)
    assert len(play.cancels) == 2  # the second has not arrived yet
    play.cancels[1][1]()
    later(play, 3 + OBEY + 0.3)
    assert play.server().closed
    heard = alice.hears()
    assert (tags(heard), fields(heard)["M"]) == ("EZ", TIMED_OUT)
    assert heard.endswith(IDLE)
    assert len(play.servers) == 1  # it was not run again
    alice.asks("select 2")
    play.server(1).answers(ONE_ROW + IDLE)
    assert alice.hears() == ONE_ROW + IDLE


def test_in_a_transaction_the_session_lives_on_in_an_aborted_one(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = begun(play)
    alice.asks("select 1")
    later(play, 3)
    later(play, 3 + OBEY + 0.1)
    heard = alice.hears()
    assert (fields(heard)["M"], heard.endswith(FAILED)) == (TIMED_OUT, True)
    alice.asks("select 2")
    assert sqlstate(alice.hears()) == "25P02"
    alice.asks("rollback")
    assert alice.hears() == builders.command_complete("ROLLBACK") + IDLE


def test_O1_of_a_write_that_does_not_obey_the_outcome_is_not_known(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = play.client()
    alice.asks("insert into t values (1)")
    later(play, 3)
    later(play, 3 + OBEY + 0.1)
    assert told(alice)[:2] == ("ERROR", "08007")


def test_a_link_lost_after_the_cancel_is_a_statement_that_timed_out(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = play.client()
    alice.asks("select 1")
    later(play, 3)
    play.server().dies()
    assert told(alice) == ("ERROR", "57014", TIMED_OUT)


def test_settings_that_take_too_long_are_cancelled_as_well(stage: Make) -> None:
    play = stage(statement_timeout=2.0, size=1)
    alice, bob = play.client(), play.client(TimeZone="Asia/Tokyo")
    alice.asks("select 1")
    play.server().answers(ONE_ROW + IDLE)
    play.server().takes()
    bob.asks("select 2")
    assert b"set_config" in play.server().takes()
    later(play, 3)
    [(_, arrived)] = play.cancels
    play.server().answers(CANCELED + IDLE)
    heard = bob.hears()
    assert (tags(heard), fields(heard)["M"]) == ("EZ", TIMED_OUT)
    arrived()
    assert not bob.closed


def test_an_incomplete_unit_that_was_answered_so_far_is_not_cancelled(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = play.client()
    alice.says(builders.parse(b"s", b"set helios.route = 'primary'"), builders.FLUSH)
    alice.hears()
    later(play, 3)
    assert not play.cancels
    assert alice.hears() == b""
    alice.says(builders.SYNC)
    assert alice.hears() == IDLE


def test_a_unit_whose_client_keeps_the_server_waiting_ends_as_well(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = play.client()
    alice.says(builders.parse(b"", b"select 1"), builders.FLUSH)
    play.server().answers(builders.PARSE_COMPLETE)
    alice.hears()
    later(play, 3)
    play.cancels[0][1]()
    later(play, 3 + OBEY + 0.1)
    assert told(alice)[1] == "57014"
    alice.says(builders.SYNC)
    assert alice.hears() == IDLE


def test_the_statements_after_one_that_was_ended_are_ended_in_time_too(stage: Make) -> None:
    play = stage(statement_timeout=0.05)
    alice = play.client()
    for at in range(1, 4):
        alice.asks("select 1")
        later(play, 0.1)  # earlier than the statement before would have been cancelled again
        assert len(play.cancels) == at
        play.cancels[-1][1]()
        play.server().answers(CANCELED + IDLE)
        assert told(alice)[2] == TIMED_OUT
    alice.asks("select 1")
    later(play, 1.05)
    play.cancels[-1][1]()
    later(play, 1.5)  # by the place of the first statement it would be cancelled again, by its own not yet
    assert len(play.cancels) == 4
    later(play, 2.2)
    assert len(play.cancels) == 5


def test_a_statement_in_time_leaves_no_trace(stage: Make) -> None:
    play = stage(statement_timeout=2.0)
    alice = play.client()
    for _ in range(50):
        alice.asks("select 1")
        play.server().answers(ONE_ROW + IDLE)
    assert len(play.switch.timeouts._heap) == 1
    later(play, 100)
    assert not play.cancels
    assert not play.switch.timeouts._heap


# --- transactions -----------------------------------------------------------------------------------------------------


def test_a_transaction_that_takes_too_long_is_ended_with_25P04(stage: Make) -> None:
    play = stage(transaction_timeout=5.0)
    alice = begun(play)
    alice.asks("select 1")
    play.server().answers(ONE_ROW + IN_TRANSACTION)
    alice.hears()
    later(play, 4)
    assert not alice.closed
    later(play, 6)
    assert told(alice) == ("FATAL", "25P04", "terminating connection due to transaction timeout")
    assert alice.closed
    assert b"ROLLBACK" in play.server().takes()


@pytest.mark.parametrize("mode", MODES)
def test_a_single_statement_is_a_transaction_too(stage: Make, mode: str) -> None:
    play = stage(transaction_timeout=5.0, mode=mode)
    alice = play.client()
    alice.asks("select 1")
    later(play, 6)
    assert told(alice)[1] == "25P04"
    assert [link for link, _ in play.cancels] == [play.server().link]
    assert play.server().closed


def test_waiting_for_a_link_is_no_transaction(stage: Make) -> None:
    play = stage(transaction_timeout=5.0, size=1)
    alice = begun(play)
    bob = play.client()
    bob.asks("select 2")
    later(play, 6)
    assert (alice.closed, bob.closed) == (True, False)


def test_each_transaction_has_its_own_time(stage: Make) -> None:
    play = stage(transaction_timeout=5.0)
    alice = play.client()
    alice.asks("select 1")
    assert alice.session.clock is not None
    alice.session.clock.transaction_since -= 4
    play.server().answers(ONE_ROW + IDLE)
    alice.asks("begin")
    play.server().answers(BEGUN)
    later(play, 4)
    assert not alice.closed


def test_in_the_middle_of_a_row_nothing_is_said_that_would_be_taken_for_data(stage: Make) -> None:
    play = stage(transaction_timeout=5.0)
    alice = play.client()
    alice.asks("select 1")
    row = b"D\0\x0f\xff\xff\0\x01"
    play.server().answers(row)
    later(play, 6)
    assert alice.hears() == row
    assert alice.closed


def test_each_time_out_is_counted_once(stage: Make) -> None:
    play = stage(idle_session_timeout=10.0)
    play.client()
    later(play, 11)
    assert play.reasons == {"idle_session_timeout": 1}
    play = stage(idle_in_transaction_session_timeout=10.0, transaction_timeout=20.0)
    begun(play)
    later(play, 21)
    assert play.reasons == {"idle_in_transaction_session_timeout": 1}
    play = stage(statement_timeout=10.0)
    play.client().asks("select 1")
    for seconds in range(11, 20):
        later(play, seconds)
    assert play.reasons == {"statement_timeout": 1}
    play = stage(transaction_timeout=10.0)
    play.client().asks("select 1")
    later(play, 11)
    assert play.reasons == {"transaction_timeout": 1}
