"""The tagged messages that a client sends. Source: protocol chapter, "Message Formats", those marked (F).

What answers a request for authentication shares the tag `p`, and only the conversation tells which it is: the decoder
gives an AuthenticationResponse, and `messages_authentication` reads its data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, Self, TypeAlias, cast

from heliosproxy.wire import buffer
from heliosproxy.wire.buffer import Body, Message, Reader
from heliosproxy.wire.errors import ProtocolError
from heliosproxy.wire.messages_authentication import AuthenticationResponse
from heliosproxy.wire.messages_copy import CopyData, CopyDone

Target: TypeAlias = Literal["S", "P"]
"""S: a prepared statement, P: a portal."""


@dataclass(frozen=True, slots=True)
class Query(Message):
    """A simple query; several statements may stand in its text."""

    tag: ClassVar[int] = ord("Q")
    text: bytes

    def body(self) -> bytes:
        return buffer.cstring(self.text)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "Query")
        message = cls(reader.cstring())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class Parse(Message):
    """Prepares a statement under a name; the empty name is the unnamed statement. A type of 0 is left to the server."""

    tag: ClassVar[int] = ord("P")
    name: bytes
    query: bytes
    types: tuple[int, ...] = ()

    def body(self) -> bytes:
        return buffer.cstring(self.name) + buffer.cstring(self.query) + buffer.oids(self.types)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "Parse")
        message = cls(reader.cstring(), reader.cstring(), reader.oids())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class Bind(Message):
    """Makes a portal of a statement and values (None: NULL).

    Formats are 0 text, 1 binary; none, one for all, or one each. Whether their number fits is the server's to judge:
    its answer leaves the session alive, a ProtocolError would not.
    """

    tag: ClassVar[int] = ord("B")
    portal: bytes
    statement: bytes
    formats: tuple[int, ...] = ()
    values: tuple[bytes | None, ...] = ()
    result_formats: tuple[int, ...] = ()

    def body(self) -> bytes:
        return (
            buffer.cstring(self.portal)
            + buffer.cstring(self.statement)
            + buffer.int16s(self.formats)
            + buffer.values(self.values)
            + buffer.int16s(self.result_formats)
        )

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "Bind")
        message = cls(reader.cstring(), reader.cstring(), reader.int16s(), reader.values(), reader.int16s())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class Describe(Message):
    """Asks for the columns of a statement or portal, and for a statement's parameters."""

    tag: ClassVar[int] = ord("D")
    target: Target
    name: bytes

    def body(self) -> bytes:
        return self.target.encode() + buffer.cstring(self.name)

    @classmethod
    def decode(cls, body: Body) -> Self:
        return cls(*_target_and_name(Reader(body, "Describe")))


@dataclass(frozen=True, slots=True)
class Execute(Message):
    """Runs a portal; `max_rows` of 0 or less: all of them."""

    tag: ClassVar[int] = ord("E")
    portal: bytes
    max_rows: int = 0

    def body(self) -> bytes:
        return buffer.cstring(self.portal) + buffer.int32(self.max_rows)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "Execute")
        message = cls(reader.cstring(), reader.int32())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class Close(Message):
    """Forgets a statement or portal; one that does not exist is no error."""

    tag: ClassVar[int] = ord("C")
    target: Target
    name: bytes

    def body(self) -> bytes:
        return self.target.encode() + buffer.cstring(self.name)

    @classmethod
    def decode(cls, body: Body) -> Self:
        return cls(*_target_and_name(Reader(body, "Close")))


@dataclass(frozen=True, slots=True)
class Flush(Message):
    """Asks for the answers so far, without ending the unit."""

    tag: ClassVar[int] = ord("H")


@dataclass(frozen=True, slots=True)
class Sync(Message):
    """Ends an extended-protocol unit."""

    tag: ClassVar[int] = ord("S")


@dataclass(frozen=True, slots=True)
class Terminate(Message):
    """The client leaves."""

    tag: ClassVar[int] = ord("X")


@dataclass(frozen=True, slots=True)
class CopyFail(Message):
    """The client gives up a COPY FROM STDIN, and says why."""

    tag: ClassVar[int] = ord("f")
    reason: bytes

    def body(self) -> bytes:
        return buffer.cstring(self.reason)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "CopyFail")
        message = cls(reader.cstring())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class FunctionCall(Message):
    """Calls the function with this object id; formats as in Bind."""

    tag: ClassVar[int] = ord("F")
    function: int
    formats: tuple[int, ...]
    arguments: tuple[bytes | None, ...]
    result_format: int

    def body(self) -> bytes:
        return (
            buffer.uint32(self.function)
            + buffer.int16s(self.formats)
            + buffer.values(self.arguments)
            + buffer.int16(self.result_format)
        )

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "FunctionCall")
        message = cls(reader.uint32(), reader.int16s(), reader.values(), reader.int16())
        reader.end()
        return message


FrontendMessage: TypeAlias = (
    Query
    | Parse
    | Bind
    | Describe
    | Execute
    | Close
    | Flush
    | Sync
    | Terminate
    | CopyData
    | CopyDone
    | CopyFail
    | FunctionCall
    | AuthenticationResponse
)

_CLASSES: tuple[type[FrontendMessage], ...] = (
    Query, Parse, Bind, Describe, Execute, Close, Flush, Sync, Terminate, CopyData, CopyDone, CopyFail, FunctionCall,
    AuthenticationResponse,
)  # fmt: skip
_DECODERS: Mapping[int, Callable[[Body], FrontendMessage]] = MappingProxyType({c.tag: c.decode for c in _CLASSES})


def decode_frontend(tag: int, body: Body) -> FrontendMessage:
    """The message a client sent. Raises ProtocolError for an unknown tag or a malformed body, and nothing else."""
    decoder = _DECODERS.get(tag)
    if decoder is None:
        raise ProtocolError(f"invalid frontend message type {tag}")
    return decoder(body)


def _target_and_name(reader: Reader) -> tuple[Target, bytes]:
    target = chr(reader.byte())
    if target not in ("S", "P"):
        raise reader.fail(f"its target is {target!r}, neither S for a statement nor P for a portal")
    name = reader.cstring()
    reader.end()
    return cast(Target, target), name
