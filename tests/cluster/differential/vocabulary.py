"""The words of a conversation: what a client sends, byte for byte, and how far it reads.

A conversation is data. It is made of messages (bytes, also malformed ones, which is why nothing of `heliosproxy.wire`
is used here) and of steps; `C("title", Q("select 1"), Go(parse("select 2"), bind(), execute(), SYNC))` is one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Text: TypeAlias = str | bytes
Value: TypeAlias = Text | None


# --- messages --------------------------------------------------------------------------------------------------------


def raw(text: Text) -> bytes:
    """The bytes of a text; str is UTF-8."""
    return text.encode() if isinstance(text, str) else text


def message(tag: str, *parts: bytes) -> bytes:
    """A message with its length."""
    body = b"".join(parts)
    return tag.encode() + struct.pack("!I", len(body) + 4) + body


def zero(text: Text) -> bytes:
    """A string of the protocol."""
    return raw(text) + b"\0"


def int16s(numbers: Iterable[int]) -> bytes:
    """A counted list of Int16."""
    given = list(numbers)
    return struct.pack(f"!H{len(given)}h", len(given), *given)


def counted(values: Iterable[Value]) -> bytes:
    """A counted list of values; None is NULL."""
    given = list(values)
    written = [struct.pack("!i", -1) if v is None else struct.pack("!i", len(raw(v))) + raw(v) for v in given]
    return struct.pack("!H", len(given)) + b"".join(written)


def query(sql: Text) -> bytes:
    """Query."""
    return message("Q", zero(sql))


def parse(sql: Text, name: Text = "", types: Iterable[int] = ()) -> bytes:
    """Parse."""
    given = list(types)
    return message("P", zero(name), zero(sql), struct.pack(f"!H{len(given)}I", len(given), *given))


def bind(
    *values: Value, name: Text = "", portal: Text = "", formats: Iterable[int] = (), results: Iterable[int] = ()
) -> bytes:
    """Bind."""
    return message("B", zero(portal), zero(name), int16s(formats), counted(values), int16s(results))


def describe(name: Text = "", what: str = "S") -> bytes:
    """Describe of a statement, or of a portal (`what="P"`)."""
    return message("D", what.encode(), zero(name))


def execute(rows: int = 0, portal: Text = "") -> bytes:
    """Execute, so many rows at most; 0: all."""
    return message("E", zero(portal), struct.pack("!i", rows))


def close(name: Text = "", what: str = "S") -> bytes:
    """Close of a statement, or of a portal (`what="P"`)."""
    return message("C", what.encode(), zero(name))


def call(function: int, *arguments: Value, formats: Iterable[int] = (), result: int = 0) -> bytes:
    """FunctionCall."""
    return message("F", struct.pack("!I", function), int16s(formats), counted(arguments), struct.pack("!h", result))


def data(text: Text) -> bytes:
    """CopyData."""
    return message("d", raw(text))


def fail(reason: Text) -> bytes:
    """CopyFail."""
    return message("f", zero(reason))


def run(
    sql: Text, *values: Value, name: Text = "", portal: Text = "", rows: int = 0, types: Iterable[int] = ()
) -> bytes:
    """Parse, Bind, Describe of the portal and Execute: what a driver sends for one statement."""
    steps = (parse(sql, name, types), bind(*values, name=name, portal=portal), describe(portal, "P"))
    return b"".join((*steps, execute(rows, portal)))


SYNC, FLUSH, DONE, TERMINATE = message("S"), message("H"), message("c"), message("X")


def startup(
    parameters: Mapping[str, Text] | None = None, version: int = 3 << 16, **more: Text
) -> bytes:
    """A StartupMessage. What makes the user and the database differ is in `parameters`; None leaves one out."""
    pairs = {**{"user": "{user}", "database": "{database}"}, **(parameters or {}), **more}
    body = b"".join(zero(name) + zero(value) for name, value in pairs.items())
    return struct.pack("!I", version) + body + b"\0"


# --- steps -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes; in pieces of so many, each in a segment of its own, if `piece` is not 0."""

    data: bytes
    piece: int = 0


@dataclass(frozen=True, slots=True)
class Ready:
    """Read until so many ReadyForQuery have come."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class Take:
    """Read so many messages."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class Until:
    """Read until a message of this type has come."""

    tag: str


@dataclass(frozen=True, slots=True)
class Closed:
    """Read until the other side closes the connection."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Send a cancel request for what the client runs, over a connection of its own; `wrong`: with another key."""

    wrong: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """Wait until the server runs, or waits in, a statement with this text in it."""

    text: str


@dataclass(frozen=True, slots=True)
class Settled:
    """Wait until no transaction of any client is open on the server."""


@dataclass(frozen=True, slots=True)
class Vanish:
    """Close the socket without a word."""


@dataclass(frozen=True, slots=True)
class Login:
    """Connect and log in with this start-up packet; read until ReadyForQuery or the end."""

    packet: bytes = b""


@dataclass(frozen=True, slots=True)
class On:
    """What follows is said by another client; it logs in when it is first named."""

    name: str
    steps: tuple[Step, ...]


Step: TypeAlias = Send | Ready | Take | Until | Closed | Cancel | Running | Settled | Vanish | Login | On
Steps: TypeAlias = Step | tuple["Steps", ...]


def flat(steps: Iterable[Steps]) -> tuple[Step, ...]:
    """Without the grouping."""
    found: list[Step] = []
    for step in steps:
        found += flat(step) if isinstance(step, tuple) else (step,)
    return tuple(found)


def Q(*texts: Text) -> Steps:
    """Queries, each sent when the one before it was answered."""
    return tuple((Send(query(text)), Ready()) for text in texts)


def Go(*messages: bytes, ready: int | None = None, piece: int = 0) -> Steps:
    """Messages sent together, then read until each Sync and Query is answered, or until so many ReadyForQuery."""
    sent = b"".join(messages)
    return Send(sent, piece), Ready(_ends(sent) if ready is None else ready)


def X(sql: Text, *values: Value, rows: int = 0, types: Iterable[int] = ()) -> Steps:
    """A statement in the extended protocol, with a Sync."""
    return Go(run(sql, *values, rows=rows, types=types), SYNC)


def other(name: str, *steps: Steps) -> Steps:
    """Steps of another client."""
    return On(name, flat(steps))


def _ends(sent: bytes) -> int:
    count = position = 0
    while position < len(sent):
        count += sent[position] in b"SQF"
        position += 1 + struct.unpack_from("!I", sent, position + 1)[0]
    return count


# --- conversations ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is said, and where it makes sense."""

    title: str
    steps: tuple[Step, ...]
    packet: bytes = field(default=b"", repr=False)
    """The StartupMessage; the plain one if empty."""
    blocks: bool = False
    """Whether a transaction block occurs: then it is not for statement mode."""
    area: str = ""

    @property
    def name(self) -> str:
        """Where it stands and what it is."""
        return f"{self.area}: {self.title}"


def C(title: str, *steps: Steps, blocks: bool = False, login: bytes = b"") -> Conversation:
    """A conversation."""
    return Conversation(title, flat(steps), login, blocks)
