"""COPY data where none belongs, and other messages where COPY data does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from heliosproxy.wire import builders
from tests.switch.stage import IDLE, ONE_ROW, Stage, run, server_error, sqlstate, tags

MakeStage = Callable[..., Stage]


def test_stray_copy_data_behind_a_unit_that_fails_does_not_swallow_the_next_one(stage: MakeStage) -> None:
    play = stage(nodes=("primary",))
    client = play.client()
    client.says(builders.parse(b"", b"select 1"), run(), builders.parse(b"", b"selectt"), builders.SYNC)
    client.says(b"d\0\0\0\6xy", builders.SYNC)
    answer = builders.PARSE_COMPLETE + builders.BIND_COMPLETE + builders.command_complete("SELECT 0")
    play.server().answers(answer + server_error("42601") + IDLE)
    assert tags(client.hears()) == "12CEZZ"
    assert not client.session.units


def test_stray_copy_data_behind_a_unit_that_fails_in_its_second_part_asks_the_server_nothing_more(
    stage: MakeStage,
) -> None:
    play = stage(nodes=("primary",))
    client = play.client()
    flush = b"H\0\0\0\4"
    client.says(builders.parse(b"", b"select 1"), run(), flush)
    play.server().takes()
    client.says(builders.describe_statement(b"nowhere"), builders.SYNC)
    assert tags(play.server().takes())[-1] == "S"
    client.says(b"d\0\0\0\6xy", builders.SYNC)
    assert play.server().takes() == b""


@pytest.mark.parametrize("at_once", [True, False])
def test_a_query_in_a_copy_that_the_server_has_given_up_ends_its_client_and_blames_nobody_else(
    stage: MakeStage, caplog: pytest.LogCaptureFixture, at_once: bool
) -> None:
    play = stage(nodes=("primary",))
    client = play.client()
    client.asks("copy t from stdin")
    play.server().answers(b"G\0\0\0\7\0\0\0")
    client.says(b"d\0\0\0\6xy")
    client.asks("select 1")
    play.server().takes()
    client.hears()
    pieces = [server_error("22P04") + IDLE, ONE_ROW + IDLE]
    for piece in [b"".join(pieces)] if at_once else pieces:
        play.server().answers(piece)
    heard = client.hears()
    assert tags(heard) == "EZE"
    assert (sqlstate(heard), sqlstate(heard[heard.index(IDLE) :])) == ("22P04", "08P01")
    assert client.closed
    assert play.server().closed
    assert play.cluster.nodes[0].in_flight == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
