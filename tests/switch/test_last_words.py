"""What ends a session in the middle of a row says nothing: it would be read as the row."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from heliosproxy.wire import builders
from tests.switch.stage import IDLE, Server, Speaker, Stage

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
