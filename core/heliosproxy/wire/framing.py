"""Splits a byte stream into messages, however the network cut it.

Both framers look at a length word as soon as it is there and refuse it before a byte of its message is kept. What they
keep is one bytearray: appending to it and deleting from its front are linear over the life of a message, so a large
message in small pieces costs no more than in large ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from heliosproxy.wire.buffer import HEADER
from heliosproxy.wire.errors import ProtocolError

MAX_STARTUP = 10_000
"""Longest length word accepted before authentication; the same bound as PostgreSQL's."""

_LENGTH = struct.Struct("!I")


class Framer:
    """Splits a stream of tagged messages.

    `limit` bounds the length word (which counts itself, not the tag) and may be raised between messages: after
    authentication a client may send more than before. Not reentrant; one per direction of a connection.
    """

    __slots__ = ("_at", "_kept", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Takes what arrived, at once; the iterator gives each whole message as (tag, body).

        Iterating raises ProtocolError at a length word below 4 or above the limit, after the messages before it were
        given, and again after every further feed: nothing behind it is a message. What was not iterated is given by the
        next feed.
        """
        del self._kept[: self._at]
        self._at = 0
        self._kept += data
        return self._messages()

    def rest(self) -> bytes:
        """Hands over the bytes that were not given as messages yet, and forgets them."""
        rest = bytes(self._kept[self._at :])
        self._kept.clear()
        self._at = 0
        return rest

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> tuple[int, bytes] | None:
        kept, start = self._kept, self._at
        if len(kept) - start < HEADER.size:
            return None
        tag, length = HEADER.unpack_from(kept, start)
        if not 4 <= length <= self.limit:
            raise ProtocolError(f"invalid message length {length}: it must be between 4 and {self.limit}")
        end = start + 1 + length
        if len(kept) < end:
            return None
        self._at = end
        with memoryview(kept) as view:
            return tag, view[start + HEADER.size : end].tobytes()


class StartupFramer:
    """Takes the packets without a tag from the head of a stream: SSLRequest, GSSENCRequest, CancelRequest, start-up.

    It gives one packet a call, because what follows depends on it: the next may come through TLS, or be tagged.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes = b"") -> bytes | None:
        """Takes what arrived; the next packet without its length word, or None while it is not whole.

        Raises ProtocolError at a length word below 8 or above MAX_STARTUP.
        """
        self._kept += data
        if len(self._kept) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._kept)
        if not 8 <= length <= MAX_STARTUP:
            raise ProtocolError(f"invalid length {length} of the startup packet")
        if len(self._kept) < length:
            return None
        packet = bytes(self._kept[_LENGTH.size : length])
        del self._kept[:length]
        return packet

    def rest(self) -> bytes:
        """Hands over the bytes after the last packet given, and forgets them.

        Before TLS starts they must be empty: what was sent in the clear must not be taken as if it came through TLS.
        After the start-up packet they are the first tagged messages.
        """
        rest = bytes(self._kept)
        self._kept.clear()
        return rest


def first_message(messages: bytes, kinds: bytes) -> bytes:
    """The first message with one of these tags in a stream of whole messages, its header included; empty if there is
    none."""
    position = 0
    while position < len(messages):
        stop = position + 1 + int.from_bytes(messages[position + 1 : position + 5], "big")
        if messages[position] in kinds:
            return messages[position:stop]
        position = stop
    return b""
