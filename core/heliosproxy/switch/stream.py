"""A connection while a trio task has it: a socket, and from some point on TLS over it.

*Resource handling*: a `Stream` owns its socket until `detach` gives it away, together with the TLS that it speaks.

*Error handling*: TlsError for what the peer's TLS does wrong, after it was told by an alert; OSError for what the
socket raises. Deadlines are the caller's.

Why not trio's SocketStream: it goes around trio's loop once for each call, also where nothing has to be waited for,
which costs as much as all else that is done for a login. Here others get their turn when there is something to wait
for, and once in `IN_A_ROW` calls.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

import trio

from heliosproxy.wire.tls import Tls, TlsError

IN_A_ROW = 16
"""Calls that may go by without others getting their turn."""
DROPPED = 64 * 1024
"""Bytes that somebody who is sent away may still have had to say."""
_RECEIVED = 16 * 1024
_TURN: trio.lowlevel.RunVar[trio.Lock] = trio.lowlevel.RunVar("handshakes")


class Stream:
    """Bytes both ways, in the clear or through TLS. One task at a time."""

    __slots__ = ("_ended", "_in_a_row", "socket", "tls")

    def __init__(self, connection: socket.socket) -> None:
        """`connection` is a connected socket, which is the stream's from now on."""
        connection.setblocking(False)
        self.socket = connection
        """To ask who is at its other end; not to read or write."""
        self._ended = False
        self._in_a_row = 0
        self.tls: Tls | None = None
        """None while what is sent is in the clear."""

    async def receive_some(self, max_bytes: int) -> bytes:
        """What came next; empty once the peer has ended the connection.

        At most `max_bytes` are read from the socket. Through TLS it may be up to a record (16 KB) more, since all that
        was decrypted is given: nothing stays behind in here (H1).
        """
        if self.tls is None:
            return await self._receive(max_bytes)
        data, tls = await self._decrypt(b""), self.tls
        while not data and not tls.closed and not self._ended:
            received = await self._receive(max_bytes)
            self._ended = not received
            data = await self._decrypt(received)
        return data

    async def send_all(self, data: bytes) -> None:
        """Send all of it."""
        await self._send(data if self.tls is None else self.tls.send(data))

    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        already: bytes = b"",
        turn: trio.Lock | None = None,
    ) -> None:
        """From here on through TLS. Raises TlsError; the connection is then good for nothing but to be closed.

        `already`: what was read of the handshake before it was known to be one (direct negotiation). Bytes that came in
        the clear before a handshake that was asked for must never get here: the caller refuses them.

        A step of the handshake computes for up to 2 ms without letting others on. Steps of streams that share a `turn`
        (all that are not given one do) take turns with everything else that runs.
        """
        tls = Tls(context, server_side=server_side, server_hostname=server_hostname)
        tls.feed(already)
        while not await self._step(tls, turn or _turn()):
            data = await self._receive(_RECEIVED)
            if not data:
                raise TlsError("the connection was closed during the TLS handshake")
            tls.feed(data)
        self.tls = tls

    async def _step(self, tls: Tls, turn: trio.Lock) -> bool:
        try:
            async with turn:
                return tls.handshake()
        finally:
            await self._say(tls.outgoing())

    async def _decrypt(self, ciphertext: bytes) -> bytes:
        assert self.tls is not None
        try:
            return self.tls.receive(ciphertext)
        finally:
            await self._say(self.tls.outgoing())

    async def _say(self, data: bytes) -> None:
        if data:
            with contextlib.suppress(OSError):  # what is wrong shows when it is read from
                await self._send(data)

    async def _receive(self, max_bytes: int) -> bytes:
        await self._give_way()
        while True:
            try:
                return self.socket.recv(max_bytes)
            except BlockingIOError:
                self._in_a_row = 0
                await trio.lowlevel.wait_readable(self.socket)

    async def _send(self, data: bytes) -> None:
        await self._give_way()
        with memoryview(data) as rest:
            sent = 0
            while sent < len(rest):
                try:
                    sent += self.socket.send(rest[sent:])
                except BlockingIOError:
                    self._in_a_row = 0
                    await trio.lowlevel.wait_writable(self.socket)

    async def _give_way(self) -> None:
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            self._in_a_row = 0
            await trio.lowlevel.checkpoint()

    def detach(self) -> tuple[socket.socket, Tls | None]:
        """Give away the socket and its TLS, which belong together. Nothing that was received is lost: what
        `receive_some` gave is the caller's, all else is still in the socket or, part of a record, in the TLS.

        Through TLS something must have been received first.
        """
        given = socket.socket(self.socket.family, self.socket.type, self.socket.proto, self.socket.detach())
        return given, self.tls

    async def farewell(self) -> None:
        """Say that nothing follows, and take what the peer still says, up to `DROPPED` bytes, until it has ended too.

        To close with something unread would have the system tell the peer to drop what it has not read yet: our last
        words. Deadlines are the caller's. Raises OSError.
        """
        if self.tls is not None:
            await self._send(self.tls.close())
        self.socket.shutdown(socket.SHUT_WR)
        dropped = 0
        while dropped < DROPPED and (data := await self._receive(_RECEIVED)):
            dropped += len(data)

    async def aclose(self) -> None:
        """Say goodbye, if TLS is spoken and the socket takes it at once, and close. Never waits."""
        if self.socket.fileno() >= 0:
            connection, tls = self.detach()
            with connection, contextlib.suppress(OSError):
                if tls is not None:
                    connection.send(tls.close())
        await trio.lowlevel.cancel_shielded_checkpoint()


def _turn() -> trio.Lock:
    try:
        return _TURN.get()
    except LookupError:
        _TURN.set(turn := trio.Lock())
        return turn
