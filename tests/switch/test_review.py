"""Conversations that no driver begins on purpose: clients that leave, err and hurry, links that die at a bad moment."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
import trio
import trio.testing
from helios_sdk.contract import Client

from heliosproxy.auth.users import ServerLogin
from heliosproxy.cluster.node import Node
from heliosproxy.config.access import Auth, ClientTls
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Config, NodeConfig
from heliosproxy.switch import greetings, links, proxy, switch
from heliosproxy.switch.access import Access
from heliosproxy.switch.admission import LOCAL
from heliosproxy.switch.arrivals import Arrival
from heliosproxy.switch.conversation import Conversation
from heliosproxy.switch.login import Admitted, Login
from heliosproxy.switch.opening import Opened, Unreachable
from heliosproxy.switch.proxy import QUEUED_MOST, Proxy
from heliosproxy.switch.reactor import HIGH_WATER, Endpoint
from heliosproxy.switch.session import Session
from heliosproxy.switch.settings import from_parameters
from heliosproxy.switch.stream import Stream
from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError
from heliosproxy.wire.startup import StartupMessage
from tests.switch.stage import (
    FAILED,
    IDLE,
    IN_TRANSACTION,
    ONE_ROW,
    REPORTED,
    Speaker,
    Stage,
    run,
    server_error,
    sqlstate,
    tags,
)

Make = Callable[..., Stage]
BEGUN = builders.command_complete("BEGIN") + IN_TRANSACTION
ROW = builders.data_row_text(["1"]) + builders.command_complete("SELECT 1")
PARSED, BOUND, CLOSED = builders.PARSE_COMPLETE, builders.BIND_COMPLETE, builders.CLOSE_COMPLETE
COPY_IN = b"G\0\0\0\x07\0\0\0"
FUNCTION_CALL = b"F" + struct.pack("!IIHHH", 14, 1, 0, 0, 0)
MALFORMED_BIND = b"B\0\0\0\x05x"
GARBAGE = b"Q\0\0\0\1"


def in_transaction(play: Stage, who: Speaker) -> None:
    who.asks("begin")
    play.server().answers(BEGUN)
    who.hears()
    play.server().takes()


def free_or_closed(play: Stage) -> bool:
    """Whether the first link can be used by others again, or is gone."""
    server = play.server()
    return server.closed or server.link.session is None


# --- clients that leave ---


def test_terminate_in_an_unfinished_unit_gives_the_link_back(stage: Make) -> None:
    play = stage(size=1)
    alice = play.client()
    in_transaction(play, alice)
    alice.says(builders.parse(b"", b"select 1"), run(), builders.TERMINATE)
    alice.leaves()
    assert free_or_closed(play)
    assert alice.session.id not in play.switch.sessions
    assert not play.switch.busy


def test_terminate_behind_a_flush_gives_the_link_back(stage: Make) -> None:
    play = stage(size=1)
    alice = play.client()
    alice.says(builders.parse(b"", b"select 1"), run(), builders.FLUSH)
    play.server().answers(PARSED + BOUND + ROW)
    alice.says(builders.TERMINATE)
    alice.leaves()
    assert free_or_closed(play)
    assert alice.session.id not in play.switch.sessions


def test_terminate_in_a_copy_gives_the_link_back(stage: Make) -> None:
    play = stage(size=1)
    alice = play.client()
    alice.asks("copy t from stdin")
    play.server().answers(COPY_IN)
    alice.says(b"d\0\0\0\x06a\n", builders.TERMINATE)
    alice.leaves()
    assert free_or_closed(play)
    assert alice.session.id not in play.switch.sessions


def test_a_malformed_message_before_a_terminate_gives_the_link_back(stage: Make) -> None:
    play = stage(size=1)
    alice = play.client()
    in_transaction(play, alice)
    alice.says(MALFORMED_BIND, builders.SYNC, builders.TERMINATE)
    alice.leaves()
    play.server().answers(server_error("42601") + FAILED)
    assert free_or_closed(play)
    assert alice.session.id not in play.switch.sessions


def test_a_pinned_session_that_said_terminate_ends_with_its_link(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("listen news")
    play.server().answers(builders.command_complete("LISTEN") + IDLE)
    alice.says(builders.query(b"select 1"), builders.TERMINATE)
    play.server().dies()
    assert alice.session.id not in play.switch.sessions
    assert not play.switch.busy


def test_nothing_of_a_client_runs_after_its_connection_was_ended(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    bob.asks("select 1")
    alice.asks("insert into t values (1)")
    alice.says(GARBAGE, builders.query(b"insert into t values (2)"))
    play.server().takes()
    play.server().answers(ONE_ROW + IDLE)
    assert play.server().takes() == builders.query(b"insert into t values (1)"), "it came before the nonsense"
    play.server().answers(builders.command_complete("INSERT 0 1") + IDLE)
    assert alice.closed
    alice.says(builders.SYNC)  # it was on its way when the connection was ended
    assert play.server().takes() == b""


def test_bytes_after_the_end_of_a_session_without_a_node_do_not_end_the_proxy(stage: Make) -> None:
    play = stage()
    play.cluster.primary = None
    play.cluster.by_name["primary"].healthy = False
    play.cluster.version += 1
    alice = play.client()
    alice.asks("insert into t values (1)")
    alice.says(GARBAGE)
    alice.says(builders.SYNC)
    play.switch.tick(monotonic() + 1000)  # an exception here ends the reactor
    assert play.switch.busy == 0
    assert alice.closed


def test_a_row_that_goes_on_after_its_client_left_is_no_internal_error(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("select 1")
    row = builders.data_row_text(["x" * 100_000])
    play.server().answers(row[:1000])
    alice.leaves()
    play.server().answers(row[1000:])  # read in the same round, before the socket was closed
    assert play.server().closed


# --- errors that must not leave the task in which they happen ---


def test_a_query_with_a_hint_and_a_nul_is_no_internal_error(stage: Make) -> None:
    """A link is handed over in a task of the proxy's nursery: what is raised there ends the whole proxy."""
    play = stage()
    play.open_at_once = False
    alice = play.client()
    text = b"/*helios:route=any*/ select 1\0 x"
    alice.says(b"Q" + struct.pack("!I", len(text) + 5) + text + b"\0")
    if play.opening:
        play.open(play.opening[0])
    assert alice.closed or sqlstate(alice.hears()) or play.server().takes()


def test_a_startup_setting_that_is_not_utf8_is_no_internal_error(stage: Make) -> None:
    play = stage()
    play.open_at_once = False
    alice = play.client()
    value = b"\xff".decode("utf-8", "surrogateescape")  # as the start-up packet is read
    alice.session.settings = from_parameters(REPORTED, {"my.setting": value})
    alice.asks("select 1")
    play.open(play.opening[0])
    assert b"E'\\xff'" in play.server().takes()


# --- settings ---


def adopting(play: Stage) -> Speaker:
    """A client whose link must first be given her settings."""
    alice, bob = play.client(search_path="hers"), play.client(search_path="his")
    bob.asks("select 1")
    if b"set_config" in play.server().takes():
        play.server().answers(builders.command_complete("SELECT 1") + IDLE)
    play.server().answers(ONE_ROW + IDLE)
    play.server().takes()
    return alice


def test_a_write_does_not_run_where_its_settings_were_refused(stage: Make) -> None:
    """With another tenant's search_path it would go to another tenant's table."""
    play = stage(size=1)
    alice = adopting(play)
    alice.asks("insert into t values (1)")
    sent = play.server().takes()
    assert b"'hers'" in sent
    assert b"insert" not in sent, "the server runs it although the settings before it failed"


def test_L3_a_cancel_that_hits_the_settings_cancels_the_statement(stage: Make) -> None:
    play = stage(size=1)
    alice = adopting(play)
    alice.asks("select 1")
    play.switch.cancel(alice.session.key, lambda: None)
    play.server().takes()
    play.server().answers(server_error("57014") + IDLE)
    assert sqlstate(alice.hears()) == "57014"
    assert not any(b"select 1" in server.takes() for server in play.servers)


# --- prepared statements ---


def test_L7_a_link_learns_a_statement_under_the_settings_of_its_name(stage: Make) -> None:
    play = stage(size=2)
    text = b"select timestamptz '2020-01-01'"
    alice, bob, carol = play.client(), play.client(), play.client()
    alice.says(builders.parse(b"a", text), builders.SYNC)
    play.server(0).answers(PARSED + IDLE)
    alice.asks("set timezone to 'Europe/Berlin'")
    berlin = builders.parameter_status("TimeZone", "Europe/Berlin")
    play.server(0).answers(builders.command_complete("SET") + berlin + IDLE)
    bob.asks("select 2")  # takes the first link
    alice.says(run(b"a"), builders.SYNC)  # the second link learns it, in UTC, where alice has parsed it
    utc = builders.parameter_status("TimeZone", "UTC")
    done = builders.command_complete("SELECT 1")
    play.server(1).answers(done + berlin + IDLE)
    asked = play.server(1).takes()
    assert tags(asked) == "QQPDSQ"
    assert asked.index(b"'UTC'") < asked.index(text) < asked.rindex(b"'Europe/Berlin'")
    play.server(1).answers(done + utc + IDLE + PARSED + builders.NO_DATA + IDLE + done + berlin + IDLE)
    assert tags(play.server(1).takes()) == "BES"
    play.server(1).answers(BOUND + ROW + IDLE)
    carol.says(builders.parse(b"c", text), run(b"c"), builders.SYNC)  # in UTC, on the second link
    play.server(1).takes()
    play.server(1).answers(done + utc + IDLE)
    assert tags(play.server(1).takes()) == "BES", "it is what carol means"


def test_L7_a_moment_in_dollar_quotes_is_a_moment_too(stage: Make) -> None:
    play = stage(size=1)
    alice, bob = play.client(), play.client()
    text = b"select $$now$$::timestamptz"
    alice.says(builders.parse(b"a", text), builders.SYNC)
    play.server().answers(PARSED + IDLE)
    play.server().takes()
    bob.says(builders.parse(b"b", text), builders.SYNC)
    assert tags(play.server().takes()) == "PS"


def test_a_close_that_the_server_skipped_is_not_taken_for_done(stage: Make) -> None:
    play = stage(size=1, prepared_statements=1)
    alice = play.client()
    alice.says(builders.parse(b"a", b"select a"), builders.SYNC)
    play.server().answers(PARSED + IDLE)
    play.server().takes()
    # The first Execute fails, so the server skips the Close that makes room for b.
    alice.says(run(b"a"), builders.parse(b"b", b"select b"), run(b"b"), builders.SYNC)
    play.server().takes()
    play.server().answers(BOUND + server_error() + IDLE)
    alice.says(run(b"a"), builders.SYNC)
    assert not tags(play.server().takes()).startswith("P"), "the server still has it and would say 42P05"


def test_deallocating_one_does_not_make_the_link_forget_the_others(stage: Make) -> None:
    play = stage(size=1)
    alice = play.client()
    in_transaction(play, alice)
    alice.says(builders.parse(b"a", b"select a"), builders.SYNC)
    play.server().answers(PARSED + IN_TRANSACTION)
    alice.asks("prepare other as select 1")
    play.server().answers(builders.command_complete("PREPARE") + IN_TRANSACTION)
    alice.asks("deallocate other")
    play.server().takes()
    alice.says(run(b"a"), builders.SYNC)
    assert tags(play.server().takes()) == "BES", "a Parse would fail with 42P05: the server still has it"


@pytest.mark.parametrize("text", ["discard plans", "discard sequences", "discard temp"])
def test_only_discard_all_discards_statements(stage: Make, text: str) -> None:
    play = stage(size=1)
    alice = play.client()
    in_transaction(play, alice)
    alice.says(builders.parse(b"a", b"select a"), builders.SYNC)
    play.server().answers(PARSED + IN_TRANSACTION)
    alice.asks(text)
    play.server().answers(builders.command_complete(text.upper()) + IN_TRANSACTION)
    play.server().takes()
    alice.hears()
    alice.says(run(b"a"), builders.SYNC)
    assert sqlstate(alice.hears()) == ""
    assert tags(play.server().takes()) == "BES"


def test_deallocate_of_a_virtual_statement_deallocates_it(stage: Make) -> None:
    """psycopg says so when its cache is full, where libpq is older than 17."""
    play = stage(size=1)
    alice = play.client()
    alice.says(builders.parse(b"a", b"select a"), builders.SYNC)
    play.server().answers(PARSED + IDLE)
    alice.hears()
    play.server().takes()
    alice.asks('deallocate "a"')
    assert b'"a"' not in play.server().takes(), "the server knows it by another name"
    assert b"a" not in alice.session.prepared


def test_a_statement_whose_plan_went_stale_can_be_prepared_afresh(stage: Make) -> None:
    """After ALTER TABLE every use of it fails with 0A000, and a client's remedy is to prepare it again."""
    play = stage(size=1)
    alice = play.client()
    alice.says(builders.parse(b"a", b"select * from t"), builders.SYNC)
    play.server().answers(PARSED + IDLE)
    alice.says(run(b"a"), builders.SYNC)
    play.server().answers(server_error("0A000") + IDLE)
    alice.says(builders.close_statement(b"a"), builders.SYNC)
    play.server().takes()
    alice.says(builders.parse(b"a", b"select * from t"), builders.SYNC)
    assert b"select * from t" in play.server().takes()


def test_names_given_in_a_unit_that_got_no_link_are_free_again(stage: Make) -> None:
    play = stage(size=1, wait_timeout=5.0)
    alice, bob = play.client(), play.client()
    bob.asks("select 1")
    alice.says(builders.parse(b"a", b"select a"), builders.SYNC)
    play.switch.tick(monotonic() + 6)
    assert sqlstate(alice.hears()) == "53300"
    play.server().answers(ONE_ROW + IDLE)
    alice.says(builders.parse(b"a", b"select a"), builders.SYNC)
    assert sqlstate(alice.hears()) == ""


def test_names_given_in_a_lost_transaction_are_free_again(stage: Make) -> None:
    play = stage()
    alice = play.client()
    in_transaction(play, alice)
    play.server().dies()
    alice.says(builders.parse(b"a", b"select a"), builders.SYNC)
    assert sqlstate(alice.hears()) == "25P02"
    alice.asks("rollback")
    alice.hears()
    alice.says(builders.parse(b"a", b"select a"), builders.SYNC)
    assert sqlstate(alice.hears()) == ""


def test_an_error_takes_back_changes_of_one_name_in_reverse_order(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"a", b"select 1"), builders.SYNC)
    play.server().answers(PARSED + IDLE)
    old = alice.session.prepared[b"a"]
    close, parse = builders.close_statement(b"a"), builders.parse(b"a", b"select 2")
    alice.says(run(b"a"), close, parse, builders.SYNC)
    play.server().answers(BOUND + server_error() + IDLE)
    assert alice.session.prepared.get(b"a") is old


# --- the protocol's corners ---


def test_L1_a_function_call_in_an_extended_unit_is_followed_by_a_reset(stage: Make) -> None:
    play = stage(size=1)
    alice = play.client()
    alice.says(builders.parse(b"", b"select 1"), FUNCTION_CALL)
    play.server().takes()
    play.server().answers(PARSED + b"V\0\0\0\x08\xff\xff\xff\xff" + IDLE)
    assert b"DISCARD ALL" in play.server().takes()


def test_O2_a_function_call_in_an_extended_unit_is_not_repeated(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"", b"select 1"), FUNCTION_CALL)
    play.server().dies()
    assert sqlstate(alice.hears()) == "08007"
    assert len(play.servers) == 1


def test_a_query_that_the_server_skips_is_ended_by_the_sync(stage: Make) -> None:
    """After an error the server skips to the Sync; a Query is no Sync."""
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"", b"select nonsense"), builders.query(b"select 2"), builders.SYNC)
    sent = play.server().takes()
    play.server().answers(server_error("42703"))
    assert tags(sent + play.server().takes()) == "PQS"
    play.server().answers(IDLE)
    assert tags(alice.hears()) == "EZ"


def test_copy_data_and_its_sync_may_come_before_the_server_asks(stage: Make) -> None:
    play = stage()
    alice = play.client()
    data, done = b"d\0\0\0\x06a\n", b"c\0\0\0\4"
    alice.says(builders.parse(b"", b"copy t from stdin"), run(), builders.SYNC, data, done, builders.SYNC)
    play.server().takes()
    play.server().answers(PARSED + BOUND + COPY_IN)  # it has skipped the first Sync
    assert tags(play.server().takes()) == "dcS"
    play.server().answers(builders.command_complete("COPY 1") + IDLE)
    assert tags(alice.hears()) == "12GCZ"


def test_a_sync_in_a_copy_is_ignored(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("copy t from stdin")
    play.server().answers(COPY_IN)
    play.server().takes()
    alice.says(builders.SYNC, b"c\0\0\0\4")
    assert tags(play.server().takes()).endswith("c")
    play.server().answers(builders.command_complete("COPY 0") + IDLE)
    assert tags(alice.hears()) == "GCZ"


def test_O1_a_commit_among_others_has_an_unknown_outcome(stage: Make) -> None:
    play = stage()
    alice = play.client()
    in_transaction(play, alice)
    alice.asks("insert into t values (1); commit")
    play.server().dies()
    assert sqlstate(alice.hears()) == "08007"


def test_a_sync_in_a_lost_transaction_is_no_error(stage: Make) -> None:
    play = stage()
    alice = play.client()
    in_transaction(play, alice)
    play.server().dies()
    alice.says(builders.SYNC)
    assert alice.hears() == FAILED


def test_preparing_a_rollback_does_not_end_a_lost_transaction(stage: Make) -> None:
    play = stage()
    alice = play.client()
    in_transaction(play, alice)
    play.server().dies()
    alice.says(builders.parse(b"r", b"rollback"), builders.SYNC)
    assert alice.hears().endswith(FAILED)


def test_an_answer_before_bytes_that_are_not_the_protocol_is_delivered(stage: Make) -> None:
    play = stage()
    alice = play.client()
    alice.asks("insert into t values (1)")
    done = builders.command_complete("INSERT 0 1") + IDLE
    play.server().answers(done + b"T\0\0\0\6\0\0")
    assert alice.hears() == done
    alice.asks("select 1")
    assert play.server(1).takes(), "the session goes on"


def test_R3_a_write_behind_a_flushed_read_does_not_go_to_a_standby(stage: Make) -> None:
    play = stage(reads_on_standbys=True)
    alice = play.client()
    alice.says(builders.parse(b"r", b"select 1"), builders.describe_statement(b"r"), builders.FLUSH)
    alice.says(builders.parse(b"w", b"insert into t values (1)"), run(b"w"), builders.SYNC)
    standbys = [server for server in play.servers if server.link.node.role == "standby"]
    assert not any(b"insert" in server.takes() for server in standbys)


def test_a_node_that_seems_up_and_gives_no_link_is_waited_for_only_so_long(
    stage: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    for module in (switch, links):
        monkeypatch.setattr(module, "monotonic", lambda: now)
    play = stage(wait_timeout=5.0)
    play.open_at_once = False
    alice = play.client()
    alice.asks("select 1")
    for _ in range(20):
        while play.opening:
            play.switch.links.not_opened(play.opening.pop(), Unreachable("no answer"), unreachable=True)
        now += 1.0
        play.switch.tick(now)
    assert sqlstate(alice.hears()) in ("57P03", "53300")


# --- the proxy and its sockets ---


class Rig:
    """A proxy that listens nowhere, with one client on a socket pair. Rounds of the reactor are made by hand."""

    def __init__(self) -> None:
        self.node = NodeConfig("primary", Address("127.0.0.1", 1))
        self.proxy = Proxy(Config(Path("heliosproxy.toml"), (self.node,)), ())
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.session = Session(1, (1, b"key!"), Client("alice", "db"), from_parameters(REPORTED))
        inside = self.proxy
        self.endpoint: Endpoint = inside._reactor.adopt(
            ours, partial(inside._client_data, self.session), partial(inside._client_gone, self.session)
        )
        inside._clients[1] = self.endpoint
        inside._tickets[1] = inside.admission.arrived(LOCAL, lambda: None)
        inside._owners[self.endpoint] = self.session
        inside.switch.add_session(self.session)

    def round(self) -> None:
        """What the reactor does with the client's socket if it is readable and wanted."""
        reactor = self.proxy._reactor
        for fd, event in reactor.poller.poll(0):
            if fd == self.endpoint.fd and not self.endpoint.closed:
                reactor._serve(self.endpoint, event)
        self.proxy._settle()
        reactor.flush()

    def floods(self, data: bytes, rounds: int) -> None:
        """The client writes as much as is taken from it, and reads nothing."""
        for _ in range(rounds):
            if select.select([], [self.peer], [], 0)[1]:
                self.peer.send(data)
            self.round()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.peer.close()
    made.proxy._reactor.close()


def test_a_client_that_reads_no_answers_is_not_read(rig: Rig) -> None:
    """The proxy's own answers have no link to hold up."""
    rig.floods(builders.query(b"show helios.route") * 500, 1000)
    assert len(rig.endpoint.pending) < 4 * HIGH_WATER


def test_copy_data_before_the_server_asks_is_not_gathered_without_bound(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage()
    monkeypatch.setattr(rig.proxy.switch.links, "take", lambda session, pool: None)
    rig.proxy.cluster.nodes[0].role, rig.proxy.cluster.nodes[0].healthy = "primary", True
    rig.proxy.cluster.primary = rig.proxy.cluster.nodes[0]
    rig.floods(builders.query(b"copy t from stdin"), 1)
    pool = stage.switch.links.pool(stage.cluster.nodes[0], "db", "alice")
    rig.session.link = stage.open(pool).link
    rig.session.units[0].link = rig.session.link  # on a link, and not yet asked for data
    rig.floods(b"d" + struct.pack("!I", 60_004) + b"x" * 60_000, 200)
    assert rig.session.queued < 8 * QUEUED_MOST


def test_a_connection_that_closes_is_not_read(rig: Rig) -> None:
    rig.endpoint.send(b"x" * 4_000_000)
    rig.proxy._reactor.flush()
    rig.endpoint.close()
    rig.proxy._reactor.flush()
    assert not rig.endpoint.closed, "much is still to be written"
    taken: list[bytes] = []
    rig.endpoint.on_data = taken.append
    rig.peer.send(b"more")
    rig.round()
    assert taken == []


def test_a_client_that_is_let_go_does_not_hold_up_its_link(rig: Rig) -> None:
    """The link is somebody else's now, or is being reset, while the client may never read what is due to it."""
    ours, theirs = socket.socketpair()
    reactor = rig.proxy._reactor
    link = reactor.adopt(ours, lambda data: None, lambda reason: None)
    reactor.producer_of = {rig.endpoint: link}.get
    rig.endpoint.send(b"x" * 4_000_000)
    reactor.flush()
    assert link._waiting == 1
    rig.proxy.close_client(rig.session)
    reactor.flush()
    assert link._waiting == 0
    theirs.close()


def test_an_error_of_ours_while_writing_does_not_end_the_reactor(rig: Rig) -> None:
    def fail(reason: str) -> None:
        raise RuntimeError("a bug")

    rig.endpoint.on_closed = fail
    rig.peer.close()
    rig.endpoint.send(b"x")
    rig.proxy._reactor.flush()
    assert rig.endpoint.closed


async def test_a_client_held_while_it_waits_for_a_link_is_read_again_when_it_has_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that is opened is no event of the reactor's, and a server says nothing before a Sync."""
    go = trio.Event()
    sockets = socket.socketpair()

    async def open_link(node: Node, database: str, login: ServerLogin, *_: object, **__: object) -> Opened:
        await go.wait()
        return Opened(sockets[0], dict(REPORTED), (1, b"key!"))

    monkeypatch.setattr(proxy, "open_link", open_link)
    node = rig.proxy.cluster.nodes[0]
    node.role, node.healthy, rig.proxy.cluster.primary = "primary", True, node
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            rig.proxy._nursery = nursery
            rig.floods(builders.parse(b"", b"select 1") * 500, 60)
            assert rig.endpoint._waiting == 1
            go.set()
            await trio.testing.wait_all_tasks_blocked()
    rig.proxy._tick(monotonic())
    assert rig.session.link is not None
    assert rig.endpoint._waiting == 0
    sockets[1].close()


async def test_a_database_that_does_not_exist_is_nobodys_catalogue(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 such names would drop the catalogues of those that do."""

    async def open_link(node: Node, database: str, login: ServerLogin, *_: object, **__: object) -> Opened:
        raise PeerError("no such database", "3D000")

    monkeypatch.setattr(proxy, "open_link", open_link)
    rig.proxy.cluster.nodes[0].healthy, rig.proxy.cluster.primary = True, rig.proxy.cluster.nodes[0]
    ours, _theirs = map(Stream, socket.socketpair())
    ticket = rig.proxy.admission.arrived(LOCAL, lambda: None)
    arrival = Arrival(Conversation(ours), ticket)
    with pytest.raises(PeerError):
        await rig.proxy._enter(arrival, Admitted(Client("alice", "nonsense"), {}, {}, 0, b""))
    assert not arrival.entered
    assert [held.database for held in rig.proxy.cluster.snapshots.statistics()] == []


async def test_logins_of_one_kind_ask_the_server_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 clients that come at once must not open 200 connections to the primary."""
    asked, go = 0, trio.Event()

    async def open_link(node: Node, database: str, login: ServerLogin, *_: object, **__: object) -> Opened:
        nonlocal asked
        asked += 1
        await go.wait()
        return Opened(socket.socket(), dict(REPORTED), (1, b"key!"))

    monkeypatch.setattr(proxy, "open_link", open_link)
    rig.proxy.cluster.nodes[0].healthy, rig.proxy.cluster.primary = True, rig.proxy.cluster.nodes[0]
    found = partial(rig.proxy._greetings.of, "db", "alice", {})
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(found)
            await trio.testing.wait_all_tasks_blocked()
            go.set()
        assert asked == 1
        await found()
        assert asked == 1, "it is remembered"
        later = monotonic() + greetings.AGE
        monkeypatch.setattr(greetings, "monotonic", lambda: later)
        await found()
        assert asked == 2, "and not for ever: ALTER ROLE may have changed it"


@pytest.mark.parametrize("option", ["user=postgres", "database=other", "replication=true", "options=x"])
async def test_options_cannot_name_what_the_packet_itself_says(rig: Rig, option: str) -> None:
    """They would become start-up parameters of the proxy's own connection."""
    startup = StartupMessage({"user": "alice", "options": f"-c {option}"}).encode()
    with trio.fail_after(5):
        client, server = map(Stream, socket.socketpair())
        await client.send_all(startup)

        async def cancel(key: tuple[int, bytes]) -> None:
            raise AssertionError

        login = Login(
            Conversation(server), "127.0.0.1", Access.of(Auth(method="trust"), ClientTls()), rig.proxy.users,
            begins=lambda: None, cancel=cancel, turn=trio.Lock(), threads=trio.CapacityLimiter(1),
        )  # fmt: skip
        try:
            admitted = await login.run()
        except PeerError:
            return
        finally:
            await client.aclose()
            await server.aclose()
    assert admitted is not None
    assert not admitted.settings.keys() & {"user", "database", "replication", "options"}


async def test_an_unexpected_exception_while_a_link_is_handed_over_does_not_end_the_proxy(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`_open` is a child of the proxy's nursery: what leaves it cancels everything."""

    async def open_link(node: Node, database: str, login: ServerLogin, *_: object, **__: object) -> Opened:
        return Opened(socket.socketpair()[0], dict(REPORTED), (1, b"key!"))

    def fail(*arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(proxy, "open_link", open_link)
    monkeypatch.setattr(rig.proxy.switch.links, "opened", fail)
    pool = rig.proxy.switch.links.pool(rig.proxy.cluster.nodes[0], "db", "alice")
    with trio.fail_after(5):
        await rig.proxy._open(pool)


def test_a_write_in_a_transaction_on_a_standby_stays_in_it(stage: Make) -> None:
    """BEGIN READ ONLY has gone to a standby: the server refuses the write; the transaction must not move."""
    play = stage(reads_on_standbys=True)
    alice = play.client()
    alice.asks("select 1")
    play.server().answers(BEGUN)  # as if it had been BEGIN READ ONLY
    assert play.server().link.node.role == "standby"
    play.server().takes()
    alice.says(builders.parse(b"r", b"select 1"), builders.FLUSH)
    alice.says(builders.parse(b"w", b"insert into t values (1)"), run(b"w"), builders.SYNC)
    assert tags(play.server().takes()) == "PHPBES"


def test_L2_a_read_with_a_notice_of_ours_runs_again(stage: Make) -> None:
    """What the proxy says ahead of the answer waits for the answer."""
    play = stage()
    alice = play.client()
    alice.says(builders.parse(b"a", b"select 1"), builders.SYNC)
    play.server().answers(PARSED + IDLE)
    alice.says(builders.close_statement(b"a"), builders.SYNC)
    alice.hears()
    alice.says(builders.parse(b"a", b"select 1"), run(b"a"), builders.SYNC)  # this ParseComplete is the proxy's own
    assert alice.hears() == b""
    play.server().dies()
    play.switch.tick(monotonic())
    assert tags(play.server(1).takes()) == "PBES"
    play.server(1).answers(PARSED + BOUND + ROW + IDLE)
    assert alice.hears() == PARSED + BOUND + ROW + IDLE


def test_a_rollback_that_is_flushed_ends_a_lost_transaction(stage: Make) -> None:
    play = stage()
    alice = play.client()
    in_transaction(play, alice)
    play.server().dies()
    alice.says(builders.parse(b"r", b"rollback"), builders.FLUSH)
    assert alice.hears() == PARSED
    alice.says(run(b"r"), builders.SYNC)
    assert alice.hears() == BOUND + builders.command_complete("ROLLBACK") + IDLE
