"""Clients say anything, cut anywhere; servers answer properly, in pieces, or die; links open late, fail or are refused;
cancels come and time passes: each client hears one ReadyForQuery for each of its units, in order and with nobody else's
rows in between, and in the end nothing is left over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from heliosproxy.switch import planner, timeouts
from heliosproxy.switch.link import Link
from heliosproxy.switch.opening import Unreachable
from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError, error_response
from tests.switch.ends import Ear, FarEnd, Troubles
from tests.switch.pools_support import Theatre, theatre
from tests.switch.stage import Server, bind, run, split
from tests.switch.test_review_pooling_model import harmless

AT = st.integers(0, 1000)
SIZES = st.sampled_from((1, 2, 3, 5, 6, 7, 30, 1 << 20))
"""Of the pieces in which bytes arrive, mostly all at once."""
PIECES = st.just([]) | st.lists(SIZES, max_size=3)
USERS = ("alice", "bob")
REFUSALS = (
    PeerError("sorry, too many clients already", "53300"),
    PeerError("permission denied", "42501"),
    Unreachable("no answer"),
)
WAIT = 20.0
MOST_CLIENTS, MOST_QUEUED = 4, 40
TERMINATED = error_response("FATAL", "57P01", "terminating connection due to administrator command")
TEXTS = (
    "begin", "commit", "rollback", "select 1/0", "!", "", "copy", "prepare p as select 'x'", "execute p", "update t",
)  # fmt: skip
MESSAGES = (
    builders.parse(b"s", b"select 's'"), builders.parse(b"", b"!"), bind(b"s"), bind(b"nowhere"), run(b"s"),
    builders.describe_statement(b"s"), builders.describe_statement(b"nowhere"), builders.close_statement(b"s"),
    builders.execute(b"nowhere"), b"H\0\0\0\4", b"B\0\0\0\5x", b"D\0\0\0\6Ss", b"d\0\0\0\6xy", b"c\0\0\0\4",
)  # fmt: skip
"""Of the extended protocol: good ones, wrong ones, malformed ones, and COPY data that nobody asked for."""
FAILING = {"!", "select 1/0", MESSAGES[1], MESSAGES[3], MESSAGES[6], MESSAGES[8], MESSAGES[10], MESSAGES[11]}
"""What no unit survives."""
JUNK = (b"y\0\0\0\4", b"Q\0\0\0\3", b"\xff" * 9, b"p\0\0\0\5x", b"S\x7f\xff\xff\xff", b"X\0\0\0\4", b"GET /")


class Sessions(RuleBasedStateMachine):
    """Up to four clients of two users on one node."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.play: Theatre
        self.ears: list[Ear] = []
        self.far: dict[Server, FarEnd] = {}
        self.names = count(1)
        self.troubles = Troubles()

    @initialize(
        size=st.integers(1, 2), mode=st.sampled_from(("transaction", "transaction", "session", "statement")),
        statement=st.sampled_from((None, None, 2.0)), idle=st.sampled_from((None, None, 3.0)),
        eager=st.booleans(),
    )  # fmt: skip
    def begin(self, size: int, mode: str, statement: float | None, idle: float | None, eager: bool) -> None:
        self.play = self.stack.enter_context(theatre(
            size=size, mode=mode, wait_timeout=WAIT, idle_timeout=7.0, max_lifetime=30.0, statement_timeout=statement,
            idle_in_transaction_session_timeout=idle, transaction_timeout=idle and 2 * idle, prepared_statements=2,
        ))  # fmt: skip
        self.stack.enter_context(patch.object(timeouts, "monotonic", lambda: self.play.now))
        self.stack.enter_context(patch.object(planner, "prove", harmless))
        self.play.open_at_once = self.play.end_at_once = eager
        log = logging.getLogger("heliosproxy")
        log.addHandler(self.troubles)
        self.stack.callback(log.removeHandler, self.troubles)
        self.somebody_comes("alice")

    def teardown(self) -> None:
        try:
            if hasattr(self, "play"):
                self.calm()
        finally:
            self.stack.close()

    # --- clients ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.ears) < MOST_CLIENTS)
    @rule(user=st.sampled_from(USERS))
    def somebody_comes(self, user: str) -> None:
        self.ears.append(Ear(self.play.user(user), f"{user}{next(self.names)}"))

    @rule(at=AT, what=st.just("own") | st.sampled_from(TEXTS), sizes=PIECES)
    def a_client_asks(self, at: int, what: str, sizes: list[int]) -> None:
        ear = self.ears[at % len(self.ears)]
        text = f"select '{ear.name}:{ear.said}'" if what == "own" else what
        unit = builders.query(text.encode())
        if text == "copy":
            unit += b"d\0\0\0\6xy" + (b"c\0\0\0\4" if at % 2 else b"f\0\0\0\6n\0")
        self.say(ear, unit, sizes, rows=what == "own", fails=what in FAILING)

    @rule(at=AT, messages=st.lists(st.sampled_from(("own", *MESSAGES)), max_size=5), sizes=PIECES)
    def a_client_asks_in_the_extended_protocol(self, at: int, messages: list[str | bytes], sizes: list[int]) -> None:
        ear = self.ears[at % len(self.ears)]
        own = builders.parse(b"", f"select '{ear.name}:{ear.said}'".encode()) + run()
        unit = b"".join(own if isinstance(each, str) else each for each in messages)
        rows = messages.count("own")
        self.say(ear, unit + builders.SYNC, sizes, rows=rows, fails=not FAILING.isdisjoint(messages))

    @rule(at=AT, messages=st.lists(st.sampled_from(MESSAGES), max_size=2))
    def a_client_flushes_and_thinks(self, at: int, messages: list[bytes]) -> None:
        ear = self.ears[at % len(self.ears)]
        begun = builders.parse(b"", f"select '{ear.name}:{ear.said}'".encode()) + run() + b"H\0\0\0\4"
        unit = begun + b"".join(messages) + builders.SYNC
        self.say(ear, unit, [len(ear.outbox + begun)], rows=1, fails=not FAILING.isdisjoint(messages))

    @rule(at=AT, junk=st.sampled_from(JUNK))
    def a_client_sends_junk(self, at: int, junk: bytes) -> None:
        ear = self.ears[at % len(self.ears)]
        ear.outbox += junk
        self.arrives(ear, len(ear.outbox))
        ear.honest = False
        ear.failing.clear()

    @rule(at=AT)
    def a_client_leaves(self, at: int) -> None:
        ear = self.ears[at % len(self.ears)]
        if not ear.left and not ear.speaker.closed:
            ear.left = True
            ear.speaker.leaves()

    @rule(at=AT, right=st.booleans())
    def a_client_cancels(self, at: int, right: bool) -> None:
        pid, key = self.ears[at % len(self.ears)].speaker.session.key
        found = self.play.switch.cancel((pid, key if right else b"wrong"), lambda: None)
        assert right or not found

    def say(self, ear: Ear, unit: bytes, sizes: list[int], *, rows: int, fails: bool) -> None:
        """The unit, behind what has not arrived yet; so many bytes of all that arrive now, piece by piece."""
        if ear.closed or ear.said - ear.heard > MOST_QUEUED:
            return
        if fails and ear.honest:
            ear.failing.add(ear.said)
        ear.asked[ear.said] = rows
        ear.said += 1
        ear.outbox += unit
        for size in sizes or [len(ear.outbox)]:
            self.arrives(ear, size)

    def arrives(self, ear: Ear, size: int) -> None:
        """The next bytes of a client."""
        piece, ear.outbox = ear.outbox[:size], ear.outbox[size:]
        if piece and not ear.left and not ear.speaker.closed:
            ear.speaker.says(piece)

    @rule(at=AT, size=SIZES)
    def the_rest_arrives(self, at: int, size: int) -> None:
        self.arrives(self.ears[at % len(self.ears)], size)

    # --- servers ------------------------------------------------------------------------------------------------------

    def living(self) -> list[FarEnd]:
        """The servers whose links are open."""
        return [self.far.setdefault(server, FarEnd(server)) for server in self.play.alive]

    @rule(at=AT, size=SIZES)
    def a_server_answers(self, at: int, size: int) -> None:
        for end in self.living()[at % max(1, len(self.play.alive)) :][:1]:
            end.work()
            end.says(size)

    @rule(at=AT, messages=st.integers(0, 3), last=st.sampled_from((b"", TERMINATED)))
    def a_server_dies(self, at: int, messages: int, last: bytes) -> None:
        """Having said some of what it had to say, and perhaps why it dies."""
        for end in self.living()[at % max(1, len(self.play.alive)) :][:1]:
            end.work()
            end.says(sum(map(len, split(end.answers)[:messages])) if end.whole else 0)
            if last and end.whole:
                end.answers = last
                end.says(len(last))
            if not end.server.link.closed:
                end.server.dies()

    @precondition(lambda self: self.play.opening)
    @rule(at=AT)
    def a_link_is_opened(self, at: int) -> None:
        self.play.open(self.play.opening.pop(at % len(self.play.opening)))

    @precondition(lambda self: self.play.opening)
    @rule(at=AT, error=st.sampled_from(REFUSALS))
    def a_link_cannot_be_opened(self, at: int, error: PeerError) -> None:
        pool = self.play.opening.pop(at % len(self.play.opening))
        self.play.switch.links.not_opened(pool, error, isinstance(error, Unreachable))

    @precondition(lambda self: self.play.cancels)
    @rule(at=AT, hits=st.booleans())
    def a_cancel_request_is_done(self, at: int, hits: bool) -> None:
        link, done = self.play.cancels.pop(at % len(self.play.cancels))
        for end in self.living():
            end.canceled = end.canceled or (hits and end.server.link is link)
        done()

    @rule(seconds=st.sampled_from((0.1, 0.1, 1.0, 6.0)))
    def time_passes(self, seconds: float) -> None:
        self.play.passes(seconds)

    @rule()
    def servers_have_closed(self) -> None:
        self.play.end()

    @rule(healthy=st.booleans())
    def the_node_goes_or_comes(self, healthy: bool) -> None:
        self.play.node.healthy = healthy
        self.play.cluster.primary = self.play.node if healthy else None
        self.play.cluster.version += 1
        self.play.passes(0.1)

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def everybody_hears_his_own(self) -> None:
        if not hasattr(self, "play"):
            return
        assert self.troubles.found == []
        for ear in self.ears:
            ear.listen()
        assert self.play.node.in_flight >= 0
        self.check_links()

    def check_links(self) -> None:
        held: dict[Link, str] = {}
        for ear in self.ears:
            session = ear.speaker.session
            if session.link is not None and session.id in self.play.switch.sessions:
                assert session.link not in held, f"{ear.name} and {held[session.link]} have one link"
                assert session.link.session is session
                held[session.link] = ear.name
            assert len(session.units) <= max(0, ear.said - ear.heard) + 1 or not ear.honest
        for pool in self.play.switch.links.pools:
            assert 0 <= pool.count <= pool.policy.size
            assert pool.opening >= 0

    def calm(self) -> None:
        """From here on everything works: everybody is answered, and then nothing is left."""
        self.the_node_goes_or_comes(healthy=True)
        for ear in self.ears:
            self.arrives(ear, len(ear.outbox))
        while any(not ear.left for ear in self.ears):
            for _ in self.turns(WAIT + 1):
                pass
            happy = [ear for ear in self.ears if not ear.left and (ear.heard == ear.said or ear.closed)]
            assert happy, [f"{ear.name}: {ear.heard} of {ear.said}" for ear in self.ears if not ear.left]
            for ear in happy:  # who has a link for itself makes room for others
                ear.left = True
                ear.speaker.leaves()
        for _ in self.turns(WAIT):
            pass
        assert self.troubles.found == []
        switch = self.play.switch
        assert (switch.sessions, switch._keys, switch._homeless, switch._unfinished) == ({}, {}, {}, {})
        assert self.play.node.in_flight == 0
        for pool in switch.links.pools:
            assert (pool.opening, len(pool.queue.waiting), len(pool.links) - len(pool.idle)) == (0, 0, 0)

    def turns(self, seconds: float) -> Iterator[None]:
        """Servers answer, links open and end, cancels arrive, for so long."""
        for _ in range(int(seconds / 0.5) + 1):
            while self.something_is_done():
                pass
            self.play.passes(0.5)
            self.everybody_hears_his_own()
            yield

    def something_is_done(self) -> bool:
        """Do whatever waits to be done; whether there was anything."""
        play = self.play
        waits = [*play.opening, *play.cancels, *play.ending]
        while play.opening:
            play.open(play.opening.pop())
        while play.cancels:
            play.cancels.pop()[1]()
        play.end()
        for end in self.living():
            end.work()
            if end.answers and not end.server.link.closed:
                waits.append(end)
                end.says(len(end.answers))
        return bool(waits)


Sessions.TestCase.settings = settings(max_examples=200, stateful_step_count=50, derandomize=True)
test_sessions_through_thick_and_thin = Sessions.TestCase
