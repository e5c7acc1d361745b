"""The extended protocol, first half: what a unit's messages refer to.

Resolving finds the statement and the flow of each message; it needs no link, and decides which one may be taken. The
session's names change here, in the messages' order, so that later messages see them; each step can undo its change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from heliosproxy.sql.statements import PREPARES
from heliosproxy.switch import bounds, local, loss, sql_prepared
from heliosproxy.switch.prepared import Prepared
from heliosproxy.switch.unit import Unit
from heliosproxy.wire import builders
from heliosproxy.wire.errors import ProtocolError, error_response
from heliosproxy.wire.messages_frontend import Bind

if TYPE_CHECKING:
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.planner import Parameters, Planner
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.sql_prepared import Wants

PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, FLUSH, SYNC, QUERY, FUNCTION_CALL = b"PBDECHSQF"


@dataclass(slots=True)
class Step:
    """A message with what it refers to."""

    tag: int
    message: bytes
    name: bytes = b""
    """The client's name of the statement."""
    prepared: Prepared | None = None
    flow: Flow | None = None
    undo: Callable[[], None] | None = None
    failed: Callable[[], None] | None = None
    """What an error in reply to it changes, where that is not what `undo` does."""
    error: bytes = b""
    """The ErrorResponse that it gets."""
    declares: tuple[bytes, Prepared] | None = None
    """The statement that its execution prepares by SQL."""
    also: tuple[Flow, ...] = ()
    """The flows of what its EXECUTE stands for."""
    wants: Wants = ()
    """What prepared statements its text names, and so the link must know."""
    wants_all: bool = False
    """It could not be read, and may name any."""
    describes: Prepared | None = None
    """The named statement whose rows it asks to be described, if its client does not know them yet."""

    @property
    def asks_server(self) -> bool:
        """Whether a server must see it. Sync and Flush alone need none; neither does closing a virtual statement."""
        if self.tag in (SYNC, FLUSH) or self.error:
            return False
        if self.tag == CLOSE and self.message[5:6] == b"S":
            return False
        return self.flow is None or not self.flow.answered


class Portal(NamedTuple):
    """What a portal was bound to, where the proxy must know it."""

    prepared: Prepared
    flow: Flow


def resolve(unit: Unit, session: Session, planner: Planner) -> None:
    """Turn the messages that came since the last call into steps."""
    if unit.failed:
        if unit.link is not None:
            unit.steps = []
        _wait_for_sync(unit)
        return
    if unit.steps and unit.steps[-1].tag == SYNC:
        return  # what follows is COPY data, which waits until the server asks for it
    excess = bounds.before_sync(session, unit)
    for message in unit.messages[len(unit.steps) :]:
        try:
            if excess:
                step = Step(message[0], message, error=excess)
            else:
                step = _RESOLVERS.get(message[0], _as_it_is)(unit, session, planner, message)
        except ProtocolError as error:  # its length was right, so what follows can be read: as in PostgreSQL, an ERROR
            step = _failed(message, error.sqlstate, error.message)
        unit.steps.append(step)
        for flow in (step.flow, *step.also):
            if flow is not None and flow not in unit.flows_seen:
                unit.flows_seen.add(flow)
                unit.flows.append(flow)
        if step.error:
            unit.failed = True
            _wait_for_sync(unit)
            break
        if step.tag == SYNC:
            break


def _wait_for_sync(unit: Unit) -> None:
    """After an error nothing counts until Sync."""
    if unit.complete and not (unit.steps and unit.steps[-1].tag == SYNC):
        unit.steps.append(Step(SYNC, builders.SYNC))


def _as_it_is(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    return Step(message[0], message)


def _parse(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    name, text, types = builders.split_parse(message[5:])
    before = session.prepared.get(name)
    if not name:
        session.prepared.pop(b"", None)  # as in PostgreSQL, also if the new one is refused
    elif before is not None and session.status == loss.FAILED:
        return Step(PARSE, message, error=loss.aborted())
    elif before is not None:
        return _failed(message, "42P05", f'prepared statement "{_shown(name)}" already exists')
    elif session.status != loss.FAILED and (error := bounds.statements(session, name, text)):
        return Step(PARSE, message, error=error)
    prepared = Prepared(text, types, planner.shape(session, text))
    flow = planner.flow(session, text, prepared.shape, prepared.own_types)
    step = Step(PARSE, message, name, prepared, flow)
    step.wants_all = flow.facts.kind == "unknown" and prepared.may_name(flow.facts)
    if flow.answered or flow.names_statements or _opens(session, flow):
        step = _special(session, planner, step, flow)
    if flow.grows and not step.error:
        step.error = bounds.settings(session, flow, unit.flows)
    if step.error:
        return step
    step.undo, step.failed = partial(_restore, session, name, before), partial(_restore, session, name, None)
    if unit.unsettled:
        prepared.private = True
        unit.late.append(prepared)
    session.prepared[name] = prepared
    return step


def _changes_settings(flow: Flow) -> bool:
    setting = flow.facts.setting
    return (setting is not None and setting.action != "show") or bool(flow.facts.parts) or flow.facts.unpins


def _bind(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    portal, name, _ = builders.split_bind(message[5:])
    step = _named(session, planner, Step(BIND, message, name), _bound(planner, message))
    session.portals.pop(portal, None)
    flow = step.flow
    if flow is not None and step.prepared is not None and (flow.answered or flow.matters):
        step.error = step.error or bounds.portals(session)
        session.portals[portal] = Portal(step.prepared, flow)
    return step


def _describe(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    kind, name = message[5:6], _only_name(message)
    if kind == b"S":
        step = _named(session, planner, Step(DESCRIBE, message, name))
        prepared = step.prepared if name else None
    else:
        portal = session.portals.get(name)
        step = Step(DESCRIBE, message, name, flow=portal.flow if portal is not None and portal.flow.answered else None)
        prepared = _bound_to(unit, name)
    if prepared is not None and not prepared.described:
        step.describes = prepared
    return step


NEARBY = 8
"""Messages back to which a Describe looks for the Bind of its portal."""


def _bound_to(unit: Unit, portal: bytes) -> Prepared | None:
    """The statement that a portal of this unit was bound to."""
    for step in reversed(unit.steps[-NEARBY:]):
        if step.tag == BIND and step.message[5 : 6 + len(portal)] == portal + b"\0":
            return step.prepared if step.name else None
    return None


def _execute(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    portal = session.portals.get(message[5 : message.index(0, 5)]) if session.portals and 0 in message[5:] else None
    if portal is None:
        return Step(EXECUTE, message)
    prepared, flow = portal
    unit.executed.append(flow)
    unit.unsettled = unit.unsettled or _changes_settings(flow)
    step = Step(EXECUTE, message, wants=sql_prepared.wants(session, flow.facts))
    if flow.grows:
        step.error = bounds.settings(session, flow, unit.executed) or bounds.savepoints(session, flow)
    if not flow.answered:
        step.also = (flow, *sql_prepared.stood_for(session, planner, flow))
    if flow.answered == "deallocate":
        step.undo = local.deallocate(session, flow.facts)
        if step.undo is None:
            step.error = local.unknown_statement(flow.facts.name.encode())
    elif flow.facts.kind == "prepare":
        _declare(unit, session, planner, step, prepared, flow)
    if flow.answered:
        step.flow = flow
    return step


def _declare(
    unit: Unit, session: Session, planner: Planner, step: Step, prepared: Prepared, flow: Flow
) -> None:
    """A PREPARE is about to be executed."""
    found = sql_prepared.prepare(session, planner, prepared.text, flow.facts)
    if found is None:
        session.keep_link(PREPARES)
        return
    step.error = step.error or bounds.statements(session, found[0], found[1].text)
    if found[0] not in session.prepared and not step.error:
        step.undo = partial(_restore, session, found[0], None)
        session.prepared[found[0]] = found[1]
        step.declares = found
        if unit.unsettled:
            unit.late.append(found[1])


def _close(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    name = _only_name(message)
    if message[5:6] == b"S":
        undo = partial(_restore, session, name, session.prepared.pop(name, None))
        return Step(CLOSE, message, name, undo=undo)
    portal = session.portals.pop(name, None)
    return Step(CLOSE, message, name, flow=portal.flow if portal is not None and portal.flow.answered else None)


def _bound(planner: Planner, message: bytes) -> Parameters:
    """The bound values in text form, None for NULL and for binary ones; read only where a plugin wants them."""
    if not planner.reads_parameters:
        return ()
    bind = Bind.decode(message[5:])
    formats = bind.formats
    if len(formats) != len(bind.values):
        formats = (formats[0] if formats else 0,) * len(bind.values)
    return tuple(
        None if value is None or binary else value.decode("utf-8", "replace")
        for value, binary in zip(bind.values, formats, strict=True)
    )


def _named(session: Session, planner: Planner, step: Step, parameters: Parameters = ()) -> Step:
    prepared = session.prepared.get(step.name)
    if prepared is None:
        return replace(step, error=local.unknown_statement(step.name))
    step.prepared = prepared
    flow = step.flow = planner.flow(session, prepared.text, prepared.shape, prepared.own_types, parameters)
    if prepared.sql:
        step.wants = ((step.name, prepared),)
    step.wants_all = flow.facts.kind == "unknown" and prepared.may_name(flow.facts)
    if flow.answered or prepared.private or _opens(session, flow):
        return _special(session, planner, step, flow)
    return step


def _special(session: Session, planner: Planner, step: Step, flow: Flow) -> Step:
    """A statement that is refused, that the proxy answers, or that names others."""
    refused = local.refused((flow,))
    if not refused and flow.answered and session.status == loss.FAILED:
        return replace(step, error=loss.aborted())
    if not refused and flow.names_statements:
        assert step.prepared is not None
        step.prepared.private = True
        step.error = sql_prepared.reserved(flow.facts)
        step.also = sql_prepared.stood_for(session, planner, flow)
        if flow.facts.executes:
            step.wants = sql_prepared.wants(session, flow.facts)
        refused = local.refused(step.also)
    if refused:
        step.error = refused
    elif _opens(session, flow):
        step.error = local.no_transactions()
    return step


def _opens(session: Session, flow: Flow) -> bool:
    """Whether it begins what pool mode statement has not: a transaction that does not end with it."""
    return session.mode == "statement" and flow.facts.opens_transaction


def _failed(message: bytes, sqlstate: str, text: str) -> Step:
    return Step(message[0], message, error=error_response("ERROR", sqlstate, text))


def _restore(session: Session, name: bytes, prepared: Prepared | None) -> None:
    if prepared is None:
        session.prepared.pop(name, None)
    else:
        session.prepared[name] = prepared


def _only_name(message: bytes) -> bytes:
    if len(message) < 6:
        raise ProtocolError("no data left in message")
    return builders.only_string(message, 6)


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _flush(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    if len(message) > len(builders.SYNC):
        raise ProtocolError("invalid message format")
    return Step(FLUSH, message)


def _sync(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    if len(message) > len(builders.SYNC):  # it counts all the same
        return Step(FLUSH, message, error=error_response("ERROR", "08P01", "invalid message format"))
    return Step(SYNC, message)


def _query(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    text = builders.only_string(message, 5)
    flow = planner.flow(session, text, planner.shape(session, text))
    return Step(QUERY, message, flow=flow, error=local.refused((flow,)))


def _function_call(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    return Step(FUNCTION_CALL, message, flow=planner.function_call)


_RESOLVERS = {
    QUERY: _query,
    FUNCTION_CALL: _function_call,
    PARSE: _parse,
    BIND: _bind,
    DESCRIBE: _describe,
    EXECUTE: _execute,
    CLOSE: _close,
    FLUSH: _flush,
    SYNC: _sync,
}
