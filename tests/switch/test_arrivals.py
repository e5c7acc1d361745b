"""Connections as they arrive, on real sockets and without a server: who is sent away, with which words, and counted."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from heliosproxy.auth.users import Users
from heliosproxy.config.access import Auth, ClientLimits, ClientTls, Rule, User
from heliosproxy.config.tls import ALPN
from heliosproxy.switch.access import Access, strangers_of
from heliosproxy.switch.admission import Admission
from heliosproxy.switch.arrivals import Arrival, Arrivals, printable
from heliosproxy.switch.listeners import accept
from heliosproxy.switch.login import Admitted, kept
from heliosproxy.wire.errors import parse_fields
from heliosproxy.wire.startup import CancelRequest, SSLRequest, StartupMessage

PASSWORD = "correct horse"
USERS = (User("alice", password=PASSWORD),)
TRUST = Auth(method="trust", users=USERS)
ALICE = StartupMessage({"user": "alice", "database": "shop"}).encode()


class Door:
    """Serves one listener; those who are let in are noted, and their connection is closed."""

    def __init__(self, auth: Auth, tls: ClientTls, limits: ClientLimits, timeout: float) -> None:
        self.admission = Admission(limits)
        self.admitted: list[Admitted] = []
        self.cancels: list[tuple[int, bytes]] = []
        users = Users(auth)
        self.arrivals = Arrivals(Access.of(auth, tls), users, self.admission, timeout, self._enter, self._cancel)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)

    async def _enter(self, arrival: Arrival, admitted: Admitted) -> None:
        self.admitted.append(admitted)
        await arrival.talk.send(b"in")

    async def _cancel(self, key: tuple[int, bytes]) -> None:
        self.cancels.append(key)

    async def connect(self) -> trio.SocketStream:
        """A client that has said nothing."""
        return await trio.open_tcp_stream(*self.listener.getsockname())

    async def says(self, data: bytes) -> bytes:
        """What a client that says this, and no more, is told until the connection is closed."""
        async with await self.connect() as client:
            await client.send_all(data)
            return await everything(client)


async def everything(client: trio.abc.ReceiveStream) -> bytes:
    heard = b""
    with trio.fail_after(10):
        while data := await client.receive_some(65536):
            heard += data
    return heard


def refusal(heard: bytes) -> tuple[str, str]:
    """SQLSTATE and message of an ErrorResponse, which must be all that was said, and FATAL."""
    assert heard[:1] == b"E"
    assert int.from_bytes(heard[1:5], "big") == len(heard) - 1
    fields = parse_fields(heard[5:])
    assert fields["S"] == fields["V"] == "FATAL"
    return fields["C"], fields["M"]


@asynccontextmanager
async def door(
    auth: Auth = TRUST, tls: ClientTls | None = None, limits: ClientLimits | None = None, timeout: float = 10.0
) -> AsyncIterator[Door]:
    made = Door(auth, tls or ClientTls(), limits or ClientLimits(), timeout)
    with made.listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, made.listener, partial(nursery.start_soon, made.arrivals.serve))
            yield made
            nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def issuer() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def offered(issuer: trustme.CA, tmp_path: Path) -> ClientTls:
    """TLS as a proxy offers it."""
    certificate = issuer.issue_cert("localhost")
    (tmp_path / "crt").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (tmp_path / "key").touch(0o600)
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    return ClientTls(cert_file=tmp_path / "crt", key_file=tmp_path / "key")


def context_of(issuer: trustme.CA, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    issuer.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


async def test_somebody_who_is_let_in_is_counted_until_he_has_left() -> None:
    async with door() as made:
        assert await made.says(ALICE) == b"in"
        await trio.testing.wait_all_tasks_blocked()
        statistics = made.admission.statistics()
    assert (statistics.admitted, statistics.clients, statistics.logins) == (1, 0, 0)
    assert made.admitted[0].client.authentication == "trust"


async def test_a_cancel_request_needs_no_login_and_is_counted_as_nothing_else() -> None:
    async with door() as made:
        assert await made.says(CancelRequest(7, b"key!").encode()) == b""
        assert made.cancels == [(7, b"key!")]
        assert not made.admission.statistics().refused


async def test_what_is_not_the_protocol_is_refused_in_words_and_counted() -> None:
    async with door() as made:
        assert refusal(await made.says(b"\0\0\0\x01"))[0] == "08P01"
        assert refusal(await made.says(StartupMessage({"user": "a"}, major=2).encode()))[0] == "0A000"
        assert dict(made.admission.statistics().refused) == {"protocol": 2}


async def test_who_says_nothing_is_told_so_when_his_time_is_up() -> None:
    async with door(timeout=0.05) as made, await made.connect() as client:
        assert refusal(await everything(client)) == ("57014", "canceling authentication due to timeout")
        assert dict(made.admission.statistics().refused) == {"login_timeout": 1}


async def test_no_rule_and_a_rule_that_rejects_say_nothing_of_users() -> None:
    auth = Auth(rules=(Rule("reject", database=("secret",)), Rule("trust", user=("alice",))), users=USERS)
    async with door(auth) as made:
        for user in ("alice", "nobody"):
            code, words = refusal(await made.says(StartupMessage({"user": user, "database": "secret"}).encode()))
            assert code == "28000"
            assert "rejects connection" in words
        code, words = refusal(await made.says(StartupMessage({"user": "nobody"}).encode()))
        assert (code, words.startswith("no rule of [[auth.rules]] for host ")) == ("28000", True)
        assert dict(made.admission.statistics().refused) == {"rules": 3}


async def test_the_oldest_login_of_whoever_has_most_makes_room() -> None:
    async with door(limits=ClientLimits(max_logins=2)) as made:
        silent = [await made.connect() for _ in range(2)]
        await trio.testing.wait_all_tasks_blocked()
        assert await made.says(ALICE) == b"in"
        assert refusal(await everything(silent[0])) == ("53300", "too many logins under way")
        for client in silent:
            await client.aclose()


async def test_tls_is_offered_only_where_there_is_a_certificate(offered: ClientTls, issuer: trustme.CA) -> None:
    async with door() as made:
        assert (await made.says(SSLRequest().encode() + ALICE)) == b"Nin"
    async with door(tls=offered) as made, await made.connect() as client:
        await client.send_all(SSLRequest().encode())
        assert await client.receive_some(1) == b"S"
        secure = trio.SSLStream(client, context_of(issuer), server_hostname="localhost", https_compatible=True)
        await secure.send_all(ALICE)
        assert await everything(secure) == b"in"
        assert made.admitted[0].client.server_name == "localhost"


async def test_H1_what_was_sent_in_the_clear_behind_the_request_for_tls_is_refused(offered: ClientTls) -> None:
    async with door(tls=offered) as made:
        heard = await made.says(SSLRequest().encode() + ALICE)
        assert heard[:1] == b"S"
        assert refusal(heard[1:]) == ("08P01", "received unencrypted data after SSL request")


async def test_H1_what_came_with_the_start_up_through_tls_goes_with_the_session(
    offered: ClientTls, issuer: trustme.CA
) -> None:
    async with door(tls=offered) as made, await made.connect() as client:
        secure = trio.SSLStream(client, context_of(issuer, ALPN), server_hostname="localhost", https_compatible=True)
        await secure.send_all(ALICE + b"Q and more")
        assert await everything(secure) == b"in"
        assert made.admitted[0].rest == b"Q and more"


async def test_direct_tls_needs_the_protocols_name(offered: ClientTls, issuer: trustme.CA) -> None:
    async with door(tls=offered) as made, await made.connect() as client:
        secure = trio.SSLStream(client, context_of(issuer), server_hostname="localhost", https_compatible=True)
        await secure.send_all(ALICE)
        words = refusal(await everything(secure))[1]
        assert words == "direct TLS connection without ALPN protocol negotiation extension"
        assert not made.admitted


async def test_where_tls_must_be_the_clear_is_refused_and_a_cancel_request_is_not(offered: ClientTls) -> None:
    strict = ClientTls("require", offered.cert_file, offered.key_file)
    async with door(tls=strict) as made:
        assert refusal(await made.says(ALICE))[0] == "28000"
        assert await made.says(CancelRequest(7, b"key!").encode()) == b""
        assert made.cancels


async def test_garbage_behind_the_answer_to_the_request_ends_the_connection(offered: ClientTls) -> None:
    async with door(tls=offered) as made, await made.connect() as client:
        await client.send_all(SSLRequest().encode())
        assert await client.receive_some(1) == b"S"
        await client.send_all(b"this is not TLS, whatever it may be")
        await everything(client)
        assert dict(made.admission.statistics().refused) == {"tls": 1}


async def test_a_replaced_access_holds_for_who_comes_then() -> None:
    async with door() as made, await made.connect() as early:
        await trio.testing.wait_all_tasks_blocked()
        made.arrivals.access = Access.of(Auth(rules=(Rule("reject"),)), ClientTls())
        await early.send_all(ALICE)
        assert await everything(early) == b"in"
        assert refusal(await made.says(ALICE))[0] == "28000"


async def test_a_strangers_words_are_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    auth = Auth(rules=(Rule("reject"),))
    with caplog.at_level(logging.INFO):
        async with door(auth) as made:
            await made.says(StartupMessage({"user": "x\n2026-01-01 INFO forged: \x1b[31m"}).encode())
    (line,) = [record.getMessage() for record in caplog.records if record.name == "heliosproxy.login"]
    assert "\n" not in line
    assert "\x1b" not in line


def test_strangers_look_the_same_after_a_restart_where_there_is_a_private_key(offered: ClientTls) -> None:
    one, other = strangers_of(offered), strangers_of(offered)
    assert one.scram("mallory").salt == other.scram("mallory").salt
    assert strangers_of(ClientTls()).scram("mallory").salt != strangers_of(ClientTls()).scram("mallory").salt


def test_names_are_kept_as_far_as_postgresql_keeps_them() -> None:
    assert kept("a" * 64) == "a" * 63
    assert kept("ü" * 32).encode("utf-8", "surrogateescape") == ("ü" * 32).encode()[:63]
    assert kept("short") == "short"


def test_what_is_printable_stays() -> None:
    assert printable('role "Jörg"') == 'role "Jörg"'
    assert printable("a\r\nb") == "a\\r\\nb"
