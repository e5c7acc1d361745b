"""The login under any bytes, cut anywhere, by each method: nobody is let in who has not proved who he is, each is shown
out with one FATAL error or without a word, and none is left over."""

from __future__ import annotations

import logging

import pytest
import trio
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliosproxy.auth.md5 import md5_secret
from heliosproxy.auth.secrets import ScramSecret
from heliosproxy.config.access import Auth, ClientTls, Method, User
from heliosproxy.config.tls import ALPN
from heliosproxy.wire.framing import Framer
from heliosproxy.wire.messages_authentication import AuthenticationOk, PasswordMessage, SASLInitialResponse
from heliosproxy.wire.messages_backend import BackendMessage, ErrorResponse, decode_backend
from heliosproxy.wire.startup import CancelRequest, GSSENCRequest, SSLRequest, StartupMessage
from tests.switch.test_arrivals import ALICE, PASSWORD, context_of, door, everything, issuer, offered

__all__ = ["issuer", "offered"]

SECRET = ScramSecret.from_password(PASSWORD, iterations=1).format()
OLD = md5_secret("old", PASSWORD)
USERS = (User("plain", password=PASSWORD), User("scram", secret=SECRET), User("old", secret=OLD))
METHODS: tuple[Method, ...] = ("scram-sha-256", "password", "md5", "reject", "scram-sha-256-plus")
REQUESTS = (SSLRequest().encode(), GSSENCRequest().encode())
STARTS = tuple(StartupMessage({"user": name}, minor=minor).encode() for name in ("plain", "scram", "old", "nobody", "é")
               for minor in (0, 2, 9))  # fmt: skip
ANSWERS = (
    SASLInitialResponse("SCRAM-SHA-256", b"n,,n=,r=abc").encode(),
    SASLInitialResponse("SCRAM-SHA-256", None).encode(),
    SASLInitialResponse("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abc").encode(),
    PasswordMessage(b"wrong").encode(), PasswordMessage(b"").encode(), PasswordMessage(b"md5" + b"0" * 32).encode(),
    b"p\0\0\0\4", b"p\0\0\0\x0bn,,n=,r=", b"Q\0\0\0\5\0", b"X\0\0\0\4", b"p\0\0\0\x03", b"p\x7f\xff\xff\xff",
)  # fmt: skip
"""Of which none is right."""
PIECES = st.sampled_from((*STARTS, *STARTS, *ANSWERS, *ANSWERS, *REQUESTS, CancelRequest(1, b"abcd").encode()))
TALKS = st.lists(PIECES | st.binary(max_size=30), max_size=6).map(b"".join)


def told(heard: bytes) -> list[BackendMessage]:
    """The messages of the proxy, behind its answers to requests for encryption."""
    framer = Framer(1 << 20)
    messages = [decode_backend(tag, body) for tag, body in framer.feed(heard.lstrip(b"N"))]
    assert framer.rest() == b""
    return messages


async def talk(method: Method, talks: list[tuple[bytes, int]]) -> None:
    async with door(Auth(method=method, users=USERS)) as made, trio.open_nursery() as nursery:
        ended = 0

        async def say(data: bytes, piece: int) -> None:
            nonlocal ended
            async with await made.connect() as client:
                try:
                    for at in range(0, len(data), piece):
                        await client.send_all(data[at : at + piece])
                        await trio.lowlevel.checkpoint()
                    await client.send_eof()
                    messages = told(await everything(client))
                except trio.BrokenResourceError:
                    messages = []  # it was shown out while it still spoke
            assert not any(isinstance(each, AuthenticationOk) for each in messages)
            assert all(each.fields["V"] == "FATAL" for each in messages if isinstance(each, ErrorResponse))
            assert not any(isinstance(each, ErrorResponse) for each in messages[:-1]), messages
            ended += 1
            if ended == len(talks):
                with trio.fail_after(5):
                    while made.admission.statistics().logins:
                        await trio.lowlevel.checkpoint()
                assert made.admitted == []

        for data, piece in talks:
            nursery.start_soon(say, data, piece)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(method=st.sampled_from(METHODS), talks=st.lists(st.tuples(TALKS, st.sampled_from((1, 7, 1 << 20))), min_size=1,
       max_size=6))  # fmt: skip
def test_nobody_is_let_in_who_has_not_proved_who_he_is(
    caplog: pytest.LogCaptureFixture, method: Method, talks: list[tuple[bytes, int]]
) -> None:
    trio.run(talk, method, talks)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", STARTS[0], b"\x16\x03\x01\x00\x05\1\0\0\1\0", b""])
async def test_where_tls_is_due_nothing_is_said_in_the_clear(offered: ClientTls, data: bytes) -> None:
    async with door(tls=offered) as made, await made.connect() as client:
        await client.send_all(SSLRequest().encode())
        assert await client.receive_some(1) == b"S"
        await client.send_all(data)
        await client.send_eof()
        heard = await everything(client)
        assert heard[:1] in (b"", b"\x15"), "an alert, or nothing"


@pytest.mark.parametrize("record", [b"\xff" * 300, b"\x17\3\3\0\x28" + bytes(40), b"\x15\3\3\0\2\2\x28"], ids=ascii)
async def test_bad_tls_within_a_login_ends_nobody_else(
    offered: ClientTls, issuer: trustme.CA, caplog: pytest.LogCaptureFixture, record: bytes
) -> None:
    async with door(tls=offered) as made:
        async with await made.connect() as client:
            secure = trio.SSLStream(client, context_of(issuer, ALPN), server_hostname="localhost")
            await secure.do_handshake()
            await client.send_all(record)
            await everything(client)
        assert await made.says(ALICE) == b"in"
        assert made.admission.statistics().refused == {"tls": 1}
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]
