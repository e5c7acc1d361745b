"""Opening a link: connect to a node, log in, read what it reports until it is ready.

A trio task per link; the socket is handed to the reactor when it is idle and clean.
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
from heliosproxy.config.model import Address
from heliosproxy.switch.settings import answered, question, unreported
from heliosproxy.wire import builders
from heliosproxy.wire.buffer import frame
from heliosproxy.wire.errors import PeerError, parse_fields
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
from heliosproxy.wire.messages_backend import DataRow
from heliosproxy.wire.startup import CancelRequest, StartupMessage

LONGEST = 1 << 20
"""Longest message that a server may send while it logs us in."""
MECHANISM = "SCRAM-SHA-256"


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
    with trio.move_on_after(timeout):
        try:
            stream = await _connect(node)
            try:
                parameters = {"user": login.user, "database": database, **(settings or {})}
                return await _log_in(stream, node, parameters, login, tracked)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        except (OSError, trio.BrokenResourceError) as error:
            raise Unreachable(f"cannot connect to {node.name} at {_where(node)}: {_words(error)}") from error
    raise Unreachable(f"cannot connect to {node.name} at {_where(node)}: no answer within {timeout:g} s")


async def send_cancel(node: Node, key: tuple[int, bytes], timeout: float) -> bool:
    """Ask a node to cancel what the connection with this key runs; returns when the node has taken note.

    PostgreSQL closes the connection after it has sent the signal; a cancel request has no other answer. False: nobody
    knows whether the request arrived, or still will.
    """
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


async def _log_in(
    stream: trio.SocketStream,
    node: Node,
    parameters: Mapping[str, str],
    login: ServerLogin,
    tracked: Sequence[str],
) -> Opened:
    await stream.send_all(StartupMessage(parameters).encode())
    framer = Framer(LONGEST)
    proof: ScramClient | None = None
    reported: dict[str, str] = {}
    key = (0, b"")
    asked: tuple[str, ...] | None = None
    values: dict[str, str] = {}
    notices = b""
    while True:
        data = await stream.receive_some(16384)
        if not data:
            raise Unreachable(f"{node.name} closed the connection during the login")
        for tag, body in framer.feed(bytes(data)):
            if tag == ord("R"):
                proof = await _authenticate(stream, body, proof, node, login)
            elif tag == ord("S"):
                name, value = (part.decode("utf-8", "replace") for part in body[:-1].split(b"\0")[:2])
                reported[name] = value
            elif tag == ord("K"):
                key = (int.from_bytes(body[:4], "big"), body[4:])
            elif tag == ord("E"):
                raise _refused(body)
            elif tag == ord("N"):
                notices += frame(tag, body)
            elif tag == ord("D"):
                values = answered(asked or (), DataRow.decode(body).values)
            elif tag == ord("Z") and asked is None:
                asked = unreported(tracked, reported)
                await stream.send_all(builders.query(question(asked).encode()))
            elif tag == ord("Z"):
                return Opened(socket.socket(fileno=stream.socket.detach()), reported, key, values, notices)


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


def _refused(body: bytes) -> PeerError:
    fields = parse_fields(body)
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
