"""The name of the server that a client wishes to reach, read from the first message of its TLS handshake.

OpenSSL would tell it by a callback; but Python's prints a traceback for a name that is not ASCII, and nobody who has
not proved who he is shall write to our log. OpenSSL reads the message as well, and decides whether it is one; what is
read here is a fact and nothing more.

Source: RFC 8446, section 4.1.2 (ClientHello) and 5.1 (records); RFC 6066, section 3 (server_name).
"""

from __future__ import annotations

from heliosproxy.wire.buffer import Reader
from heliosproxy.wire.errors import ProtocolError

MOST_HELLO = 16 * 1024
"""Bytes of the stream in which the message is looked for."""
_HANDSHAKE_RECORD = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_HOST_NAME = 0
_VERSION_AND_RANDOM = 34


def server_name(stream: bytes) -> str:
    """The name in the ClientHello that a stream begins with; empty if there is none, or none that can be one.

    Never raises. The name is printable ASCII, in lower case, without a dot at its end, and at most 255 characters.
    """
    try:
        name = _name(_message(Reader(stream[:MOST_HELLO], "TLS record")))
    except ProtocolError:
        return ""
    if len(name) > 255 or not all(0x21 <= byte <= 0x7E for byte in name):
        return ""
    return name.decode("ascii").lower().rstrip(".")


def _message(records: Reader) -> Reader:
    """The body of the ClientHello, which may be spread over several records."""
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[1:4], "big"):
        if records.byte() != _HANDSHAKE_RECORD:
            raise records.fail("it is not of a handshake")
        records.take(2)
        data += records.take(_number(records, 2))
    if data[0] != _CLIENT_HELLO:
        raise records.fail("it does not hold a ClientHello")
    return Reader(data[4 : 4 + int.from_bytes(data[1:4], "big")], "ClientHello")


def _name(hello: Reader) -> bytes:
    hello.take(_VERSION_AND_RANDOM)
    hello.take(hello.byte())  # the session's id
    hello.take(_number(hello, 2))  # cipher suites
    hello.take(hello.byte())  # compression methods
    extensions = _part(hello)
    while extensions.remaining:
        kind, extension = _number(extensions, 2), _part(extensions)
        if kind == _SERVER_NAME:
            names = _part(extension)
            return names.take(_number(names, 2)) if names.byte() == _HOST_NAME else b""
    return b""


def _part(reader: Reader) -> Reader:
    return Reader(reader.take(_number(reader, 2)), "ClientHello")


def _number(reader: Reader, width: int) -> int:
    return int.from_bytes(reader.take(width), "big")
