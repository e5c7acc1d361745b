"""Letting a client in: start-up, TLS, authentication, greeting. A task per connection, until the reactor takes over.

Everything here is read from somebody who has not yet proved who he is, all of it within `[proxy] login_timeout`;
whatever is wrong ends that connection with a FATAL error, nothing else.
Source: protocol chapter, "Start-up", "SSL Session Encryption", "Cancelling Requests in Progress".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import trio
from helios_sdk.contract import Client

from heliosproxy.auth.rules import Attempt
from heliosproxy.auth.users import Users
from heliosproxy.switch.access import Access, Authentication
from heliosproxy.switch.conversation import Conversation
from heliosproxy.switch.flows import PREFIX
from heliosproxy.switch.greetings import NAME_LENGTH
from heliosproxy.switch.settings import startup_options
from heliosproxy.wire.errors import PeerError, ProtocolError
from heliosproxy.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    decode_startup,
    negotiate,
)

ACCEPTED, REFUSED = b"S", b"N"
"""The answers to SSLRequest; to GSSENCRequest it is always the second: go on without."""
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


class NoTls(PeerError):
    """The client came in the clear, where nobody may."""


class Login:
    """One client's way in. `begins` is called once it has said that it wants to log in, and may refuse it."""

    def __init__(
        self,
        talk: Conversation,
        address: str,
        access: Access,
        users: Users,
        *,
        begins: Callable[[], None],
        cancel: Callable[[tuple[int, bytes]], Awaitable[None]],
        turn: trio.Lock,
        threads: trio.CapacityLimiter,
    ) -> None:
        """`address`: where it comes from, "local" for the Unix socket. `turn` is held while TLS computes, `threads` are
        those in which passwords are checked."""
        self._talk = talk
        self._address = address
        self._access = access
        self._users = users
        self._begins = begins
        self._cancel = cancel
        self._turn = turn
        self._threads = threads

    async def run(self) -> Admitted | None:
        """Read the start-up and authenticate the client; None if there was nothing to let in (a cancel request, a
        probe). Raises PeerError, which the caller sends as FATAL."""
        startup = await self._startup()
        if startup is None:
            return None
        self._begins()
        if _replicates(startup.parameters.get("replication", "false")):
            hint = "Connect to the server directly."
            raise PeerError("replication connections are not supported", "0A000", hint=hint)
        user, database = kept(startup.user), kept(startup.database)
        tls = self._talk.stream.tls
        if tls is None and self._address != "local" and self._access.sslmode in _WITH_TLS_ONLY:
            raise NoTls("this proxy takes connections with TLS only", "28000", hint="Connect with sslmode=require.")
        negotiation = negotiate(startup)
        if negotiation is not None:
            await self._talk.send(negotiation.encode())
        attempt = Attempt(self._address == "local", tls is not None, self._address, database, user)
        method = await Authentication(self._access, self._users, self._talk, attempt).run(self._threads)
        settings, hints = _settings(startup.parameters)
        name = settings.get("application_name", "")
        client = Client(user, database, name, self._address, "", method, tls.server_name if tls is not None else "")
        return Admitted(client, settings, hints, startup.agreed_minor, self._talk.rest())

    async def _startup(self) -> StartupMessage | None:
        context = self._access.context if self._address != "local" else None
        asked: set[type] = set()
        while (packet := await self._talk.packet(context, self._turn)) is not None:
            request = decode_startup(packet)
            if isinstance(request, StartupMessage):
                return request
            if isinstance(request, CancelRequest):
                await self._cancel((request.pid, request.key))
                return None
            if type(request) in asked or self._talk.stream.tls is not None:
                raise ProtocolError("encryption was asked for twice")
            assert isinstance(request, SSLRequest | GSSENCRequest)
            asked.add(type(request))
            if context is None or isinstance(request, GSSENCRequest):
                await self._talk.send(REFUSED)
            else:
                await self._talk.send(ACCEPTED)
                await self._talk.start_tls(context, self._turn)
        return None


_WITH_TLS_ONLY = frozenset(("require", "verify-ca", "verify-full"))


def kept(name: str) -> str:
    """A user's or a database's name as PostgreSQL keeps it: its first 63 bytes, whatever they cut."""
    raw = name.encode("utf-8", "surrogateescape")
    return name if len(raw) <= NAME_LENGTH else raw[:NAME_LENGTH].decode("utf-8", "surrogateescape")


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
