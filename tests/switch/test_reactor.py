"""The reactor over real sockets of this machine (socket pairs), without a network."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from heliosproxy.switch.reactor import HIGH_WATER, Endpoint, Reactor


class Peer:
    """The far end of an endpoint, and what the endpoint was told."""

    def __init__(self, reactor: Reactor) -> None:
        ours, theirs = socket.socketpair()
        self.data = b""
        self.closed = ""
        self.endpoint = reactor.adopt(ours, self.on_data, self.on_closed)
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_closed(self, reason: str) -> None:
        self.closed = reason


@asynccontextmanager
async def running() -> AsyncIterator[Reactor]:
    reactor = Reactor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run, lambda now: None, 0.05, lambda: None)
        with trio.fail_after(10):
            yield reactor
        nursery.cancel_scope.cancel()
    reactor.close()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def test_bytes_go_both_ways() -> None:
    async with running() as reactor:
        peer = Peer(reactor)
        await peer.stream.send_all(b"hello")
        await until(lambda: peer.data == b"hello")
        peer.endpoint.send(b"good")
        peer.endpoint.send(b"bye")
        reactor.flush()
        assert await peer.stream.receive_some(100) == b"goodbye"


async def test_a_peer_that_closes_is_told_of() -> None:
    async with running() as reactor:
        peer = Peer(reactor)
        await peer.stream.aclose()
        await until(lambda: peer.closed)
        assert peer.closed == "closed by the peer"
        assert peer.endpoint.closed


async def test_close_writes_what_is_due_first() -> None:
    async with running() as reactor:
        peer = Peer(reactor)
        peer.endpoint.send(b"x" * 3_000_000)
        peer.endpoint.close()
        reactor.flush()
        received = 0
        while data := await peer.stream.receive_some(65536):
            received += len(data)
        assert received == 3_000_000
        assert peer.closed == "", "who closes needs no telling"


async def test_a_slow_reader_stops_who_writes_to_it_and_nobody_else() -> None:
    async with running() as reactor:
        producer, reader, bystander = Peer(reactor), Peer(reactor), Peer(reactor)
        pairs: dict[Endpoint, Endpoint] = {reader.endpoint: producer.endpoint}
        reactor.producer_of = pairs.get
        reader.endpoint.send(b"x" * (HIGH_WATER + 3_000_000))
        reactor.flush()
        await producer.stream.send_all(b"more")
        await bystander.stream.send_all(b"hello")
        await until(lambda: bystander.data == b"hello")
        assert producer.data == b"", "it is held"
        received = 0
        while received < HIGH_WATER + 3_000_000:
            received += len(await reader.stream.receive_some(1 << 20))
        await until(lambda: producer.data == b"more")


async def test_an_internal_error_costs_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as reactor:
        broken, fine = Peer(reactor), Peer(reactor)

        def fail(data: bytes) -> None:
            raise RuntimeError("a bug")

        broken.endpoint.on_data = fail
        await broken.stream.send_all(b"x")
        await until(lambda: broken.closed)
        assert broken.closed == "internal error"
        await fine.stream.send_all(b"hello")
        await until(lambda: fine.data == b"hello")
    assert "internal error" in caplog.text


async def test_ticks_come_while_nothing_happens() -> None:
    reactor = Reactor()
    ticks: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run, ticks.append, 0.01, lambda: None)
        with trio.fail_after(10):
            await until(lambda: len(ticks) >= 3)
        nursery.cancel_scope.cancel()
    reactor.close()
