"""Opening a link: connect to a node, log in, read what it reports until it is ready.

A trio task per link; the socket is handed to the reactor, with its TLS, when it is idle and clean. `reaching` connects,
`proving` tells the node who we are.

Protocol 3.2 is asked for, since only with it does a server give a long cancel key, which nobody guesses. A server that
speaks less says so (NegotiateProtocolVersion) and goes on in what it speaks; one that refuses the version outright, or
a pooler in between that does, is asked again for 3.0, which is remembered for the node.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from heliosproxy.auth.users import ServerLogin
from heliosproxy.cluster.node import Node
from heliosproxy.config.tls import Contexts, ways
from heliosproxy.switch.proving import Proving
from heliosproxy.switch.reaching import Unreachable, is_private, reach
from heliosproxy.switch.settings import answered, question, unreported
from heliosproxy.switch.stream import Stream
from heliosproxy.wire import builders
from heliosproxy.wire.buffer import frame
from heliosproxy.wire.errors import PeerError, ProtocolError, parse_fields
from heliosproxy.wire.framing import Framer
from heliosproxy.wire.messages_backend import BackendKeyData, DataRow, NegotiateProtocolVersion, ParameterStatus
from heliosproxy.wire.startup import CancelRequest, StartupMessage, agreed
from heliosproxy.wire.tls import Tls, TlsError

__all__ = ["Opened", "Unreachable", "open_link", "send_cancel"]

LONGEST = 1 << 20
"""Longest message that a server may send while it logs us in."""
_VERSION_REFUSED = frozenset(("0A000", "08004", "08P01"))
"""What servers and poolers say, instead of asking for authentication, to a version that they do not know."""
_NO_RULE = "28000"
"""What a server says, instead of asking for authentication, whose pg_hba.conf does not provide for us."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that has logged in and is idle. The caller owns the socket."""

    socket: socket.socket
    parameters: dict[str, str]
    """What the server reported."""
    key: tuple[int, bytes] = field(repr=False)
    """Process id and secret for `send_cancel`. The secret has 4 to 256 bytes; none if the server cannot be asked."""
    asked: dict[str, str] = field(default_factory=dict)
    """The tracked settings that it does not report."""
    notices: bytes = b""
    """What it said on the way: NoticeResponse messages."""
    tls: Tls | None = field(default=None, repr=False)
    """What is spoken over the socket; None if it is in the clear."""
    rest: bytes = b""
    """What the server has said since it was ready (H1)."""

    def close(self) -> None:
        """Say goodbye, as far as the socket takes it at once, and close."""
        with self.socket, suppress(OSError):
            self.socket.send(
                builders.TERMINATE if self.tls is None else self.tls.send(builders.TERMINATE) + self.tls.close()
            )


async def open_link(
    node: Node,
    database: str,
    login: ServerLogin,
    timeout: float,
    tracked: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    *,
    contexts: Contexts | None = None,
) -> Opened:
    """Log in to a node, and ask for those of the tracked settings that it does not report.

    `settings` are further start-up parameters. `contexts`: without them TLS is set up for this link alone.

    Raises Unreachable, also where there is no TLS as configured, or PeerError: with the server's own SQLSTATE and words
    if it refuses, otherwise as `Proving.answer`.
    """
    asked = _Asked({"user": login.user, "database": database, **(settings or {})}, login, tracked)
    with trio.move_on_after(timeout):
        try:
            return await _open(node, asked, contexts or Contexts())
        except OSError as error:
            raise Unreachable(f"cannot connect to {node.name} at {_where(node)}: {_words(error)}") from error
        except TlsError as error:
            raise Unreachable(f"cannot connect to {node.name} at {_where(node)}: {error.message}") from error
    raise Unreachable(f"cannot connect to {node.name} at {_where(node)}: no answer within {timeout:g} s")


async def send_cancel(
    node: Node, key: tuple[int, bytes], timeout: float, *, encrypted: bool = False, contexts: Contexts | None = None
) -> bool:
    """Ask a node to cancel what the connection with this key runs; returns when the node has taken note.

    `encrypted`: through TLS, as that connection is; in the clear the key would be everybody's.

    PostgreSQL closes the connection after it has sent the signal; a cancel request has no other answer. False: nobody
    knows whether the request arrived, or still will. Without a secret nothing is sent.
    """
    if not key[1]:
        return True
    with trio.move_on_after(timeout):
        try:
            stream = await reach(node, contexts or Contexts(), encrypted=encrypted)
            try:
                return await _cancel(stream, key, encrypted=encrypted)
            finally:
                await stream.aclose()
        except (OSError, PeerError):
            return False
    return False


async def _cancel(stream: Stream, key: tuple[int, bytes], *, encrypted: bool) -> bool:
    if encrypted and stream.tls is None:
        return False  # the node spoke TLS a moment ago
    await stream.send_all(CancelRequest(*key).encode())
    while await stream.receive_some(64):
        pass
    return True


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a node is asked for: the parameters of the start-up, who we are, what we wish to know."""

    parameters: Mapping[str, str]
    login: ServerLogin
    tracked: Sequence[str]


class _VersionRefused(Exception):
    """The node wants nothing to do with the version that it was asked for."""


class _NotThisWay(Exception):
    """The node will not have us in the clear, or through TLS; perhaps it will the other way."""

    def __init__(self, error: PeerError) -> None:
        self.error = error


@dataclass(slots=True)
class _Login:
    """What a server said while it let us in."""

    minor: int
    """The minor version that was asked for, then the one agreed on."""
    taken: bool = False
    """It has asked for authentication: it took the version."""
    parameters: dict[str, str] = field(default_factory=dict)
    key: tuple[int, bytes] = field(default=(0, b""), repr=False)
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
        """A setting of its own accord. Raises ProtocolError if it is none."""
        status = ParameterStatus.decode(body)
        self.parameters[status.name] = status.value

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


async def _open(node: Node, asked: _Asked, contexts: Contexts) -> Opened:
    """One way after the other; if none will do, what was wrong with the best."""
    error: PeerError | None = None
    for encrypted in ways(node.config.tls, node.config.address):
        try:
            return await _open_one_way(node, asked, contexts, encrypted=encrypted)
        except TlsError as wrong:
            error = error or wrong
        except _NotThisWay as refused:
            error = error or refused.error
    assert error is not None
    raise error


async def _open_one_way(node: Node, asked: _Asked, contexts: Contexts, *, encrypted: bool) -> Opened:
    try:
        return await _open_in(await reach(node, contexts, encrypted=encrypted), node, node.protocol_minor, asked)
    except _VersionRefused:
        opened = await _open_in(await reach(node, contexts, encrypted=encrypted), node, 0, asked)
        node.protocol_minor = 0
        return opened


async def _open_in(stream: Stream, node: Node, minor: int, asked: _Asked) -> Opened:
    try:
        with suppress(OSError):  # why it does not listen, an alert of TLS perhaps, is there to be read
            await stream.send_all(StartupMessage(asked.parameters, minor=minor).encode())
        found = _Login(minor)
        rest = await _log_in(stream, node, found, asked)
        opened, tls = stream.detach()
        return Opened(opened, found.parameters, found.key, found.values, found.notices, tls, rest)
    except BaseException:
        await stream.aclose()
        raise


async def _log_in(stream: Stream, node: Node, found: _Login, asked: _Asked) -> bytes:
    """Until the server is ready; what it said after that."""
    framer = Framer(LONGEST)
    proving = Proving(node, asked.login, tls=stream.tls, private=is_private(stream))
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
                if answer := await proving.answer(body):
                    await stream.send_all(answer)
            elif tag == ord("E"):
                raise _refused(body, found)
            elif tag == ord("Z"):
                if not proving.admitted:
                    raise ProtocolError(f"{node.name} is ready before it has let us in")
                if not (asking := found.question(asked.tracked)):
                    return framer.rest()
                await stream.send_all(asking)


async def _receive(stream: Stream, node: Node, found: _Login) -> bytes:
    try:
        data = await stream.receive_some(16384)
    except OSError:
        if found.taken or not found.minor:
            raise
        data = b""
    if data:
        return data
    if found.taken or not found.minor:
        raise Unreachable(f"{node.name} closed the connection during the login")
    raise _VersionRefused  # perhaps; the second try will tell


def _refused(body: bytes, found: _Login) -> Exception:
    fields = parse_fields(body)
    code = fields.get("C", "XX000")
    if found.minor and not found.taken and code in _VERSION_REFUSED:
        return _VersionRefused()
    message = fields.get("M", "the server refused the login")
    error = PeerError(message, code, detail=fields.get("D"), hint=fields.get("H"))
    return error if found.taken or code != _NO_RULE else _NotThisWay(error)


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
