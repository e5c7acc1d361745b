"""Start-up packets: decoded as PostgreSQL decodes them, and the version that is agreed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.wire.errors import ProtocolError
from heliosproxy.wire.messages_backend import NegotiateProtocolVersion
from heliosproxy.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    StartupPacket,
    decode_startup,
    negotiate,
)

V3_0, V3_2 = b"\0\3\0\0", b"\0\3\0\2"
text = st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"x").decode("utf-8", "surrogateescape"))
name = text.filter(lambda name: name and not name.startswith("_pq_."))
startups = st.builds(
    StartupMessage,
    st.builds(lambda others, user: others | {"user": user}, st.dictionaries(name, text), text.filter(bool)),
    st.just(3),
    st.integers(0, 65_535),
    st.dictionaries(text.map("_pq_.{}".format), text, max_size=2),
)
packets = st.one_of(
    startups,
    st.builds(SSLRequest),
    st.builds(GSSENCRequest),
    st.builds(CancelRequest, st.integers(0, 2**32 - 1), st.binary(min_size=4, max_size=256)),
)


def body_of(packet: bytes) -> bytes:
    assert int.from_bytes(packet[:4], "big") == len(packet)
    return packet[4:]


def attempt(body: bytes) -> StartupPacket | str:
    """The packet, or the SQLSTATE of the ProtocolError; any other error is the test's failure."""
    try:
        return decode_startup(body)
    except ProtocolError as error:
        return error.sqlstate


@given(packets)
def test_packets_survive_the_round_trip(packet: StartupPacket) -> None:
    assert decode_startup(body_of(packet.encode())) == packet


@given(st.binary(max_size=100) | st.binary(max_size=100).map(V3_0.__add__))
def test_random_bytes_raise_nothing_but_the_protocol_error(body: bytes) -> None:
    packet = attempt(body)
    if isinstance(packet, str):
        assert packet in {"08P01", "0A000", "28000"}
    else:
        assert decode_startup(body_of(packet.encode())) == packet


def test_requests_are_the_bytes_that_the_protocol_chapter_says() -> None:
    assert SSLRequest().encode() == bytes.fromhex("00000008 04d2162f")
    assert GSSENCRequest().encode() == bytes.fromhex("00000008 04d21630")
    assert CancelRequest(258, b"key!").encode() == bytes.fromhex("00000010 04d2162e 00000102") + b"key!"
    assert StartupMessage({"user": "u"}).encode() == b"\0\0\0\x10\0\3\0\0user\0u\0\0"


def test_parameters_and_protocol_options_are_told_apart() -> None:
    packet = decode_startup(V3_2 + b"user\0u\0_pq_.x\0on\0options\0-c a=b\0\0")
    assert packet == StartupMessage({"user": "u", "options": "-c a=b"}, 3, 2, {"_pq_.x": "on"})


def test_the_last_of_two_equal_parameters_counts() -> None:
    packet = decode_startup(V3_0 + b"user\0first\0user\0second\0\0")
    assert isinstance(packet, StartupMessage)
    assert packet.user == "second"


@pytest.mark.parametrize("database", [b"", b"database\0\0"])
def test_the_database_is_the_users_unless_it_is_named(database: bytes) -> None:
    packet = decode_startup(V3_0 + b"user\0u\0" + database + b"\0")
    assert isinstance(packet, StartupMessage)
    assert packet.database == "u"


@pytest.mark.parametrize(
    ("body", "sqlstate"),
    [
        pytest.param(b"", "08P01", id="nothing"),
        pytest.param(V3_0, "08P01", id="no terminator at all"),
        pytest.param(V3_0 + b"user\0u\0", "08P01", id="no terminator after the pairs"),
        pytest.param(V3_0 + b"user\0u", "08P01", id="a value without an end"),
        pytest.param(V3_0 + b"user\0u\0odd\0\0", "08P01", id="a name without a value"),
        pytest.param(V3_0 + b"user\0u\0\0more\0", "08P01", id="bytes after the terminator"),
        pytest.param(V3_0 + b"\0", "28000", id="no user"),
        pytest.param(V3_0 + b"user\0\0\0", "28000", id="an empty user"),
        pytest.param(b"\0\2\0\0" + bytes(292), "0A000", id="protocol 2"),
        pytest.param(b"\0\4\0\0user\0u\0\0", "0A000", id="protocol 4"),
        pytest.param(bytes.fromhex("04d21631"), "0A000", id="an unknown request"),
        pytest.param(bytes.fromhex("04d2162f00"), "08P01", id="SSLRequest with a body"),
        pytest.param(bytes.fromhex("04d2162e 00000001 000000"), "08P01", id="a cancel key of 3 bytes"),
        pytest.param(bytes.fromhex("04d2162e 00000001") + bytes(257), "08P01", id="a cancel key of 257 bytes"),
    ],
)
def test_bad_packets_are_refused_with_postgresqls_sqlstate(body: bytes, sqlstate: str) -> None:
    assert attempt(body) == sqlstate


@pytest.mark.parametrize("minor", [0, 2])
def test_what_we_speak_needs_no_negotiation(minor: int) -> None:
    startup = StartupMessage({"user": "u"}, 3, minor)
    assert negotiate(startup) is None
    assert startup.agreed_minor == minor


@pytest.mark.parametrize("minor", [3, 9999])
def test_a_newer_minor_version_is_answered_with_our_newest(minor: int) -> None:
    startup = StartupMessage({"user": "u"}, 3, minor)
    assert negotiate(startup) == NegotiateProtocolVersion(0x3_0002)
    assert startup.agreed_minor == 2


def test_unknown_options_are_listed_and_the_version_is_not_raised_above_the_one_asked_for() -> None:
    startup = StartupMessage({"user": "u"}, 3, 0, {"_pq_.a": "1", "_pq_.b": ""})
    assert negotiate(startup) == NegotiateProtocolVersion(0x3_0000, ("_pq_.a", "_pq_.b"))


@pytest.mark.parametrize("major", [2, 4])
def test_another_major_version_is_refused(major: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        negotiate(StartupMessage({"user": "u"}, major))
    assert caught.value.sqlstate == "0A000"


@pytest.mark.parametrize("parameters", [{"user": "u\0"}, {"user": "u", "": "x"}])
def test_a_startup_message_that_would_read_differently_is_not_sent(parameters: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"NUL|without a name"):
        StartupMessage(parameters).encode()


def test_cancel_keys_are_not_shown() -> None:
    assert "secret!!" not in repr(CancelRequest(1, b"secret!!"))
