"""The builders make what the message classes make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.wire import builders
from heliosproxy.wire import messages_backend as backend
from heliosproxy.wire import messages_frontend as frontend
from heliosproxy.wire.errors import ProtocolError
from heliosproxy.wire.messages_authentication import AuthenticationOk

BUILT = [
    (builders.SYNC, frontend.Sync()),
    (builders.FLUSH, frontend.Flush()),
    (builders.TERMINATE, frontend.Terminate()),
    (builders.PARSE_COMPLETE, backend.ParseComplete()),
    (builders.BIND_COMPLETE, backend.BindComplete()),
    (builders.CLOSE_COMPLETE, backend.CloseComplete()),
    (builders.NO_DATA, backend.NoData()),
    (builders.EMPTY_QUERY_RESPONSE, backend.EmptyQueryResponse()),
    (builders.AUTHENTICATION_OK, AuthenticationOk()),
    (builders.ready_for_query(ord("I")), backend.ReadyForQuery(backend.TransactionStatus.IDLE)),
    (builders.command_complete("SET"), backend.CommandComplete("SET")),
    (builders.parameter_status("a", "b"), backend.ParameterStatus("a", "b")),
    (builders.backend_key_data(2**32 - 1, b"12345678"), backend.BackendKeyData(2**32 - 1, b"12345678")),
    (builders.parameter_description((23, 25)), backend.ParameterDescription((23, 25))),
    (
        builders.row_description_text(["a", "ü"]),
        backend.RowDescription((backend.Column(b"a"), backend.Column("ü".encode()))),
    ),
    (builders.data_row_text(["a", None, b"\xff", ""]), backend.DataRow((b"a", None, b"\xff", b""))),
    (builders.query(b"select 1"), frontend.Query(b"select 1")),
    (builders.parse(b"s", b"select $1", (23,)), frontend.Parse(b"s", b"select $1", (23,))),
    (builders.describe_statement(b"s"), frontend.Describe("S", b"s")),
    (builders.execute(b"p", 5), frontend.Execute(b"p", 5)),
    (builders.close_statement(b"s"), frontend.Close("S", b"s")),
    (builders.close_portal(b"p"), frontend.Close("P", b"p")),
]


@pytest.mark.parametrize(("built", "message"), BUILT, ids=lambda part: type(part).__name__)
def test_builders_agree_with_the_messages(
    built: bytes, message: frontend.FrontendMessage | backend.BackendMessage
) -> None:
    assert built == message.encode()


@pytest.mark.parametrize("build", [builders.query, builders.close_statement, builders.describe_statement])
def test_a_nul_never_gets_into_a_string(build: object) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match="NUL"):
        build(b"select 1\0Q")


def test_a_bind_is_given_another_statement_without_reading_its_values() -> None:
    bind = frontend.Bind(b"p", b"mine", (1,), (b"\0\1", None), (1,))
    portal, statement, rest = builders.split_bind(bind.body())
    assert (portal, statement) == (b"p", b"mine")
    renamed = builders.join_two(frontend.Bind.tag, portal, b"theirs", rest)
    assert renamed == frontend.Bind(b"p", b"theirs", (1,), (b"\0\1", None), (1,)).encode()


def test_a_parse_is_split_into_name_query_and_types() -> None:
    assert builders.split_parse(b"s\0select $1\0\0\1\0\0\0\x17") == (b"s", b"select $1", b"\0\1\0\0\0\x17")


@given(st.binary(max_size=30))
def test_splitting_random_bytes_loses_nothing_or_is_the_protocol_error(body: bytes) -> None:
    try:
        first, second, rest = builders.split_parse(body)
    except ProtocolError:
        assert body.count(0) < 2
    else:
        assert builders.join_two(ord("P"), first, second, rest)[5:] == body
