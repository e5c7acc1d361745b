"""The framers: any split of a stream gives the same messages, and lengths are refused before memory is taken."""

from __future__ import annotations

import struct
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.wire.buffer import frame
from heliosproxy.wire.errors import ProtocolError
from heliosproxy.wire.framing import MAX_STARTUP, Framer, StartupFramer

messages = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=30)), max_size=8)
cuts = st.lists(st.integers(0, 400), max_size=20)


def pieces(stream: bytes, where: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(stream)) for cut in where), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def drain(framer: Framer, parts: list[bytes]) -> tuple[list[tuple[int, bytes]], bool]:
    """What comes out, and whether it ended in a ProtocolError."""
    given: list[tuple[int, bytes]] = []
    try:
        for part in parts:
            for message in framer.feed(part):
                given.append(message)  # one by one: what came before an error counts
    except ProtocolError:
        return given, True
    return given, False


@given(messages, cuts)
def test_any_split_gives_the_same_messages(sent: list[tuple[int, bytes]], where: list[int]) -> None:
    stream = b"".join(frame(tag, body) for tag, body in sent)
    assert drain(Framer(100), pieces(stream, where)) == (sent, False)


@given(messages)
def test_one_byte_at_a_time_gives_the_same_messages(sent: list[tuple[int, bytes]]) -> None:
    stream = b"".join(frame(tag, body) for tag, body in sent)
    assert drain(Framer(100), [bytes((byte,)) for byte in stream]) == (sent, False)


@given(st.binary(max_size=200), cuts)
def test_any_split_of_any_bytes_gives_the_same_messages_and_the_same_end(stream: bytes, where: list[int]) -> None:
    assert drain(Framer(64), pieces(stream, where)) == drain(Framer(64), [stream])


@given(messages, st.integers(0, 400))
def test_what_is_left_is_handed_over(sent: list[tuple[int, bytes]], cut: int) -> None:
    stream = b"".join(frame(tag, body) for tag, body in sent)
    framer = Framer(100)
    first = list(framer.feed(stream[:cut]))
    moved = Framer(100)
    assert first + list(moved.feed(framer.rest() + stream[cut:])) == sent
    assert framer.rest() == b""


def test_messages_not_taken_come_with_the_next_feed() -> None:
    framer = Framer(100)
    assert next(framer.feed(frame(1, b"a") + frame(2, b"b"))) == (1, b"a")
    assert list(framer.feed(frame(3, b"c"))) == [(2, b"b"), (3, b"c")]


@pytest.mark.parametrize("length", [0, 3, 101, 2**31, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_with_its_header(length: int) -> None:
    framer = Framer(100)
    good = frame(ord("S"), b"")
    stream = framer.feed(good + struct.pack("!BI", ord("Q"), length))
    assert next(stream) == (ord("S"), b"")
    with pytest.raises(ProtocolError) as caught:
        next(stream)
    assert caught.value.sqlstate == "08P01"
    with pytest.raises(ProtocolError):
        list(framer.feed(good))


@pytest.mark.parametrize("length", [4, 100])
def test_the_bounds_themselves_are_lengths(length: int) -> None:
    assert list(Framer(100).feed(struct.pack("!BI", 0, length) + bytes(length - 4))) == [(0, bytes(length - 4))]


def test_the_limit_may_be_raised_between_messages() -> None:
    framer = Framer(10)
    assert list(framer.feed(frame(1, b"123456"))) == [(1, b"123456")]
    framer.limit = 100
    assert list(framer.feed(frame(1, b"1234567"))) == [(1, b"1234567")]


def test_an_announced_length_takes_no_memory() -> None:
    framer = Framer(2**30)
    tracemalloc.start()
    try:
        assert list(framer.feed(struct.pack("!BI", ord("d"), 2**30))) == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_large_message_in_small_pieces_is_linear() -> None:
    size, piece = 64 * 2**20, bytes(8192)
    framer = Framer(2**30)
    started = time.perf_counter()
    assert list(framer.feed(struct.pack("!BI", ord("d"), size + 4))) == []
    given = [message for _ in range(size // len(piece)) for message in framer.feed(piece)]
    # Copying what is kept for each piece would move 256 GB; once or twice is a tenth of a second.
    assert time.perf_counter() - started < 5
    assert [(tag, len(body)) for tag, body in given] == [(ord("d"), size)]


def startup(body: bytes) -> bytes:
    return struct.pack("!I", len(body) + 4) + body


@given(st.lists(st.binary(min_size=4, max_size=30), max_size=4), st.binary(max_size=3), cuts)
def test_startup_packets_come_one_by_one_however_cut(sent: list[bytes], surplus: bytes, where: list[int]) -> None:
    framer = StartupFramer()
    given: list[bytes] = []
    for part in pieces(b"".join(map(startup, sent)) + surplus, where):
        packet = framer.feed(part)
        while packet is not None:
            given.append(packet)
            packet = framer.feed()
    assert given == sent
    assert framer.rest() == surplus


def test_what_shares_a_segment_with_the_startup_packet_is_handed_over() -> None:
    framer = StartupFramer()
    assert framer.feed(startup(b"\0\3\0\0user\0u\0\0") + b"Q\0\0") == b"\0\3\0\0user\0u\0\0"
    assert framer.rest() == b"Q\0\0"
    assert framer.rest() == b""


@pytest.mark.parametrize("length", [0, 4, 7, MAX_STARTUP + 1, 0x16030102])
def test_a_startup_length_out_of_bounds_is_refused_at_once(length: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        StartupFramer().feed(struct.pack("!I", length))
    assert caught.value.sqlstate == "08P01"


def test_the_longest_startup_packet_is_taken() -> None:
    body = bytes(MAX_STARTUP - 4)
    assert StartupFramer().feed(startup(body)) == body
