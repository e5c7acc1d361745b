"""Reading and writing the protocol's data types: big-endian integers, NUL-terminated strings, counted values.

Source: protocol chapter, "Message Data Types". Int16 counts are read as unsigned, as PostgreSQL does (a Bind may carry
65,535 parameters); object ids and process ids are unsigned 32 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self, TypeAlias

from heliosproxy.wire.errors import ProtocolError

Body: TypeAlias = bytes | bytearray | memoryview

HEADER = struct.Struct("!BI")
"""Tag and length word; the length counts itself, not the tag."""
_BYTE = struct.Struct("!B")
_INT16 = struct.Struct("!h")
_UINT16 = struct.Struct("!H")
_INT32 = struct.Struct("!i")
_UINT32 = struct.Struct("!I")


class Message:
    """A tagged message. This class itself behaves as one without fields (Sync, BindComplete, …)."""

    __slots__ = ()
    tag: ClassVar[int]
    """The first byte on the wire. Frontend and backend use the same bytes for different messages."""

    def encode(self) -> bytes:
        """The whole message, header included.

        Raises ValueError for a NUL inside a string and struct.error for a number out of range: our fault, not a peer's.
        """
        return frame(self.tag, self.body())

    def body(self) -> bytes:
        """What follows the length word."""
        return b""

    @classmethod
    def decode(cls, body: Body) -> Self:
        """The message with this body; raises ProtocolError and nothing else."""
        Reader(body, cls.__name__).end()
        return cls()


@dataclass(frozen=True, slots=True)
class OpaqueMessage(Message):
    """A message whose body is bytes that the protocol does not look into; not shown by repr, it may be a password."""

    data: bytes = field(repr=False)

    def body(self) -> bytes:
        return self.data

    @classmethod
    def decode(cls, body: Body) -> Self:
        return cls(bytes(body))


class Reader:
    """A cursor over one message's body. Every method raises ProtocolError, naming the message, and nothing else."""

    __slots__ = ("_at", "_data", "_name")

    def __init__(self, body: Body, name: str) -> None:
        self._data = bytes(body)
        self._at = 0
        self._name = name

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._at

    def fail(self, what: str) -> ProtocolError:
        """The error to raise, for a mistake that only the caller sees."""
        return ProtocolError(f"malformed {self._name} message: {what}")

    def byte(self) -> int:
        """Byte1 or Int8, unsigned."""
        return self._integer(_BYTE)

    def int16(self) -> int:
        """Int16, signed."""
        return self._integer(_INT16)

    def int32(self) -> int:
        """Int32, signed."""
        return self._integer(_INT32)

    def uint32(self) -> int:
        """Int32, unsigned: an object id or process id."""
        return self._integer(_UINT32)

    def count(self, width: int) -> int:
        """An Int16 count of items that take at least `width` bytes each, checked against what is left."""
        count = self._integer(_UINT16)
        if count * width > self.remaining:
            raise self.fail(f"{count} items announced, {self.remaining} bytes left")
        return count

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        if not 0 <= length <= self.remaining:
            raise self.fail(f"{length} bytes announced, {self.remaining} left")
        start = self._at
        self._at = start + length
        return self._data[start : self._at]

    def cstring(self) -> bytes:
        """A NUL-terminated string, without its NUL."""
        end = self._data.find(0, self._at)
        if end < 0:
            raise self.fail("a string does not end")
        start = self._at
        self._at = end + 1
        return self._data[start:end]

    def text(self) -> str:
        """A NUL-terminated string that the protocol itself reads."""
        return self.cstring().decode("utf-8", "surrogateescape")

    def value(self) -> bytes | None:
        """An Int32 length and as many bytes; None for length -1, which is NULL."""
        length = self.int32()
        return None if length == -1 else self.take(length)

    def int16s(self) -> tuple[int, ...]:
        """An Int16 count and as many signed Int16."""
        count = self.count(2)
        return struct.unpack(f"!{count}h", self.take(2 * count)) if count else ()

    def oids(self) -> tuple[int, ...]:
        """An Int16 count and as many unsigned Int32."""
        count = self.count(4)
        return struct.unpack(f"!{count}I", self.take(4 * count)) if count else ()

    def values(self) -> tuple[bytes | None, ...]:
        """An Int16 count and as many values."""
        return tuple([self.value() for _ in range(self.count(4))])

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(self.remaining)

    def end(self) -> None:
        """Nothing may be left."""
        if self.remaining:
            raise self.fail(f"{self.remaining} bytes after its end")

    def _integer(self, kind: struct.Struct) -> int:
        if kind.size > self.remaining:
            raise self.fail("it ends inside a number")
        value: int = kind.unpack_from(self._data, self._at)[0]
        self._at += kind.size
        return value


def frame(tag: int, body: bytes) -> bytes:
    """A whole message: tag, length word, body."""
    return HEADER.pack(tag, len(body) + 4) + body


def cstring(value: bytes) -> bytes:
    """The string with its NUL. Raises ValueError for a NUL inside, which would let one field write the next."""
    if 0 in value:
        raise ValueError("NUL byte inside a protocol string")
    return value + b"\0"


def text(value: str) -> bytes:
    """As `cstring`, for a string that the protocol itself reads."""
    return cstring(value.encode("utf-8", "surrogateescape"))


def value(data: bytes | None) -> bytes:
    """Int32 length and data; length -1 for None."""
    return b"\xff\xff\xff\xff" if data is None else _UINT32.pack(len(data)) + data


def values(items: Sequence[bytes | None]) -> bytes:
    """Int16 count and the values."""
    return _UINT16.pack(len(items)) + b"".join(map(value, items))


def int16s(numbers: Sequence[int]) -> bytes:
    """Int16 count and signed Int16 each."""
    return struct.pack(f"!H{len(numbers)}h", len(numbers), *numbers)


def oids(numbers: Sequence[int]) -> bytes:
    """Int16 count and unsigned Int32 each."""
    return struct.pack(f"!H{len(numbers)}I", len(numbers), *numbers)


def int16(number: int) -> bytes:
    """Int16, signed."""
    return _INT16.pack(number)


def int32(number: int) -> bytes:
    """Int32, signed."""
    return _INT32.pack(number)


def uint32(number: int) -> bytes:
    """Int32, unsigned."""
    return _UINT32.pack(number)
