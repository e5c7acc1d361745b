"""Letting a client in: start-up, authentication, greeting. A trio task per connection, until the reactor takes over.

Everything here is read from somebody who has not yet proved who he is: no message longer than 10,000 bytes is taken,
all of it within `[proxy] login_timeout`, and whatever is wrong ends that connection with a FATAL error, nothing else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from types import MappingProxyType

import trio
from helios_sdk.contract import Client

from heliosproxy.auth.scram import ScramServer
from heliosproxy.auth.users import Users
from heliosproxy.switch.flows import PREFIX
from heliosproxy.switch.settings import startup_options
from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError, ProtocolError, notice_response
from heliosproxy.wire.framing import MAX_STARTUP, Framer, StartupFramer
from heliosproxy.wire.messages_authentication import (
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    SASLInitialResponse,
)
from heliosproxy.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    decode_startup,
    negotiate,
)

MECHANISM = "SCRAM-SHA-256"
REFUSED = b"N"
"""The answer to SSLRequest and GSSENCRequest: go on without."""
_NOT_SETTINGS = frozenset(("user", "database", "options", "replication"))


@dataclass(frozen=True, slots=True)
class Admitted:
    """A client that has been let in. `rest` are bytes that came after its start-up (H1)."""

    client: Client
    settings: dict[str, str]
    """PostgreSQL settings of its start-up packet, `options` included."""
    hints: dict[str, str]
    """Its `helios.*` settings, without the prefix."""
    protocol_minor: int
    rest: bytes


class Conversation:
    """A stream before authentication: whole packets in, bytes out."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._startup = StartupFramer()
        self._framer: Framer | None = None
        self._messages: list[tuple[int, bytes]] = []

    async def packet(self) -> bytes | None:
        """The next packet without a tag; None if the client left before it began one."""
        packet = self._startup.feed()
        while packet is None:
            data = await self.stream.receive_some(MAX_STARTUP)
            if not data:
                return None
            packet = self._startup.feed(bytes(data))
        return packet

    async def message(self) -> tuple[int, bytes]:
        """The next tagged message. Raises ProtocolError if the client leaves instead."""
        if self._framer is None:
            self._framer = Framer(MAX_STARTUP)
            self._messages += self._framer.feed(self._startup.rest())
        while not self._messages:
            data = await self.stream.receive_some(MAX_STARTUP)
            if not data:
                raise ProtocolError("the connection was closed during the login")
            self._messages += self._framer.feed(bytes(data))
        return self._messages.pop(0)

    def rest(self) -> bytes:
        """Bytes that came after what was read."""
        if self._framer is None:
            return self._startup.rest()
        early = b"".join(bytes((tag,)) + (len(body) + 4).to_bytes(4, "big") + body for tag, body in self._messages)
        return early + self._framer.rest()

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self.stream.send_all(data)


async def log_in(
    talk: Conversation,
    users: Users,
    method: str,
    cancel: Callable[[tuple[int, bytes]], Awaitable[None]],
) -> Admitted | None:
    """Read the start-up and authenticate the client; None if there was nothing to let in (a cancel request, a probe).

    Raises PeerError, which the caller sends as FATAL.
    """
    startup = await _startup(talk, cancel)
    if startup is None:
        return None
    if _replicates(startup.parameters.get("replication", "false")):
        raise PeerError("replication connections are not supported", "0A000", hint="Connect to the server directly.")
    address = _address(talk.stream)
    negotiation = negotiate(startup)
    if negotiation is not None:
        await talk.send(negotiation.encode())
    if method == "trust":
        if not _is_loopback(address):
            raise PeerError(f"trust is for loopback connections only, and this one is from {address}", "28000")
    else:
        await _scram(talk, users, startup.user)
    settings, hints = _settings(startup.parameters)
    client = Client(
        startup.user, startup.database, settings.get("application_name", ""), address, "", method
    )
    return Admitted(client, settings, hints, startup.agreed_minor, talk.rest())


async def _startup(
    talk: Conversation, cancel: Callable[[tuple[int, bytes]], Awaitable[None]]
) -> StartupMessage | None:
    asked: set[type] = set()
    while (packet := await talk.packet()) is not None:
        request = decode_startup(packet)
        if isinstance(request, StartupMessage):
            return request
        if isinstance(request, CancelRequest):
            await cancel((request.pid, request.key))
            return None
        if type(request) in asked:
            raise ProtocolError("encryption was asked for twice")
        assert isinstance(request, SSLRequest | GSSENCRequest)
        asked.add(type(request))
        await talk.send(REFUSED)
    return None


def _replicates(value: str) -> bool:
    """What `replication` asks for, read as PostgreSQL reads it. Raises PeerError where it cannot be read."""
    text = value.lower()
    if value == "database":
        return True
    meant = {boolean for word, boolean in _BOOLEANS.items() if text and word.startswith(text)}
    if len(meant) == 1 and text != "o":
        return meant.pop()
    raise PeerError(
        f'invalid value for parameter "replication": "{value}"', "22023",
        hint='Valid values are: "false", 0, "true", 1, "database".',
    )  # fmt: skip


_BOOLEANS = MappingProxyType(
    {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "1": True, "0": False}
)
"""PostgreSQL takes the beginning of any of these that is the beginning of no other."""


async def _scram(talk: Conversation, users: Users, user: str) -> None:
    await talk.send(AuthenticationSASL((MECHANISM,)).encode())
    initial = SASLInitialResponse.decode(await _answer(talk))
    if initial.mechanism != MECHANISM:
        raise ProtocolError(f"the authentication mechanism {initial.mechanism!r} was not offered")
    exchange = ScramServer(users.secret(user), user=user)
    data = initial.data
    if data is None:
        await talk.send(AuthenticationSASLContinue(b"").encode())
        data = await _answer(talk)
    await talk.send(AuthenticationSASLContinue(exchange.first(data)).encode())
    await talk.send(AuthenticationSASLFinal(exchange.final(await _answer(talk))).encode())


async def _answer(talk: Conversation) -> bytes:
    tag, body = await talk.message()
    if tag != ord("p"):
        raise ProtocolError(f"expected an authentication response, got message type {chr(tag)!r}")
    return body


def _settings(parameters: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """PostgreSQL's settings and the proxy's own; `options` count before those named in the packet itself."""
    try:
        found = dict(startup_options(parameters.get("options", "")))
    except ValueError as error:
        raise PeerError(str(error), "42601", hint="options may hold -c name=value only.") from None
    for name in _NOT_SETTINGS & {name.lower() for name in found}:
        raise PeerError(f'unrecognized configuration parameter "{name}"', "42704")
    found.update((name, value) for name, value in parameters.items() if name not in _NOT_SETTINGS)
    hints = {name[len(PREFIX) :].lower(): value for name, value in found.items() if name.lower().startswith(PREFIX)}
    settings = {name: value for name, value in found.items() if not name.lower().startswith(PREFIX)}
    return settings, hints


def greeting(
    parameters: Mapping[str, str], key: tuple[int, bytes]
) -> bytes:
    """What follows AuthenticationOk: the settings, the cancel key, ReadyForQuery."""
    statuses = b"".join(builders.parameter_status(name, value) for name, value in parameters.items())
    return (
        statuses + builders.backend_key_data(*key) + builders.ready_for_query(ord("I"))
    )


def _address(stream: trio.SocketStream) -> str:
    name = stream.socket.getpeername()
    return name[0] if isinstance(name, tuple) else "local"


def _is_loopback(address: str) -> bool:
    return address == "local" or ipaddress.ip_address(address.partition("%")[0]).is_loopback


NAME_LENGTH = 63
"""Bytes of the longest name that PostgreSQL keeps."""


def application_name(name: str, server_version: str) -> tuple[str, bytes]:
    """application_name as a server of this version keeps it, and the notice that it sends if the name is too long.

    63 bytes, then printable ASCII: other bytes become `\\xab` from version 16 on, a question mark before.
    """
    raw = name.encode("utf-8", "surrogateescape")
    kept, notice = raw[:NAME_LENGTH], b""
    if len(raw) > NAME_LENGTH:
        while kept and (raw[len(kept)] & 0xC0) == 0x80:  # not in the middle of a character
            kept = kept[:-1]
        long, short = (text.decode("utf-8", "replace") for text in (raw, kept))
        notice = notice_response("NOTICE", "42622", f'identifier "{long}" will be truncated to "{short}"')
    digits = "".join(takewhile(str.isdigit, server_version))
    escapes = bool(digits) and int(digits) >= 16
    return "".join(chr(c) if 32 <= c <= 126 else f"\\x{c:02x}" if escapes else "?" for c in kept), notice
