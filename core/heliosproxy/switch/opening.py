"""Opening a link: connect to a node, log in, read what it reports until it is ready.

A trio task per link; the socket is handed to the reactor when it is idle and clean.

Protocol 3.2 is asked for, since only with it does a server give a long cancel key, which nobody guesses. A server that
speaks less says so (NegotiateProtocolVersion) and goes on in what it speaks; one that refuses the version outright, or
a pooler in between that does, is asked again for 3.0, which is remembered for the node.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import trio

from heliosproxy.auth.scram import ScramClient
from heliosproxy.auth.secrets import salted_password
from heliosproxy.auth.users import ServerLogin
from heliosproxy.cluster.node import Node
from heliosproxy.config.kinds import Address
from heliosproxy.switch.settings import answered, question, unreported
from heliosproxy.wire import builders
from heliosproxy.wire.buffer import frame
from heliosproxy.wire.errors import PeerError, ProtocolError, parse_fields
from heliosproxy.wire.framing import Framer
from heliosproxy.wire.messages_authentication import (
    AuthenticationOk,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    SASLInitialResponse,
    SASLResponse,
    decode_authentication,
)
from heliosproxy.wire.messages_backend import BackendKeyData, DataRow, NegotiateProtocolVersion
from heliosproxy.wire.startup import CancelRequest, StartupMessage, agreed

LONGEST = 1 << 20
"""Longest message that a server may send while it logs us in."""
MECHANISM = "SCRAM-SHA-256"
_VERSION_REFUSED = frozenset(("0A000", "08004", "08P01"))
"""What servers and poolers say, instead of asking for authentication, to a version that they do not know."""


class Unreachable(PeerError):
    """No connection to the node: refused, timed out, or cut before the server answered."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "08006")


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that has logged in and is idle. The caller owns the socket."""

    socket: socket.socket
    parameters: dict[str, str]
    """What the server reported."""
    key: tuple[int, bytes]
    """Process id and secret for `send_cancel`. The secret has 4 to 256 bytes; none if the server cannot be asked."""
    asked: dict[str, str] = field(default_factory=dict)
    """The tracked settings that it does not report."""
    notices: bytes = b""
    """What it said on the way: NoticeResponse messages."""


derive = lru_cache(maxsize=64)(salted_password)
"""Salted passwords are remembered: computing one takes 2 ms, and every link of a user needs the same."""


async def open_link(
    node: Node,
    database: str,
    login: ServerLogin,
    timeout: float,
    tracked: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> Opened:
    """Log in to a node, and ask for those of the tracked settings that it does not report.

    Raises Unreachable, or PeerError with the server's own SQLSTATE and words if it refuses. `settings` are further
    start-up parameters.
    """
    parameters = {"user": login.user, "database": database, **(settings or {})}
    with trio.move_on_after(timeout):
        try:
            return await _open(node, parameters, login, tracked)
        except (OSError, trio.BrokenResourceError) as error:
            raise Unreachable(f"cannot connect to {node.name} at {_where(node)}: {_words(error)}") from error
    raise Unreachable(f"cannot connect to {node.name} at {_where(node)}: no answer within {timeout:g} s")


async def send_cancel(node: Node, key: tuple[int, bytes], timeout: float) -> bool:
    """Ask a node to cancel what the connection with this key runs; returns when the node has taken note.

    PostgreSQL closes the connection after it has sent the signal; a cancel request has no other answer. False: nobody
    knows whether the request arrived, or still will. Without a secret nothing is sent.
    """
    if not key[1]:
        return True
    with trio.move_on_after(timeout):
        try:
            async with await _connect(node) as stream:
                await stream.send_all(CancelRequest(*key).encode())
                while await stream.receive_some(64):
                    pass
        except (OSError, trio.BrokenResourceError):
            return False
        return True
    return False


async def _connect(node: Node) -> trio.SocketStream:
    errors: list[OSError] = []
    for address in node.addresses or (node.config.address,):
        try:
            return await _connect_to(address)
        except OSError as error:
            errors.append(error)
    raise errors[0]


async def _connect_to(address: Address) -> trio.SocketStream:
    if address.host.startswith("/"):
        return await trio.open_unix_socket(f"{address.host}/.s.PGSQL.{address.port}")
    stream = await trio.open_tcp_stream(address.host, address.port)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return stream


class _VersionRefused(Exception):
    """The node wants nothing to do with the version that it was asked for."""


@dataclass(slots=True)
class _Login:
    """What a server said while it let us in."""

    minor: int
    """The minor version that was asked for, then the one agreed on."""
    proof: ScramClient | None = None
    taken: bool = False
    """It has asked for authentication: it took the version."""
    parameters: dict[str, str] = field(default_factory=dict)
    key: tuple[int, bytes] = (0, b"")
    asked: tuple[str, ...] | None = None
    """Settings that it was asked for; None until it was ready for that."""
    values: dict[str, str] = field(default_factory=dict)
    """And what it said."""
    notices: bytes = b""

    def negotiated(self, body: bytes) -> None:
        """It speaks less than was asked for. Raises ProtocolError if it does not say what."""
        if self.taken or not self.minor:
            raise ProtocolError("NegotiateProtocolVersion that nothing was asked for")
        self.minor = agreed(NegotiateProtocolVersion.decode(body), self.minor)

    def reported(self, body: bytes) -> None:
        """A setting of its own accord."""
        name, value = (part.decode("utf-8", "replace") for part in body[:-1].split(b"\0")[:2])
        self.parameters[name] = value

    def identified(self, body: bytes) -> None:
        """Its process id and secret. Raises ProtocolError if they are not as long as the version has them."""
        data = BackendKeyData.decode(body)
        if self.minor < 2 and len(data.key) != 4:
            raise ProtocolError(f"a cancel key of {len(data.key)} bytes in protocol 3.{self.minor}")
        self.key = data.pid, data.key

    def noticed(self, body: bytes) -> None:
        """It says something that the client may want to know."""
        self.notices += frame(ord("N"), body)

    def answered(self, body: bytes) -> None:
        """The settings that it was asked for."""
        self.values = answered(self.asked or (), DataRow.decode(body).values)

    def question(self, tracked: Sequence[str]) -> bytes:
        """What is still to be asked of it, now that it is ready; empty if nothing."""
        if self.asked is not None:
            return b""
        self.asked = unreported(tracked, self.parameters)
        return builders.query(question(self.asked).encode()) if self.asked else b""


async def _open(node: Node, parameters: Mapping[str, str], login: ServerLogin, tracked: Sequence[str]) -> Opened:
    try:
        return await _open_in(node, node.protocol_minor, parameters, login, tracked)
    except _VersionRefused:
        opened = await _open_in(node, 0, parameters, login, tracked)
        node.protocol_minor = 0
        return opened


async def _open_in(
    node: Node, minor: int, parameters: Mapping[str, str], login: ServerLogin, tracked: Sequence[str]
) -> Opened:
    stream = await _connect(node)
    try:
        await stream.send_all(StartupMessage(parameters, minor=minor).encode())
        found = _Login(minor)
        await _log_in(stream, node, found, login, tracked)
        opened = socket.socket(fileno=stream.socket.detach())
        return Opened(opened, found.parameters, found.key, found.values, found.notices)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _log_in(
    stream: trio.SocketStream, node: Node, found: _Login, login: ServerLogin, tracked: Sequence[str]
) -> None:
    framer = Framer(LONGEST)
    noted = {
        ord("v"): found.negotiated, ord("S"): found.reported, ord("K"): found.identified, ord("D"): found.answered,
        ord("N"): found.noticed,
    }  # fmt: skip
    while True:
        data = await _receive(stream, node, found)
        for tag, body in framer.feed(data):
            if note := noted.get(tag):
                note(body)
            elif tag == ord("R"):
                found.taken = True
                found.proof = await _authenticate(stream, body, found.proof, node, login)
            elif tag == ord("E"):
                raise _refused(body, found)
            elif tag == ord("Z"):
                if not (asking := found.question(tracked)):
                    return
                await stream.send_all(asking)


async def _receive(stream: trio.SocketStream, node: Node, found: _Login) -> bytes:
    try:
        data = await stream.receive_some(16384)
    except trio.BrokenResourceError:
        if found.taken or not found.minor:
            raise
        data = b""
    if data:
        return bytes(data)
    if found.taken or not found.minor:
        raise Unreachable(f"{node.name} closed the connection during the login")
    raise _VersionRefused  # perhaps; the second try will tell


async def _authenticate(
    stream: trio.SocketStream, body: bytes, proof: ScramClient | None, node: Node, login: ServerLogin
) -> ScramClient | None:
    request = decode_authentication(body)
    if isinstance(request, AuthenticationOk):
        return None
    if isinstance(request, AuthenticationSASL):
        return await _first(stream, request, node, login)
    if isinstance(request, AuthenticationSASLContinue) and proof is not None:
        await stream.send_all(SASLResponse(proof.final(request.data)).encode())
        return proof
    if isinstance(request, AuthenticationSASLFinal) and proof is not None:
        proof.verify(request.data)
        return proof
    raise PeerError(
        f"{node.name} asks for {type(request).__name__.removeprefix('Authentication')}, which this proxy cannot answer",
        "28000",
        hint="Let the proxy log in with scram-sha-256 or trust in the node's pg_hba.conf.",
    )


async def _first(
    stream: trio.SocketStream, request: AuthenticationSASL, node: Node, login: ServerLogin
) -> ScramClient:
    if MECHANISM not in request.mechanisms:
        raise PeerError(f"{node.name} offers no {MECHANISM}, only {', '.join(request.mechanisms)}", "28000")
    if login.password is None:
        raise PeerError(
            f'{node.name} asks for a password for user "{login.user}" and none is configured',
            "28P01",
            hint="Give the user a server_password, or a password, in [[auth.users]].",
        )
    proof = ScramClient(login.user, login.password, derive=derive)
    await stream.send_all(SASLInitialResponse(MECHANISM, proof.first()).encode())
    return proof


def _refused(body: bytes, found: _Login) -> Exception:
    fields = parse_fields(body)
    if found.minor and not found.taken and fields.get("C") in _VERSION_REFUSED:
        return _VersionRefused()
    message = fields.get("M", "the server refused the login")
    return PeerError(message, fields.get("C", "XX000"), detail=fields.get("D"), hint=fields.get("H"))


def _where(node: Node) -> str:
    return ", ".join(map(str, node.addresses or (node.config.address,)))


def _words(error: BaseException) -> str:
    """What went wrong, without trio's own wording."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError):
        error = cause
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
