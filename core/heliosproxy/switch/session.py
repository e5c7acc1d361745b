"""A session: one client's state, sans-IO. Bytes in, units out."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from helios_sdk.contract import Client

from heliosproxy.config.access import ClientLimits
from heliosproxy.flow.table import Share
from heliosproxy.sql.statements import HELD_CURSOR, LISTENS, SETS, TEMPORARY_OBJECT, TEMPORARY_TABLE
from heliosproxy.switch.settings import Settings
from heliosproxy.switch.unit import Unit
from heliosproxy.wire.errors import LengthError, ProtocolError

if TYPE_CHECKING:
    from heliosproxy.switch.admission import Reason
    from heliosproxy.switch.flows import Decision
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.pool import Pool
    from heliosproxy.switch.prepared import Prepared
    from heliosproxy.switch.resolving import Portal
    from heliosproxy.switch.timeouts import Clock

HEADER = struct.Struct(">xI").unpack_from
QUERY, TERMINATE, SYNC, FLUSH, EXECUTE, FUNCTION_CALL, COPY_DATA = b"QXSHEFd"
_KNOWN = frozenset(b"QXFPBDECHSdcf")
_SHORT = frozenset(b"XDECHScf")
LONGEST_SHORT = 10_000
"""Bytes of the longest message of those kinds that PostgreSQL takes."""
_EXTENDED = frozenset(b"PBDECHS")
IDLE = ord("I")
_COPY = frozenset(b"dcf")
MOST = 0x3FFFFFFE
"""The longest message that PostgreSQL takes at all."""
Mode: TypeAlias = Literal["session", "transaction", "statement"]
HEADER_SIZE = 5
CUT_AT_ONCE = 500
"""Messages of a client that are cut before it is others' turn."""
SENT_EARLY = 64 * 1024
"""Bytes of an extended unit after which it is sent without waiting for its Sync."""


class Savepoint(NamedTuple):
    """What the proxy's own settings were when it was set. `times`: so many of one name follow each other."""

    name: str
    hints: dict[str, str]
    local_hints: dict[str, str | None]
    times: int = 1


def _check_type(tag: int) -> None:
    if tag not in _KNOWN:
        raise ProtocolError(f"invalid frontend message type {tag}")


def _is_rolled_back(pin: str) -> bool:
    return _is_reset(pin) or pin in (HELD_CURSOR, LISTENS, TEMPORARY_OBJECT, TEMPORARY_TABLE)


def _is_reset(pin: str) -> bool:
    return (pin.startswith(SETS) and pin != f"{SETS}session_authorization") or pin == "set_config"


@dataclass(eq=False, slots=True)
class Session:
    """What the proxy knows of a client that has logged in.

    The state that is the client's own: prepared statements, settings, hints, transaction status. While it has a
    `link`, that link is its alone.
    """

    id: int
    key: tuple[int, bytes] = field(repr=False)
    """Process id and secret that its cancel requests carry."""
    client: Client
    settings: Settings
    hints: dict[str, str] = field(default_factory=dict)
    """`helios.*` settings, without the prefix."""
    _: KW_ONLY
    hints_before: dict[str, str] | None = None
    """What `hints` goes back to if the transaction is rolled back; None while it has changed none (L8)."""
    local_hints: dict[str, str | None] = field(default_factory=dict)
    """What SET LOCAL has changed, and what it was before: it ends with the transaction."""
    savepoints: list[Savepoint] = field(default_factory=list)
    """Of its transaction, the oldest first."""
    max_message: int = 1 << 28
    limits: ClientLimits = ClientLimits()
    """How much it may have of everything: `[client_limits]`."""
    counts: Callable[[Reason], None] = lambda reason: None
    """Called with the reason when it is denied something by a limit."""
    mode: Mode = "transaction"
    """How long it keeps a link: `[pool] mode`."""
    keeps_sequences: bool = False
    """What nextval leaves for currval keeps it on its link: `[pool] sequence_values`."""
    prepared: dict[bytes, Prepared] = field(default_factory=dict)
    """By the client's name; the unnamed one under b""."""
    portals: dict[bytes, Portal] = field(default_factory=dict)
    """Of its transaction: those whose statements the proxy answers, or that name prepared ones."""
    units: deque[Unit] = field(default_factory=deque)
    """Not yet answered, in order; only the first one may be on a link."""
    link: Link | None = None
    pool: Pool | None = None
    """Where it waits for a link."""
    status: int = ord("I")
    """Transaction status: `I`, `T` or `E`."""
    lost: bool = False
    """Its transaction's link died; statements fail until ROLLBACK."""
    start_hints: dict[str, str] = field(init=False)
    start: Settings = field(init=False)
    """The settings with which it logged in: what RESET goes back to."""
    pins: frozenset[str] = frozenset()
    """Why its link stays with it outside transactions."""
    pins_before: frozenset[str] | None = None
    """What they go back to if the transaction is rolled back; None while it has changed none."""
    clock: Clock | None = None
    """Its time-outs; None: it has none."""
    cancelling: Link | None = None
    """The link to which a cancel request is on its way that is meant for one statement only: none may follow it."""
    settling: bool = False
    """Its link is being asked for them; its next statement waits."""
    ask: bool = False
    """Settings may have changed that servers do not report: its link is asked for them before it is let go."""
    salt: int = 0
    """Not 0 while settings may have changed in a way that the proxy cannot see: its flows are then its own (S4)."""
    changed_schema: bool = False
    """Its transaction, or its last statement, may have changed the catalogue."""
    changed_functions: bool = False
    """And more of it than relations."""
    last_words: bytes = b""
    """What the client is told when it has sent what is not the protocol, and all before that is answered."""
    has_more: bool = False
    """Not all that has come of it was cut into messages."""
    closing: bool = False
    """The client said Terminate, or is gone."""
    flow_class: int = -1
    """The number of its session class; -1: to be found anew."""
    primary_only: bool = False
    """Its transactions are SERIALIZABLE by default, which a standby cannot do (R2)."""
    maskable: bool | None = None
    """Whether its texts may be read as PostgreSQL's lexer reads them by default (S3); None: to be found anew."""
    flows: Share | None = None
    """What it has put into the flow table; None: nothing yet."""
    classes: Share | None = None
    """And which of the session classes are its own doing."""
    last: Decision | None = None
    """What was decided for its previous statement."""
    _unsuspected: int = field(init=False)
    """Length up to which a message is taken whatever it is."""
    _seasons: int = 0
    _partial: bytes = b""
    _pieces: list[bytes] = field(default_factory=list)
    _missing: int = 0
    """Bytes still to come of a long message; its pieces are gathered without joining them each time."""

    def __post_init__(self) -> None:
        self.start = self.settings
        self._see_isolation()
        self._unsuspected = min(self.max_message, LONGEST_SHORT)
        self.start_hints = dict(self.hints)

    def _see_isolation(self) -> None:
        values = dict((*self.settings.values, *self.settings.extra))
        self.primary_only = values.get("default_transaction_isolation") == "serializable"

    @property
    def queued(self) -> int:
        """Bytes of units that wait."""
        return sum(unit.size for unit in self.units)

    @property
    def is_held_up(self) -> bool:
        """Nothing may be sent on its link: it is being given its settings, or cancelled."""
        link = self.link
        return link is not None and (self.cancelling is link or (bool(link.units) and self.units[0].link is None))

    def receive(self, data: bytes) -> None:
        """Cut the client's bytes into messages and those into units, `CUT_AT_ONCE` messages at most.

        Where it `has_more`, call it again, with b"" if nothing else has come. Raises ProtocolError, after which the
        session must end.
        """
        if self._missing:
            if len(data) < self._missing:
                self._pieces.append(data)
                self._missing -= len(data)
                return
            data = b"".join((*self._pieces, data))
            self._pieces.clear()
            self._missing = 0
        elif self._partial:
            data = self._partial + data
        self._partial = b""
        position, end = 0, len(data)
        self.has_more = False
        for _ in range(CUT_AT_ONCE):
            if end - position < HEADER_SIZE:
                break
            size = HEADER(data, position)[0] + 1
            if size < 5 or size > self._unsuspected:
                self._check_length(data[position], size - 1)
            stop = position + size
            if stop > end:
                _check_type(data[position])
                self._pieces.append(data[position:])
                self._missing = stop - end
                return
            self._message(data[position], data if size == end else data[position:stop])
            position = stop
        else:
            self.has_more = end - position >= HEADER_SIZE
        self._partial = data[position:]

    def _check_length(self, tag: int, length: int) -> None:
        _check_type(tag)
        if length < 4 or length > MOST or (tag in _SHORT and length > LONGEST_SHORT):
            raise LengthError(f"invalid message length {length}")
        if length > self.max_message:
            raise ProtocolError(
                f"message of {length} bytes: this proxy takes {self.max_message}", "54000",
                hint="Raise [proxy] max_message.",
            )  # fmt: skip

    def _message(self, tag: int, message: bytes) -> None:
        if self.closing:
            return
        if tag in (QUERY, FUNCTION_CALL):
            self._simple(message)
        elif tag in _EXTENDED:
            self._extended(tag, message)
        elif tag in _COPY:
            self._copy(tag, message)
        elif self.units and self.units[-1].in_copy:
            self._break_copy(message)
        elif tag == TERMINATE:
            self.closing = True
        else:
            _check_type(tag)

    def _break_copy(self, message: bytes) -> None:
        """What has no place in a COPY goes to the server as well, which then ends the connection."""
        unit = self.units[-1]
        unit.breaks_copy = True
        unit.add(message)

    def _copy(self, tag: int, message: bytes) -> None:
        if not self.units:
            return  # the server has refused the COPY: what was on its way is dropped, as it drops it
        unit = self.units[-1]
        unit.add(message)
        if tag != COPY_DATA:
            unit.in_copy = False

    def _simple(self, message: bytes) -> None:
        unit = self.units[-1] if self.units else None
        if unit is not None and unit.in_copy:
            self._break_copy(message)
            return
        if unit is None or unit.complete:
            unit = Unit(self, simple=True)
            self.units.append(unit)
        elif unit.failed:
            return  # only a Sync counts after an error
        unit.add(message)
        unit.complete = True  # in the middle of an extended unit it ends it, unless that has failed: see `reopen`

    def _extended(self, tag: int, message: bytes) -> None:
        unit = self.units[-1] if self.units else None
        if unit is not None and unit.in_copy:
            if tag not in (SYNC, FLUSH):
                self._break_copy(message)
            return
        if unit is None or unit.complete:
            if tag == FLUSH and len(message) == HEADER_SIZE:
                return  # nothing is due
            unit = Unit(self, simple=False)
            self.units.append(unit)
        unit.add(message)
        if tag == SYNC:
            unit.complete = unit.synced = True
            return
        unit.held = unit.held or tag == FLUSH or unit.size > SENT_EARLY
        unit.executes = unit.executes or tag == EXECUTE

    def set_hint(self, key: str, value: str | None, *, local: bool) -> None:
        """SET, SET LOCAL or RESET (None) of a `helios.*` setting; outside a transaction SET LOCAL has no effect."""
        if self.status != IDLE and self.hints_before is None:
            self.hints_before = dict(self.hints)
        if local:
            if self.status == IDLE:
                return
            self.local_hints.setdefault(key, self.hints.get(key))
        else:
            self.local_hints.pop(key, None)
        self._put_hint(key, value)

    def savepoint(self, action: str, name: str) -> None:
        """SAVEPOINT, RELEASE (`release`) or ROLLBACK TO (`rollback-to`) has succeeded."""
        if action == "savepoint":
            self._set_savepoint(name)
            return
        at = next((at for at in reversed(range(len(self.savepoints))) if self.savepoints[at].name == name), None)
        if at is None:
            return
        found = self.savepoints[at]
        del self.savepoints[at:]
        if found.times > 1 or action == "rollback-to":
            self.savepoints.append(found._replace(times=found.times - (action == "release")))
        if action == "rollback-to":
            self.hints, self.local_hints = dict(found.hints), dict(found.local_hints)
            self.flow_class = -1

    def _set_savepoint(self, name: str) -> None:
        last = self.savepoints[-1] if self.savepoints else None
        if last is not None and (last.hints, last.local_hints) == (self.hints, self.local_hints):
            if last.name == name:  # some drivers set one before each statement and release none
                self.savepoints[-1] = last._replace(times=last.times + 1)
                return
            self.savepoints.append(Savepoint(name, last.hints, last.local_hints))
            return
        self.savepoints.append(Savepoint(name, dict(self.hints), dict(self.local_hints)))

    @property
    def pin(self) -> str:
        """Why its link stays with it, in words; empty if it does not."""
        return ", ".join(sorted(self.pins))

    @property
    def has_changed(self) -> bool:
        """Whether its transaction has changed what a rollback takes back."""
        return self.hints_before is not None or self.pins_before is not None or bool(self.savepoints)

    def transaction_ended(self, *, rolled_back: bool) -> None:
        """Settings go back as PostgreSQL's own do (L8). So do pins, but for those that outlive a rollback, such as
        advisory locks."""
        self.savepoints.clear()
        if rolled_back and self.pins_before is not None:
            self._hold(self.pins_before | {pin for pin in self.pins if not _is_rolled_back(pin)})
        self.pins_before = None
        if rolled_back and self.hints_before is not None:
            self.hints = self.hints_before
        else:
            for key, value in self.local_hints.items():
                self._put_hint(key, value)
        self.hints_before = None
        self.local_hints.clear()
        self._hold(self.pins)

    def forget_hints(self) -> None:
        """RESET ALL and DISCARD ALL reset the proxy's own settings as well, to what they were at start-up."""
        for key in self.hints.keys() | self.start_hints.keys():
            self.set_hint(key, self.start_hints.get(key), local=False)

    def _put_hint(self, key: str, value: str | None) -> None:
        if value is None:
            self.hints.pop(key, None)
        else:
            self.hints[key] = value
        self.flow_class = -1

    def reopen(self, unit: Unit) -> None:
        """The server ignores what was taken for the unit's end; the next Sync is it.

        That is a Sync before COPY data, or a Query after an error. What was taken for further units belongs to it.
        """
        unit.complete = unit.synced = unit.sync_sent = False
        while len(self.units) > 1 and not unit.complete:
            following = self.units[1]
            del self.units[1]
            for message in following.messages:
                unit.add(message)
            unit.complete = unit.synced = following.synced

    def keep_link(self, *reasons: str) -> None:
        """Something of its own is on its link; its flows are its own too, since settings may be among that (S4)."""
        if not self.pins.issuperset(reasons):
            self._change_pins(self.pins | set(reasons))

    def release_pins(self, reason: str) -> None:
        """A reason is no more; `SET ` stands for every setting that RESET ALL resets."""
        gone = {pin for pin in self.pins if pin == reason or (reason == SETS and _is_reset(pin))}
        if gone:
            self._change_pins(self.pins - gone)

    def _change_pins(self, pins: frozenset[str]) -> None:
        """They change with the transaction, which may be rolled back."""
        if self.pins_before is None:
            self.pins_before = self.pins
        self._hold(pins)

    def forget_pins(self) -> None:
        """What its transaction would have left on its link it has not."""
        if self.pins_before is not None:
            self._hold(self.pins_before)

    def unpin(self) -> None:
        """Nothing of its own is left on its link."""
        self._hold(frozenset())

    def keep_all_pins(self) -> None:
        """Several transactions may have ended in one text or pipeline: whatever was a reason may still be one."""
        if self.pins_before is not None:
            self._hold(self.pins | self.pins_before)
            self.pins_before = None

    def _hold(self, pins: frozenset[str]) -> None:
        self.pins = pins
        self.salt = self.salt or self.id if pins or (self.ask and self.salt) else 0
        self.flow_class = -1

    def hide_settings(self, *, ask: bool) -> None:
        """A setting has changed that its server does not report: for the transaction, or until the server was asked."""
        self.ask = self.ask or ask
        self.season()

    def season(self) -> None:
        """Its flows, and its statements from here on, are shared with nobody, not with its own of before either."""
        self._seasons += 1
        self.salt = self.id + (self._seasons << 40)
        self.flow_class = -1

    def told(self, values: Mapping[str, str]) -> None:
        """The values of settings that its server does not report."""
        self.settings = self.settings.with_values(values)
        self.maskable = None
        self._see_isolation()
        self.settings_are_known()

    def settings_are_known(self) -> None:
        """No setting has changed that its server does not report."""
        self.ask = False
        self._hold(self.pins)

    def report(self, name: str, value: str) -> None:
        """The server reported a setting's new value, which the client now sees."""
        self.settings = self.settings.with_reported(name, value)
        self.maskable = None
        if name == "application_name":
            self.client = replace(self.client, application_name=value)
        self.flow_class = -1
