"""How much of everything one session may have."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from heliosproxy.switch import bounds, planner
from heliosproxy.switch.prepared import StatementNames
from heliosproxy.wire import builders
from heliosproxy.wire.errors import error_response, parse_fields
from tests.switch.stage import FAILED, IDLE, IN_TRANSACTION, ONE_ROW, Speaker, Stage, bind, run, split, sqlstate, tags

Make = Callable[..., Stage]
SET = builders.command_complete("SET")
BOUND = builders.PARSE_COMPLETE + builders.BIND_COMPLETE
SAVED = builders.command_complete("SAVEPOINT") + IN_TRANSACTION


def parse(name: str, text: str) -> bytes:
    """Parse and Sync."""
    return builders.parse(name.encode(), text.encode()) + builders.SYNC


def begun(play: Stage, **settings: str) -> Speaker:
    """A client in a transaction."""
    alice = play.client(**settings)
    alice.asks("begin")
    play.servers[-1].answers(builders.command_complete("BEGIN") + IN_TRANSACTION)
    alice.hears()
    play.servers[-1].takes()
    return alice


def refused(data: bytes) -> tuple[str, str]:
    """SQLSTATE and detail of the only ErrorResponse."""
    [fields] = [parse_fields(message[5:]) for message in split(data) if message[0] == ord("E")]
    return fields["C"], fields.get("D", "")


# --- prepared statements ----------------------------------------------------------------------------------------------


def test_one_prepared_statement_too_many_is_refused_and_the_session_lives(stage: Make) -> None:
    play = stage(limits={"max_prepared_statements": 2})
    alice = play.client()
    for name in "ab":
        alice.says(parse(name, f"select '{name}', 1"))
        play.server().answers(builders.PARSE_COMPLETE + IDLE)
    alice.hears()
    alice.says(builders.parse(b"c", b"select 3") + run(b"c") + builders.SYNC)
    heard = alice.hears()
    assert tags(heard) == "EZ"
    assert refused(heard) == ("53400", "max_prepared_statements is 2.")
    assert play.reasons == {"max_prepared_statements": 1}
    alice.says(builders.parse(b"", b"select 4") + run() + builders.SYNC)
    play.server().answers(builders.PARSE_COMPLETE + builders.BIND_COMPLETE + ONE_ROW + IDLE)
    assert tags(alice.hears()) == "12TDCZ"
    alice.says(builders.close_statement(b"a") + parse("c", "select 3"))
    play.server().answers(builders.PARSE_COMPLETE + IDLE)
    assert tags(alice.hears()) == "31Z"


def test_preparing_by_sql_counts_as_well(stage: Make) -> None:
    play = stage(limits={"max_prepared_statements": 1})
    alice = play.client()
    alice.asks("prepare a as select 1")
    play.server().answers(builders.command_complete("PREPARE") + IDLE)
    alice.hears()
    play.server().takes()
    alice.asks("prepare b as select 2")
    heard = alice.hears()
    assert (tags(heard), refused(heard)[0]) == ("EZ", "53400")
    assert play.server().takes() == b""
    alice.says(builders.parse(b"", b"prepare b as select 2") + run() + builders.SYNC)
    assert b"prepare b" in play.server().takes()
    play.server().answers(BOUND + error_response("ERROR", "42601", "syntax error") + IDLE)
    heard = alice.hears()
    assert (tags(heard), refused(heard)[0]) == ("12EZ", "53400")
    assert sorted(alice.session.prepared) == [b"", b"a"]


def test_in_a_transaction_a_statement_too_many_aborts_it(stage: Make) -> None:
    play = stage(limits={"max_prepared_statements": 1})
    alice = begun(play)
    alice.says(parse("a", "select 1"))
    play.server().answers(builders.PARSE_COMPLETE + IN_TRANSACTION)
    alice.hears()
    play.server().takes()
    alice.says(parse("b", "select 2"))
    assert b"\0!\0" in play.server().takes()  # a text that the server refuses, so that its transaction aborts too
    play.server().answers(error_response("ERROR", "42601", "syntax error") + FAILED)
    heard = alice.hears()
    assert (refused(heard)[0], heard.endswith(FAILED)) == ("53400", True)


def test_a_name_that_is_there_already_is_told_as_by_postgresql(stage: Make) -> None:
    play = stage(limits={"max_prepared_statements": 1})
    alice = play.client()
    alice.says(parse("a", "select 1"))
    play.server().answers(builders.PARSE_COMPLETE + IDLE)
    alice.hears()
    alice.says(parse("a", "select 1"))
    assert sqlstate(alice.hears()) == "42P05"


def test_long_prepared_statements_are_bounded_in_bytes(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_TEXT", 25_000)
    play = stage()
    alice = play.client()
    text = "select '" + 10_000 * "x" + "'"
    for name in "ab":
        alice.says(parse(name, f"{text}, {name}"))
        play.server().answers(builders.PARSE_COMPLETE + IDLE)
    assert sqlstate(alice.hears()) == ""
    alice.says(parse("c", text))
    assert sqlstate(alice.hears()) == "54000"
    alice.says(parse("c", "select 1"))
    play.server().answers(builders.PARSE_COMPLETE + IDLE)
    assert tags(alice.hears()) == "1Z"


def test_long_texts_are_not_kept_to_give_them_names() -> None:
    names = StatementNames(10)
    text = b"select '" + 10_000 * b"x" + b"'"
    assert names.name(text, b"\0\0", None) == names.name(text, b"\0\0", None)
    assert names.name(text + b" ", b"\0\0", None) != names.name(text, b"\0\0", None)
    assert all(len(part) < 300 for key in names._names for part in key[:2])


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extended", [False, True])
def test_one_setting_of_the_proxy_too_many_is_refused(stage: Make, *, extended: bool) -> None:
    play = stage(limits={"max_settings": 2})
    alice = play.client()

    def ask(sql: str) -> bytes:
        if extended:
            alice.says(builders.parse(b"", sql.encode()) + run() + builders.SYNC)
        else:
            alice.asks(sql)
        return alice.hears()

    for key in ("a", "b", "a"):
        assert SET in ask(f"set helios.{key} = 'x'")
    assert refused(ask("set helios.c = 'x'")) == ("53400", "max_settings is 2.")
    assert sorted(alice.session.hints) == ["a", "b"]
    assert SET in ask("set helios.a = 'y'")
    ask("reset helios.a")
    assert SET in ask("set helios.c = 'x'")
    assert play.reasons == {"max_settings": 1}


def test_settings_that_only_one_link_has_count_as_well(stage: Make) -> None:
    play = stage(limits={"max_settings": 2})
    alice = play.client()
    for key in ("a", "b", "a"):
        alice.asks(f"set my.{key} = 'x'")
        play.server().answers(SET + IDLE)
    assert alice.hears() == 3 * (SET + IDLE)
    play.server().takes()
    alice.asks("set my.c = 'x'")
    assert refused(alice.hears())[0] == "53400"
    assert play.server().takes() == b""
    alice.says(builders.parse(b"", b"set my.d = 'x'") + builders.SYNC)  # to parse it keeps the link already
    assert refused(alice.hears())[0] == "53400"
    assert len(alice.session.pins) == 2


def test_settings_that_follow_the_client_are_as_many_as_are_configured(stage: Make) -> None:
    play = stage(limits={"max_settings": 1})
    alice = play.client()
    for name in ("TimeZone", "DateStyle", "client_encoding"):
        alice.asks(f"set {name} = 'x'")
        play.server().answers(SET + IDLE)
    assert sqlstate(alice.hears()) == ""


def test_those_of_one_pipeline_are_counted_together(stage: Make) -> None:
    play = stage(limits={"max_settings": 3})
    alice = play.client()
    sets = (builders.parse(b"", f"set helios.k{at} = 'x'".encode()) + run() for at in range(10))
    alice.says(b"".join(sets) + builders.SYNC)
    heard = alice.hears()
    assert (tags(heard), refused(heard)[0]) == ("12C12C12CEZ", "53400")


def test_those_of_a_savepoint_that_is_gone_are_not_counted_for_ever(stage: Make) -> None:
    play = stage(limits={"max_settings": 3})
    alice = begun(play)
    for at in range(3):
        alice.asks(f"set local helios.k{at} to default")
    assert sqlstate(alice.hears()) == ""
    alice.asks("set local helios.k4 to default")
    play.server().answers(error_response("ERROR", "42601", "syntax error") + FAILED)
    assert refused(alice.hears())[0] == "53400"
    alice.asks("rollback")
    play.server().answers(builders.command_complete("ROLLBACK") + IDLE)
    alice.hears()
    alice.asks("set helios.k4 = 'x'")
    assert alice.hears() == SET + IDLE


# --- savepoints, portals, pipelines -----------------------------------------------------------------------------------


def test_savepoints_of_one_name_set_again_and_again_take_no_room(stage: Make) -> None:
    play = stage()
    alice = begun(play)
    for _ in range(100):
        alice.asks("savepoint a")
        play.server().answers(SAVED)
    assert len(alice.session.savepoints) == 1
    assert sqlstate(alice.hears()) == ""


def test_L8_savepoints_of_one_name_are_released_one_by_one(stage: Make) -> None:
    play = stage()
    alice = begun(play)

    def ask(sql: str, tag: str) -> None:
        alice.asks(sql)
        play.server().answers(builders.command_complete(tag) + IN_TRANSACTION)

    ask("savepoint a", "SAVEPOINT")
    ask("savepoint a", "SAVEPOINT")
    alice.asks("set helios.route = 'primary'")
    ask("savepoint a", "SAVEPOINT")
    ask("release a", "RELEASE")
    ask("release a", "RELEASE")
    assert alice.session.hints == {"route": "primary"}
    ask("rollback to a", "ROLLBACK")
    assert alice.session.hints == {}
    alice.asks("set helios.route = 'primary'")
    ask("rollback to a", "ROLLBACK")
    assert alice.session.hints == {}
    ask("release a", "RELEASE")
    assert alice.session.savepoints == []


@pytest.mark.parametrize("extended", [False, True])
def test_a_savepoint_too_many_is_refused(stage: Make, monkeypatch: pytest.MonkeyPatch, *, extended: bool) -> None:
    monkeypatch.setattr(bounds, "MOST_SAVEPOINTS", 3)
    play = stage()
    alice = begun(play)
    for at in range(3):
        alice.asks(f"savepoint s{at}")
        play.server().answers(SAVED)
    alice.hears()
    if extended:
        alice.says(builders.parse(b"", b"savepoint s4") + run() + builders.SYNC)
        play.server().answers(builders.PARSE_COMPLETE + builders.BIND_COMPLETE)
    else:
        alice.asks("savepoint s4")
    play.server().answers(error_response("ERROR", "42601", "syntax error") + FAILED)
    assert refused(alice.hears())[0] == "54000"
    assert play.reasons == {"max_savepoints": 1}


def test_a_portal_too_many_is_refused(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_PORTALS", 3)
    play = stage()
    alice = play.client()
    binds = (bind(b"s", f"p{at}".encode()) for at in range(5))
    alice.says(builders.parse(b"s", b"show helios.route") + b"".join(binds) + builders.SYNC)
    heard = alice.hears()
    assert (tags(heard), refused(heard)[0]) == ("1222EZ", "54000")
    assert play.reasons == {"max_portals": 1}


def test_different_statements_without_a_sync_come_to_an_end(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_BEFORE_SYNC", 100)
    play = stage()
    alice = play.client()
    for at in range(1000):
        alice.says(builders.parse(b"", f"select x{at}".encode()) + run() + builders.FLUSH)
        if play.servers:
            sent = play.server().takes()
            play.server().answers(sent.count(b"select x") * (BOUND + ONE_ROW))
            if b"\0!\0" in sent:
                play.server().answers(error_response("ERROR", "42601", "syntax error"))
    assert refused(alice.hears())[0] == "54000"
    [unit] = alice.session.units
    assert len(unit.flows) < 150
    assert len(unit.messages) < 10
    alice.says(builders.SYNC)
    play.server().answers(IDLE)
    assert alice.hears() == IDLE
    alice.asks("select 1")
    play.server().answers(ONE_ROW + IDLE)
    assert alice.hears() == ONE_ROW + IDLE


# --- what is remembered -----------------------------------------------------------------------------------------------


def test_a_session_forgets_its_own_verdicts_and_nobody_elses(stage: Make) -> None:
    play = stage(limits={"max_session_flows": 10})
    table = play.planner.table
    alice, mallory = play.client(), play.client()
    for at in range(5):
        alice.asks(f"select a{at}")
        play.server().answers(ONE_ROW + IDLE)
    for at in range(200):
        mallory.asks(f"select m{at}")
        play.server().answers(ONE_ROW + IDLE)
    assert len(table) == 15
    misses = table.statistics().misses
    for at in range(5):
        alice.asks(f"select a{at}")
        play.server().answers(ONE_ROW + IDLE)
    assert table.statistics().misses == misses


def test_S4_a_session_that_changes_its_settings_all_the_time_has_nobody_elses_class_found_anew(
    stage: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "MAX_CLASSES", 150)
    play = stage()
    alice, mallory = play.client(), play.client()
    alice.asks("select 1")
    play.server().answers(ONE_ROW + IDLE)
    known = alice.session.flow_class
    for at in range(500):
        mallory.asks(f"set search_path = s{at}")
        mallory.asks("select 1")
        play.server().answers(SET + builders.parameter_status("TimeZone", f"zone {at}") + IDLE)
        play.server().answers(ONE_ROW + IDLE)
    assert len(play.planner._classes) <= planner.CLASSES_OF_A_SESSION + 1
    alice.session.flow_class = -1
    play.planner.flow(alice.session, b"select 1", play.planner.shape(alice.session, b"select 1"))
    assert alice.session.flow_class == known


def test_S4_a_class_that_was_forgotten_gets_a_number_that_no_other_has(stage: Make) -> None:
    play = stage()
    alice = play.client()
    seen: set[int] = set()
    for at in count():
        alice.session.report("TimeZone", f"zone {at}")
        play.planner.flow(alice.session, b"select 1", play.planner.shape(alice.session, b"select 1"))
        assert alice.session.flow_class not in seen
        seen.add(alice.session.flow_class)
        if at > 3 * planner.CLASSES_OF_A_SESSION:
            break
    alice.session.report("TimeZone", "zone 0")
    play.planner.flow(alice.session, b"select 1", play.planner.shape(alice.session, b"select 1"))
    assert alice.session.flow_class not in seen


def test_S4_long_settings_are_told_apart_though_not_kept(stage: Make) -> None:
    play = stage()
    alice, bob = play.client(), play.client()
    text = b"select 1"
    for client, value in ((alice, 100_000 * "x"), (bob, 99_999 * "x" + "y")):
        client.session.report("TimeZone", value)
        play.planner.flow(client.session, text, play.planner.shape(client.session, text))
    assert alice.session.flow_class != bob.session.flow_class
    assert all(len(repr(slot.key)) < 1000 for slot in play.planner._classes._entries.values())
    bob.session.report("TimeZone", 100_000 * "x")
    play.planner.flow(bob.session, text, play.planner.shape(bob.session, text))
    assert alice.session.flow_class == bob.session.flow_class
