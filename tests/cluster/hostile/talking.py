"""An enemy's connection: it sends any bytes in any state, and reads what comes back with the strict decoder."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import trio

from heliosproxy.auth.scram import ScramClient
from heliosproxy.auth.secrets import salted_password
from heliosproxy.wire.errors import ProtocolError
from heliosproxy.wire.framing import Framer
from heliosproxy.wire.messages_backend import BackendMessage, DataRow, ErrorResponse, decode_backend
from heliosproxy.wire.tls import Tls, TlsError
from tests.cluster.differential.talking import MECHANISM, Place
from tests.cluster.differential.vocabulary import SYNC, bind, data, execute, message, parse, query, run, startup, zero

DEADLINE: Final = 20.0
"""Seconds after which a connection hangs."""
STILL_HERE: Final = b"still here"
PROBE: Final = SYNC + query("rollback") + query(b"select '" + STILL_HERE + b"'")
"""After whatever it was, this is answered, unless the connection has ended."""
SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)
GSS_REQUEST: Final = struct.pack("!II", 8, 80877104)
ALERT, HANDSHAKE = b"\x15", b"\x16"
"""What TLS begins with that comes from a server."""

derive = lru_cache(maxsize=64)(salted_password)


@lru_cache(maxsize=1)
def anybody() -> ssl.SSLContext:
    """What a client has that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Wrong(AssertionError):
    """The other side did what it must never do."""


class Talker:
    """One connection."""

    def __init__(self, place: Place, stream: trio.SocketStream) -> None:
        self.place = place
        self.stream = stream
        self.heard: list[BackendMessage] = []
        self.proof = ScramClient(place.user, place.password, derive=derive)
        self._framer = Framer(1 << 30)
        self._waiting: list[BackendMessage] = []
        self.tls: Tls | None = None
        self.tls_is_due = False
        """Nothing but TLS may come, and what that says is not looked at."""
        self.reset = False
        """The other side vanished, and what it said last may be lost."""

    @classmethod
    async def to(cls, place: Place, source: str = "") -> Talker:
        """Connect, from this address of the machine if one is given."""
        found = trio.socket.socket()
        try:
            if source:
                await found.bind((source, 0))
            await found.connect((place.host, place.port))
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            found.close()
            raise
        return cls(place, trio.SocketStream(found))

    async def secure(self) -> None:
        """Ask for TLS, and go on in it. Raises TlsError."""
        await self.offered()
        tls = Tls(anybody(), server_side=False)
        while not tls.handshake():
            await self.send(tls.outgoing())
            tls.feed(await self._receive())
        await self.send(tls.outgoing())
        self.tls, self.tls_is_due = tls, False

    async def offered(self) -> None:
        """TLS was asked for, and agreed to."""
        await self.send(SSL_REQUEST)
        if await self._receive(1) != b"S":
            raise Wrong("no TLS is offered")
        self.tls_is_due = True

    async def send(self, data: bytes, *, within_tls: bool = True) -> None:
        """All of it, or what the other side takes until it closes; in the clear although TLS is spoken if not
        `within_tls`."""
        if self.tls is not None and within_tls:
            data = self.tls.send(data)
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def ends(self) -> None:
        """Send no more."""
        try:
            if self.tls is not None:
                await self.stream.send_all(self.tls.close())
            await self.stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return

    async def _receive(self, most: int = 65536) -> bytes:
        """What came next, in the clear; nothing at the end."""
        try:
            data = bytes(await self.stream.receive_some(most))
            while data and self.tls is not None and not (plain := self.tls.receive(data)):
                data = bytes(await self.stream.receive_some(most))
        except (trio.BrokenResourceError, ConnectionError, TlsError):
            self.reset = True
            return b""
        return data if self.tls is None or not data else plain

    async def is_silent(self) -> bool:
        """Read to the end; whether nothing came."""
        return not await self._receive()

    async def message(self) -> BackendMessage | None:
        """The next message, None at the end. Raises Wrong for what is not the protocol."""
        while not self._waiting:
            data = await self._receive()
            if not data:
                if (rest := self._framer.rest()) and not self.reset:
                    raise Wrong(f"closed inside a message: {rest[:100]!r}")
                return None
            if self.tls_is_due:
                if data[:1] not in (ALERT, HANDSHAKE):
                    raise Wrong(f"not TLS: {data[:100]!r}")
                continue
            if not self.heard:  # answers to requests for encryption; what follows begins with E, R or v
                data = data.lstrip(b"NS")
            try:
                self._waiting += [decode_backend(*each) for each in self._framer.feed(data)]
            except ProtocolError as error:
                raise Wrong(f"{error.message}, in {data[:200]!r}") from error
        found = self._waiting.pop(0)
        self._check(found)
        self.heard.append(found)
        return found

    def _check(self, found: BackendMessage) -> None:
        last = self.heard[-1] if self.heard else None
        if isinstance(last, ErrorResponse) and last.fields.get("V") == "FATAL":
            raise Wrong(f"{found!r} after a FATAL error")
        if isinstance(found, ErrorResponse) and not (len(found.sqlstate) == 5 and found.message):
            raise Wrong(f"an error without a SQLSTATE or a message: {found!r}")

    async def until(self, tag: str) -> BackendMessage:
        """Read up to a message of this type. Raises Wrong if it does not come."""
        while (found := await self.message()) is not None:
            if found.tag == ord(tag):
                return found
        raise Wrong(f"closed, and {tag} was due; heard {self.heard[-3:]}")

    async def to_the_end(self, *, probed: bool) -> bool:
        """Read until the other side closes, or answers the probe; whether it did that."""
        while (found := await self.message()) is not None:
            if probed and isinstance(found, DataRow) and found.values == (STILL_HERE,):
                await self.until("Z")
                return True
        return False

    # --- states -----------------------------------------------------------------------------------------------------

    async def ask(self, sql: str) -> None:
        """A query, and its answer."""
        await self.send(query(sql))
        await self.until("Z")

    async def log_in(self) -> None:
        """All the way."""
        await self.challenged()
        await self.send(await self.final())
        await self.until("Z")

    async def asked(self) -> None:
        """AuthenticationSASL has come."""
        await self.send(self.place.fill(startup()))
        await self.until("R")

    async def challenged(self) -> None:
        """AuthenticationSASLContinue has come."""
        await self.asked()
        await self.send(self.first())
        await self.until("R")

    def first(self) -> bytes:
        """The honest SASLInitialResponse."""
        first = self.proof.first()
        return message("p", zero(MECHANISM), struct.pack("!I", len(first)), first)

    async def final(self) -> bytes:
        """The honest SASLResponse to what has come."""
        found = self.heard[-1]
        return message("p", self.proof.final(getattr(found, "data", b"")))


async def _nothing(talker: Talker) -> None:
    """Connected, and not a byte sent."""


async def _refused(talker: Talker) -> None:
    await talker.send(GSS_REQUEST)
    if await talker._receive(1) != b"N":
        raise Wrong("GSSAPI is offered")


async def _transaction(talker: Talker) -> None:
    await talker.log_in()
    await talker.ask("begin")


async def _failed(talker: Talker) -> None:
    await _transaction(talker)
    await talker.ask("selectt")


async def _copy_in(talker: Talker) -> None:
    await talker.log_in()
    await talker.ask("create temp table c (n int)")
    await talker.send(query("copy c from stdin"))
    await talker.until("G")
    await talker.send(data("1\n"))


async def _copy_out(talker: Talker) -> None:
    await talker.log_in()
    await talker.send(query("copy (select generate_series(1, 3000)) to stdout"))
    await talker.until("H")


async def _after_error(talker: Talker) -> None:
    await talker.log_in()
    await talker.send(parse("selectt") + message("H"))
    await talker.until("E")


async def _in_unit(talker: Talker) -> None:
    await talker.log_in()
    await talker.send(run("select generate_series(1, 9)", rows=2) + message("H"))
    await talker.until("s")


async def _named(talker: Talker) -> None:
    await talker.log_in()
    await talker.send(parse("select $1::int", "s") + bind("1", name="s") + execute() + SYNC)
    await talker.until("Z")


State = Callable[[Talker], Awaitable[None]]
BEFORE: Mapping[str, State] = MappingProxyType({
    "connected": _nothing, "refused encryption": _refused, "offered TLS": Talker.offered,
    "asked for SCRAM": Talker.asked, "challenged by SCRAM": Talker.challenged,
})  # fmt: skip
"""States of who has not logged in, and how they are reached."""
AFTER: Mapping[str, State] = MappingProxyType({
    "idle": Talker.log_in, "in a transaction": _transaction, "in a failed transaction": _failed, "in COPY in": _copy_in,
    "in COPY out": _copy_out, "after an error": _after_error, "in a unit": _in_unit, "with a statement": _named,
})  # fmt: skip
"""States of who has."""
STATES: Mapping[str, State] = MappingProxyType({**BEFORE, **AFTER})
