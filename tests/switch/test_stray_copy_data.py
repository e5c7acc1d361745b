"""CopyData that nobody asked for."""

from __future__ import annotations

from collections.abc import Callable

from heliosproxy.wire import builders
from tests.switch.stage import IDLE, Stage, run, server_error, tags

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
