"""Asking a node for TLS: what is made of answers that no honest server gives, and direct negotiation.

PostgreSQL itself is in tests/cluster/secure; it takes direct negotiation from version 17 on, and Debian's is older.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from heliosproxy.auth.users import ServerLogin
from heliosproxy.cluster.node import Node
from heliosproxy.config.access import ServerTls
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import NodeConfig
from heliosproxy.switch.opening import Unreachable, open_link, send_cancel
from heliosproxy.switch.stream import Stream
from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError, error_response
from heliosproxy.wire.framing import StartupFramer
from heliosproxy.wire.startup import CancelRequest, SSLRequest, StartupMessage, StartupPacket, decode_startup
from heliosproxy.wire.tls import TlsError
from tests.certificates import Issuer

Serve = Callable[[Stream], Awaitable[None]]
ADMITTED = builders.AUTHENTICATION_OK + builders.ready_for_query(ord("I"))
LOGIN = ServerLogin("somebody")


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def context(issuer: Issuer) -> ssl.SSLContext:
    """The servers'."""
    return server_context(issuer)


def server_context(issuer: Issuer, *alpn: str) -> ssl.SSLContext:
    issued = issuer.issue("localhost", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    context.num_tickets = 0
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


@asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[Callable[..., Node]]:
    """A server that does that with every connection; gives what makes a node of it: `node("require", ca_file=…)`."""

    async def handle(stream: trio.SocketStream) -> None:
        with suppress(OSError, TlsError):
            await serve(Stream(socket.socket(fileno=stream.socket.detach())))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]

            def node(sslmode: str, **keys: object) -> Node:
                tls = replace(ServerTls(), sslmode=sslmode, **keys)  # type: ignore[arg-type]
                return Node(NodeConfig("node", Address("127.0.0.1", port), tls=tls))

            yield node
            nursery.cancel_scope.cancel()


async def packet(stream: Stream) -> StartupPacket:
    framer, packet = StartupFramer(), None
    while packet is None:
        if not (data := await stream.receive_some(1000)):
            raise ConnectionResetError("the client has left")
        packet = framer.feed(data)
    return decode_startup(packet)


def answering(answer: bytes, seen: list[StartupPacket] | None = None) -> Serve:
    """SSLRequest is answered with this; a start-up in the clear is let in."""

    async def serve(stream: Stream) -> None:
        request = await packet(stream)
        if seen is not None:
            seen.append(request)
        if isinstance(request, SSLRequest) and answer:
            await stream.send_all(answer)
            if answer == b"N":
                await serve(stream)
            while await stream.receive_some(1000):
                pass
        elif isinstance(request, StartupMessage):
            await let_in(stream)

    return serve


async def let_in(stream: Stream, behind: bytes = b"") -> None:
    """Whoever it is; what is asked after that is answered with nothing, and `behind` it."""
    await stream.send_all(ADMITTED)
    while await stream.receive_some(65536):
        await stream.send_all(builders.ready_for_query(ord("I")) + behind)


def encrypting(context: ssl.SSLContext, serve: Serve, *, direct: bool = False, behind: bytes = b"") -> Serve:
    """TLS, after it was asked for or at once, and then `serve`."""

    async def encrypt(stream: Stream) -> None:
        if not direct:
            assert await packet(stream) == SSLRequest()
            await stream.send_all(b"S" + behind)
        await stream.start_tls(context, server_side=True)
        await serve(stream)

    return encrypt


async def admit(stream: Stream) -> None:
    await packet(stream)
    await let_in(stream)


async def opened(node: Node) -> bool:
    """Whether the link that is opened goes through TLS."""
    found = await open_link(node, "there", LOGIN, 5)
    found.close()
    return found.tls is not None


ODD = pytest.mark.parametrize(
    ("answer", "words"),
    [
        (error_response("FATAL", "53300", "words of nobody knows whom"), "answered an error when"),
        (b"X", "answered what is no answer when"),
        (b"", "closed the connection when"),
    ],
    ids=["an error", "garbage", "the end"],
)


@ODD
async def test_an_odd_answer_is_no_tls_where_it_must_be(answer: bytes, words: str) -> None:
    async with served(answering(answer)) as node:
        with pytest.raises(Unreachable, match=words) as caught:
            await opened(node("require"))
    assert "nobody knows whom" not in caught.value.message, "CVE-2024-10977"


@ODD
async def test_an_odd_answer_is_a_no_where_it_may_be(answer: bytes, words: str) -> None:
    seen: list[StartupPacket] = []
    async with served(answering(answer, seen)) as node:
        assert not await opened(node("prefer"))
    assert [type(each) for each in seen] == [SSLRequest, StartupMessage], words


async def test_a_no_costs_no_connection() -> None:
    seen: list[StartupPacket] = []
    async with served(answering(b"N", seen)) as node:
        assert not await opened(node("prefer"))
        with pytest.raises(Unreachable, match="node does not speak TLS, and its sslmode is verify-full") as caught:
            await opened(node("verify-full"))
    assert [type(each) for each in seen] == [SSLRequest, StartupMessage, SSLRequest]
    assert caught.value.hint is not None


async def test_H1_what_is_put_behind_the_answer_in_the_clear_never_counts(context: ssl.SSLContext) -> None:
    """CVE-2021-23222: somebody in the middle lets us in before the server is asked."""
    async with served(encrypting(context, admit, behind=ADMITTED)) as node:
        with pytest.raises(Unreachable, match="TLS failed: "):
            await opened(node("require"))


async def test_asked_for_or_direct_the_link_goes_through_tls(issuer: Issuer, context: ssl.SSLContext) -> None:
    async with served(encrypting(context, admit)) as node:
        assert await opened(node("require"))
        assert await opened(node("verify-full", ca_file=issuer.file))
    postgresql = server_context(issuer, "postgresql")
    async with served(encrypting(postgresql, admit, direct=True)) as node:
        assert await opened(node("require", sslnegotiation="direct"))
        assert await opened(node("verify-full", sslnegotiation="direct", ca_file=issuer.file))


async def test_direct_negotiation_with_what_is_no_postgresql_is_refused(
    issuer: Issuer, context: ssl.SSLContext
) -> None:
    async with served(encrypting(context, admit, direct=True)) as node:
        with pytest.raises(Unreachable, match="does not say by ALPN that it is PostgreSQL"):
            await opened(node("require", sslnegotiation="direct"))
    async with served(encrypting(server_context(issuer, "http/1.1"), admit, direct=True)) as node:
        with pytest.raises(Unreachable):
            await opened(node("require", sslnegotiation="direct"))


async def test_direct_negotiation_with_a_server_that_waits_to_be_asked_is_refused() -> None:
    async def refuse(stream: Stream) -> None:
        await stream.receive_some(5)
        await stream.send_all(error_response("FATAL", "0A000", "unsupported frontend protocol"))

    async with served(refuse) as node:
        with pytest.raises(Unreachable, match="TLS failed: "):
            await opened(node("require", sslnegotiation="direct"))


async def test_H1_what_the_server_says_once_it_is_ready_travels_with_the_link(context: ssl.SSLContext) -> None:
    said = builders.parameter_status("TimeZone", "UTC")

    async def serve(stream: Stream) -> None:
        await packet(stream)
        await let_in(stream, said)

    for each, mode in ((encrypting(context, serve), "require"), (serve, "disable")):
        async with served(each) as node:
            found = await open_link(node(mode), "there", LOGIN, 5)
            assert found.rest == said
            found.close()


async def test_a_server_that_is_ready_before_it_lets_us_in_is_refused() -> None:
    async def serve(stream: Stream) -> None:
        await packet(stream)
        await stream.send_all(builders.ready_for_query(ord("I")))

    async with served(serve) as node:
        with pytest.raises(PeerError, match="node is ready before it has let us in"):
            await opened(node("disable"))


async def test_no_cancel_key_goes_out_in_the_clear_for_a_link_through_tls(context: ssl.SSLContext) -> None:
    seen: list[StartupPacket] = []
    async with served(answering(b"N", seen)) as node:
        for mode in ("prefer", "require"):
            assert not await send_cancel(node(mode), (1, b"four"), 5, encrypted=True)
    assert [type(each) for each in seen] == [SSLRequest, SSLRequest]
    keys: list[StartupPacket] = []

    async def serve(stream: Stream) -> None:
        keys.append(await packet(stream))
        await stream.aclose()

    async with served(encrypting(context, serve)) as node:
        assert await send_cancel(node("prefer"), (1, b"four"), 5, encrypted=True)
    assert keys == [CancelRequest(1, b"four")]


async def test_a_certificate_that_went_away_is_our_fault_and_names_no_path(
    issuer: Issuer, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Path("/nowhere/ca.crt")
    async with served(encrypting(context, admit)) as node:
        with pytest.raises(PeerError, match="the proxy cannot set up TLS with node; its log says why") as caught:
            await opened(node("verify-full", ca_file=gone))
    assert caught.value.sqlstate == "58000"
    assert str(gone) in caplog.text
