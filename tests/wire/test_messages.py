"""Every message: what is encoded decodes to the same, and bytes that are no message raise ProtocolError only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.wire import messages_authentication as authentication
from heliosproxy.wire import messages_backend as backend
from heliosproxy.wire import messages_copy as copy
from heliosproxy.wire import messages_frontend as frontend
from heliosproxy.wire.buffer import Message, OpaqueMessage
from heliosproxy.wire.errors import ProtocolError
from heliosproxy.wire.messages_backend import decode_backend
from heliosproxy.wire.messages_frontend import decode_frontend

raw = st.binary(max_size=40)
string = raw.map(lambda data: data.replace(b"\0", b"x"))
text = string.map(lambda data: data.decode("utf-8", "surrogateescape"))
value = st.none() | raw
values = st.lists(value, max_size=5).map(tuple)
int16 = st.integers(-(2**15), 2**15 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
oid = st.integers(0, 2**32 - 1)
int16s = st.lists(int16, max_size=5).map(tuple)
oids = st.lists(oid, max_size=5).map(tuple)
target = st.sampled_from(["S", "P"])
fields = st.dictionaries(st.characters(min_codepoint=1, max_codepoint=255), text, max_size=6)
column = st.builds(backend.Column, string, oid, int16, oid, int16, int32, int16)

FRONTEND: list[st.SearchStrategy[Message]] = [
    st.builds(frontend.Query, string),
    st.builds(frontend.Parse, string, string, oids),
    st.builds(frontend.Bind, string, string, int16s, values, int16s),
    st.builds(frontend.Describe, target, string),
    st.builds(frontend.Execute, string, int32),
    st.builds(frontend.Close, target, string),
    st.builds(frontend.Flush),
    st.builds(frontend.Sync),
    st.builds(frontend.Terminate),
    st.builds(frontend.CopyFail, string),
    st.builds(frontend.FunctionCall, oid, int16s, values, int16),
    st.builds(copy.CopyData, raw),
    st.builds(copy.CopyDone),
    st.builds(authentication.AuthenticationResponse, raw),
]
ANSWERS: list[st.SearchStrategy[Message]] = [
    st.builds(authentication.PasswordMessage, string),
    st.builds(authentication.SASLInitialResponse, text, value),
    st.builds(authentication.SASLResponse, raw),
    st.builds(authentication.GSSResponse, raw),
]
BACKEND: list[st.SearchStrategy[Message]] = [
    st.builds(authentication.AuthenticationOk),
    st.builds(authentication.AuthenticationCleartextPassword),
    st.builds(authentication.AuthenticationMD5Password, st.binary(min_size=4, max_size=4)),
    st.builds(authentication.AuthenticationSASL, st.lists(text.filter(bool), max_size=3).map(tuple)),
    st.builds(authentication.AuthenticationSASLContinue, raw),
    st.builds(authentication.AuthenticationSASLFinal, raw),
    st.builds(authentication.AuthenticationUnsupported, st.sampled_from([2, 6, 7, 8, 9]), raw),
    st.builds(backend.BackendKeyData, oid, st.binary(min_size=4, max_size=256)),
    st.builds(backend.ParseComplete),
    st.builds(backend.BindComplete),
    st.builds(backend.CloseComplete),
    st.builds(backend.NoData),
    st.builds(backend.EmptyQueryResponse),
    st.builds(backend.PortalSuspended),
    st.builds(backend.CommandComplete, text),
    st.builds(backend.DataRow, values),
    st.builds(backend.ErrorResponse, fields),
    st.builds(backend.NoticeResponse, fields),
    st.builds(backend.FunctionCallResponse, value),
    st.builds(backend.NegotiateProtocolVersion, oid, st.lists(text, max_size=3).map(tuple)),
    st.builds(backend.NotificationResponse, oid, string, string),
    st.builds(backend.ParameterDescription, oids),
    st.builds(backend.ParameterStatus, text, text),
    st.builds(backend.ReadyForQuery, st.sampled_from(backend.TransactionStatus)),
    st.builds(backend.RowDescription, st.lists(column, max_size=4).map(tuple)),
    st.builds(copy.CopyInResponse, st.integers(0, 255), int16s),
    st.builds(copy.CopyOutResponse, st.integers(0, 255), int16s),
    st.builds(copy.CopyBothResponse, st.integers(0, 255), int16s),
    st.builds(copy.CopyData, raw),
    st.builds(copy.CopyDone),
]
MUTATIONS = st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=3)


def body_of(encoded: bytes) -> bytes:
    assert int.from_bytes(encoded[1:5], "big") == len(encoded) - 1
    return encoded[5:]


def mutate(body: bytes, mutations: list[tuple[int, bytes, int]]) -> bytes:
    for where, inserted, removed in mutations:
        at = where % (len(body) + 1)
        body = body[:at] + inserted + body[at + removed :]
    return body


def attempt(decode: Callable[[], Message]) -> Message | str:
    """The message, or the SQLSTATE of the ProtocolError; any other error is the test's failure."""
    try:
        return decode()
    except ProtocolError as error:
        return error.sqlstate


def concrete(cls: type[Message]) -> Iterator[type[Message]]:
    for child in cls.__subclasses__():
        # A slotted dataclass replaces its class: the one it replaced is still listed, and is not what the module has.
        if hasattr(child, "tag") and not child.__name__.startswith("_") and "__slots__" in vars(child):
            yield child
        yield from concrete(child)


def test_every_message_class_has_a_round_trip_here() -> None:
    tried = {strategy.wrapped_strategy.target.__name__ for strategy in FRONTEND + ANSWERS + BACKEND}  # type: ignore[attr-defined]
    assert {cls.__name__ for cls in concrete(Message)} == tried


@given(st.one_of(FRONTEND))
def test_frontend_messages_survive_the_round_trip(message: Message) -> None:
    assert decode_frontend(message.tag, body_of(message.encode())) == message


@given(st.one_of(BACKEND))
def test_backend_messages_survive_the_round_trip(message: Message) -> None:
    assert decode_backend(message.tag, body_of(message.encode())) == message


@given(st.one_of(ANSWERS))
def test_answers_to_authentication_survive_the_round_trip_by_their_own_class(message: Message) -> None:
    opaque = decode_frontend(message.tag, body_of(message.encode()))
    assert isinstance(opaque, authentication.AuthenticationResponse)
    assert type(message).decode(opaque.data) == message


@given(st.one_of(FRONTEND))
def test_a_memoryview_decodes_as_bytes_do(message: Message) -> None:
    assert decode_frontend(message.tag, memoryview(message.encode())[5:]) == message


@given(st.integers(0, 255), st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_the_protocol_error(tag: int, body: bytes) -> None:
    for decode in (decode_frontend, decode_backend):
        message = attempt(partial(decode, tag, body))
        assert message == "08P01" if isinstance(message, str) else message.tag == tag


@given(st.one_of(FRONTEND + BACKEND), MUTATIONS)
def test_mutated_messages_raise_nothing_but_the_protocol_error(
    message: Message, mutations: list[tuple[int, bytes, int]]
) -> None:
    mutated = mutate(body_of(message.encode()), mutations)
    for decode in (decode_frontend, decode_backend):
        again = attempt(partial(decode, message.tag, mutated))
        if isinstance(again, str):
            assert again == "08P01"
        else:
            assert decode(message.tag, body_of(again.encode())) == again


@given(st.one_of(ANSWERS), MUTATIONS)
def test_mutated_answers_raise_nothing_but_the_protocol_error(
    message: Message, mutations: list[tuple[int, bytes, int]]
) -> None:
    mutated = mutate(body_of(message.encode()), mutations)
    again = attempt(partial(type(message).decode, mutated))
    assert again == "08P01" if isinstance(again, str) else body_of(again.encode()) == mutated


@given(st.one_of(FRONTEND + BACKEND).filter(lambda m: not isinstance(m, OpaqueMessage)))
def test_a_byte_too_many_is_refused_where_the_body_has_an_end_of_its_own(message: Message) -> None:
    open_ended = (
        authentication.AuthenticationSASLContinue,
        authentication.AuthenticationSASLFinal,
        authentication.AuthenticationUnsupported,
        backend.BackendKeyData,
    )
    decode = decode_frontend if type(message).__module__ == frontend.__name__ else decode_backend
    if not isinstance(message, open_ended):
        with pytest.raises(ProtocolError):
            decode(message.tag, body_of(message.encode()) + b"!")


# What the protocol chapter's formats come to, byte by byte.
EXACT = [
    (frontend.Query(b"select 1"), b"Q\0\0\0\x0dselect 1\0"),
    (frontend.Parse(b"s", b"select $1", (23,)), b"P\0\0\0\x16s\0select $1\0\0\x01\0\0\0\x17"),
    (
        frontend.Bind(b"", b"s", (1,), (b"\0\0\0\x07", None), (0,)),
        b"B\0\0\0\x1d\0s\0\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\0\x01\0\0",
    ),
    (frontend.Describe("S", b"s"), b"D\0\0\0\x07Ss\0"),
    (frontend.Execute(b"", 10), b"E\0\0\0\x09\0\0\0\0\x0a"),
    (frontend.Close("P", b""), b"C\0\0\0\x06P\0"),
    (frontend.Sync(), b"S\0\0\0\x04"),
    (frontend.Terminate(), b"X\0\0\0\x04"),
    (frontend.FunctionCall(1598, (), (None,), 0), b"F\0\0\0\x12\0\0\x06\x3e\0\0\0\x01\xff\xff\xff\xff\0\0"),
    (authentication.PasswordMessage(b"pw"), b"p\0\0\0\x07pw\0"),
    (
        authentication.SASLInitialResponse("SCRAM-SHA-256", b"n,,"),
        b"p\0\0\0\x19SCRAM-SHA-256\0\0\0\0\x03n,,",
    ),
    (authentication.AuthenticationOk(), b"R\0\0\0\x08\0\0\0\0"),
    (authentication.AuthenticationMD5Password(b"salt"), b"R\0\0\0\x0c\0\0\0\x05salt"),
    (
        authentication.AuthenticationSASL(("SCRAM-SHA-256",)),
        b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0",
    ),
    (backend.BackendKeyData(258, b"key!"), b"K\0\0\0\x0c\0\0\x01\x02key!"),
    (backend.CommandComplete("INSERT 0 1"), b"C\0\0\0\x0fINSERT 0 1\0"),
    (backend.DataRow((b"1", None)), b"D\0\0\0\x0f\0\x02\0\0\0\x011\xff\xff\xff\xff"),
    (
        backend.ErrorResponse({"S": "ERROR", "C": "42601", "M": "no"}),
        b"E\0\0\0\x17SERROR\0C42601\0Mno\0\0",
    ),
    (
        backend.NegotiateProtocolVersion(0x30002, ("_pq_.x",)),
        b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0",
    ),
    (backend.NotificationResponse(1, b"c", b""), b"A\0\0\0\x0b\0\0\0\x01c\0\0"),
    (backend.ParameterStatus("TimeZone", "UTC"), b"S\0\0\0\x11TimeZone\0UTC\0"),
    (backend.ReadyForQuery(backend.TransactionStatus.IN_TRANSACTION), b"Z\0\0\0\x05T"),
    (
        backend.RowDescription((backend.Column(b"n", type=23, size=4),)),
        b"T\0\0\0\x1a\0\x01n\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0",
    ),
    (copy.CopyInResponse(0, (0, 0)), b"G\0\0\0\x0b\0\0\x02\0\0\0\0"),
]


@pytest.mark.parametrize(("message", "encoded"), EXACT, ids=lambda part: type(part).__name__)
def test_messages_are_the_bytes_that_the_protocol_chapter_says(message: Message, encoded: bytes) -> None:
    assert message.encode() == encoded


@pytest.mark.parametrize(
    ("tag", "body"),
    [
        pytest.param(b"B", b"\0\0\xff\xff", id="more formats than bytes"),
        pytest.param(b"B", b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0", id="a value longer than the message"),
        pytest.param(b"B", b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0", id="a negative length other than NULL's"),
        pytest.param(b"P", b"name", id="a name without an end"),
        pytest.param(b"D", b"Xname\0", id="neither statement nor portal"),
        pytest.param(b"S", b"\0", id="Sync with a body"),
        pytest.param(b"!", b"", id="unknown tag"),
    ],
)
def test_malformed_frontend_messages_are_refused(tag: bytes, body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_frontend(tag[0], body)
    assert caught.value.sqlstate == "08P01"


@pytest.mark.parametrize(
    ("tag", "body"),
    [
        pytest.param(b"Z", b"X", id="unknown transaction status"),
        pytest.param(b"K", b"\0\0\0\x01abc", id="cancel key too short"),
        pytest.param(b"K", b"\0\0\0\x01" + bytes(257), id="cancel key too long"),
        pytest.param(b"R", b"\0\0\0\x63", id="unknown authentication request"),
        pytest.param(b"R", b"\0\0\0\x05abc", id="salt too short"),
        pytest.param(b"v", b"\0\x03\0\0\xff\xff\xff\xff", id="more options than bytes"),
        pytest.param(b"T", b"\xff\xff", id="more columns than bytes"),
        pytest.param(b"E", b"SERROR", id="a field without an end"),
        pytest.param(b"E", b"SERROR\0", id="fields without an end"),
    ],
)
def test_malformed_backend_messages_are_refused(tag: bytes, body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_backend(tag[0], body)
    assert caught.value.sqlstate == "08P01"


def test_a_bind_with_as_many_parameters_as_the_count_can_say() -> None:
    bind = frontend.Bind(b"", b"", values=(None,) * 65_535)
    assert decode_frontend(bind.tag, body_of(bind.encode())) == bind


def test_a_nul_inside_a_string_is_never_sent() -> None:
    with pytest.raises(ValueError, match="NUL"):
        frontend.Parse(b"s", b"select 1\0; drop table t").encode()


def test_unsupported_authentication_is_named() -> None:
    message = decode_backend(ord("R"), b"\0\0\0\x07")
    assert isinstance(message, authentication.AuthenticationUnsupported)
    assert message.name == "GSSAPI"


def test_passwords_are_not_shown() -> None:
    assert "hunter2" not in repr(authentication.PasswordMessage(b"hunter2"))
    assert "hunter2" not in repr(authentication.AuthenticationResponse(b"hunter2\0"))
