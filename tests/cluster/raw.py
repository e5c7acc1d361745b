"""A client that speaks the protocol byte by byte, for what drivers do not do: odd start-ups, half messages, cancel keys
of any kind, leaving in the middle of anything. One blocking socket; no wait is longer than its deadline."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from heliosproxy.auth.md5 import md5_response, md5_secret
from heliosproxy.auth.scram import ScramClient
from heliosproxy.wire.errors import parse_fields
from heliosproxy.wire.messages_authentication import (
    AuthenticationCleartextPassword,
    AuthenticationMD5Password,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    SASLInitialResponse,
    SASLResponse,
    decode_authentication,
)
from heliosproxy.wire.startup import CancelRequest, StartupMessage

DEADLINE = 30.0
"""Seconds that the other side may be silent."""
SYNC, FLUSH, COPY_DONE, TERMINATE = b"S\0\0\0\4", b"H\0\0\0\4", b"c\0\0\0\4", b"X\0\0\0\4"

Key = tuple[int, bytes]


class Refused(Exception):
    """The login ended with an ErrorResponse."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(fields.get("M", ""))
        self.fields = dict(fields)
        self.sqlstate = fields.get("C", "")


class Gone(ConnectionError):
    """The other side closed the connection; `fields` are of the FATAL error before that, if there was one."""

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        super().__init__((fields or {}).get("M", "closed without a word"))
        self.fields = dict(fields or {})


@dataclass(slots=True)
class Answer:
    """What came up to ReadyForQuery, or up to the message that was waited for."""

    tags: bytes = b""
    rows: list[tuple[str | None, ...]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    copied: bytearray = field(default_factory=bytearray)
    status: str = ""

    @property
    def sqlstate(self) -> str:
        """Of its first error; empty if there was none."""
        return self.errors[0].get("C", "") if self.errors else ""


class Client:
    """A connection that has logged in. A context manager: leaving it says Terminate and closes."""

    def __init__(
        self,
        address: tuple[str, int],
        parameters: Mapping[str, str],
        password: str,
        *,
        minor: int = 0,
        options: Mapping[str, str] | None = None,
        receives: int = 0,
        over: socket.socket | None = None,
    ) -> None:
        """`receives`: bytes of the socket's receive buffer, so that little is read ahead; 0: the system's choice.
        `over`: a connection that is there already, as TLS, and is closed with this client.

        Raises Refused, or Gone.
        """
        self.address = address
        self.parameters: dict[str, str] = {}
        self.notifications: list[tuple[int, str, str]] = []
        self.negotiated: tuple[int, tuple[str, ...]] | None = None
        """What NegotiateProtocolVersion said: the minor version, and the options that are not known."""
        self.key: Key = (0, b"")
        self.status = ""
        self._kept = bytearray()
        self._at = 0
        self.socket = over or connected(address, receives)
        try:
            self.send(StartupMessage(parameters, minor=minor, options=options or {}).encode())
            self._log_in(ScramClient(parameters["user"], password), (parameters["user"], password))
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- bytes ----------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """All of it."""
        self.socket.sendall(data)

    def message(self) -> tuple[int, bytes]:
        """The next message, as (tag, body). Raises Gone, or TimeoutError after DEADLINE."""
        while len(self._kept) - self._at < 5:
            self._more()
        tag, size = struct.unpack_from("!BI", self._kept, self._at)
        while len(self._kept) - self._at < size + 1:
            self._more()
        body = bytes(memoryview(self._kept)[self._at + 5 : self._at + 1 + size])
        self._at += size + 1
        return tag, body

    def _more(self) -> None:
        if self._at:
            del self._kept[: self._at]
            self._at = 0
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Gone
        self._kept += data

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        if len(self._kept) > self._at:
            return False
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(DEADLINE)

    # --- answers --------------------------------------------------------------------------------------------------

    def query(self, sql: str) -> Answer:
        """A simple Query and its answer."""
        self.send(query(sql))
        return self.answer()

    def answer(self, until: bytes = b"Z") -> Answer:
        """Everything up to a message with one of these tags. Raises Gone."""
        found = Answer()
        ends = frozenset(until)
        while True:
            tag, body = self.message()
            self._note(found, tag, body)
            if tag in ends:
                return found

    def value(self, sql: str) -> str | None:
        """The one value that a query gives. AssertionError if it gives anything else."""
        found = self.query(sql)
        assert not found.errors, found.errors
        assert len(found.rows) == 1, found.rows
        return found.rows[0][0]

    def _note(self, found: Answer, tag: int, body: bytes) -> None:
        found.tags += bytes((tag,))
        if tag == ord("D"):
            found.rows.append(row(body))
        elif tag == ord("C"):
            found.commands.append(body[:-1].decode())
        elif tag == ord("E"):
            fields = parse_fields(body)
            found.errors.append(fields)
            if fields.get("V") == "FATAL":
                raise Gone(fields)
        elif tag == ord("Z"):
            found.status = self.status = chr(body[0])
        elif tag == ord("S"):
            self._status(body)
        elif tag == ord("A"):
            channel, payload = body[4:-1].decode().split("\0")
            self.notifications.append((int.from_bytes(body[:4], "big"), channel, payload))
        elif tag == ord("d"):
            found.copied += body

    def _status(self, body: bytes) -> None:
        name, value = body[:-1].decode().split("\0")
        self.parameters[name] = value

    # --- beginning and end ----------------------------------------------------------------------------------------

    def _log_in(self, proof: ScramClient, who: tuple[str, str]) -> None:
        while True:
            tag, body = self.message()
            if tag == ord("R"):
                self._prove(proof, who, body)
            elif tag == ord("v"):
                version, _ = struct.unpack_from("!II", body)
                self.negotiated = version & 0xFFFF, tuple(name.decode() for name in body[8:].split(b"\0")[:-1])
            elif tag == ord("K"):
                self.key = int.from_bytes(body[:4], "big"), body[4:]
            elif tag == ord("S"):
                self._status(body)
            elif tag == ord("E"):
                raise Refused(parse_fields(body))
            elif tag == ord("Z"):
                self.status = chr(body[0])
                return

    def _prove(self, proof: ScramClient, who: tuple[str, str], body: bytes) -> None:
        request = decode_authentication(body)
        if isinstance(request, AuthenticationSASL):
            self.send(SASLInitialResponse("SCRAM-SHA-256", proof.first()).encode())
        elif isinstance(request, AuthenticationSASLContinue):
            self.send(SASLResponse(proof.final(request.data)).encode())
        elif isinstance(request, AuthenticationSASLFinal):
            proof.verify(request.data)
        elif isinstance(request, AuthenticationCleartextPassword):
            self.send(tagged(b"p", text(who[1])))
        elif isinstance(request, AuthenticationMD5Password):
            self.send(tagged(b"p", md5_response(md5_secret(*who), request.salt) + b"\0"))

    def cancel(self) -> None:
        """A cancel request with this client's own key; returns when the other side has taken note."""
        cancel(self.address, self.key)

    def close(self) -> None:
        """Say Terminate, and close."""
        with contextlib.suppress(OSError):
            self.socket.sendall(TERMINATE)
        self.socket.close()

    def reset(self) -> None:
        """Vanish: the other side gets RST, not FIN."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def connected(address: tuple[str, int], receives: int = 0) -> socket.socket:
    """A TCP connection with a deadline on everything."""
    found = socket.socket()
    try:
        found.settimeout(DEADLINE)
        if receives:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        found.connect(address)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        found.close()
        raise
    return found


def cancel(address: tuple[str, int], key: Key) -> None:
    """A cancel request; returns when the other side has closed, which is its only answer. Raises TimeoutError."""
    with connected(address) as asking:
        asking.sendall(CancelRequest(*key).encode())
        asking.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert asking.recv(1) == b""


# --- messages -------------------------------------------------------------------------------------------------------


def query(sql: str) -> bytes:
    """A simple Query."""
    return tagged(b"Q", text(sql))


def parse(name: str, sql: str, *types: int) -> bytes:
    """A Parse with the oids of its parameters' types."""
    return tagged(b"P", text(name) + text(sql) + struct.pack(f"!h{len(types)}I", len(types), *types))


def bind(name: str, *values: str | None, portal: str = "") -> bytes:
    """A Bind with values in text form."""
    return tagged(b"B", text(portal) + text(name) + struct.pack("!hh", 0, len(values)) + _values(values) + b"\0\0")


def describe(name: str, kind: bytes = b"P") -> bytes:
    """A Describe of a portal (P) or a statement (S)."""
    return tagged(b"D", kind + text(name))


def execute(portal: str = "", most: int = 0) -> bytes:
    """An Execute; `most` rows, or all."""
    return tagged(b"E", text(portal) + struct.pack("!i", most))


def close(name: str, kind: bytes = b"S") -> bytes:
    """A Close of a statement (S) or a portal (P)."""
    return tagged(b"C", kind + text(name))


def copy_data(data: bytes) -> bytes:
    """CopyData."""
    return tagged(b"d", data)


def tagged(tag: bytes, body: bytes) -> bytes:
    """A message."""
    return tag + struct.pack("!I", len(body) + 4) + body


def text(value: str) -> bytes:
    """A string of the protocol."""
    return value.encode() + b"\0"


def _values(values: tuple[str | None, ...]) -> bytes:
    encoded = [None if value is None else value.encode() for value in values]
    return b"".join(struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v for v in encoded)


def row(body: bytes) -> tuple[str | None, ...]:
    """The values of a DataRow, read as text."""
    count, at = int.from_bytes(body[:2], "big"), 2
    found: list[str | None] = []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", body, at)
        at += 4
        found.append(None if size < 0 else body[at : at + size].decode("utf-8", "replace"))
        at += max(size, 0)
    return tuple(found)
