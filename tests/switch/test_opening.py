"""Opening a link: what is made of a server's word on the protocol's version, and of the keys that it may give.

The servers here say what no real one can be made to say; real ones are in tests/cluster/test_versions.py.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from heliosproxy.auth.users import ServerLogin
from heliosproxy.cluster.node import Node
from heliosproxy.config.access import ServerTls
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import NodeConfig
from heliosproxy.switch.opening import Opened, Unreachable, open_link, send_cancel
from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError, error_response
from heliosproxy.wire.messages_backend import NegotiateProtocolVersion
from heliosproxy.wire.startup import NEWEST_MINOR, CancelRequest, StartupMessage, StartupPacket, decode_startup

LOGIN = ServerLogin("somebody")
Serve = Callable[[StartupPacket, trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[tuple[Node, list[StartupPacket]]]:
    """A node whose every connection is answered by `serve`, and the packets that these began with."""
    packets: list[StartupPacket] = []

    async def handle(stream: trio.SocketStream) -> None:
        size = struct.unpack("!I", await exactly(stream, 4))[0]
        packets.append(decode_startup(await exactly(stream, size - 4)))
        await serve(packets[-1], stream)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
            yield node_at(listener.socket.getsockname()[1]), packets
            nursery.cancel_scope.cancel()


def node_at(port: int) -> Node:
    """A node of this machine that is not asked for TLS."""
    return Node(NodeConfig("node", Address("127.0.0.1", port), tls=ServerTls("disable")))


async def exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        assert more
        data += more
    return data


def saying(*answers: bytes) -> Serve:
    """The first connection is told the first of these, and so on; an empty one is closed without a word.

    What is asked after the login is answered with nothing.
    """
    left = list(answers)

    async def serve(packet: StartupPacket, stream: trio.SocketStream) -> None:
        if answer := left.pop(0):
            await stream.send_all(answer)
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some(65536):
                    await stream.send_all(builders.ready_for_query(ord("I")))

    return serve


def admission(key: bytes = b"four", *, negotiated: bytes = b"") -> bytes:
    """All that a server says that trusts everybody."""
    return negotiated + builders.AUTHENTICATION_OK + key_data(key) + builders.ready_for_query(ord("I"))


def key_data(key: bytes) -> bytes:
    return b"K" + struct.pack("!II", 8 + len(key), 77) + key


def version(minor: int, *options: str, major: int = 3) -> bytes:
    return NegotiateProtocolVersion(major << 16 | minor, options).encode()


async def opened(node: Node) -> Opened:
    found = await open_link(node, "there", LOGIN, 5)
    found.socket.close()
    return found


def minors(packets: Sequence[StartupPacket]) -> list[int]:
    return [packet.minor for packet in packets if isinstance(packet, StartupMessage)]


@pytest.mark.parametrize("length", [4, 5, 32, 255, 256])
async def test_a_key_is_kept_whatever_its_length(length: int) -> None:
    key = bytes(range(length % 256)) or b"\xff" * length
    async with served(saying(admission(key))) as (node, packets):
        assert (await opened(node)).key == (77, key)
        assert minors(packets) == [NEWEST_MINOR]


@pytest.mark.parametrize("length", [0, 3, 257])
async def test_a_key_that_cannot_be_one_is_refused(length: int) -> None:
    async with served(saying(admission(b"k" * length))) as (node, _):
        with pytest.raises(PeerError) as caught:
            await opened(node)
    assert caught.value.sqlstate == "08P01"


async def test_a_server_that_speaks_less_is_taken_at_its_word() -> None:
    async with served(saying(*[admission(negotiated=version(0))] * 2)) as (node, packets):
        assert (await opened(node)).key == (77, b"four")
        await opened(node)
        assert minors(packets) == [NEWEST_MINOR, NEWEST_MINOR], "one connection each; it may be upgraded one day"


@pytest.mark.parametrize(
    "answer",
    [version(NEWEST_MINOR + 1), version(0, major=2), version(0, "_pq_.unasked"), version(0) + version(0)],
    ids=["newer than asked", "another protocol", "an option that was not asked for", "twice, and longer keys"],
)
async def test_a_server_that_agrees_to_what_was_not_asked_for_is_refused(answer: bytes) -> None:
    async with served(saying(admission(b"longer", negotiated=answer))) as (node, _):
        with pytest.raises(PeerError) as caught:
            await opened(node)
    assert caught.value.sqlstate == "08P01"


async def test_a_long_key_from_a_server_that_agreed_to_3_0_is_refused() -> None:
    async with served(saying(admission(b"longer", negotiated=version(0)))) as (node, _):
        with pytest.raises(PeerError, match=r"cancel key of 6 bytes in protocol 3\.0"):
            await opened(node)


@pytest.mark.parametrize(
    "refusal",
    [b"", *(error_response("FATAL", code, "unsupported frontend protocol") for code in ("0A000", "08P01", "08004"))],
    ids=["closed without a word", "0A000", "08P01", "08004"],
)
async def test_a_server_that_refuses_3_2_is_asked_for_3_0_from_then_on(refusal: bytes) -> None:
    async with served(saying(refusal, admission(), admission())) as (node, packets):
        assert (await opened(node)).key == (77, b"four")
        assert minors(packets) == [NEWEST_MINOR, 0]
        await opened(node)
        assert minors(packets) == [NEWEST_MINOR, 0, 0]


@pytest.mark.parametrize("sqlstate", ["53300", "57P03", "3D000", "28000"])
async def test_another_refusal_is_final(sqlstate: str) -> None:
    async with served(saying(error_response("FATAL", sqlstate, "not now"))) as (node, packets):
        with pytest.raises(PeerError, match="not now"):
            await opened(node)
        assert minors(packets) == [NEWEST_MINOR]


async def test_a_server_that_refuses_both_versions_is_quoted_and_nothing_remembered() -> None:
    refusals = error_response("FATAL", "08P01", "bad 3.2"), error_response("FATAL", "08P01", "bad anyway")
    async with served(saying(*refusals, admission())) as (node, packets):
        with pytest.raises(PeerError, match="bad anyway"):
            await opened(node)
        await opened(node)
        assert minors(packets) == [NEWEST_MINOR, 0, NEWEST_MINOR]


async def test_a_server_that_closes_both_times_is_unreachable_and_nothing_remembered() -> None:
    async with served(saying(b"", b"", admission())) as (node, packets):
        with pytest.raises(Unreachable):
            await opened(node)
        await opened(node)
        assert minors(packets) == [NEWEST_MINOR, 0, NEWEST_MINOR]


async def test_a_server_that_closes_once_it_has_begun_to_authenticate_is_not_asked_again() -> None:
    async def serve(packet: StartupPacket, stream: trio.SocketStream) -> None:
        await stream.send_all(builders.AUTHENTICATION_OK)

    async with served(serve) as (node, packets):
        with pytest.raises(Unreachable):
            await opened(node)
        assert minors(packets) == [NEWEST_MINOR]


@pytest.mark.parametrize("length", [4, 32, 256])
async def test_a_cancel_request_carries_the_whole_key(length: int) -> None:
    async def serve(packet: StartupPacket, stream: trio.SocketStream) -> None:
        """Closed: the node has taken note."""

    async with served(serve) as (node, packets):
        assert await send_cancel(node, (77, b"k" * length), 5)
        assert packets == [CancelRequest(77, b"k" * length)]


async def test_without_a_key_nothing_is_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        node = node_at(unused.getsockname()[1])
        assert await send_cancel(node, (0, b""), 5)
        assert not await send_cancel(node, (0, b"four"), 5)
