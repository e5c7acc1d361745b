"""A link: one connection to a node, sans-IO. Units in, bytes out; bytes in, answers out.

The stream of answers is cut by headers only; nothing is decoded that need not be. Large messages of no interest (data
rows, COPY data) are passed on in the pieces in which they arrive.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from heliosproxy.switch.settings import Settings
from heliosproxy.switch.unit import READY, Expect, Unit
from heliosproxy.wire import builders
from heliosproxy.wire.buffer import frame
from heliosproxy.wire.errors import ProtocolError, parse_fields

if TYPE_CHECKING:
    from heliosproxy.cluster.node import Node
    from heliosproxy.switch.pool import Pool
    from heliosproxy.switch.prepared import Prepared
    from heliosproxy.switch.session import Session

HEADER = struct.Struct(">xI").unpack_from
LONGEST_INSPECTED = 1 << 24
"""Longest message that must be there in whole before it is passed on (errors, notices, statuses)."""

DATA_ROW, COPY_DATA, READY_FOR_QUERY = b"Dd" + b"Z"
ERROR, NOTICE, NOTIFICATION, STATUS, COPY_IN = b"ENASG"
RECOVERY_CONFLICT = "40001"
REFUSALS = frozenset(("25006", "0A000", RECOVERY_CONFLICT))
"""What a standby answers to what only a primary can do, and to what recovery has cancelled (R2)."""
_STALE = frozenset(("0A000", "26000"))
"""`cached plan must not change result type`, and a statement that the server does not have."""
IDLE = ord("I")
_PASSED_IN_PIECES = frozenset(b"Dd")


class Answer(NamedTuple):
    """Bytes for a unit's client; `status` is ReadyForQuery's (`I`, `T`, `E` as an int) once it is complete, else 0."""

    unit: Unit | None
    data: bytes
    status: int


class Link:
    """The protocol state of one server connection. Whoever owns the socket moves the bytes."""

    def __init__(
        self, node: Node, key: tuple[int, bytes], settings: Settings, asked: tuple[str, ...] = ()
    ) -> None:
        self.node = node
        self.pool: Pool | None = None
        self.key = key
        """Process id and secret of its BackendKeyData."""
        self.settings = settings
        self.base = settings
        """What it had when it was opened, and has again after DISCARD ALL."""
        self.asked = asked
        """Followed settings that its server does not report."""
        self.session: Session | None = None
        """Who has it; None while it is idle, or not yet clean."""
        self.units: deque[Unit] = deque()
        """Sent and not yet answered, in order."""
        self.status = ord("I")
        self.outgoing: list[bytes] = []
        self.prepared: OrderedDict[bytes, Prepared] = OrderedDict()
        """Server-side named statements, by name; least recently used first."""
        self.most_statements = 500
        """Named statements that it keeps, and as many under clients' own names; its pool says."""
        self.declared: OrderedDict[bytes, object] = OrderedDict()
        """Server-side statements under names that clients gave them by SQL, with what tells them apart."""
        self.unnamed: object = None
        """Whose unnamed statement it has: the Prepared, compared by identity."""
        self.dirt = 0
        """What its units may have left behind: 0 nothing, 1 sequences' values, 2 anything (L1)."""
        self.cancels = 0
        """Cancel requests for it: 1 on its way, 2 with another to follow; until they are done it is nobody else's."""
        self.cancelling: list[Callable[[], None]] = []
        """Who is to be told when the one that follows is done."""
        self.cleaning = False
        """A reset is under way."""
        self.released_at = 0.0
        self.stale: list[bytes] = []
        """Statements to be closed before their names are given again."""
        self.closed = False
        self.broken: ProtocolError | None = None
        """What the server sent that is not the protocol; answers before it are good."""
        self.last_words = b""
        """The FATAL ErrorResponse with which the server ended the connection."""
        self._partial = b""
        self._rest = 0
        self._failure: dict[str, str] = {}

    @property
    def failure(self) -> str:
        """What the server said before it closed; empty if nothing."""
        return self._failure.get("M", "")

    @property
    def failure_code(self) -> str:
        """Its SQLSTATE; empty if it said nothing."""
        return self._failure.get("C", "")

    # --- towards the server -------------------------------------------------------------------------------------

    def send(self, unit: Unit) -> None:
        """Put a unit, or what was added to one that is already under way, into `outgoing`."""
        if unit.link is None:
            unit.link = self
            self.units.append(unit)
            if unit.simple:
                self.unnamed = None  # a simple Query, the proxy's own too, drops the server's unnamed statement
        self.outgoing += unit.body
        unit.body.clear()

    def run(self, sql: str, on_done: Callable[[Unit], None] | None = None) -> None:
        """Send a statement of the proxy's own as an internal unit."""
        unit = Unit(None, simple=True)
        unit.on_done = on_done
        unit.body.append(builders.query(sql.encode("utf-8", "surrogateescape")))
        self.send(unit)

    def run_messages(self, *messages: bytes, on_done: Callable[[Unit], None] | None = None) -> None:
        """Send messages of the extended protocol as an internal unit; a Sync is added."""
        unit = Unit(None, simple=False)
        unit.complete = True
        unit.on_done = on_done
        unit.body += (*messages, builders.SYNC)
        self.send(unit)

    def was_reset(self, *, role: bool) -> None:
        """The server has brought its own values back: those that it does not report, and those that nobody follows."""
        base = {name: self.base.value(name) for name in self.asked if role or name != "role"}
        self.settings = Settings(self.settings.with_values(base).values)

    def forget_statements(self) -> None:
        """The server has dropped the named statements."""
        self.prepared.clear()
        self.declared.clear()
        self.stale.clear()
        self.unnamed = None

    # --- from the server ----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Answer]:
        """The answers in the bytes that arrived; `broken` is set if they are not the protocol."""
        answers: list[Answer] = []
        try:
            self._receive(data, answers)
        except ProtocolError as error:
            self.broken = error
        return answers

    def _receive(self, data: bytes, answers: list[Answer]) -> None:
        if self._rest:
            data = self._pass_rest(data, answers)
        if self._partial:
            data = self._partial + data
            self._partial = b""
        position, end = 0, len(data)
        while end - position >= 5:
            position = self._one_unit(data, position, end, answers)
            if position < 0:
                return
        self._partial = data[position:] if position < end else b""

    def _pass_rest(self, data: bytes, answers: list[Answer]) -> bytes:
        """The remainder of a message that is passed on in pieces."""
        unit = self.units[0]
        piece, data = data[: self._rest], data[self._rest :]
        self._rest -= len(piece)
        unit.mid_message = self._rest > 0
        unit.bytes += len(piece)
        if unit.session is not None:
            answers.append(Answer(unit, piece, 0))
        else:
            unit.reply += piece
        return data

    def _one_unit(self, data: bytes, position: int, end: int, answers: list[Answer]) -> int:
        """Walk the messages of the unit at the head; return where the next one starts, or -1 if more is needed.

        One loop, no call a message: this is where a large result spends its time.
        """
        unit = self.units[0] if self.units else None
        start = position  # of what is passed on
        out: list[bytes] = []
        rows = 0
        while end - position >= 5:
            tag = data[position]
            size = HEADER(data, position)[0] + 1
            stop = position + size
            if size < 5:
                raise ProtocolError(f"message {chr(tag)!r} from the server has length {size - 1}")
            if stop > end:
                if tag in _PASSED_IN_PIECES and unit is not None:
                    self._rest = stop - end
                    unit.mid_message = True
                    position = end
                    rows += tag == DATA_ROW
                elif size > LONGEST_INSPECTED:
                    raise ProtocolError(f"message {chr(tag)!r} from the server is {size} bytes long")
                break
            if tag == DATA_ROW:
                rows += 1
            elif tag == COPY_DATA:
                pass
            elif tag == READY_FOR_QUERY:
                self._passed(unit, rows, stop - start)
                return self._ready(data, start, position, stop, out, answers)
            elif unit is None or unit.expected is not None or tag in _NOTABLE:
                out.append(data[start:position])
                if tag == ERROR and unit is not None and position == start and not unit.bytes:
                    unit.fails_first()
                start = stop
                out.append(self._note(unit, tag, data[position:stop]))
                if unit is not None and unit.refused:
                    out.clear()
            position = stop
        out.append(data[start:position])
        self._passed(unit, rows, position - start)
        piece = b"".join(out)
        if unit is not None and unit.session is None:
            unit.reply += piece
        elif piece:
            answers.append(Answer(unit, piece, 0))
        self._partial = data[position:]
        return -1

    @staticmethod
    def _passed(unit: Unit | None, rows: int, size: int) -> None:
        if unit is not None:
            unit.rows += rows
            unit.bytes += size

    def _ready(
        self, data: bytes, start: int, position: int, stop: int, out: list[bytes], answers: list[Answer]
    ) -> int:
        if not self.units:
            raise ProtocolError("ReadyForQuery from the server although nothing was asked")
        unit = self.units.popleft()
        self.status = data[stop - 1]
        if unit.expected is not None:
            out.append(data[start:position])
            start = position
            if unit.expected and unit.expected[0].ends is READY:
                unit.expected.popleft()
        out.append(b"" if unit.refused or unit.moving else data[start:stop])
        piece = b"".join(out) if len(out) > 1 else out[0]
        if unit.session is not None:
            answers.append(Answer(unit, piece, self.status))
        else:
            unit.reply += piece
        if unit.on_done is not None:
            unit.on_done(unit)
        return stop

    def _note(self, unit: Unit | None, tag: int, message: bytes) -> bytes:
        """Take note of a message; return what goes to the client instead of it."""
        if tag == STATUS:
            return self._parameter_status(unit, message)
        if tag in (NOTICE, NOTIFICATION):
            return message if unit is None or unit.session is not None else b""
        if tag == ERROR:
            return self._error(unit, message)
        if unit is None:
            raise ProtocolError(f"message {chr(tag)!r} from the server although nothing was asked")
        if tag == COPY_IN:
            self._copy_in(unit)
        if unit.expected is None:
            return message
        return self._expected(unit.expected, tag, message)

    @staticmethod
    def _copy_in(unit: Unit) -> None:
        unit.let_go()
        if not unit.simple and unit.session is not None:
            if unit.expected and unit.expected[-1].ends is READY:
                unit.expected.pop()
            unit.session.reopen(unit)
        unit.in_copy = not any(message[0] in b"cf" for message in unit.messages)

    @staticmethod
    def _expected(expected: deque[Expect], tag: int, message: bytes) -> bytes:
        """The reply that was due, what follows it of the proxy's own included."""
        out = message
        if expected and tag in expected[0].ends:
            expect = expected.popleft()
            out = b"" if expect.swallow else message
            if expect.seen is not None:
                expect.seen(message)
        return out + emit(expected)

    def _parameter_status(self, unit: Unit | None, message: bytes) -> bytes:
        name, value = (part.decode("utf-8", "replace") for part in message[5:-1].split(b"\0")[:2])
        self.settings = self.settings.with_reported(name, value)
        session = self.session if unit is None else unit.session
        if session is None or (unit is not None and unit.resets):
            return b""
        session.report(name, value)
        return message

    def _error(self, unit: Unit | None, message: bytes) -> bytes:
        fields = parse_fields(message[5:])
        if unit is None or fields.get("V") in ("FATAL", "PANIC"):
            # The connection ends; what that means for the client is not the server's to say.
            self._failure, self.last_words = fields, message
            return b""
        unit.failed = True
        unit.in_copy = False
        unit.sqlstate = fields.get("C", "XX000")
        unit.unparsed = fields.get("R") == "scanner_yyerror" and not fields.keys() & {"W", "q"}
        if unit.sqlstate in _STALE:
            self._condemn(unit, changed=fields.get("R") == "RevalidateCachedQuery")
        if unit.session is None:
            unit.problem, unit.problem_response = fields.get("M", ""), message
            return b""
        waits = unit.complete and not unit.simple and not unit.synced
        if waits and unit.expected and unit.expected[0].ends is not READY:
            unit.let_go()
            unit.session.reopen(unit)
        if unit.sqlstate in REFUSALS and self._may_run_on_the_primary(unit, unit.session):
            unit.refused = unit.sqlstate
            return b""
        response = unit.undo() or unit.stand_in or _with_the_clients_names(message, unit.names)
        return unit.told_as(unit.sqlstate, response)

    def _condemn(self, unit: Unit, *, changed: bool) -> None:
        """Whatever named statement has failed, the next use of it prepares it afresh. If its rows have changed, it
        stays refused until its client prepares it again."""
        for step in unit.steps if changed and len(unit.names) == 1 else ():
            if step.prepared is not None and step.prepared.server_name in unit.names:
                step.prepared.changed = True
        for name in unit.names:
            if self.prepared.pop(name, None) is not None:
                self.stale.append(name)

    def _may_run_on_the_primary(self, unit: Unit, session: Session) -> bool:
        alone = session.status == IDLE and not session.pin
        return alone and self.node.role == "standby" and unit.restartable and not unit.forwarded


def emit(expected: deque[Expect]) -> bytes:
    """What the proxy itself answers before the next reply of the server is due."""
    out = b""
    while expected and not expected[0].ends:
        expect = expected.popleft()
        out += expect.emit if isinstance(expect.emit, bytes) else expect.emit()
    return out


def _with_the_clients_names(message: bytes, names: dict[bytes, bytes]) -> bytes:
    """An ErrorResponse that speaks of statements by the names that the client gave them."""
    if b'"helios_' not in message:
        return message
    for ours, theirs in names.items():
        message = message.replace(b'"' + ours + b'"', b'"' + theirs + b'"')
    return frame(message[0], message[5:])


_NOTABLE = frozenset((ERROR, NOTICE, NOTIFICATION, STATUS, COPY_IN))
