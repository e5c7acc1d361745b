"""What ends a session in the middle of a row says nothing: it would be read as the row."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from heliosproxy.wire import builders
from tests.switch.stage import IDLE, IN_TRANSACTION, Server, Speaker, Stage, bind, run, tags

MakeStage = Callable[..., Stage]
HEAD = builders.row_description_text(["n"])
ROW = builders.data_row_text(["x" * 100])


def the_server_dies(play: Stage, server: Server, client: Speaker) -> None:
    server.dies()


def the_proxy_stops(play: Stage, server: Server, client: Speaker) -> None:
    play.switch.shut_down(everyone=True)


def the_client_sends_junk(play: Stage, server: Server, client: Speaker) -> None:
    client.says(b"?\0\0\0\4")
    server.dies()


@pytest.mark.parametrize("ends", [the_server_dies, the_proxy_stops, the_client_sends_junk])
def test_nothing_is_said_in_the_middle_of_a_row(
    stage: MakeStage, ends: Callable[[Stage, Server, Speaker], None]
) -> None:
    play = stage(nodes=("primary",))
    client = play.client()
    client.asks("select n from t")
    play.server().answers(HEAD + ROW[:50])
    ends(play, play.server(), client)
    assert client.heard == HEAD + ROW[:50]
    assert client.closed


def test_between_two_rows_it_is_told_what_has_happened(stage: MakeStage) -> None:
    play = stage(nodes=("primary",))
    client = play.client()
    client.asks("select n from t")
    play.server().answers(HEAD + ROW[:50])
    play.server().answers(ROW[50:])
    play.server().dies()
    assert client.heard.startswith(HEAD + ROW + b"E")
    assert client.heard.endswith(IDLE)
    assert not client.closed


@pytest.mark.parametrize("malformed", [bind(b"nowhere"), b"B\0\0\0\5x"])
def test_in_a_transaction_whose_link_died_what_is_wrong_is_an_error(stage: MakeStage, malformed: bytes) -> None:
    play = stage(nodes=("primary",))
    client = play.client()
    client.asks("begin")
    play.server().answers(builders.command_complete("BEGIN") + IN_TRANSACTION)
    play.server().dies()
    client.hears()
    client.says(malformed, builders.SYNC)
    assert tags(client.hears()) == "EZ"
    client.says(builders.parse(b"", b"rollback"), run(), malformed, builders.SYNC)
    assert client.hears().endswith(IDLE)
    client.asks("select n from t")
    assert tags(play.server(1).takes()) == "Q"
