"""ErrorResponse and NoticeResponse: what we tell a client, and what we read from a server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.wire.errors import (
    PeerError,
    ProtocolError,
    encode_fields,
    error_response,
    notice_response,
    parse_fields,
)


def test_an_error_is_the_bytes_that_the_protocol_chapter_says() -> None:
    fields = b"SERROR\0VERROR\0C42601\0Mbad hint\0Dwhy\0Hdo\0P7\0\0"
    expected = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields
    assert error_response("ERROR", "42601", "bad hint", detail="why", hint="do", position=7) == expected


def test_a_notice_differs_by_its_tag_and_leaves_out_what_was_not_given() -> None:
    assert notice_response("NOTICE", "00000", "hello")[:1] == b"N"
    assert parse_fields(notice_response("NOTICE", "00000", "hello")[5:]) == {
        "S": "NOTICE",
        "V": "NOTICE",
        "C": "00000",
        "M": "hello",
    }


def test_a_peers_fault_becomes_a_response() -> None:
    fault = PeerError("too slow", "57014", hint="hurry")
    fields = parse_fields(fault.response("FATAL", position=3)[5:])
    assert fields == {"S": "FATAL", "V": "FATAL", "C": "57014", "M": "too slow", "H": "hurry", "P": "3"}


def test_a_protocol_error_is_08P01_unless_it_says_otherwise() -> None:
    assert ProtocolError("x").sqlstate == "08P01"
    assert ProtocolError("x", "0A000").sqlstate == "0A000"


@given(st.text(), st.none() | st.text())
def test_any_text_can_be_told(message: str, hint: str | None) -> None:
    told = parse_fields(error_response("ERROR", "XX000", message, hint=hint)[5:])
    assert told["C"] == "XX000"
    assert ("H" in told) == (hint is not None)


def test_text_that_would_end_its_field_loses_the_nul_and_nothing_else() -> None:
    assert parse_fields(error_response("ERROR", "XX000", "a\0b\ud800c")[5:])["M"] == "ab?c"


@given(st.dictionaries(st.characters(min_codepoint=1, max_codepoint=255), st.text(st.characters(codec="utf-8"))))
def test_fields_survive_the_round_trip_without_their_nuls(fields: dict[str, str]) -> None:
    plain = {code: value.replace("\0", "") for code, value in fields.items()}
    assert parse_fields(encode_fields(fields)) == plain


@given(st.binary(max_size=60))
def test_random_fields_raise_nothing_but_the_protocol_error(body: bytes) -> None:
    try:
        fields = parse_fields(body)
    except ProtocolError:
        return
    assert body.endswith(b"\0")
    assert parse_fields(encode_fields(fields)) == fields
