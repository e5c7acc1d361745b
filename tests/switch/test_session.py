"""Cutting a client's bytes into units."""

from __future__ import annotations

from contextlib import suppress

import pytest
from helios_sdk.contract import Client
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.switch.session import Session
from heliosproxy.switch.settings import Settings
from heliosproxy.wire import builders
from heliosproxy.wire.errors import ProtocolError

PIECES = [
    builders.query(b"select 1"),
    builders.parse(b"a", b"select $1"),
    builders.describe_statement(b"a"),
    builders.execute(),
    builders.FLUSH,
    builders.SYNC,
    builders.query(b"x" * 3000),
]


def session(**options: int) -> Session:
    return Session(1, (1, b"key!"), Client("u", "d"), Settings(), **options)  # type: ignore[arg-type]


def units(of: Session) -> list[tuple[bool, bool, bytes]]:
    return [(unit.simple, unit.complete, b"".join(unit.messages)) for unit in of.units]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.data())
def test_any_split_of_the_stream_gives_the_same_units(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    whole, cut = session(), session()
    whole.receive(stream)
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        cut.receive(stream[:size])
        stream = stream[size:]
    assert units(cut) == units(whole)


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_the_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        session().receive(data)


def test_a_long_message_in_small_pieces_is_joined_once() -> None:
    message = builders.query(b"x" * 1_000_000)
    it = session()
    for start in range(0, len(message), 1000):
        it.receive(message[start : start + 1000])
    assert units(it) == [(True, True, message)]


def test_a_message_longer_than_allowed_is_refused_before_it_comes() -> None:
    it = session(max_message=1000)
    with pytest.raises(ProtocolError, match="2005 bytes"):
        it.receive(builders.query(b"x" * 2000)[:5])


def test_a_unit_ends_with_its_sync() -> None:
    it = session()
    it.receive(builders.parse(b"", b"select 1") + builders.SYNC + builders.execute())
    assert [complete for _, complete, _ in units(it)] == [True, False]


def test_nothing_counts_after_terminate() -> None:
    it = session()
    it.receive(builders.TERMINATE + builders.query(b"select 1"))
    assert it.closing
    assert not it.units
