"""A client on a raw socket: it sends bytes, reads whole messages, and never waits for ever."""

from __future__ import annotations

import re
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from heliosproxy.auth.scram import ScramClient
from heliosproxy.auth.secrets import salted_password
from tests.cluster.differential.vocabulary import message, zero

MECHANISM = "SCRAM-SHA-256"
IDLE = ord("I")
_CODE_OF_CANCEL = 80877102

derive = lru_cache(maxsize=64)(salted_password)


class Heard(NamedTuple):
    """A message as it was received. What is not a message but happened has no tag and its name for a body."""

    tag: str
    body: bytes


CLOSED = Heard("", b"closed")
SILENT = Heard("", b"silent")
"""Nothing came until the deadline."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where clients connect to, and with what."""

    host: str
    port: int
    user: str
    password: str
    database: str
    deadline: float = 10.0
    """Seconds that an answer may take."""

    def fill(self, packet: bytes) -> bytes:
        """A start-up packet, with its length, for this place."""
        body = packet.replace(b"{user}", self.user.encode()).replace(b"{database}", self.database.encode())
        return struct.pack("!I", len(body) + 4) + body


@dataclass(slots=True)
class Talker:
    """One connection. `heard` is all that came, in order."""

    place: Place
    socket: socket.socket | None = None
    heard: list[Heard] = field(default_factory=list)
    status: int = 0
    """Of the last ReadyForQuery; 0: somewhere else."""
    key: bytes = b""
    """The body of BackendKeyData."""
    _buffer: bytearray = field(default_factory=bytearray)

    # --- reading and writing ---

    def connect(self) -> None:
        """Open the socket."""
        self.socket = socket.create_connection((self.place.host, self.place.port), self.place.deadline)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer.clear()

    def send(self, data: bytes, piece: int = 0) -> None:
        """Send all of it, reading what comes meanwhile, so that neither side can wait for the other."""
        self.status = 0
        pieces = [data[at : at + piece] for at in range(0, len(data), piece)] if piece else [data]
        for part in pieces:
            self._send(memoryview(part))

    def _send(self, part: memoryview) -> None:
        end = time.monotonic() + self.place.deadline
        while part and self.socket is not None and time.monotonic() < end:
            readable, writable, _ = select.select([self.socket], [self.socket], [], self.place.deadline)
            try:
                if readable and not self._receive():
                    return
                if writable:
                    part = part[self.socket.send(part[:65536], socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                continue
            except OSError:
                return  # it has closed: what it said before is still to be read

    def _receive(self) -> bool:
        """Take what is there; False if the other side has closed."""
        assert self.socket is not None
        try:
            found = self.socket.recv(1 << 18)
        except ConnectionError:
            return False
        self._buffer += found
        return bool(found)

    def _next(self) -> Heard | None:
        if len(self._buffer) < 5:
            return None
        stop = 1 + struct.unpack_from("!I", self._buffer, 1)[0]
        if len(self._buffer) < stop:
            return None
        heard = Heard(chr(self._buffer[0]), bytes(self._buffer[5:stop]))
        del self._buffer[:stop]
        return heard

    def read(self) -> Heard:
        """The next message; it is also appended to `heard`."""
        end = time.monotonic() + self.place.deadline
        found = self._next()
        while found is None:
            left = end - time.monotonic()
            if self.socket is None:
                found = CLOSED
            elif left <= 0 or not select.select([self.socket], [], [], left)[0]:
                found = SILENT
            elif self._receive():
                found = self._next()
            else:
                found = Heard("", b"closed inside " + bytes(self._buffer)) if self._buffer else CLOSED
                self.close()
        self._note(found)
        return found

    def _note(self, found: Heard) -> None:
        self.heard.append(found)
        if found.tag == "Z":
            self.status = found.body[0]
        elif found.tag == "K":
            self.key = found.body
        elif not found.tag:
            self.status = 0

    def until(self, tag: str, count: int = 1) -> bool:
        """Read until so many messages of this type have come; False if the connection ended, or nothing comes."""
        while count:
            found = self.read()
            if not found.tag:
                return False
            count -= found.tag == tag
        return True

    def close(self) -> None:
        """Close without a word."""
        self.status = 0
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def leave(self) -> None:
        """Say Terminate and read what still comes."""
        if self.socket is not None:
            self.send(message("X"))
            while self.read().tag:
                pass
        self.close()

    # --- start-up ---

    def log_in(self, packet: bytes) -> bool:
        """Connect, send the start-up packet, prove who we are, and read until ReadyForQuery."""
        self.connect()
        self.send(self.place.fill(packet))
        proof = ScramClient(self.place.user, self.place.password, derive=derive)
        while (found := self.read()).tag:
            if found.tag == "R":
                self._prove(proof, found.body)
            elif found.tag == "Z":
                return True
        return False

    def _prove(self, proof: ScramClient, body: bytes) -> None:
        code = struct.unpack_from("!I", body)[0]
        if code == 10:
            first = proof.first()
            self.send(message("p", zero(MECHANISM), struct.pack("!I", len(first)), first))
        elif code == 11:
            self.send(message("p", proof.final(body[4:])))

    def cancel(self, key: bytes) -> None:
        """Send a cancel request, and wait until it was taken."""
        with socket.create_connection((self.place.host, self.place.port), self.place.deadline) as asking:
            asking.sendall(struct.pack("!II", len(key) + 8, _CODE_OF_CANCEL) + key)
            while asking.recv(64):
                pass

    # --- for neighbours ---

    def ask(self, *sql: str) -> list[list[bytes | None]]:
        """Run queries; the rows of the last one. AssertionError where nothing comes."""
        begun = len(self.heard)
        for text in sql:
            begun = len(self.heard)
            self.send(message("Q", zero(text)))
            assert self.until("Z"), f"{text}: {self.heard[begun:]}"
        return [cells(body) for tag, body in self.heard[begun:] if tag == "D"]


def cells(body: bytes) -> list[bytes | None]:
    """The values of a DataRow."""
    count, position = struct.unpack_from("!H", body)[0], 2
    found: list[bytes | None] = []
    for _ in range(count):
        size = struct.unpack_from("!i", body, position)[0]
        position += 4
        found.append(None if size < 0 else body[position : position + size])
        position += max(size, 0)
    return found


def fields(body: bytes) -> dict[str, bytes]:
    """The fields of an ErrorResponse or NoticeResponse."""
    return {chr(field[0]): field[1:] for field in body.split(b"\0") if field}


_NAMES = {
    "R": "Authentication", "K": "BackendKeyData", "S": "ParameterStatus", "Z": "ReadyForQuery", "E": "ErrorResponse",
    "N": "NoticeResponse", "T": "RowDescription", "D": "DataRow", "C": "CommandComplete", "I": "EmptyQueryResponse",
    "1": "ParseComplete", "2": "BindComplete", "3": "CloseComplete", "n": "NoData", "t": "ParameterDescription",
    "s": "PortalSuspended", "A": "NotificationResponse", "G": "CopyInResponse", "H": "CopyOutResponse",
    "W": "CopyBothResponse", "d": "CopyData", "c": "CopyDone", "V": "FunctionCallResponse",
    "v": "NegotiateProtocolVersion",
}  # fmt: skip


def shown(heard: Heard | None, width: int = 300) -> str:
    """A message for people."""
    if heard is None:
        return "(nothing)"
    if not heard.tag:
        return f"({heard.body.decode(errors='replace')})"
    body = repr(heard.body)[2:-1]
    if heard.tag in "EN":
        body = " ".join(f"{name}={value!r}"[:200] for name, value in fields(heard.body).items())
    elif heard.tag == "D":
        body = repr(cells(heard.body))
    body = re.sub(r"\\x00", "·", body)
    return f"{_NAMES.get(heard.tag, heard.tag)} {body[:width]}" + ("…" if len(body) > width else "")
