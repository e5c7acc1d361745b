"""What holds for every input, one function a subject. Each takes bytes, and raises whatever is not as it should be.

The errors that the code under test may raise are caught by name; anything else that comes out of it is a finding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from secrets import token_urlsafe
from types import MappingProxyType
from typing import Final

from pglast.parser import ParseError

from heliosproxy.auth.certificates import common_name, distinguished_name, server_end_point
from heliosproxy.auth.exchange import exchange_of
from heliosproxy.auth.known import Known, Strangers
from heliosproxy.auth.md5 import md5_secret
from heliosproxy.auth.scram import AuthenticationError, ScramClient, ScramServer
from heliosproxy.auth.secrets import ScramSecret
from heliosproxy.config.access import Method
from heliosproxy.sql import facts
from heliosproxy.sql.comments import blank_hints, hints, sqlcommenter
from heliosproxy.sql.depth import depth
from heliosproxy.sql.lexer import DoubtError, tokens
from heliosproxy.sql.prepare import prepared
from heliosproxy.sql.shape import MAX_SHAPED, printable, query_hash, shape
from heliosproxy.wire import builders
from heliosproxy.wire.buffer import Message
from heliosproxy.wire.client_hello import server_name
from heliosproxy.wire.errors import ProtocolError, encode_fields, parse_fields
from heliosproxy.wire.framing import Framer, StartupFramer
from heliosproxy.wire.messages_authentication import PasswordMessage, SASLInitialResponse
from heliosproxy.wire.messages_backend import decode_backend
from heliosproxy.wire.messages_frontend import decode_frontend
from heliosproxy.wire.startup import StartupMessage, decode_startup, negotiate
from tests.sql.test_shape import canonical, kinds

LIMIT = 4096
"""Longest message that the framer under test takes."""
UNTOLD = token_urlsafe(18)
"""A password that no input has."""
USERS: Final = (
    Known("alice", ScramSecret.from_password(UNTOLD, 1)), Known("alice", md5=md5_secret("alice", UNTOLD)), None,
)  # fmt: skip
METHODS: Final[tuple[Method, ...]] = ("scram-sha-256", "scram-sha-256-plus", "password", "md5")
SECRET = ScramSecret.from_password("secret", iterations=1, salt=b"0123456789abcdef")


def _cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """The input without its first byte, and the same in pieces whose size that byte tells."""
    size = data[0] % 32 + 1 if data else 1
    rest = data[1:]
    return rest, [rest[at : at + size] for at in range(0, len(rest), size)]


def startup(data: bytes) -> None:
    """Packets before the first tagged message."""
    whole, pieces = _cut(data)
    packets = _packets([whole])
    assert _packets(pieces) == packets, "where the network cut it matters"
    for packet in packets[0]:
        with contextlib.suppress(ProtocolError):
            _start(packet)


def _packets(pieces: list[bytes]) -> tuple[list[bytes], bytes | str]:
    framer, found = StartupFramer(), []
    try:
        for piece in pieces:
            packet = framer.feed(piece)
            while packet is not None:
                found.append(packet)
                packet = framer.feed()
    except ProtocolError as error:
        return found, error.message
    return found, framer.rest()


def _start(packet: bytes) -> None:
    request = decode_startup(packet)
    assert "key" not in repr(request), "a cancel key is shown"
    written = request.encode()
    assert decode_startup(written[4:]) == request
    if isinstance(request, StartupMessage):
        assert request.user
        assert request.database
        answer = negotiate(request)
        assert answer is None or decode_backend(answer.tag, answer.encode()[5:]) == answer


def frames(data: bytes) -> None:
    """A stream of tagged messages, from either side."""
    whole, pieces = _cut(data)
    messages = _messages([whole])
    assert _messages(pieces) == messages, "where the network cut it matters"
    for tag, body in messages[0]:
        for decode in (decode_frontend, decode_backend):
            _decode(decode, tag, body)


def _messages(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], bytes | str]:
    framer, found = Framer(LIMIT), []
    try:
        for piece in pieces:
            for message in framer.feed(piece):
                found.append(message)
    except ProtocolError as error:
        return found, error.message
    return found, framer.rest()


def _decode(decode: Callable[[int, bytes], Message], tag: int, body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        message = decode(tag, body)
        assert type(message).decode(message.encode()[5:]) == message


def client_message(data: bytes) -> None:
    """The decoder that the first byte names."""
    if data:
        _decode(decode_frontend, data[0], data[1:])


def server_message(data: bytes) -> None:
    """The decoder that the first byte names."""
    if data:
        _decode(decode_backend, data[0], data[1:])


def answers(data: bytes) -> None:
    """What shares a tag with others, and what is only cut and not decoded."""
    for kind in (SASLInitialResponse, PasswordMessage):
        with contextlib.suppress(ProtocolError):
            message = kind.decode(data)
            assert kind.decode(message.encode()[5:]) == message
    with contextlib.suppress(ProtocolError):
        assert parse_fields(encode_fields(parse_fields(data))) == parse_fields(data)
    for split in (builders.split_parse, builders.split_bind):
        with contextlib.suppress(ProtocolError):
            assert builders.join_two(ord("P"), *split(data))[5:] == data
    with contextlib.suppress(ProtocolError):
        assert b"\0" not in builders.only_string(b"D\0\0\0\0" + data)


def scram(data: bytes) -> None:
    """The three messages of a login that a hostile peer writes, apart by NUL bytes, and a secret."""
    first, _, final = data.partition(b"\0")
    server = ScramServer(SECRET, user="alice", nonce=lambda: b"server")
    with contextlib.suppress(ProtocolError, AuthenticationError):
        assert server.first(first).startswith(b"r=")
        server.final(final)
        raise AssertionError("let in without the password")
    client = ScramClient("alice", "secret", nonce=lambda: b"client", derive=lambda *_: b"salted")
    with contextlib.suppress(ProtocolError, AuthenticationError):
        client.final(first)
        client.verify(final)
        raise AssertionError("a server that does not know the secret was believed")
    with contextlib.suppress(ValueError):
        secret = ScramSecret.parse(data.decode())
        assert ScramSecret.parse(secret.format()) == secret


def login(data: bytes) -> None:
    """Every method, for every kind of user: the answers are cut by a byte each that tells how long they are."""
    if not data:
        return
    method, user, through_tls = METHODS[data[0] % 4], USERS[data[0] // 4 % 3], data[0] & 0x80
    strangers = Strangers(b"key")
    strangers.iterations = 1
    exchange = exchange_of(method, "alice", user, strangers, endpoint=b"e" * 32 if through_tls else None)
    at = 1
    with contextlib.suppress(ProtocolError, AuthenticationError):
        exchange.begin()
        while at < len(data):
            exchange.answer(data[at + 1 : at + 1 + data[at]])
            assert not exchange.done, "let in without the password"
            at += 1 + data[at]


def hello(data: bytes) -> None:
    """What a client sends first that begins with TLS."""
    name = server_name(data)
    assert len(name) <= 255
    assert name == name.lower()
    assert name.isascii()
    assert not name or name.isprintable()


def certificate(data: bytes) -> None:
    """Whom a certificate names."""
    names = common_name(data), distinguished_name(data)
    assert not any(name is not None and (not name or "\0" in name) for name in names)
    server_end_point(data)


def statement_shape(data: bytes) -> None:
    """S1: a text made from the shape alone has the same kinds of token for PostgreSQL's own scanner."""
    shaped = shape(data)
    assert len(printable(shaped)) <= 500
    assert len(query_hash(shaped)) == 16
    text = _text(data)
    if text is None or len(data) > MAX_SHAPED:
        return
    try:
        expected = kinds(text)
    except ParseError:
        return
    assert kinds(canonical(shaped)) == expected, "two texts of one shape are not the same statement"


def statement_facts(data: bytes) -> None:
    """What is known of a text, whatever it is."""
    text = data.decode("utf-8", "surrogateescape")
    facts.of(text)
    prepared(text)
    depth(text)


def statement_comments(data: bytes) -> None:
    """Hints and tags, and where tokens end."""
    with contextlib.suppress(DoubtError):
        ends = 0
        for _, start, end, _ in tokens(data):
            assert ends <= start < end <= len(data)
            ends = end
    sqlcommenter(data)
    found, blanked = hints(data), blank_hints(data)
    assert all(1 <= hint.at <= len(data) for hint in found)
    if data.isascii():
        assert len(blanked) == len(data)
    assert found or blanked == data or b"/*helios:" in data


def _text(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


SUBJECTS: Final = MappingProxyType({
    b"S": startup, b"F": frames, b"C": client_message, b"B": server_message, b"A": answers, b"P": scram,
    b"X": login, b"L": hello, b"D": certificate,
    b"Q": statement_shape, b"T": statement_facts, b"H": statement_comments,
})  # fmt: skip
"""By the first byte of an input."""


def check(data: bytes) -> None:
    """One input. Raises for what is wrong with the code under test."""
    subject = SUBJECTS.get(data[:1])
    if subject is not None:
        subject(data[1:])
