"""A connection before authentication: whole packets in, bytes out, in the clear or through TLS.

Everything here is read from somebody who has not yet proved who he is: no message longer than 10,000 bytes is taken.
Source: protocol chapter, "Start-up" and "SSL Session Encryption".
"""

from __future__ import annotations

import ssl

import trio

from heliosproxy.config.tls import ALPN
from heliosproxy.switch.stream import Stream
from heliosproxy.wire.errors import ProtocolError
from heliosproxy.wire.framing import MAX_STARTUP, Framer, StartupFramer

_CLIENT_HELLO = 0x16
"""The first byte of TLS, and of no packet of the protocol: it would be 350 MB long."""


class Conversation:
    """Packets without a tag first, then messages with one. Owns `stream` until somebody detaches it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._startup = StartupFramer()
        self._framer: Framer | None = None
        self._messages: list[tuple[int, bytes]] = []
        self._unsaid = b""
        self._silent = True  # the client has sent nothing yet
        self.in_handshake = False
        """The client expects TLS, which is not there yet: nothing may be said to it in the clear."""

    async def packet(self, context: ssl.SSLContext | None, turn: trio.Lock) -> bytes | None:
        """The next packet without a tag; None if the client left before it began one.

        A client that begins with TLS itself, without asking, gets it where there is a `context`: PostgreSQL 17 calls
        that direct negotiation, and has the client name the protocol (ALPN), so that no other server's client can be
        sent here. Raises ProtocolError.
        """
        packet = self._startup.feed()
        while packet is None:
            data = await self.stream.receive_some(MAX_STARTUP)
            if not data:
                return None
            first, self._silent = self._silent, False
            if first and data[0] == _CLIENT_HELLO:
                await self._begin_directly(data, context, turn)
            else:
                packet = self._startup.feed(data)
        return packet

    async def _begin_directly(self, already: bytes, context: ssl.SSLContext | None, turn: trio.Lock) -> None:
        if context is None:
            raise ProtocolError("the client begins with TLS, which this proxy does not offer")
        self.in_handshake = True
        await self.stream.start_tls(context, server_side=True, already=already, turn=turn)
        self.in_handshake = False
        if self.stream.tls is None or self.stream.tls.alpn != ALPN:
            raise ProtocolError("direct TLS connection without ALPN protocol negotiation extension")

    async def start_tls(self, context: ssl.SSLContext, turn: trio.Lock) -> None:
        """Go on in TLS. Raises ProtocolError if bytes have come that were sent in the clear, behind the request (H1):
        they must not be taken as if they had come through TLS."""
        if self._startup.rest():
            raise ProtocolError(
                "received unencrypted data after SSL request",
                detail="This could be either a client-software bug or evidence of an attempted man-in-the-middle "
                "attack.",
            )
        self.in_handshake = True
        await self.stream.start_tls(context, server_side=True, turn=turn)
        self.in_handshake = False

    async def message(self) -> tuple[int, bytes]:
        """The next tagged message. Raises ProtocolError if the client leaves instead."""
        if self._framer is None:
            self._framer = Framer(MAX_STARTUP)
            self._messages += self._framer.feed(self._startup.rest())
        while not self._messages:
            data = await self.stream.receive_some(MAX_STARTUP)
            if not data:
                raise ProtocolError("the connection was closed during the login")
            self._messages += self._framer.feed(data)
        return self._messages.pop(0)

    def rest(self) -> bytes:
        """Bytes that came after what was read."""
        if self._framer is None:
            return self._startup.rest()
        early = b"".join(bytes((tag,)) + (len(body) + 4).to_bytes(4, "big") + body for tag, body in self._messages)
        return early + self._framer.rest()

    async def send(self, data: bytes) -> None:
        """Send all of it, behind what was kept for later."""
        data, self._unsaid = self._unsaid + data, b""
        await self.stream.send_all(data)

    def send_later(self, data: bytes) -> None:
        """Send it with what is sent next: the client waits for that, and is not to be woken twice."""
        self._unsaid += data
