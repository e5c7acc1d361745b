"""What an adversarial review of the way in has found in the switch."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from heliosproxy.wire.errors import error_response
from tests.switch.stage import IDLE, Stage

CANCELED = error_response("ERROR", "57014", "canceling statement due to user request")


def test_statement_timeout_strikes_in_time_after_it_has_struck_before(stage: Callable[..., Stage]) -> None:
    play = stage(statement_timeout=0.2)
    alice = play.client()
    alice.asks("select 1")
    play.switch.tick(monotonic() + 0.3)
    [(_, arrived)] = play.cancels
    arrived()
    play.server().answers(CANCELED + IDLE)
    alice.asks("select 2")
    play.switch.tick(monotonic() + 0.5)
    assert len(play.cancels) == 2
