"""A unit: what a client waits for. A simple Query, or everything up to a Sync.

A link answers units in the order in which they were sent. Where the proxy adds messages of its own to a unit (a Parse
of a statement that this link does not know yet) or answers some of them itself (a Close of a virtual statement), a
list of expected replies (`Expect`) runs along with the server's answers and says what to swallow and what to add.
Most units need none: then nothing but ReadyForQuery is looked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliosproxy.wire.errors import error_response

if TYPE_CHECKING:
    from heliosproxy.cluster.node import Node
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.prepared import Prepared
    from heliosproxy.switch.resolving import Step
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.sql_prepared import Wants

PARSE_COMPLETE = frozenset(b"1")
BIND_COMPLETE = frozenset(b"2")
CLOSE_COMPLETE = frozenset(b"3")
DESCRIBED = frozenset(b"Tn")
EXECUTED = frozenset(b"CIs")
READY = frozenset(b"Z")
NEVER: frozenset[int] = frozenset()
CANCELED = "57014"
TIMED_OUT = error_response("ERROR", CANCELED, "canceling statement due to statement timeout")
"""What a client gets whose statement took longer than `[pool] statement_timeout`."""


@dataclass(slots=True)
class Expect:
    """A reply that is due.

    `ends` are the tags of the messages that complete it; empty: nothing is due from the server, `emit` goes out as
    soon as the replies before it have. `swallow`: the reply is the proxy's, not the client's. `undo` runs if an error
    comes instead.
    """

    ends: frozenset[int]
    emit: bytes | Callable[[], bytes] = b""
    swallow: bool = False
    undo: Callable[[], None] | None = None
    failed: Callable[[], None] | None = None
    """Runs instead of `undo` if the error is the reply to this, not to something before it."""
    seen: Callable[[bytes], None] | None = None
    """Called with the reply."""
    error: bytes = b""
    """Sent to the client in place of the server's ErrorResponse: the proxy made the server fail, by a text that every
    server refuses (`simple.UNPARSABLE`)."""


class Unit:
    """One unit of one session, or an internal one (`session` is None) whose answer only the proxy reads."""

    __slots__ = (
        "attempts",
        "began",
        "body",
        "breaks_copy",
        "bytes",
        "complete",
        "declares",
        "dirt_before",
        "error",
        "executed",
        "executes",
        "expected",
        "failed",
        "flow",
        "flows",
        "flows_seen",
        "forwarded",
        "held",
        "in_copy",
        "late",
        "lead",
        "link",
        "lost_on",
        "marked",
        "messages",
        "mid_message",
        "moving",
        "names",
        "on_done",
        "overdue_since",
        "parked",
        "problem",
        "problem_response",
        "refused",
        "reply",
        "resets",
        "restartable",
        "rows",
        "session",
        "simple",
        "size",
        "sqlstate",
        "stand_in",
        "started",
        "steps",
        "sync_sent",
        "synced",
        "to_primary",
        "told",
        "unparsed",
        "unsettled",
        "wants",
        "wants_all",
    )

    def __init__(self, session: Session | None, *, simple: bool) -> None:
        self.session = session
        self.simple = simple
        self.messages: list[bytes] = []
        """The client's messages, whole, in order, as far as they are not yet sent; all of them while `restartable`."""
        self.size = 0
        """Bytes in `messages`."""
        self.restartable = True
        """Whether `messages` are kept until it is answered, so that it can run again elsewhere."""
        self.complete = simple
        """Whether its last message is there. Until then it may already have been sent, because of a Flush."""
        self.synced = False
        """What ended it is a Sync, which a server never skips."""
        self.sync_sent = False
        """That Sync is on its way. COPY data behind it waits until the server asks for it, which it may never do."""
        self.held = False
        """A Flush or sheer size asks for sending it before its Sync is there."""
        self.lead = b""
        """What the proxy says ahead of the server's first byte."""
        self.in_copy = False
        """The server waits for COPY data; it ignores Sync and Flush until that has ended."""
        self.dirt_before = 0
        """What may have been left on its link before it was sent."""
        self.breaks_copy = False
        """Its client sent, in the middle of COPY data, what is none."""
        self.moving = False
        """It was sent in part, and goes on on another link once this one is out of it."""
        self.parked: list[Step] = []
        """What is to be sent once it has moved."""
        self.began = False
        """An Execute of it was sent, so that its implicit transaction cannot be left."""
        self.names: dict[bytes, bytes] = {}
        """The link's names of the statements that it uses, and the client's."""
        self.executes = False
        """Whether it holds an Execute, so that sending it in part starts an implicit transaction."""
        self.body: list[bytes] = []
        """Bytes for the link, not yet sent."""
        self.expected: deque[Expect] | None = None
        self.link: Link | None = None
        self.flow: Flow | None = None
        """The flow of its first statement."""
        self.flows: list[Flow] = []
        """The flows of all its statements, where it is an extended one."""
        self.flows_seen: set[Flow] = set()
        """The same, to look up."""
        self.marked = 0
        """How many of its flows have been marked on its link."""
        self.unsettled = False
        """A statement of it has changed settings, in a way that shows only when it has ended."""
        self.steps: list[Step] = []
        """Messages resolved and not yet translated for a link."""
        self.attempts = 0
        self.forwarded = False
        """Whether any byte of its answer has gone to the client (L2)."""
        self.mid_message = False
        """Whether the last byte forwarded is inside a message."""
        self.failed = False
        """Whether the server answered with an error; it then skips everything up to the Sync."""
        self.refused = ""
        """The SQLSTATE with which a standby refused what the primary can do; the unit will run again there (R2)."""
        self.lost_on: Node | None = None
        """The node whose link died under it: its other links may be as dead, and not be known to be."""
        self.to_primary = False
        """It is run again because a standby refused it."""
        self.sqlstate = ""
        self.unparsed = False
        """The server's parser refused the text as a whole, so nothing of it ran."""
        self.problem = ""
        """Internal units: the server's words for what went wrong."""
        self.error = b""
        """The ErrorResponse that its client gets, although or because no server has seen it."""
        self.told = False
        """Its client has its error; only ReadyForQuery is still due, once its Sync is there."""
        self.executed: list[Flow] = []
        """Of an extended one: the flows whose execution matters, in order."""
        self.late: list[Prepared] = []
        """Statements that it parses under settings which it has changed itself."""
        self.wants_all = False
        """It could not be read, and may name any."""
        self.wants: Wants = ()
        """What prepared statements it names, and so its link must know."""
        self.declares: tuple[bytes, Prepared] | None = None
        """The statement that it prepares by SQL."""
        self.stand_in = b""
        """The ErrorResponse that explains its failure better than its own."""
        self.resets: frozenset[str] = frozenset()
        """Settings that it resets and that its client had named at start-up, lower case; `*`: all, `**`: the role too.
        Their values are put back before the client hears of the end."""
        self.reply = b""
        """Internal units: what the server answered, ReadyForQuery included."""
        self.rows = 0
        self.bytes = 0
        self.started = 0.0
        """When it was taken up; 0: not yet."""
        self.overdue_since = 0.0
        """When it was first cancelled because it took too long; 0: it was not."""
        self.problem_response = b""
        """Internal units: the ErrorResponse, if there was one."""
        self.on_done: Callable[[Unit], None] | None = None
        """Internal units: called at ReadyForQuery; `sqlstate` says whether it failed."""

    def add(self, message: bytes) -> None:
        """Append a message of the client."""
        self.messages.append(message)
        self.size += len(message)

    def expect(self, expect: Expect) -> None:
        """A reply that is due after those before it."""
        if self.expected is None:
            self.expected = deque()
        self.expected.append(expect)

    def told_as(self, sqlstate: str, response: bytes) -> bytes:
        """What its client gets for an ErrorResponse with this SQLSTATE: of a cancel of ours, why that was."""
        return TIMED_OUT if self.overdue_since and sqlstate == CANCELED else response

    @property
    def runs_out(self) -> bool:
        """Whether it ends without another word of its client."""
        return self.complete and not self.in_copy

    def let_go(self) -> None:
        """Forget what was sent: it cannot run again, because its end is not known, or its data is gone."""
        if self.restartable:
            del self.messages[: 1 if self.simple else len(self.steps)]
            self.restartable = False
        else:
            self.messages.clear()
        self.steps.clear()
        self.size = sum(map(len, self.messages))

    def restart(self) -> None:
        """Make it as it was before it was sent, for another link."""
        self.undo()
        self._undo_steps()
        self.link = None
        self.names.clear()
        self.flow = None
        self.flows.clear()
        self.flows_seen.clear()
        self.marked = 0
        self.unsettled = False
        self.steps.clear()
        self.body.clear()
        self.expected = None
        self.failed = self.sync_sent = False
        self.lead = b""
        self.refused = ""
        self.sqlstate = ""
        self.error = self.stand_in = b""
        self.wants = ()
        self.declares = None
        self.executed.clear()
        self.late.clear()
        self.resets = frozenset()
        self.rows = self.bytes = 0

    def fails_first(self) -> None:
        """The server's first reply is an error. If that is to a Parse, of the unnamed statement, there is none now.

        Where replies are expected, those tell."""
        step = self.steps[0] if self.steps and self.expected is None else None
        if step is not None and step.failed is not None:
            step.failed()

    def undo(self) -> bytes:
        """Take back what the replies up to ReadyForQuery would have made true, the last one first.

        Returns the ErrorResponse that is to stand for the server's, where the proxy has made it fail, or nothing.
        """
        if self.link is None and self.expected is None:
            self._undo_steps()
        undone: list[Expect] = []
        while self.expected and self.expected[0].ends is not READY:
            undone.append(self.expected.popleft())
        for expect in reversed(undone[1:]):
            if expect.undo:
                expect.undo()
        if not undone:
            return b""
        if failed := undone[0].failed or undone[0].undo:
            failed()
        return undone[0].error

    def _undo_steps(self) -> None:
        for step in reversed(self.steps):
            if step.undo:
                step.undo()
