"""The tagged messages that a server sends. Source: protocol chapter, "Message Formats", those marked (B)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import ClassVar, Self, TypeAlias

from heliosproxy.wire import buffer
from heliosproxy.wire.buffer import Body, Message, Reader
from heliosproxy.wire.errors import ProtocolError, encode_fields, parse_fields
from heliosproxy.wire.messages_authentication import Authentication, decode_authentication
from heliosproxy.wire.messages_copy import CopyBothResponse, CopyData, CopyDone, CopyInResponse, CopyOutResponse

KEY_SIZES = range(4, 257)
"""Lengths a cancel key may have, in bytes: 4 in protocol 3.0, 4 to 256 in 3.2."""

_COLUMN = struct.Struct("!IhIhih")


class TransactionStatus(IntEnum):
    """The byte in ReadyForQuery."""

    IDLE = ord("I")
    IN_TRANSACTION = ord("T")
    FAILED = ord("E")


@dataclass(frozen=True, slots=True)
class BackendKeyData(Message):
    """What a CancelRequest for this connection must carry."""

    tag: ClassVar[int] = ord("K")
    pid: int
    key: bytes

    def body(self) -> bytes:
        return buffer.uint32(self.pid) + self.key

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "BackendKeyData")
        message = cls(reader.uint32(), reader.rest())
        if len(message.key) not in KEY_SIZES:
            raise reader.fail(f"its key has {len(message.key)} bytes, not 4 to 256")
        return message


@dataclass(frozen=True, slots=True)
class ParseComplete(Message):
    """A Parse succeeded."""

    tag: ClassVar[int] = ord("1")


@dataclass(frozen=True, slots=True)
class BindComplete(Message):
    """A Bind succeeded."""

    tag: ClassVar[int] = ord("2")


@dataclass(frozen=True, slots=True)
class CloseComplete(Message):
    """A Close succeeded."""

    tag: ClassVar[int] = ord("3")


@dataclass(frozen=True, slots=True)
class NoData(Message):
    """What was described returns no rows."""

    tag: ClassVar[int] = ord("n")


@dataclass(frozen=True, slots=True)
class EmptyQueryResponse(Message):
    """Stands for CommandComplete after an empty statement."""

    tag: ClassVar[int] = ord("I")


@dataclass(frozen=True, slots=True)
class PortalSuspended(Message):
    """Execute's limit of rows was reached; stands for CommandComplete."""

    tag: ClassVar[int] = ord("s")


@dataclass(frozen=True, slots=True)
class CommandComplete(Message):
    """A statement is done; `command` is its command tag, `INSERT 0 1`."""

    tag: ClassVar[int] = ord("C")
    command: str

    def body(self) -> bytes:
        return buffer.text(self.command)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "CommandComplete")
        message = cls(reader.text())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class DataRow(Message):
    """One row's values, None for NULL."""

    tag: ClassVar[int] = ord("D")
    values: tuple[bytes | None, ...]

    def body(self) -> bytes:
        return buffer.values(self.values)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "DataRow")
        message = cls(reader.values())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class ErrorResponse(Message):
    """A statement or the connection failed; fields by their one-letter codes (`errors`)."""

    tag: ClassVar[int] = ord("E")
    fields: dict[str, str]

    @property
    def sqlstate(self) -> str:
        """Five characters; empty if the server sent none."""
        return self.fields.get("C", "")

    @property
    def message(self) -> str:
        """What went wrong, in one line."""
        return self.fields.get("M", "")

    def body(self) -> bytes:
        return encode_fields(self.fields)

    @classmethod
    def decode(cls, body: Body) -> Self:
        return cls(parse_fields(body))


@dataclass(frozen=True, slots=True)
class NoticeResponse(Message):
    """A warning or a notice, at any time; fields as in ErrorResponse."""

    tag: ClassVar[int] = ord("N")
    fields: dict[str, str]

    def body(self) -> bytes:
        return encode_fields(self.fields)

    @classmethod
    def decode(cls, body: Body) -> Self:
        return cls(parse_fields(body))


@dataclass(frozen=True, slots=True)
class FunctionCallResponse(Message):
    """A FunctionCall's result, None for NULL."""

    tag: ClassVar[int] = ord("V")
    value: bytes | None

    def body(self) -> bytes:
        return buffer.value(self.value)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "FunctionCallResponse")
        message = cls(reader.value())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class NegotiateProtocolVersion(Message):
    """The server speaks at most `version` and does not know these `_pq_.` options.

    `version` is major << 16 | minor: the chapter calls it "newest minor protocol version", but PostgreSQL sends, and
    libpq expects, the whole number.
    """

    tag: ClassVar[int] = ord("v")
    version: int
    options: tuple[str, ...] = ()

    def body(self) -> bytes:
        return buffer.uint32(self.version) + buffer.uint32(len(self.options)) + b"".join(map(buffer.text, self.options))

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "NegotiateProtocolVersion")
        version, count = reader.uint32(), reader.uint32()
        if count > reader.remaining:
            raise reader.fail(f"{count} options announced, {reader.remaining} bytes left")
        message = cls(version, tuple([reader.text() for _ in range(count)]))
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class NotificationResponse(Message):
    """A NOTIFY of the process `pid` on a channel that was listened to."""

    tag: ClassVar[int] = ord("A")
    pid: int
    channel: bytes
    payload: bytes

    def body(self) -> bytes:
        return buffer.uint32(self.pid) + buffer.cstring(self.channel) + buffer.cstring(self.payload)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "NotificationResponse")
        message = cls(reader.uint32(), reader.cstring(), reader.cstring())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class ParameterDescription(Message):
    """The types of a prepared statement's parameters, as object ids."""

    tag: ClassVar[int] = ord("t")
    types: tuple[int, ...]

    def body(self) -> bytes:
        return buffer.oids(self.types)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "ParameterDescription")
        message = cls(reader.oids())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class ParameterStatus(Message):
    """A reported setting's value, at start-up and whenever it changes."""

    tag: ClassVar[int] = ord("S")
    name: str
    value: str

    def body(self) -> bytes:
        return buffer.text(self.name) + buffer.text(self.value)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "ParameterStatus")
        message = cls(reader.text(), reader.text())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class ReadyForQuery(Message):
    """A unit is answered."""

    tag: ClassVar[int] = ord("Z")
    status: TransactionStatus

    def body(self) -> bytes:
        return bytes((self.status,))

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "ReadyForQuery")
        status = reader.byte()
        reader.end()
        try:
            return cls(TransactionStatus(status))
        except ValueError:
            raise reader.fail(f"unknown transaction status {status}") from None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a RowDescription. Table and number are 0 for what is no table's column; size -1: varying."""

    name: bytes
    table: int = 0
    number: int = 0
    type: int = 25
    size: int = -1
    modifier: int = -1
    format: int = 0

    def encode(self) -> bytes:
        """Its part of the message."""
        numbers = (self.table, self.number, self.type, self.size, self.modifier, self.format)
        return buffer.cstring(self.name) + _COLUMN.pack(*numbers)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """The next column of the message."""
        return cls(reader.cstring(), *_COLUMN.unpack(reader.take(_COLUMN.size)))


@dataclass(frozen=True, slots=True)
class RowDescription(Message):
    """The columns of the rows that follow, or would follow."""

    tag: ClassVar[int] = ord("T")
    columns: tuple[Column, ...]

    def body(self) -> bytes:
        return struct.pack("!H", len(self.columns)) + b"".join(column.encode() for column in self.columns)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, "RowDescription")
        count = reader.count(_COLUMN.size + 1)
        message = cls(tuple([Column.read(reader) for _ in range(count)]))
        reader.end()
        return message


_Described: TypeAlias = ParameterDescription | RowDescription | NoData | DataRow | FunctionCallResponse
_Completed: TypeAlias = ParseComplete | BindComplete | CloseComplete | CommandComplete | EmptyQueryResponse
_Ended: TypeAlias = PortalSuspended | ReadyForQuery | ErrorResponse
_Told: TypeAlias = NoticeResponse | NotificationResponse | ParameterStatus
_Started: TypeAlias = Authentication | BackendKeyData | NegotiateProtocolVersion
_Copied: TypeAlias = CopyInResponse | CopyOutResponse | CopyBothResponse | CopyData | CopyDone
BackendMessage: TypeAlias = _Started | _Described | _Completed | _Ended | _Told | _Copied

_CLASSES: tuple[type[_Described | _Completed | _Ended | _Told | _Copied | BackendKeyData], ...] = (
    BackendKeyData, BindComplete, CloseComplete, CommandComplete, CopyBothResponse, CopyData, CopyDone, CopyInResponse,
    CopyOutResponse, DataRow, EmptyQueryResponse, ErrorResponse, FunctionCallResponse, NoData, NoticeResponse,
    NotificationResponse, ParameterDescription, ParameterStatus, ParseComplete, PortalSuspended, ReadyForQuery,
    RowDescription,
)  # fmt: skip
_DECODERS: Mapping[int, Callable[[Body], BackendMessage]] = MappingProxyType(
    {
        ord("R"): decode_authentication,
        NegotiateProtocolVersion.tag: NegotiateProtocolVersion.decode,
        **{c.tag: c.decode for c in _CLASSES},
    }
)


def decode_backend(tag: int, body: Body) -> BackendMessage:
    """The message a server sent. Raises ProtocolError for an unknown tag or a malformed body, and nothing else."""
    decoder = _DECODERS.get(tag)
    if decoder is None:
        raise ProtocolError(f"invalid backend message type {tag}")
    return decoder(body)
