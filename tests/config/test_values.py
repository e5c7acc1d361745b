"""Text to values: what is taken, what is refused, and that refusals say what would be taken."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosproxy.config import values
from heliosproxy.config.kinds import Address
from heliosproxy.config.values import BadValue


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("500ms", 0.5), ("5min", 300), ("1h", 3600), ("2d", 172800), ("1.5 s", 1.5), ("250us", 0.00025)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "10", "s", "-1s", "0s", "1e3s", "10 sec", True, [], "9" * 400 + "s"])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(BadValue):
        values.duration(value)


def test_a_bare_number_is_told_to_take_a_unit() -> None:
    with pytest.raises(BadValue) as caught:
        values.duration(10)
    assert caught.value.hint == 'give a unit, as in "10s" or "10ms"'
    with pytest.raises(BadValue, match="needs a unit"):
        values.size(64)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1B", 1), ("64kB", 65536), ("64KiB", 65536), ("64MB", 1 << 26), ("64MiB", 1 << 26), ("1 GB", 1 << 30)],
)
def test_sizes_are_bytes_counted_as_postgresql_counts(text: str, count: int) -> None:
    assert values.size(text) == count


@pytest.mark.parametrize("value", ["", "64", "0MB", "1.5MB", "-1MB", "64mb", None])
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(BadValue):
        values.size(value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("db1:5432", Address("db1", 5432)),
        ("10.0.0.1:1", Address("10.0.0.1", 1)),
        ("[::1]:5432", Address("::1", 5432)),
        ("/run/postgresql:5432", Address("/run/postgresql", 5432)),
        ("db.example.com.:65535", Address("db.example.com.", 65535)),
    ],
)
def test_addresses_are_read_and_written_back(text: str, address: Address) -> None:
    assert values.address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "value",
    ["", "db1", ":5432", "db1:", "db1:x", "db1:65536", "db 1:5432", "::1:5432", "[::1", "[db1]:5432", "db1:٣", 5432],
)
def test_what_is_no_address_is_refused(value: object) -> None:
    with pytest.raises(BadValue):
        values.address(value)


def test_an_address_without_brackets_is_shown_with_them() -> None:
    with pytest.raises(BadValue) as caught:
        values.address("fe80::1:5432")
    assert "[fe80::1]" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${A}", "a"),
        ("x${A}y${A}", "xaya"),
        ("${NONE:-b}", "b"),
        ("${EMPTY:-b}", "b"),
        ("${EMPTY}", ""),
        ("${NONE:-}", ""),
        ("$${A}", "${A}"),
        ("$$ $A $", "$$ $A $"),
        ("SCRAM-SHA-256$4096:x", "SCRAM-SHA-256$4096:x"),
        ("${NESTED}", "${A}"),
    ],
)
def test_variables_expand_once(text: str, result: str) -> None:
    assert values.expand(text, {"A": "a", "EMPTY": "", "NESTED": "${A}"}) == result


@pytest.mark.parametrize("text", ["${", "${A", "${1}", "${}", "${A-b}"])
def test_an_unfinished_variable_is_refused(text: str) -> None:
    with pytest.raises(BadValue, match="does not begin a variable"):
        values.expand(text, {"A": "a"})


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(BadValue, match="variable NONE is not set"):
        values.expand("${NONE}", {})


@settings(deadline=None)
@given(st.text(alphabet=st.characters(blacklist_characters="$")))
def test_text_without_a_dollar_stays_as_it_is(text: str) -> None:
    assert values.expand(text, {}) == text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_loopback_is_known(host: str) -> None:
    assert values.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "db1", "/run", "localhost.example.com", ""])
def test_what_others_can_reach_is_not_loopback(host: str) -> None:
    assert not values.is_loopback(host)
