"""A stream over a socket pair, in the clear and through TLS."""

from __future__ import annotations

import socket
import ssl
from functools import partial

import pytest
import trio
import trustme

from heliosproxy.switch.stream import Stream
from heliosproxy.wire.tls import Tls, TlsError

CA = trustme.CA()
LEAF = CA.issue_cert("localhost")


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    LEAF.configure_cert(server)
    server.num_tickets = 0
    CA.configure_trust(client)
    return server, client


def connected() -> tuple[Stream, Stream]:
    """Both ends of a connection."""
    one, other = (Stream(end) for end in socket.socketpair())
    return one, other


async def encrypted() -> tuple[Stream, Stream]:
    """Both ends of a connection through TLS, the server's first."""
    server, client = connected()
    of_server, of_client = contexts()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(server.start_tls, of_server, server_side=True))
        await client.start_tls(of_client, server_side=False, server_hostname="localhost")
    return server, client


@pytest.fixture(autouse=True)
async def _deadline(nursery: trio.Nursery) -> None:
    nursery.cancel_scope.deadline = trio.current_time() + 20


async def test_bytes_go_both_ways_in_the_clear() -> None:
    one, other = connected()
    await one.send_all(b"hello")
    assert await other.receive_some(3) == b"hel"
    assert await other.receive_some(100) == b"lo"
    await one.aclose()
    assert await other.receive_some(100) == b""
    assert other.tls is None


async def test_bytes_go_both_ways_through_tls() -> None:
    server, client = await encrypted()
    await client.send_all(b"hello")
    assert await server.receive_some(100) == b"hello"
    await server.send_all(b"x" * 100_000)
    received = 0
    while received < 100_000:
        received += len(await client.receive_some(1000))
    assert received == 100_000
    assert server.tls is not None
    assert server.tls.server_name == "localhost"


async def test_the_end_of_either_kind_is_the_end() -> None:
    server, client = await encrypted()
    await client.send_all(b"last")
    await client.aclose()
    assert await server.receive_some(100) == b"last"
    assert await server.receive_some(100) == b""
    assert server.tls is not None
    assert server.tls.closed, "it said goodbye"
    assert await server.receive_some(100) == b"", "and once more"

    server, client = await encrypted()
    client.detach()[0].close()
    assert await server.receive_some(100) == b""
    assert await server.receive_some(100) == b""


async def test_H1_a_stream_that_is_given_away_takes_everything_with_it() -> None:
    server, client = await encrypted()
    assert client.tls is not None
    first, second = client.tls.send(b"startup"), client.tls.send(b"a query that comes in two halves")
    raw, tls = client.detach()
    raw.setblocking(True)
    raw.sendall(first + second[:20])
    assert await server.receive_some(10_000) == b"startup"
    taken, its_tls = server.detach()
    raw.sendall(second[20:])
    assert its_tls is not None
    assert its_tls.receive(await received(taken)) == b"a query that comes in two halves"
    assert tls is not None
    assert tls.receive(its_tls.send(b"an answer")) == b"an answer"
    raw.close()
    taken.close()


async def received(connection: socket.socket) -> bytes:
    await trio.lowlevel.wait_readable(connection)
    return connection.recv(65536)


async def test_what_was_read_ahead_of_a_handshake_counts() -> None:
    """Direct negotiation: the first byte tells that it is TLS, and by then more was read."""
    server, client = connected()
    of_server, of_client = contexts()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(client.start_tls, of_client, server_side=False, server_hostname="localhost"))
        already = await server.receive_some(50)
        await server.start_tls(of_server, server_side=True, already=already)
    await client.send_all(b"hello")
    assert await server.receive_some(100) == b"hello"


async def test_H1_what_comes_with_the_last_of_the_handshake_is_there() -> None:
    server, client = connected()
    of_server, of_client = contexts()
    raw, _ = client.detach()
    tls = Tls(of_client, server_side=False, server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(server.start_tls, of_server, server_side=True))
        tls.handshake()
        raw.sendall(tls.outgoing())
        while not tls.done:
            tls.feed(await received(raw))
            tls.handshake()
        raw.sendall(tls.outgoing() + tls.send(b"startup") + tls.send(b"query"))
    assert await server.receive_some(10_000) == b"startupquery"
    raw.close()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.0\r\n\r\n", b"", b"\x16\x03\x01"])
async def test_what_is_no_handshake_ends_in_one_error(garbage: bytes) -> None:
    server, client = connected()
    await client.send_all(garbage)
    raw, _ = client.detach()
    raw.shutdown(socket.SHUT_WR)
    with pytest.raises(TlsError):
        await server.start_tls(contexts()[0], server_side=True)
    raw.close()


async def test_who_does_not_trust_us_says_so_and_we_tell_him_why() -> None:
    server, client = connected()
    of_server, _ = contexts()
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trustme.CA().configure_trust(stranger)

    async def mistrust() -> None:
        with pytest.raises(TlsError, match="certificate verify failed"):
            await client.start_tls(stranger, server_side=False, server_hostname="localhost")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(mistrust)
        with pytest.raises(TlsError, match="the peer ended TLS: unknown ca"):
            await server.start_tls(of_server, server_side=True)


async def test_broken_tls_is_answered_with_an_alert() -> None:
    server, client = await encrypted()
    raw, tls = client.detach()
    raw.sendall(b"\x17\x03\x03\x00\x05hello")
    with pytest.raises(TlsError):
        await server.receive_some(100)
    assert tls is not None
    with pytest.raises(TlsError, match="the peer ended TLS: "):
        tls.receive(await received(raw))
    raw.close()


async def test_many_handshakes_leave_everybody_else_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many at once hardly two steps follow each other without somebody else having had his turn in between."""
    of_server, of_client = contexts()
    turn, steps, most = trio.Lock(), 0, 0
    shake = Tls.handshake

    def counted(tls: Tls) -> bool:
        nonlocal steps
        steps += 1
        return shake(tls)

    async def somebody_else() -> None:
        nonlocal most
        while True:
            before = steps
            await trio.lowlevel.checkpoint()
            most = max(most, steps - before)

    monkeypatch.setattr(Tls, "handshake", counted)
    async with trio.open_nursery() as others:
        others.start_soon(somebody_else)
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                server, client = connected()
                nursery.start_soon(partial(server.start_tls, of_server, server_side=True, turn=turn))
                nursery.start_soon(
                    partial(client.start_tls, of_client, server_side=False, server_hostname="localhost", turn=turn)
                )
        others.cancel_scope.cancel()
    assert steps >= 40 * 4
    assert most <= 2
