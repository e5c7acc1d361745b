"""The reactor with TLS over socket pairs: what plain endpoints do as well, and what only TLS can do."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trio
import trustme

from heliosproxy.switch.reactor import HIGH_WATER, Endpoint, Reactor
from heliosproxy.wire.tls import Tls, TlsError
from tests.switch.test_reactor import Peer, running, until

CA = trustme.CA()
LEAF = CA.issue_cert("localhost")


def shaken() -> tuple[Tls, Tls]:
    """Both sides of a connection whose handshake is over, the server's first."""
    of_server, of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    LEAF.configure_cert(of_server)
    of_server.num_tickets = 0
    CA.configure_trust(of_client)
    server = Tls(of_server, server_side=True)
    client = Tls(of_client, server_side=False, server_hostname="localhost")
    while not (client.done and server.done):
        for one, other in ((client, server), (server, client)):
            one.handshake()
            other.feed(one.outgoing())
    return server, client


class TlsPeer:
    """The far end of an endpoint with TLS, and what the endpoint was told."""

    def __init__(self, reactor: Reactor, tls: tuple[Tls, Tls] | None = None) -> None:
        ours, theirs = socket.socketpair()
        its, self.tls = tls or shaken()
        self.data = b""
        self.closed = ""
        self.pieces = 0
        self.endpoint = reactor.adopt(ours, self.on_data, self.on_closed, its)
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))

    def on_data(self, data: bytes) -> None:
        self.pieces += 1
        self.data += data

    def on_closed(self, reason: str) -> None:
        self.closed = reason

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(self.tls.send(data))

    async def hear(self) -> bytes:
        """What comes next; empty at the end, of TLS or of the connection."""
        while not self.tls.closed and (ciphertext := await self.stream.receive_some(65536)):
            if data := self.tls.receive(bytes(ciphertext)):
                return data
        return b""


@pytest.fixture
async def reactor() -> AsyncIterator[Reactor]:
    async with running() as reactor:
        yield reactor


async def test_bytes_go_both_ways(reactor: Reactor) -> None:
    peer = TlsPeer(reactor)
    await peer.say(b"hello")
    await until(lambda: peer.data == b"hello")
    peer.endpoint.send(b"good")
    peer.endpoint.send(b"bye")
    reactor.flush()
    assert await peer.hear() == b"goodbye"


async def test_a_record_that_comes_byte_by_byte_is_told_of_once(reactor: Reactor) -> None:
    peer = TlsPeer(reactor)
    for byte in peer.tls.send(b"hello" * 100):
        await peer.stream.send_all(bytes((byte,)))
        await trio.lowlevel.checkpoint()
    await until(lambda: peer.data)
    assert peer.data == b"hello" * 100
    assert peer.pieces == 1


async def test_H1_what_is_part_of_a_record_travels_with_the_session(reactor: Reactor) -> None:
    its, theirs = shaken()
    ciphertext = theirs.send(b"the login ends in the middle of this record")
    assert its.receive(ciphertext[:30]) == b""
    peer = TlsPeer(reactor, (its, theirs))
    await peer.stream.send_all(ciphertext[30:])
    await until(lambda: peer.data)
    assert peer.data == b"the login ends in the middle of this record"


async def test_who_closes_says_so_behind_everything_else(reactor: Reactor) -> None:
    peer = TlsPeer(reactor)
    peer.endpoint.send(b"x" * 3_000_000)
    peer.endpoint.close()
    reactor.flush()
    received = 0
    while data := await peer.hear():
        received += len(data)
    assert received == 3_000_000
    assert peer.tls.closed
    assert await peer.stream.receive_some(10) == b""
    assert peer.closed == "", "who closes needs no telling"


async def test_what_is_sent_after_the_last_word_is_dropped(reactor: Reactor) -> None:
    peer = TlsPeer(reactor)
    peer.endpoint.send(b"x" * 3_000_000)
    peer.endpoint.close()
    reactor.flush()
    peer.endpoint.send(b"too late")
    reactor.flush()
    received = 0
    while data := await peer.hear():
        received += len(data)
    assert received == 3_000_000


async def test_a_peer_that_says_its_last_word_has_ended_the_connection(reactor: Reactor) -> None:
    peer = TlsPeer(reactor)
    await peer.stream.send_all(peer.tls.send(b"last") + peer.tls.close())
    await until(lambda: peer.closed)
    assert peer.data == b"last"
    assert peer.closed == "closed by the peer"
    assert peer.endpoint.closed


async def test_a_peer_that_is_cut_off_has_ended_as_well(reactor: Reactor) -> None:
    peer = TlsPeer(reactor)
    await peer.stream.aclose()
    await until(lambda: peer.closed)
    assert peer.closed == "closed by the peer"


@pytest.mark.parametrize("garbage", [b"Q\0\0\0\x0dselect 1\0", b"\x17\x03\x03\x00\x20" + b"x" * 32])
async def test_broken_tls_ends_that_endpoint_only(reactor: Reactor, garbage: bytes) -> None:
    broken, fine, plain = TlsPeer(reactor), TlsPeer(reactor), Peer(reactor)
    await broken.stream.send_all(garbage)
    await until(lambda: broken.closed)
    assert broken.closed.startswith("TLS failed: ")
    assert broken.data == b""
    with pytest.raises(TlsError, match="the peer ended TLS: "):
        await broken.hear()
    await fine.say(b"hello")
    await plain.stream.send_all(b"hello")
    await until(lambda: fine.data == plain.data == b"hello")


async def test_a_slow_reader_stops_who_writes_to_it(reactor: Reactor) -> None:
    producer, reader = TlsPeer(reactor), TlsPeer(reactor)
    pairs: dict[Endpoint, Endpoint] = {reader.endpoint: producer.endpoint}
    reactor.producer_of = pairs.get
    reader.endpoint.send(b"x" * (HIGH_WATER + 3_000_000))
    reactor.flush()
    assert len(reader.endpoint.pending) > HIGH_WATER
    await producer.say(b"more")
    bystander = Peer(reactor)
    await bystander.stream.send_all(b"hello")
    await until(lambda: bystander.data == b"hello")
    assert producer.data == b"", "it is held"
    received = 0
    while received < HIGH_WATER + 3_000_000:
        received += len(await reader.hear())
    await until(lambda: producer.data == b"more")


async def test_large_amounts_pass_both_ways_at_once(reactor: Reactor) -> None:
    peer = TlsPeer(reactor)
    amount, heard = 8 << 20, 0

    async def say() -> None:
        for _ in range(amount >> 16):
            await peer.stream.send_all(peer.tls.send(bytes(1 << 16)))

    peer.endpoint.send(bytes(amount))
    reactor.flush()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say)
        while heard < amount:
            heard += len(await peer.hear())
    await until(lambda: len(peer.data) == amount)


async def test_an_end_is_waited_for_through_tls_too(reactor: Reactor) -> None:
    peer, ended = TlsPeer(reactor), trio.Event()
    peer.endpoint.send(b"terminate")
    peer.endpoint.close(ended.set)
    reactor.flush()
    assert await peer.hear() == b"terminate"
    assert await peer.hear() == b""
    assert not ended.is_set()
    with contextlib.suppress(trio.BrokenResourceError):
        await peer.stream.send_all(peer.tls.close())
    await peer.stream.aclose()
    await ended.wait()
