"""State of one client that must not reach another, and must not be lost, under conversations made to break that."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from sys import settrace
from types import FrameType

import pytest

from heliosproxy.cluster.proof import Proof, prove
from heliosproxy.sql.facts import Facts
from heliosproxy.switch import planner
from heliosproxy.switch.flows import Flow
from heliosproxy.switch.settings import question
from heliosproxy.wire import builders
from tests.switch.stage import (
    FAILED,
    IDLE,
    IN_TRANSACTION,
    ONE_ROW,
    Server,
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
ASKED = {"role": "none", "search_path": '"$user", public'}
PARSED, BOUND, CLOSED = builders.PARSE_COMPLETE, builders.BIND_COMPLETE, builders.CLOSE_COMPLETE
PREPARED = builders.command_complete("PREPARE")
DESCRIBED = builders.parameter_description(()) + builders.row_description_text(["n"])
ROW = builders.data_row_text(["1"]) + builders.command_complete("SELECT 1")
FLUSH = b"H\0\0\0\4"
SELECTED = PARSED + BOUND + ROW


@pytest.fixture
def play(stage: Make) -> Stage:
    return stage(size=1, asked=ASKED)


def once(text: bytes) -> bytes:
    """Parse, Bind and Execute of the unnamed statement."""
    return builders.parse(b"", text) + run()


def done(tag: str, status: bytes = IDLE) -> bytes:
    return builders.command_complete(tag) + status


def asks(play: Stage, who: Speaker, text: str, status: bytes = IDLE, answer: bytes = b"") -> bytes:
    """A simple query that the server answers; what the server was sent."""
    who.asks(text)
    sent = play.server().takes()
    play.server().answers((answer or builders.command_complete(text.split()[0].upper())) + status)
    return sent


def tells(server: Server, **changed: str) -> None:
    """The server answers what its settings are."""
    assert server.takes().startswith(builders.query(question(ASKED).encode()))
    row = builders.data_row_text([value.encode().hex() for value in {**ASKED, **changed}.values()])
    server.answers(builders.row_description_text(list(ASKED)) + row + done("SELECT 1"))


def queries(play: Stage) -> list[bytes]:
    """The texts of the simple queries that the server was sent."""
    return [message[5:-1] for message in split(play.server().takes()) if message[:1] == b"Q"]


def learns(play: Stage, who: Speaker, name: bytes, text: bytes) -> None:
    """A named statement that the server parses and describes."""
    who.says(builders.parse(name, text), builders.describe_statement(name), builders.SYNC)
    play.server().takes()
    play.server().answers(PARSED + DESCRIBED + IDLE)
    who.hears()


# --- what one client prepared by SQL is not there for another ---


def test_L1_a_name_whose_close_the_server_skipped_is_still_taken(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    asks(play, alice, "prepare p as select 'alice'")
    bob.says(once(b"select 1/0"), once(b"execute p"), builders.SYNC)
    play.server().takes()
    play.server().answers(PARSED + BOUND + server_error() + IDLE)
    tells(play.server())  # what bob meant to run was not known
    play.server().answers(ONE_ROW + IDLE + done("DISCARD ALL"))
    play.server().takes()
    bob.asks("execute p")
    assert not play.server().link.declared, "bob runs what alice prepared"


def test_L1_the_same_where_he_has_one_of_that_name(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    asks(play, bob, "prepare p as select 'bob'")
    alice.asks("prepare p as select 'alice'")
    play.server().answers(CLOSED + IDLE + PREPARED + IDLE)
    bob.says(once(b"select 1/0"), once(b"execute p"), builders.SYNC)
    play.server().answers(PARSED + BOUND + server_error() + IDLE)
    play.server().takes()
    bob.asks("execute p")
    assert builders.close_statement(b"p") in play.server().takes(), "the PREPARE that follows is refused: 42P05"


@pytest.mark.parametrize("text", ["rollback; execute p", "abort; explain analyze execute p"])
def test_L1_what_ends_a_failed_transaction_and_executes_runs_nobody_elses(play: Stage, text: str) -> None:
    alice, bob = play.client(), play.client()
    asks(play, alice, "prepare p as select 'alice'")
    asks(play, bob, "begin", IN_TRANSACTION)
    asks(play, bob, "select 1/0", FAILED, server_error())
    bob.asks(text)
    assert builders.close_statement(b"p") in play.server().takes()


def test_L1_nor_in_a_pipeline(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    asks(play, alice, "prepare p as select 'alice'")
    asks(play, bob, "begin", IN_TRANSACTION)
    asks(play, bob, "select 1/0", FAILED, server_error())
    bob.says(once(b"rollback"), once(b"execute p"), builders.SYNC)
def test_L1_nobody_executes_by_the_proxys_name_what_another_prepared(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    learns(play, alice, b"s", b"select 'alice'")
    bob.asks("execute helios_1")
    assert b"execute helios_1" not in play.server().takes()


def test_L1_deallocating_one_of_the_proxys_names_makes_it_forget_no_other(harmless: Stage) -> None:
    alice, bob = harmless.client(), harmless.client()
    learns(harmless, bob, b"s", b"select 1")
    asks(harmless, alice, "prepare p as select 'alice'")
    bob.asks("deallocate helios_1; select 1")
    sent = harmless.server().takes()
    if not sent:
        return
    harmless.server().answers(builders.command_complete("DEALLOCATE") + ONE_ROW + IDLE)
    if b"DISCARD ALL" in harmless.server().takes():
        return
    bob.asks("execute p")
    assert builders.close_statement(b"p") in harmless.server().takes(), "bob runs what alice prepared"


    assert builders.close_statement(b"p") in play.server().takes()


LONG = "execute p('" + "x" * 20_000 + "')"


def test_L1_an_execute_too_long_to_be_read_runs_nobody_elses(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    asks(play, alice, "prepare p as insert into t values ($1)")
    bob.asks(LONG)
    assert builders.close_statement(b"p") in play.server().takes()


def test_an_execute_too_long_to_be_read_finds_what_its_client_prepared(play: Stage) -> None:
    alice = play.client()
    asks(play, alice, "prepare p as insert into t values ($1)")
    play.server().link.forget_statements()
    alice.asks(LONG)
    assert queries(play)[0] == b"prepare p as insert into t values ($1)"


def test_L1_nor_does_one_that_must_not_be_read(play: Stage) -> None:
    alice, bob = play.client(), play.client(standard_conforming_strings="off")
    asks(play, alice, "prepare p as select 'alice'")
    bob.asks("execute p")
    play.server().answers(ONE_ROW + builders.parameter_status("standard_conforming_strings", "off") + IDLE)
    assert builders.close_statement(b"p") in play.server().takes()


def test_L1_names_that_are_no_utf8_are_told_apart(play: Stage) -> None:
    alice = play.client(client_encoding="LATIN1")
    alice.says(builders.query(b'prepare "\xe9" as select 1'))
    play.server().answers(ONE_ROW + builders.parameter_status("client_encoding", "LATIN1") + IDLE)
    play.server().answers(PREPARED + IDLE)
    assert alice.session.pin == "PREPARE", "the name cannot be read: the statement stays on its link"


def test_a_text_that_names_more_statements_than_a_link_keeps_finds_them_all(stage: Make) -> None:
    play = stage(size=1, prepared_statements=1)
    alice = play.client()
    asks(play, alice, "prepare a as select 1")
    alice.asks("prepare b as select 2")
    play.server().answers(CLOSED + IDLE + PREPARED + IDLE)
    play.server().link.forget_statements()
    play.server().takes()
    alice.asks("execute a; execute b")
    sent = split(play.server().takes())
    assert builders.query(b"prepare a as select 1") in sent
    assert builders.query(b"prepare b as select 2") in sent
    assert b"C" not in tags(b"".join(sent)).encode(), "what the text needs is forgotten again before it runs"


def test_statements_that_clients_prepared_and_gave_up_do_not_gather_on_the_server(stage: Make) -> None:
    play = stage(size=1, prepared_statements=3)
    alice = play.client()
    for number in range(10):
        alice.asks(f"prepare p{number} as select 1")
        while play.server().link.units:
            own = play.server().link.units[0].session is None
            play.server().answers(CLOSED + IDLE if own else PREPARED + IDLE)
        alice.asks(f"deallocate p{number}")
    assert len(play.server().link.declared) <= 3


PIPELINES = {
    "deallocated": once(b"deallocate p"),
    "closed": builders.close_statement(b"p"),
    "prepared anew": once(b"deallocate p") + once(b"prepare p as select 2"),
}


@pytest.mark.parametrize("then", PIPELINES.values(), ids=PIPELINES)
def test_a_statement_may_be_prepared_and_given_up_in_one_pipeline(play: Stage, then: bytes) -> None:
    alice = play.client()
    alice.says(once(b"prepare p as select 1"), then, builders.SYNC)
    assert tags(play.server().takes()).startswith("PBE")


# --- L1: links that count as clean ---


@pytest.fixture
def proving() -> Stage:
    """A stage whose statements are proven as in production, without a catalogue."""
    return Stage(size=1)


@pytest.fixture
def harmless(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The same with a catalogue in which all that a statement may name is harmless."""

    def proof(facts: Facts, catalogue: object) -> Proof:
        if facts.parts:
            everything = [proof(part, catalogue) for part in facts.parts]
            return max(everything, key=lambda one: one.leaves == "anything")
        return prove(facts, None) if facts.references is None else Proof(facts.kind == "select", "nothing", "")

    monkeypatch.setattr(planner, "prove", proof)
    return Stage(size=1)


LEAVES = "prepare p as select set_config('app.name', 'alice', false)"


def test_L1_what_an_execute_beside_its_prepare_leaves_is_cleared(proving: Stage) -> None:
    alice = proving.client()
    asks(proving, alice, f"{LEAVES}; execute p; deallocate all", IDLE, PREPARED + ONE_ROW + done("DEALLOCATE", b""))
    assert b"DISCARD ALL" in proving.server().takes()


def test_L1_what_an_execute_of_it_leaves_later_is_cleared(proving: Stage) -> None:
    alice = proving.client()
    asks(proving, alice, f"{LEAVES}; select 1", IDLE, PREPARED + ONE_ROW)
    asks(proving, alice, "execute p", IDLE, ONE_ROW)
    asks(proving, alice, "deallocate all", IDLE)
    assert b"DISCARD ALL" in proving.server().takes()


def test_L1_a_statement_that_changed_between_bind_and_execute_is_marked(proving: Stage) -> None:
    alice = proving.client()
    asks(proving, alice, "prepare p as select 1")
    asks(proving, alice, "begin", IN_TRANSACTION)
    alice.says(builders.parse(b"", b"execute p"), bind(portal=b"c"), builders.SYNC)
    proving.server().answers(PARSED + BOUND + IN_TRANSACTION)
    alice.asks("deallocate p")
    alice.asks("prepare p as select pg_advisory_lock(1)")
    proving.server().answers(CLOSED + IN_TRANSACTION + PREPARED + IN_TRANSACTION)
    alice.says(builders.execute(b"c"), builders.SYNC)
    proving.server().answers(ROW + IN_TRANSACTION)
    proving.server().takes()
    asks(proving, alice, "commit")
    assert alice.session.pins or b"DISCARD ALL" in proving.server().takes()


def test_a_deallocate_all_beside_a_failure_is_known_to_have_happened(harmless: Stage) -> None:
    alice, bob = harmless.client(), harmless.client()
    learns(harmless, bob, b"s", b"select 1")
    asks(harmless, alice, "deallocate all; select 1/0", IDLE, done("DEALLOCATE ALL", b"") + server_error())
    if b"DISCARD ALL" in harmless.server().takes():
        return
    bob.says(run(b"s"), builders.SYNC)
    assert tags(harmless.server().takes())[0] == "P", "bob's statement is gone from the link"


# --- pins ---

KEEPS = {
    "commit; select 1/0": (server_error(), IDLE),
    "commit; begin; rollback": (done("COMMIT", b"") + done("BEGIN", b"") + done("ROLLBACK", b""), IDLE),
}


@pytest.mark.parametrize("text", KEEPS)
def test_what_was_committed_before_a_failure_stays(play: Stage, text: str) -> None:
    alice = play.client()
    asks(play, alice, "begin", IN_TRANSACTION)
    asks(play, alice, "create temp table t (n int)", IN_TRANSACTION)
    answer, status = KEEPS[text]
    asks(play, alice, text, status, answer)
    assert alice.session.pin == "temporary object"


def test_what_was_made_behind_a_rollback_stays(play: Stage) -> None:
    alice = play.client()
    asks(play, alice, "begin", IN_TRANSACTION)
    asks(play, alice, "select 1/0", FAILED, server_error())
    asks(play, alice, "rollback; listen gossip", IDLE, done("ROLLBACK", b"") + done("LISTEN", b""))
    assert alice.session.pin == "LISTEN"


def test_what_was_made_and_committed_in_a_text_that_rolls_back_another_stays(play: Stage) -> None:
    alice = play.client()
    asks(play, alice, "begin; create temp table t (n int); commit; begin; rollback")
    assert alice.session.pin == "temporary object"


@pytest.mark.parametrize("commits", ["commit and chain", "commit; begin"])
def test_what_was_committed_stays_although_the_next_transaction_is_rolled_back(play: Stage, commits: str) -> None:
    alice = play.client()
    asks(play, alice, "begin", IN_TRANSACTION)
    asks(play, alice, "listen gossip", IN_TRANSACTION)
    asks(play, alice, commits, IN_TRANSACTION)
    asks(play, alice, "rollback")
    assert alice.session.pin == "LISTEN"


@pytest.mark.parametrize(
    ("makes", "gives_up"),
    [
        ("listen gossip", "unlisten *"),
        ("create temp table t (n int)", "discard temp"),
        ("set app.name to 'a'", "reset all"),
    ],
)
def test_what_was_given_up_and_brought_back_by_a_savepoint_stays(play: Stage, makes: str, gives_up: str) -> None:
    alice = play.client()
    asks(play, alice, makes)
    play.server().takes()
    for text in ("begin", "savepoint s", gives_up, "rollback to s"):
        asks(play, alice, text, IN_TRANSACTION)
    asks(play, alice, "commit")
    assert alice.session.pins


@pytest.mark.parametrize(
    ("makes", "gives_up"),
    [("listen gossip", b"unlisten *"), ("set app.name to 'a'", b"reset app.name"), ("listen gossip", b"discard all")],
)
def test_what_was_only_parsed_has_given_up_nothing(play: Stage, makes: str, gives_up: bytes) -> None:
    alice = play.client()
    asks(play, alice, makes)
    alice.says(builders.parse(b"s", gives_up), builders.describe_statement(b"s"), builders.SYNC)
    play.server().answers(PARSED + builders.parameter_description(()) + builders.NO_DATA + IDLE)
    assert alice.session.pins


def test_a_discard_all_that_was_only_parsed_can_be_bound(proving: Stage) -> None:
    alice = proving.client()
    alice.says(builders.parse(b"s", b"discard all"), builders.describe_statement(b"s"), builders.SYNC)
    proving.server().answers(PARSED + builders.parameter_description(()) + builders.NO_DATA + IDLE)
    alice.hears()
    alice.says(run(b"s"), builders.SYNC)
    assert not sqlstate(alice.hears())


def test_a_reset_that_was_only_parsed_resets_nothing(play: Stage) -> None:
    alice = play.client(TimeZone="Asia/Tokyo")
    alice.asks("set timezone to 'Europe/Paris'")
    play.server().answers(ONE_ROW + builders.parameter_status("TimeZone", "Asia/Tokyo") + IDLE)
    paris = builders.parameter_status("TimeZone", "Europe/Paris")
    play.server().answers(builders.command_complete("SET") + paris + IDLE)
    alice.says(builders.parse(b"s", b"reset timezone"), builders.SYNC)
    play.server().takes()
    play.server().answers(PARSED + IDLE)
    assert b"set_config" not in play.server().takes()


# --- settings ---


@pytest.mark.parametrize(("text", "tag"), [("set role limited", "SET"), ("set search_path to tenant_1", "SET")])
def test_settings_that_died_with_their_link_are_not_forgotten_in_silence(play: Stage, text: str, tag: str) -> None:
    alice = play.client()
    asks(play, alice, text)
    assert alice.hears() == done(tag)
    play.server().dies()
    alice.asks("delete from t")
    assert alice.closed, "its statements would run under the role and the search_path from before"


def test_L7_what_is_parsed_behind_a_set_in_its_unit_is_not_shared(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    date = b"select '1.2.2024'::date"
    alice.says(once(b"set datestyle to german"), builders.parse(b"a", date), builders.SYNC)
    german = builders.parameter_status("DateStyle", "German, DMY")
    play.server().answers(PARSED + BOUND + builders.command_complete("SET") + PARSED + german + IDLE)
    bob.says(builders.parse(b"b", date), builders.SYNC)
    play.server().takes()
    play.server().answers(ONE_ROW + builders.parameter_status("DateStyle", "ISO, MDY") + IDLE)
    assert date in play.server().takes(), "bob gets what was parsed under alice's DateStyle"


def test_L7_what_is_prepared_behind_a_set_in_its_unit_is_not_shared(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    text = b"prepare p as select '1.2.2024'::date"
    asks(play, bob, text.decode())
    alice.says(once(b"set datestyle to german"), once(text), builders.SYNC)
    german = builders.parameter_status("DateStyle", "German, DMY")
    ran = PARSED + BOUND
    play.server().answers(ran + builders.command_complete("SET") + ran + CLOSED + PREPARED + german + IDLE)
    play.server().takes()
    bob.asks("execute p")
    play.server().takes()
    play.server().answers(ONE_ROW + builders.parameter_status("DateStyle", "ISO, MDY") + IDLE)
    assert text in play.server().takes(), "bob runs what alice prepared under her DateStyle"


GERMAN = builders.parameter_status("DateStyle", "German, DMY")


def test_a_statement_prepared_by_sql_keeps_the_meaning_that_it_had_then(play: Stage) -> None:
    alice = play.client()
    asks(play, alice, "prepare p as select '1.2.2024'::date")
    asks(play, alice, "set datestyle to german", IDLE, builders.command_complete("SET") + GERMAN)
    play.server().takes()
    alice.asks("execute p")
    sent = queries(play)
    assert sent[-1] == b"execute p"
    assert len(sent) == 1 or b"set_config('DateStyle', 'ISO" in sent[0], "prepared again as it reads now: another day"


def learns_as_it_reads_now(sent: bytes) -> bool:
    """Whether the server is told helios_1 without having been given the DateStyle under which it was meant."""
    before, name, _ = sent.partition(b"helios_1\0select")
    return bool(name) and b"ISO" not in before


def learned_before(play: Stage) -> Speaker:
    """A client with a statement whose literals read otherwise under the DateStyle that it has by now."""
    alice = play.client()
    learns(play, alice, b"s", b"select '1.2.2024'::date")
    asks(play, alice, "set datestyle to german", IDLE, builders.command_complete("SET") + GERMAN)
    play.server().link.forget_statements()
    play.server().takes()
    alice.hears()
    return alice


def test_L7_a_statement_that_is_learned_behind_a_flush_is_learned_as_it_was_meant(play: Stage) -> None:
    alice = learned_before(play)
    alice.says(once(b"select 1"), FLUSH)
    play.server().answers(SELECTED)
    play.server().takes()
    alice.says(run(b"s"), builders.SYNC)
    assert not learns_as_it_reads_now(play.server().takes()), "all who share helios_1 get what it means in German"


def test_L7_nor_behind_a_rollback_in_its_unit(play: Stage) -> None:
    alice = learned_before(play)
    asks(play, alice, "begin", IN_TRANSACTION)
    asks(play, alice, "select 1/0", FAILED, server_error())
    play.server().takes()
    alice.says(once(b"rollback"), run(b"s"), builders.SYNC)
    assert not learns_as_it_reads_now(play.server().takes())


def test_L7_nor_behind_a_set_in_its_unit(play: Stage) -> None:
    alice = play.client()
    alice.says(builders.parse(b"s", b"select '1.2.2024'::date"), builders.SYNC)
    play.server().answers(PARSED + IDLE)
    play.server().link.forget_statements()
    play.server().takes()
    alice.says(once(b"set datestyle to german"), run(b"s"), builders.SYNC)
    sent = split(play.server().takes())
    kinds = [message[:1] for message in sent]
    learned = [at for at, message in enumerate(sent) if message[5:13] == b"helios_1"]
    assert not learned or learned[0] < kinds.index(b"E")


def test_reset_role_brings_back_the_role_that_was_named_at_start_up(play: Stage) -> None:
    alice = play.client()
    alice.session.start = alice.session.settings = alice.session.settings.with_values({"role": "limited"})
    alice.asks("reset role")
    play.server().answers(ONE_ROW + IDLE)
    play.server().takes()
    play.server().answers(builders.command_complete("RESET") + IDLE)
    assert b"set_config('role', 'limited'" in play.server().takes()


def test_L7_what_is_parsed_under_a_local_setting_is_not_shared(harmless: Stage) -> None:
    alice, bob = harmless.client(), harmless.client()
    text = b"select null = null"
    asks(harmless, alice, "begin", IN_TRANSACTION)
    asks(harmless, alice, "set local transform_null_equals to on", IN_TRANSACTION)
    alice.says(builders.parse(b"a", text), builders.SYNC)
    harmless.server().answers(PARSED + IN_TRANSACTION)
    asks(harmless, alice, "commit")
    if b"DISCARD ALL" in harmless.server().takes():
        harmless.server().answers(ONE_ROW + IDLE + done("DISCARD ALL"))
    bob.says(builders.parse(b"b", text), builders.SYNC)
    assert text in harmless.server().takes()


def test_L7_nor_with_oneself_once_a_setting_that_nobody_sees_has_changed(play: Stage) -> None:
    alice = play.client()
    text = b"select null = null"
    asks(play, alice, "set transform_null_equals to on")
    alice.says(builders.parse(b"a", text), builders.SYNC)
    play.server().answers(PARSED + IDLE)
    asks(play, alice, "set transform_null_equals to off")
    alice.says(builders.parse(b"b", text), builders.SYNC)
    assert text in play.server().takes()


def test_a_reset_that_was_committed_before_a_failure_is_known(proving: Stage) -> None:
    alice, server = proving.client(TimeZone="Asia/Tokyo"), proving.server
    alice.asks("set timezone to 'Europe/Paris'")
    server().answers(ONE_ROW + builders.parameter_status("TimeZone", "Asia/Tokyo") + IDLE)
    server().answers(builders.command_complete("SET") + builders.parameter_status("TimeZone", "Europe/Paris") + IDLE)
    alice.asks("reset timezone; commit; select 1/0")
    answer = builders.command_complete("RESET") + builders.command_complete("COMMIT") + server_error()
    server().takes()
    server().answers(answer + builders.parameter_status("TimeZone", "UTC") + IDLE)
    if b"set_config" in server().takes():
        server().answers(ONE_ROW + builders.parameter_status("TimeZone", "Asia/Tokyo") + IDLE)
    assert alice.session.settings.value("TimeZone") == "Asia/Tokyo"


# --- lost links ---


def test_a_cursor_whose_link_died_does_not_look_as_if_it_had_come_to_its_end(play: Stage) -> None:
    alice = play.client()
    asks(play, alice, "begin", IN_TRANSACTION)
    alice.says(builders.parse(b"", b"select n from t"), bind(portal=b"c"), builders.execute(b"c", 1), builders.SYNC)
    play.server().answers(PARSED + BOUND + builders.data_row_text(["1"]) + b"s\0\0\0\4" + IN_TRANSACTION)
    play.server().dies()
    alice.hears()
    alice.says(builders.execute(b"c", 1), builders.SYNC)
    heard = alice.hears()
    assert sqlstate(heard), "the client takes what it has for all rows"
    assert heard.endswith(FAILED)


def test_a_unit_whose_link_dies_hears_of_one_error(play: Stage) -> None:
    alice = play.client()
    asks(play, alice, "begin", IN_TRANSACTION)
    alice.hears()
    alice.says(once(b"select 1"), FLUSH)
    play.server().dies()
    alice.says(builders.SYNC)
    assert tags(alice.hears()) == "EZ"


def test_a_unit_in_a_lost_transaction_hears_of_one_error(play: Stage) -> None:
    alice = play.client()
    asks(play, alice, "begin", IN_TRANSACTION)
    alice.hears()
    play.server().dies()
    alice.says(once(b"select 1"), FLUSH)
    alice.says(builders.SYNC)
    assert tags(alice.hears()) == "EZ"


def test_O1_a_commit_that_was_bound_earlier_has_an_unknown_outcome(play: Stage) -> None:
    alice = play.client()
    asks(play, alice, "begin", IN_TRANSACTION)
    alice.says(builders.parse(b"", b"commit"), bind(portal=b"c"), builders.SYNC)
    play.server().answers(PARSED + BOUND + IN_TRANSACTION)
    alice.hears()
    alice.says(builders.execute(b"c"), builders.SYNC)
    play.server().dies()
    assert sqlstate(alice.hears()) == "08007"


# --- what a link knows ---


def test_a_parse_that_the_server_skipped_has_not_replaced_the_unnamed_statement(play: Stage) -> None:
    alice = play.client()
    learns(play, alice, b"s", b"select 1/0")
    alice.says(builders.parse(b"", b"select 'old'"), builders.SYNC)
    play.server().answers(PARSED + IDLE)
    alice.says(run(b"s"), builders.parse(b"", b"select 'new'"), builders.SYNC)
    play.server().answers(BOUND + server_error() + IDLE)
    play.server().takes()
    alice.hears()
    alice.says(run(), builders.SYNC)
    sent = play.server().takes()
    assert tags(sent) == "BES" or b"select 'old'" in sent
    assert not sqlstate(alice.hears())


def test_L1_a_bind_behind_a_parse_that_the_server_skipped_finds_no_others_statement(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    learns(play, alice, b"s", b"select 1/0")
    bob.says(builders.parse(b"", b"select 'bob'"), builders.SYNC)
    play.server().answers(PARSED + IDLE)
    alice.says(run(b"s"), builders.parse(b"", b"select 'new'"), builders.SYNC)
    play.server().answers(BOUND + server_error() + IDLE)
    play.server().takes()
    alice.hears()
    alice.says(run(), builders.SYNC)
    assert tags(play.server().takes()) != "BES", "the server's unnamed statement is bob's"


def test_an_error_behind_its_parse_leaves_the_unnamed_statement(play: Stage) -> None:
    alice = play.client()
    alice.says(once(b"execute p"), builders.SYNC)
    play.server().takes()
    for answer in (PARSED, BOUND, server_error("26000"), IDLE):
        play.server().answers(answer)
    alice.hears()
    tells(play.server())
    play.server().answers(ONE_ROW + IDLE + done("DISCARD ALL"))
    play.server().takes()
    alice.says(run(), builders.SYNC)
    assert tags(play.server().takes()).endswith("BES")
    assert not alice.hears()


def test_a_prepare_that_the_server_skipped_is_not_known_to_the_link(play: Stage) -> None:
    alice, bob = play.client(), play.client()
    asks(play, bob, "prepare p as select 1")
    play.server().link.forget_statements()
    alice.says(once(b"select 1/0"), once(b"prepare p as select 1"), builders.SYNC)
    play.server().answers(PARSED + BOUND + server_error() + IDLE)
    play.server().takes()
    bob.asks("execute p")
    assert queries(play) == [b"prepare p as select 1", b"execute p"]


def test_a_query_behind_one_that_the_proxy_refuses_is_answered(play: Stage) -> None:
    alice = play.client()
    alice.says(*(builders.query(text) for text in (b"begin", b"deallocate nope", b"select 1")))
    play.server().answers(done("BEGIN", IN_TRANSACTION))
    play.server().answers(server_error("42601") + FAILED)
    assert queries(play)[-1] == b"select 1", "it was taken for a part of the one before"


def test_in_an_aborted_transaction_a_parse_of_a_name_that_is_taken_is_aborted_too(play: Stage) -> None:
    alice = play.client()
    learns(play, alice, b"s", b"select 1")
    asks(play, alice, "begin", IN_TRANSACTION)
    asks(play, alice, "select 1/0", FAILED, server_error())
    alice.hears()
    alice.says(builders.parse(b"s", b"select 1"), builders.SYNC)
    play.server().answers(server_error("25P02") + FAILED)
    assert sqlstate(alice.hears()) == "25P02"


def test_a_statement_that_failed_with_0A000_is_learned_again_in_a_transaction(play: Stage) -> None:
    alice = play.client()
    learns(play, alice, b"s", b"select unsupported()")
    alice.says(run(b"s"), builders.SYNC)
    play.server().answers(BOUND + server_error("0A000") + IDLE)
    asks(play, alice, "begin", IN_TRANSACTION)
    alice.says(run(b"s"), builders.SYNC)
    sent = split(play.server().takes())
    parses = [at for at, message in enumerate(sent) if message[:1] == b"P"]
    closes = [at for at, message in enumerate(sent) if message[:1] == b"C"]
    assert not parses or (closes and closes[0] < parses[0]), "42P05 aborts the transaction"


def serves(play: Stage) -> None:
    """The server answers whatever it is sent, as long as that leads to more."""
    replies = {"P": PARSED, "B": BOUND, "D": DESCRIBED, "E": ROW, "C": CLOSED, "S": IDLE, "Q": ONE_ROW + IDLE}
    while sent := play.server().takes():
        play.server().answers(b"".join(replies[tag] for tag in tags(sent)))


def test_a_link_keeps_no_more_statements_than_it_may_where_they_are_described(stage: Make) -> None:
    play = stage(size=1, prepared_statements=3)
    alice = play.client()
    for number in range(10):
        name, text = b"s%d" % number, b"select n from t%d" % number
        alice.says(builders.parse(name, text), builders.describe_statement(name), builders.SYNC)
        serves(play)
    play.server().link.forget_statements()
    for number in range(10):
        alice.says(run(b"s%d" % number), builders.SYNC)
        serves(play)
    assert len(play.server().link.prepared) <= 3


def test_a_unit_that_ends_while_a_statement_is_examined_is_sent_to_its_end(play: Stage) -> None:
    alice = play.client()
    learns(play, alice, b"s", b"select 1")
    play.server().link.forget_statements()
    alice.says(run(b"s"), FLUSH)
    assert tags(play.server().takes()) == "PDS"
    alice.says(builders.SYNC)
    play.server().answers(PARSED + DESCRIBED + IDLE)
    assert tags(play.server().takes()).endswith("S"), "nobody ever sends the Sync"


def test_a_cancel_and_a_link_that_cannot_be_given_settings_are_no_crash(play: Stage) -> None:
    alice = play.client()
    asks(play, alice, "begin", IN_TRANSACTION)
    asks(play, alice, "set search_path to a", IN_TRANSACTION)
    play.server().dies()
    alice.asks("rollback")
    alice.session.settings = alice.session.settings.with_values({"search_path": "b"})
    alice.asks("select 1")
    play.switch.cancel(alice.session.key, lambda: None)
    play.server(1).answers(server_error("0A000") + IDLE)
    assert not alice.session.units


def test_a_link_that_dies_while_start_up_values_are_put_back_does_not_count_as_busy(play: Stage) -> None:
    alice = play.client(TimeZone="Asia/Tokyo")
    alice.asks("reset timezone")
    play.server().answers(ONE_ROW + builders.parameter_status("TimeZone", "Asia/Tokyo") + IDLE)
    utc = builders.parameter_status("TimeZone", "UTC")
    play.server().answers(builders.command_complete("RESET") + utc + IDLE)
    node = play.server().link.node
    play.server().dies()
    assert node.in_flight == 0


def test_a_cancel_while_a_statement_is_examined_leaves_nobody_waiting(play: Stage) -> None:
    alice = play.client()
    learns(play, alice, b"s", b"select 1")
    play.server().link.forget_statements()
    asks(play, alice, "begin", IN_TRANSACTION)
    asks(play, alice, "set search_path to a", IN_TRANSACTION)
    alice.hears()
    play.server().takes()
    alice.says(run(b"s"), builders.SYNC)
    alice.asks("select 2")
    assert tags(play.server().takes()) == "PDS"
    play.switch.cancel(alice.session.key, lambda: None)
    play.server().answers(PARSED + DESCRIBED + IN_TRANSACTION)
    answered = alice.hears().endswith(IN_TRANSACTION + b"")
    assert b"select 2" in play.server().takes() or not answered


def test_a_cancel_while_a_statement_is_examined_aborts_the_transaction(play: Stage) -> None:
    alice = play.client()
    learns(play, alice, b"s", b"select 1")
    play.server().link.forget_statements()
    asks(play, alice, "begin", IN_TRANSACTION)
    asks(play, alice, "set search_path to a", IN_TRANSACTION)
    alice.hears()
    alice.says(run(b"s"), builders.SYNC)
    play.switch.cancel(alice.session.key, lambda: None)
    heard = alice.hears()
    assert not sqlstate(heard) or heard.endswith(FAILED)


def test_an_examination_that_was_cancelled_leaves_the_clients_settings(play: Stage) -> None:
    alice = play.client()
    learns(play, alice, b"s", b"select '1.2.2024'::date")
    german = builders.parameter_status("DateStyle", "German, DMY")
    asks(play, alice, "set datestyle to german", IDLE, builders.command_complete("SET") + german)
    play.server().link.forget_statements()
    play.server().takes()
    alice.says(run(b"s"), builders.SYNC)
    assert tags(play.server().takes()) == "QPDSQ"
    iso = builders.parameter_status("DateStyle", "ISO, MDY")
    play.server().answers(ONE_ROW + iso + IDLE + PARSED + DESCRIBED + IDLE + server_error("57014") + IDLE)
    alice.hears()
    sent = play.server().takes()
    assert b"set_config" in sent or sent == b"", "the statement runs under the settings of the examination"


def test_a_statement_that_was_parsed_under_the_wrong_settings_is_not_kept(play: Stage) -> None:
    alice = play.client()
    learns(play, alice, b"s", b"select '1.2.2024'::date")
    german = builders.parameter_status("DateStyle", "German, DMY")
    asks(play, alice, "set datestyle to german", IDLE, builders.command_complete("SET") + german)
    play.server().link.forget_statements()
    play.server().takes()
    alice.says(run(b"s"), builders.SYNC)
    play.server().takes()
    play.server().answers(server_error("57014") + IDLE + PARSED + DESCRIBED + IDLE + ONE_ROW + IDLE)
    assert play.server().closed
    assert play.servers[-1] is not play.server(), "another link is asked, which is not in doubt"


def test_the_first_error_of_a_unit_is_the_one_that_is_told(play: Stage) -> None:
    alice = play.client()
    learns(play, alice, b"a", b"insert into t values (1)")
    learns(play, alice, b"b", b"select * from gone")
    play.server().link.forget_statements()
    alice.says(run(b"a"), run(b"b"), builders.SYNC)
    play.server().takes()
    play.server().answers(PARSED + DESCRIBED + IDLE + server_error("42P01") + IDLE)
    play.server().takes()
    play.server().answers(BOUND + server_error("23505") + IDLE)
    assert sqlstate(alice.hears()) == "23505"


# --- work and memory that grow ---


def test_deallocating_many_statements_at_once_takes_little_memory(play: Stage) -> None:
    alice = play.client()
    for number in range(2000):
        alice.says(builders.parse(b"s%d" % number, b"select 1"), builders.SYNC)
        if play.server().link.units:
            play.server().answers(PARSED + IDLE)
    unit = b"".join(once(b"deallocate s%d" % number) for number in range(700))
    tracemalloc.start()
    alice.says(unit, builders.SYNC)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not sqlstate(alice.hears())
    assert peak < 10_000_000


def steps_looked_at(play: Stage, number: int) -> int:
    """Lines run to find what so many portals, of one unit, were bound to."""
    lines = 0

    def count(frame: FrameType, event: str, argument: object) -> Callable[..., object] | None:
        nonlocal lines
        lines += event == "line"
        return count if frame.f_code.co_name == "_bound_to" else None

    alice = play.client()
    settrace(count)
    try:
        alice.says(b"D\0\0\0\6P\0" * number, FLUSH)
        while play.switch.go_on():
            pass
    finally:
        settrace(None)
    alice.leaves()
    return lines


def test_describing_portals_takes_work_in_proportion_to_their_number(play: Stage) -> None:
    assert steps_looked_at(play, 2000) < 5 * steps_looked_at(play, 500)


def test_a_long_pipeline_takes_work_in_proportion_to_its_statements(
    play: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0

    def same(one: Flow, other: object) -> bool:
        nonlocal compared
        compared += 1
        return one is other

    monkeypatch.setattr(Flow, "__eq__", same)
    alice = play.client()
    alice.says(once(b"select 1"), FLUSH)
    statements = [builders.parse(b"", b"select n from t%d" % at) for at in range(2000)]
    for at in range(0, len(statements), 100):
        alice.says(*statements[at : at + 100], FLUSH)
    assert compared < len(statements)

