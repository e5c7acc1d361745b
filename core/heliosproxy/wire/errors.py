"""What a peer did wrong, and the ErrorResponse and NoticeResponse messages that tell it.

Source: protocol chapter, "Error and Notice Message Fields". Fields used here: S and V severity, C SQLSTATE, M message,
D detail, H hint, P position.
"""

from __future__ import annotations

import struct
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "DEBUG", "INFO", "LOG"]

_HEADER = struct.Struct("!BI")


class PeerError(Exception):
    """The peer's fault, in words that the peer may read: no secret and no path of this machine belongs in them."""

    def __init__(self, message: str, sqlstate: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.detail = detail
        self.hint = hint

    def response(self, severity: Severity = "ERROR", *, position: int | None = None) -> bytes:
        """The ErrorResponse message that says so; `position` counts characters of the query from 1."""
        return error_response(
            severity, self.sqlstate, self.message, detail=self.detail, hint=self.hint, position=position
        )


class ProtocolError(PeerError):
    """Bytes that are not the protocol, or not a part of it that we speak. Nothing after them can be trusted."""

    def __init__(
        self, message: str, sqlstate: str = "08P01", *, detail: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, sqlstate, detail=detail, hint=hint)


class LengthError(ProtocolError):
    """A length word that no message can have. PostgreSQL hangs up without a word."""


def error_response(
    severity: Severity,
    sqlstate: str,
    message: str,
    *,
    detail: str | None = None,
    hint: str | None = None,
    position: int | None = None,
    routine: str | None = None,
) -> bytes:
    """A whole ErrorResponse message. `position` counts characters of the query from 1; `routine` is the one of the
    server's that some clients know an error by.

    Any text is accepted: an error must never fail to be told, so NULs are left out and what cannot be encoded is
    replaced.
    """
    fields = _fields(severity, sqlstate, message, detail, hint, position)
    return _report(ord("E"), fields if routine is None else fields | {"R": routine})


def notice_response(
    severity: Severity,
    sqlstate: str,
    message: str,
    *,
    detail: str | None = None,
    hint: str | None = None,
    position: int | None = None,
) -> bytes:
    """A whole NoticeResponse message; arguments as of `error_response`."""
    return _report(ord("N"), _fields(severity, sqlstate, message, detail, hint, position))


def parse_fields(body: bytes | bytearray | memoryview) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by their one-letter codes, in the order sent.

    Raises ProtocolError if the body is not a list of fields that ends in a NUL byte.
    """
    data = bytes(body)
    fields: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:
        end = data.find(0, at + 1)
        if end < 0:
            raise ProtocolError("malformed error or notice: a field does not end")
        fields[chr(data[at])] = data[at + 1 : end].decode("utf-8", "surrogateescape")
        at = end + 1
    if at != len(data) - 1:
        raise ProtocolError("malformed error or notice: its list of fields does not end with the message")
    return fields


def encode_fields(fields: dict[str, str]) -> bytes:
    """The body of an ErrorResponse or NoticeResponse: the inverse of `parse_fields`."""
    return b"".join(code.encode("latin-1") + _plain(value) + b"\0" for code, value in fields.items()) + b"\0"


def _fields(
    severity: Severity, sqlstate: str, message: str, detail: str | None, hint: str | None, position: int | None
) -> dict[str, str]:
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": message}
    optional = {"D": detail, "H": hint, "P": None if position is None else str(position)}
    return fields | {code: value for code, value in optional.items() if value is not None}


def _report(tag: int, fields: dict[str, str]) -> bytes:
    body = encode_fields(fields)
    return _HEADER.pack(tag, len(body) + 4) + body


def _plain(value: str) -> bytes:
    try:
        encoded = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        encoded = value.encode("utf-8", "replace")
    return encoded.replace(b"\0", b"")
