"""Messages that the switch sends often, as bytes, without an object in between; the others are `Message.encode`.

Names and query text are bytes in the client's encoding, without NULs (ValueError); str is encoded as UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from heliosproxy.wire import buffer
from heliosproxy.wire.buffer import HEADER, frame
from heliosproxy.wire.errors import ProtocolError

SYNC = HEADER.pack(ord("S"), 4)
FLUSH = HEADER.pack(ord("H"), 4)
TERMINATE = HEADER.pack(ord("X"), 4)
PARSE_COMPLETE = HEADER.pack(ord("1"), 4)
BIND_COMPLETE = HEADER.pack(ord("2"), 4)
CLOSE_COMPLETE = HEADER.pack(ord("3"), 4)
NO_DATA = HEADER.pack(ord("n"), 4)
EMPTY_QUERY_RESPONSE = HEADER.pack(ord("I"), 4)
AUTHENTICATION_OK = HEADER.pack(ord("R"), 8) + bytes(4)

_READY = HEADER.pack(ord("Z"), 5)
_TEXT_COLUMN = struct.pack("!IhIhih", 0, 0, 25, -1, -1, 0)
_UINT16 = struct.Struct("!H")


def ready_for_query(status: int) -> bytes:
    """ReadyForQuery; `status` is the byte I, T or E as a number (`messages_backend.TransactionStatus`)."""
    return _READY + bytes((status,))


def command_complete(command: str) -> bytes:
    """CommandComplete with this command tag, `SELECT 1`."""
    return frame(ord("C"), buffer.text(command))


def parameter_status(name: str, value: str) -> bytes:
    """ParameterStatus of one setting."""
    return frame(ord("S"), buffer.text(name) + buffer.text(value))


def backend_key_data(pid: int, key: bytes) -> bytes:
    """BackendKeyData; `pid` unsigned, `key` 4 bytes in protocol 3.0, up to 256 in 3.2."""
    return frame(ord("K"), buffer.uint32(pid) + key)


def parameter_description(types: Sequence[int]) -> bytes:
    """ParameterDescription of these object ids."""
    return frame(ord("t"), buffer.oids(types))


def row_description_text(columns: Sequence[str]) -> bytes:
    """RowDescription of columns of type text, in text format, of no table."""
    described = [buffer.text(column) + _TEXT_COLUMN for column in columns]
    return frame(ord("T"), _UINT16.pack(len(columns)) + b"".join(described))


def data_row_text(values: Sequence[str | bytes | None]) -> bytes:
    """DataRow of values in text format; None is NULL."""
    return frame(ord("D"), buffer.values([v.encode() if isinstance(v, str) else v for v in values]))


def query(text: bytes) -> bytes:
    """Query, the simple protocol's one message."""
    return frame(ord("Q"), buffer.cstring(text))


def parse(name: bytes, text: bytes, types: Sequence[int] = ()) -> bytes:
    """Parse of a statement under a name."""
    return frame(ord("P"), buffer.cstring(name) + buffer.cstring(text) + buffer.oids(types))


def describe_statement(name: bytes) -> bytes:
    """Describe of a prepared statement."""
    return frame(ord("D"), b"S" + buffer.cstring(name))


def execute(portal: bytes = b"", max_rows: int = 0) -> bytes:
    """Execute of a portal; 0 rows: all."""
    return frame(ord("E"), buffer.cstring(portal) + buffer.int32(max_rows))


def close_statement(name: bytes) -> bytes:
    """Close of a prepared statement."""
    return frame(ord("C"), b"S" + buffer.cstring(name))


def close_portal(name: bytes) -> bytes:
    """Close of a portal."""
    return frame(ord("C"), b"P" + buffer.cstring(name))


def split_parse(body: bytes) -> tuple[bytes, bytes, bytes]:
    """A Parse's name, its query, and the rest (its types, unchecked); join with `join_two`.

    Raises ProtocolError if a string does not end.
    """
    return _split_two(body)


def split_bind(body: bytes) -> tuple[bytes, bytes, bytes]:
    """A Bind's portal, its statement, and the rest (formats and values, unchecked); join with `join_two`.

    For giving a statement another name without reading its values. Raises ProtocolError if a string does not end.
    """
    return _split_two(body)


def only_string(message: bytes, start: int = 5) -> bytes:
    """The string that goes from there to the end of a whole message. Raises ProtocolError, in PostgreSQL's words, if it
    does not end there."""
    end = message.find(0, start)
    if end < 0:
        raise ProtocolError("invalid string in message")
    if end != len(message) - 1:
        raise ProtocolError("invalid message format")
    return message[start:-1]


def join_two(tag: int, first: bytes, second: bytes, rest: bytes) -> bytes:
    """A whole message of two strings and a rest: the inverse of `split_parse` and `split_bind`."""
    return frame(tag, buffer.cstring(first) + buffer.cstring(second) + rest)


def _split_two(body: bytes) -> tuple[bytes, bytes, bytes]:
    first = body.find(0)
    second = body.find(0, first + 1)
    if first < 0 or second < 0:
        raise ProtocolError("invalid string in message")
    return body[:first], body[first + 1 : second], body[second + 1 :]
