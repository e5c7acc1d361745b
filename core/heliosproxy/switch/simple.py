"""The simple protocol: a Query, or a FunctionCall, and the COPY data that may follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliosproxy.switch import local
from heliosproxy.switch.loss import IDLE
from heliosproxy.switch.session import FUNCTION_CALL
from heliosproxy.switch.unit import EXECUTED, Expect, Unit
from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError

if TYPE_CHECKING:
    from heliosproxy.switch.planner import Planner
    from heliosproxy.switch.session import Session

UNPARSABLE = b"!"
"""A text that PostgreSQL always refuses: it takes the server's transaction to where an error takes it."""


def plan(unit: Unit, session: Session, planner: Planner) -> bool:
    """Find the unit's flow; whether a server must see it. Raises PeerError for a message that is none."""
    message = unit.messages[0]
    if message[0] == FUNCTION_CALL:
        unit.flow = planner.function_call
        return True
    if message.find(0, 5) != len(message) - 1:
        raise PeerError("a Query message's text must end where the message does", "08P01")
    text = message[5:-1]
    unit.flow = planner.flow(session, text, planner.shape(session, text))
    if local.deallocates(session, unit.flow):
        return False
    return not unit.flow.answered or (unit.flow.answered == "reject" and session.status != IDLE)


def translate(unit: Unit, planner: Planner) -> None:
    """Write the unit, or the COPY data that was added to one that is under way, into its `body`."""
    flow = unit.flow
    assert flow is not None
    if unit.link is not None:
        unit.body += unit.messages
        unit.let_go()
    elif flow.verdict.reject is not None:
        unit.body.append(builders.query(UNPARSABLE))
        unit.expect(Expect(EXECUTED, error=local.refusal(flow.verdict.reject)))
    else:
        unit.body.append(_sent(unit.messages[0], unit, planner))


def _sent(message: bytes, unit: Unit, planner: Planner) -> bytes:
    if message[0] == FUNCTION_CALL or unit.flow is None:
        return message
    text = message[5:-1]
    sent = planner.sent_text(unit.flow, text)
    return message if sent is text else builders.query(sent)
