"""What a client sends before the first tagged message, and what version of the protocol follows.

Source: protocol chapter, "Start-up", "Cancelling Requests in Progress", "SSL Session Encryption", and the formats of
StartupMessage, CancelRequest, SSLRequest, GSSENCRequest. `decode_startup` is the server's side, `encode` the client's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, TypeAlias

from heliosproxy.wire import buffer
from heliosproxy.wire.buffer import Body, Reader
from heliosproxy.wire.errors import ProtocolError
from heliosproxy.wire.messages_backend import KEY_SIZES, NegotiateProtocolVersion

MAJOR = 3
NEWEST_MINOR = 2
"""3.0 and 3.2 are spoken; 3.1 never existed."""
OPTION_PREFIX = "_pq_."
"""Start-up parameters that begin so are protocol options, not settings."""

_REQUEST_MAJOR = 1234
_CANCEL = (_REQUEST_MAJOR << 16) | 5678
_SSL = (_REQUEST_MAJOR << 16) | 5679
_GSSENC = (_REQUEST_MAJOR << 16) | 5680


@dataclass(frozen=True, slots=True)
class StartupMessage:
    """Who connects, to what, with which settings. `options` are the `_pq_.` parameters, prefix included."""

    parameters: Mapping[str, str]
    major: int = MAJOR
    minor: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def user(self) -> str:
        """The role to log in as."""
        return self.parameters["user"]

    @property
    def database(self) -> str:
        """The database to log in to: the user's name if none was given."""
        return self.parameters.get("database") or self.user

    @property
    def agreed_minor(self) -> int:
        """The minor version that the connection speaks after `negotiate`."""
        return min(self.minor, NEWEST_MINOR)

    def encode(self) -> bytes:
        """The packet. Raises ValueError for a NUL in a name or value, or an empty name: it would end the list."""
        pairs = {**self.parameters, **self.options}
        if "" in pairs:
            raise ValueError("start-up parameter without a name")
        texts = [buffer.text(part) for pair in pairs.items() for part in pair]
        return _packet((self.major << 16) | self.minor, b"".join(texts) + b"\0")


@dataclass(frozen=True, slots=True)
class SSLRequest:
    """Asks whether to go on in TLS; the answer is one byte, S or N."""

    def encode(self) -> bytes:
        """The packet."""
        return _packet(_SSL, b"")


@dataclass(frozen=True, slots=True)
class GSSENCRequest:
    """Asks whether to go on in GSSAPI encryption; the answer is one byte, G or N."""

    def encode(self) -> bytes:
        """The packet."""
        return _packet(_GSSENC, b"")


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Asks to cancel what the connection with this BackendKeyData runs. There is no answer."""

    pid: int
    key: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The packet."""
        return _packet(_CANCEL, buffer.uint32(self.pid) + self.key)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """The request from what follows its code."""
        request = cls(reader.uint32(), reader.rest())
        if len(request.key) not in KEY_SIZES:
            raise reader.fail(f"its key has {len(request.key)} bytes, not 4 to 256")
        return request


StartupPacket: TypeAlias = StartupMessage | SSLRequest | GSSENCRequest | CancelRequest


def decode_startup(body: Body) -> StartupPacket:
    """The packet with this body (without the length word, as `StartupFramer` gives it).

    Raises ProtocolError and nothing else: 0A000 for a protocol other than 3, 28000 without a user, else 08P01. Of a
    parameter given twice the last value counts, as in PostgreSQL.
    """
    reader = Reader(body, "startup")
    code = reader.uint32()
    if code == _CANCEL:
        return CancelRequest.read(reader)
    if code in (_SSL, _GSSENC):
        reader.end()
        return SSLRequest() if code == _SSL else GSSENCRequest()
    return _startup_message(code >> 16, code & 0xFFFF, reader)


def negotiate(startup: StartupMessage) -> NegotiateProtocolVersion | None:
    """What to tell the client, before asking it to authenticate, if it wants more than we speak; None if it does not.

    Never a version above the one asked for: libpq refuses that. Raises ProtocolError (0A000) for a major version but 3.
    """
    _check_major(startup.major, startup.minor)
    if startup.minor <= NEWEST_MINOR and not startup.options:
        return None
    return NegotiateProtocolVersion((MAJOR << 16) | startup.agreed_minor, tuple(startup.options))


def agreed(answer: NegotiateProtocolVersion, asked: int) -> int:
    """The minor version of a connection whose server answered so to our asking for 3.`asked`, without options.

    Raises ProtocolError for an answer that agrees to something that was not asked for.
    """
    major, minor = answer.version >> 16, answer.version & 0xFFFF
    if major != MAJOR or minor > asked:
        raise ProtocolError(f"the server offers protocol {major}.{minor}, and {MAJOR}.{asked} was asked for")
    if answer.options:
        raise ProtocolError(f"the server refuses protocol options that were not asked for: {answer.options[0]}")
    return minor


def _startup_message(major: int, minor: int, reader: Reader) -> StartupMessage:
    _check_major(major, minor)
    parameters: dict[str, str] = {}
    options: dict[str, str] = {}
    try:
        while name := reader.text():
            (options if name.startswith(OPTION_PREFIX) else parameters)[name] = reader.text()
        reader.end()
    except ProtocolError:
        text = "invalid startup packet layout: expected terminator as last byte"
        raise ProtocolError(text) from None
    if not parameters.get("user"):
        raise ProtocolError("no PostgreSQL user name specified in startup packet", "28000")
    return StartupMessage(parameters, major, minor, options)


def _check_major(major: int, minor: int) -> None:
    if major != MAJOR:
        raise ProtocolError(
            f"unsupported frontend protocol {major}.{minor}: {MAJOR}.0 to {MAJOR}.{NEWEST_MINOR} are supported", "0A000"
        )


def _packet(code: int, rest: bytes) -> bytes:
    return struct.pack("!II", len(rest) + 8, code) + rest
