"""COPY's messages. Source: protocol chapter, "COPY Operations". CopyFail, which only a client sends, is in
`messages_frontend`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

from heliosproxy.wire import buffer
from heliosproxy.wire.buffer import Body, Message, OpaqueMessage, Reader


@dataclass(frozen=True, slots=True)
class CopyData(OpaqueMessage):
    """A piece of the stream, either way; from a client its bounds need not be those of rows."""

    tag: ClassVar[int] = ord("d")


@dataclass(frozen=True, slots=True)
class CopyDone(Message):
    """The stream's end, either way."""

    tag: ClassVar[int] = ord("c")


@dataclass(frozen=True, slots=True)
class CopyResponse(Message):
    """What the three CopyResponses share: overall format (0 text, 1 binary) and one format per column."""

    format: int
    column_formats: tuple[int, ...]

    def body(self) -> bytes:
        return struct.pack("!B", self.format) + buffer.int16s(self.column_formats)

    @classmethod
    def decode(cls, body: Body) -> Self:
        reader = Reader(body, cls.__name__)
        message = cls(reader.byte(), reader.int16s())
        reader.end()
        return message


@dataclass(frozen=True, slots=True)
class CopyInResponse(CopyResponse):
    """The server is ready to read."""

    tag: ClassVar[int] = ord("G")


@dataclass(frozen=True, slots=True)
class CopyOutResponse(CopyResponse):
    """The server is about to write."""

    tag: ClassVar[int] = ord("H")


@dataclass(frozen=True, slots=True)
class CopyBothResponse(CopyResponse):
    """Both ways at once: streaming replication only."""

    tag: ClassVar[int] = ord("W")
