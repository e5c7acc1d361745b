"""The simple protocol: a Query, or a FunctionCall, and the COPY data that may follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliosproxy.sql.statements import PREPARES
from heliosproxy.switch import bounds, local, sql_prepared
from heliosproxy.switch.loss import FAILED, IDLE, flows_of
from heliosproxy.switch.prepared import may_name
from heliosproxy.switch.session import FUNCTION_CALL
from heliosproxy.switch.settings import reading_changes
from heliosproxy.switch.sql_prepared import Need
from heliosproxy.switch.unit import EXECUTED, Expect, Unit
from heliosproxy.wire import builders
from heliosproxy.wire.errors import ProtocolError

if TYPE_CHECKING:
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.planner import Planner
    from heliosproxy.switch.session import Session

UNPARSABLE = b"!"
"""A text that PostgreSQL always refuses: it takes the server's transaction to where an error takes it."""


def plan(unit: Unit, session: Session, planner: Planner) -> bool:
    """Find the unit's flow; whether a server must see it."""
    message = unit.messages[0]
    if message[0] == FUNCTION_CALL:
        unit.flow = planner.function_call
        return True
    try:
        text = builders.only_string(message)
    except ProtocolError as error:
        unit.flow, unit.error = planner.function_call, error.response()
        return session.status != IDLE
    session.prepared.pop(b"", None)  # as in PostgreSQL, whatever becomes of the Query
    flow = unit.flow = planner.flow(session, text, planner.shape(session, text))
    if flow.verdict.reject is not None:
        unit.error = local.refusal(flow.verdict.reject)
    elif session.mode == "statement" and flow.facts.opens_transaction:
        unit.error = local.no_transactions()
    elif session.status == FAILED:
        unit.wants = sql_prepared.wants(session, flow.facts) if flow.facts.parts else ()
        return not flow.answered or flow.answered == "deallocate"
    elif flow.grows and (excess := bounds.settings(session, flow) or bounds.savepoints(session, flow)):
        unit.error = excess
    elif may_name(flow.facts, text):
        unit.wants_all = True
    elif flow.names_statements:
        _name_statements(unit, session, planner, flow, text)
    if unit.error:
        return session.status != IDLE
    return not flow.answered or (flow.answered == "deallocate" and PREPARES in session.pins)


def _name_statements(unit: Unit, session: Session, planner: Planner, flow: Flow, text: bytes) -> None:
    """The text names prepared statements: what it needs of its link, and what it changes in the session."""
    facts = flow.facts
    unit.wants = sql_prepared.wants(session, facts)
    unit.flows = [flow, *sql_prepared.stood_for(session, planner, flow)]
    refused = local.refused(unit.flows)
    unit.error = refused or sql_prepared.reserved(facts)
    if refused:
        return
    if facts.kind == "deallocate" and PREPARES not in session.pins:
        if local.deallocate(session, facts) is None:
            unit.error = local.unknown_statement(facts.name.encode())
    elif facts.kind == "prepare" and not unit.error:
        unit.error = bounds.statements(session, facts.name.encode(), text)
        unit.declares = sql_prepared.prepare(session, planner, text, facts)
        if unit.declares is None:
            session.keep_link(PREPARES)


def translate(unit: Unit, session: Session, link: Link, planner: Planner) -> None:
    """Write the unit, or the COPY data that was added to one that is under way, into its `body`. What the link must
    know first is sent ahead."""
    if unit.link is not None:
        unit.body += unit.messages
        unit.let_go()
    elif unit.error:
        unit.body.append(builders.query(UNPARSABLE))
        unit.expect(Expect(EXECUTED, error=unit.error))
    else:
        wanted = sql_prepared.all_wants(session, link, unit.wants, flows_of(unit), unread=unit.wants_all)
        for need in sql_prepared.needs(session, link, wanted) if wanted else ():
            _teach(unit, session, link, need)
        unit.body.append(_sent(unit.messages[0], unit, planner))


def _teach(unit: Unit, session: Session, link: Link, need: Need) -> None:
    """Make the link forget or learn a statement ahead of the unit, under the settings under which it was prepared."""
    name, prepared = need.name, need.prepared
    then = prepared.named_under if prepared is not None else None
    before, after = reading_changes(session.settings, then) if then is not None else ("", "")

    def learned(done: Unit) -> None:
        if done.sqlstate:
            link.declared.pop(name, None)
            unit.stand_in = unit.stand_in or unit.told_as(done.sqlstate, done.problem_response)

    def changed(done: Unit) -> None:
        if done.sqlstate:  # what was prepared then means something else
            link.declared.pop(name, None)
            link.dirt = 2

    if need.forget:
        link.run_messages(builders.close_statement(name))
    if before:
        link.run(before, changed)
    if prepared is not None and prepared.sql:
        link.run(prepared.sql.decode("utf-8", "surrogateescape"), learned)
    elif prepared is not None:
        message = builders.join_two(ord("P"), name, prepared.sent or prepared.text, prepared.types)
        link.run_messages(message, on_done=learned)
    if before:
        link.run(after, changed)


def _sent(message: bytes, unit: Unit, planner: Planner) -> bytes:
    if message[0] == FUNCTION_CALL or unit.flow is None:
        return message
    text = message[5:-1]
    sent = planner.sent_text(unit.flow, text)
    return message if sent is text else builders.query(sent)
