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

if TYPE_CHECKING:
    from heliosproxy.switch.extended import Step
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.session import Session

PARSE_COMPLETE = frozenset(b"1")
BIND_COMPLETE = frozenset(b"2")
CLOSE_COMPLETE = frozenset(b"3")
DESCRIBED = frozenset(b"Tn")
EXECUTED = frozenset(b"CIs")
READY = frozenset(b"Z")
NEVER: frozenset[int] = frozenset()


@dataclass(slots=True)
class Expect:
    """A reply that is due.

    `ends` are the tags of the messages that complete it; empty: nothing is due from the server, `emit` goes out as
    soon as the replies before it have. `swallow`: the reply is the proxy's, not the client's. `undo` runs if an error
    comes instead. `done` runs when the reply is there.
    """

    ends: frozenset[int]
    emit: bytes | Callable[[], bytes] = b""
    swallow: bool = False
    undo: Callable[[], None] | None = None
    done: Callable[[], None] | None = None
    error: bytes = b""
    """Sent to the client in place of the server's ErrorResponse: the proxy made the server fail (see `Session`)."""


class Unit:
    """One unit of one session, or an internal one (`session` is None) whose answer only the proxy reads."""

    __slots__ = (
        "attempts",
        "body",
        "bytes",
        "complete",
        "ended",
        "executes",
        "expected",
        "failed",
        "flow",
        "flows",
        "forwarded",
        "held",
        "link",
        "messages",
        "mid_message",
        "on_done",
        "portals",
        "refused",
        "restartable",
        "rows",
        "session",
        "simple",
        "size",
        "sqlstate",
        "started",
        "steps",
        "to_primary",

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
        self.held = False
        """A Flush or sheer size asks for sending it before its Sync is there."""
        self.executes = False
        """Whether it holds an Execute, so that sending it in part starts an implicit transaction."""
        self.portals: dict[bytes, Flow] | None = None
        """Portals of statements that the proxy answers itself."""
        self.body: list[bytes] = []
        """Bytes for the link, not yet sent."""
        self.expected: deque[Expect] | None = None
        self.link: Link | None = None
        self.flow: Flow | None = None
        """The flow of its first statement."""
        self.flows: list[Flow] = []
        """The flows of all its statements, where it is an extended one."""
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
        self.to_primary = False
        """It is run again because a standby refused it."""
        self.ended = False
        self.sqlstate = ""
        self.rows = 0
        self.bytes = 0
        self.started = 0.0
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
        self.link = None
        self.portals = None
        self.flow = None
        self.flows.clear()
        self.steps.clear()
        self.body.clear()
        self.expected = None
        self.failed = False
        self.refused = ""
        self.sqlstate = ""
        self.rows = self.bytes = 0

    def undo(self) -> bytes:
        """Take back what the replies up to ReadyForQuery would have made true.

        Returns the ErrorResponse that is to stand for the server's, or nothing.
        """
        error = b""
        while self.expected and self.expected[0].ends is not READY:
            expect = self.expected.popleft()
            error = error or expect.error
            if expect.undo:
                expect.undo()
        return error
