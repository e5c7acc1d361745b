"""The least client that there can be: one blocking socket, simple queries, no decoding of rows.

What it takes itself is the same for every server that it talks to, and small beside a round trip.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from types import TracebackType

from heliosproxy.auth.scram import ScramClient
from heliosproxy.config.kinds import Address
from heliosproxy.wire.builders import TERMINATE
from heliosproxy.wire.errors import PeerError, parse_fields
from heliosproxy.wire.framing import Framer
from heliosproxy.wire.messages_authentication import (
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    SASLInitialResponse,
    SASLResponse,
    decode_authentication,
)
from heliosproxy.wire.startup import StartupMessage

TIMEOUT = 10.0
"""Seconds that the other side may be silent."""
LONGEST = 1 << 20
READY = b"Z\0\0\0\x05I"
"""ReadyForQuery outside a transaction."""
ERROR = ord("E")
COPY_DONE = b"c\0\0\0\4"


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in, and where."""

    user: str
    password: str = field(repr=False)
    database: str


class Connection:
    """A connection that has logged in. A context manager: leaving it closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(TERMINATE)
        self._socket.close()

    def query(self, text: bytes) -> bytes:
        """Send a simple Query; the bytes of its answer. Raises PeerError if that is an error, OSError, TimeoutError."""
        return self.exchange(query_message(text))

    def exchange(self, message: bytes) -> bytes:
        """The same with a message that is made already: what is timed."""
        self._socket.sendall(message)
        answer = self._socket.recv(65536)
        while not answer.endswith(READY):
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionError("the connection was closed")
            answer += more
        if answer[0] == ERROR:
            raise _refusal(_first(answer))
        return answer

    def count(self, message: bytes) -> int:
        """Send a message; the bytes of its answer, of which none are kept. Raises PeerError, OSError, TimeoutError."""
        self._socket.sendall(message)
        return self._count()

    def copy_in(self, text: bytes, data: bytes, times: int) -> None:
        """COPY FROM STDIN of so many times the same data. Raises PeerError, OSError, TimeoutError."""
        self._socket.sendall(query_message(text))
        started = self._socket.recv(65536)
        if started[0] == ERROR:
            raise _refusal(_first(started))
        message = b"d" + (len(data) + 4).to_bytes(4, "big") + data
        for _ in range(times):
            self._socket.sendall(message)
        self._socket.sendall(COPY_DONE)
        self._count()

    def _count(self) -> int:
        buffer, total, end = bytearray(LONGEST), 0, b""
        while not end.endswith(READY):
            count = self._socket.recv_into(buffer)
            if not count:
                raise ConnectionError("the connection was closed")
            if not total and buffer[0] == ERROR:
                raise _refusal(_first(bytes(buffer[:count])))
            total += count
            end = (end + buffer[max(0, count - len(READY)) : count])[-len(READY) :]
        return total


def query_message(text: bytes) -> bytes:
    """A Query message."""
    return b"Q" + (len(text) + 5).to_bytes(4, "big") + text + b"\0"


def connect(address: Address, login: Login) -> Connection:
    """Connect and log in, by SCRAM-SHA-256 or trust. Raises PeerError with the server's refusal, OSError."""
    connection = socket.create_connection((address.host, address.port), TIMEOUT)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _log_in(connection, login)
    except BaseException:
        connection.close()
        raise
    return Connection(connection)


def _log_in(connection: socket.socket, login: Login) -> None:
    connection.sendall(StartupMessage({"user": login.user, "database": login.database}).encode())
    proof, framer = ScramClient(login.user, login.password), Framer(LONGEST)
    while True:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the connection was closed during the login")
        for tag, body in framer.feed(data):
            if tag == ERROR:
                raise _refusal(body)
            if tag == ord("R"):
                _prove(connection, proof, body)
            elif tag == ord("Z"):
                return


def _prove(connection: socket.socket, proof: ScramClient, body: bytes) -> None:
    request = decode_authentication(body)
    if isinstance(request, AuthenticationSASL):
        connection.sendall(SASLInitialResponse("SCRAM-SHA-256", proof.first()).encode())
    elif isinstance(request, AuthenticationSASLContinue):
        connection.sendall(SASLResponse(proof.final(request.data)).encode())
    elif isinstance(request, AuthenticationSASLFinal):
        proof.verify(request.data)


def _first(answer: bytes) -> bytes:
    """The body of an answer's first message."""
    return answer[5 : 1 + int.from_bytes(answer[1:5], "big")]


def _refusal(body: bytes) -> PeerError:
    fields = parse_fields(body)
    return PeerError(fields.get("M", "refused"), fields.get("C", "XX000"))
