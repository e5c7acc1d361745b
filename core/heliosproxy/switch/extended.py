"""The extended protocol: what a unit's messages refer to, and what a link is sent for them.

Resolving finds the statement and the flow of each message; it needs no link, and decides which one may be taken.
Translating writes the messages for a link: names become the link's, a statement that the link does not know is
prepared on the way, and what the proxy answers itself is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from heliosproxy.switch import local
from heliosproxy.switch.prepared import Prepared, StatementNames
from heliosproxy.switch.simple import UNPARSABLE
from heliosproxy.switch.unit import (
    BIND_COMPLETE,
    CLOSE_COMPLETE,
    DESCRIBED,
    EXECUTED,
    NEVER,
    PARSE_COMPLETE,
    READY,
    Expect,
    Unit,
)
from heliosproxy.wire import builders
from heliosproxy.wire.errors import ProtocolError, error_response
from heliosproxy.wire.messages_frontend import Bind

if TYPE_CHECKING:
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.planner import Parameters, Planner
    from heliosproxy.switch.session import Session

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
    error: bytes = b""
    """The ErrorResponse that it gets."""

    @property
    def asks_server(self) -> bool:
        """Whether a server must see it. Sync and Flush alone need none; neither does closing a virtual statement."""
        if self.tag in (SYNC, FLUSH) or self.error:
            return False
        if self.tag == CLOSE and self.message[5:6] == b"S":
            return False
        return self.flow is None or not self.flow.answered


def resolve(unit: Unit, session: Session, planner: Planner) -> None:
    """Turn the messages that came since the last call into steps. The session's names change here, so that later
    messages see them; each step can undo its change."""
    if unit.failed:
        unit.steps = [Step(SYNC, builders.SYNC)] if unit.complete else []
        return
    if unit.steps and unit.steps[-1].tag == SYNC:
        return  # what follows is COPY data, which waits until the server asks for it
    for message in unit.messages[len(unit.steps) :]:
        try:
            step = _RESOLVERS.get(message[0], _as_it_is)(unit, session, planner, message)
        except ProtocolError as error:  # its length was right, so what follows can be read: as in PostgreSQL, an ERROR
            step = _failed(message, error.sqlstate, error.message)
        unit.steps.append(step)
        if step.flow is not None and step.flow not in unit.flows:
            unit.flows.append(step.flow)
        if step.error:
            _skip_to_sync(unit)
            break
        if step.tag == SYNC:
            break


def _skip_to_sync(unit: Unit) -> None:
    """After an error nothing counts until Sync."""
    unit.failed = True
    if unit.complete:
        unit.steps.append(Step(SYNC, builders.SYNC))


def _as_it_is(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    return Step(message[0], message)


def _parse(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    name, text, types = builders.split_parse(message[5:])
    if name and name in session.prepared:
        return _failed(message, "42P05", f'prepared statement "{_shown(name)}" already exists')
    prepared = Prepared(text, types, planner.shape(session, text))
    step = Step(PARSE, message, name, prepared, planner.flow(session, text, prepared.shape, prepared.own_types))
    if refused := _refused(step):
        return refused
    step.undo = partial(_restore, session, name, session.prepared.get(name))
    session.prepared[name] = prepared
    return step


def _bind(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    portal, name, _ = builders.split_bind(message[5:])
    step = _named(session, planner, Step(BIND, message, name), _bound(planner, message))
    if step.flow is not None and step.flow.answered:
        unit.portals = {**(unit.portals or {}), portal: step.flow}
    elif unit.portals:
        unit.portals.pop(portal, None)
    return step


def _describe(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    kind, name = message[5:6], _only_name(message)
    if kind == b"S":
        return _named(session, planner, Step(DESCRIBE, message, name))
    return Step(DESCRIBE, message, name, flow=(unit.portals or {}).get(name))


def _execute(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    portal = message[5 : message.index(0, 5)] if 0 in message[5:] else b""
    return Step(EXECUTE, message, flow=(unit.portals or {}).get(portal))


def _close(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    name = _only_name(message)
    if message[5:6] == b"S":
        undo = partial(_restore, session, name, session.prepared.pop(name, None))
        return Step(CLOSE, message, name, undo=undo)
    return Step(CLOSE, message, name, flow=(unit.portals or {}).pop(name, None))


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
        what = f'prepared statement "{_shown(step.name)}"' if step.name else "unnamed prepared statement"
        return _failed(step.message, "26000", f"{what} does not exist")
    step.prepared = prepared
    step.flow = planner.flow(session, prepared.text, prepared.shape, prepared.own_types, parameters)
    return _refused(step) or step


def _refused(step: Step) -> Step | None:
    flow = step.flow
    if flow is None or flow.verdict.reject is None:
        return None
    return Step(step.tag, step.message, step.name, step.prepared, flow, error=local.refusal(flow.verdict.reject))


def _failed(message: bytes, sqlstate: str, text: str) -> Step:
    return Step(message[0], message, error=error_response("ERROR", sqlstate, text))


def _restore(session: Session, name: bytes, prepared: Prepared | None) -> None:
    if prepared is None:
        session.prepared.pop(name, None)
    else:
        session.prepared[name] = prepared


def _only_name(message: bytes) -> bytes:
    if len(message) < 7 or message.find(0, 6) != len(message) - 1:
        raise ProtocolError(f"malformed {chr(message[0])!r} message")
    return message[6:-1]


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _query(unit: Unit, session: Session, planner: Planner, message: bytes) -> Step:
    text = message[5:-1]
    step = Step(QUERY, message, flow=planner.flow(session, text, planner.shape(session, text)))
    return _refused(step) or step


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
}


# --- translating ---------------------------------------------------------------------------------------------------


class Translator:
    """Writes steps for links. One for the whole switch; `limit` is the statements kept on a link."""

    def __init__(self, names: StatementNames, planner: Planner, limit: int) -> None:
        self._names = names
        self._planner = planner
        self._limit = limit

    def translate(self, unit: Unit, session: Session, link: Link | None) -> None:
        """Write the unit's resolved steps into its `body` and `expected`; without a link, if no server is needed."""
        plain = unit.restartable and unit.complete and _plain(unit.steps, link)
        for step in unit.steps:
            if step.error:
                self._fail(unit, link, step.error)
            elif step.tag == SYNC:
                self._pass(unit, step, READY)
            elif step.flow is not None and step.flow.answered:
                self._answer(unit, session, step, step.flow)
            elif link is not None:
                self._write(unit, session, link, step)
            elif step.tag == CLOSE:
                unit.expect(Expect(NEVER, builders.CLOSE_COMPLETE, undo=step.undo))
        if plain:
            unit.expected = None

    def _pass(self, unit: Unit, step: Step, ends: frozenset[int]) -> None:
        unit.body.append(step.message)
        unit.expect(Expect(ends))

    def _write(self, unit: Unit, session: Session, link: Link, step: Step) -> None:
        if step.tag == PARSE:
            self._parse(unit, session, link, step)
        elif step.tag == BIND:
            self._know(unit, session, link, step)
            unit.body.append(self._renamed_bind(step))
            unit.expect(Expect(BIND_COMPLETE))
        elif step.tag == DESCRIBE:
            if step.prepared is not None:
                self._know(unit, session, link, step)
            unit.body.append(self._renamed_describe(step))
            unit.expect(Expect(DESCRIBED))
        elif step.tag == EXECUTE:
            self._pass(unit, step, EXECUTED)
        elif step.tag in (QUERY, FUNCTION_CALL):
            self._pass(unit, step, READY)
        elif step.tag == CLOSE and step.message[5:6] == b"S":
            unit.expect(Expect(NEVER, builders.CLOSE_COMPLETE, undo=step.undo))
        elif step.tag == CLOSE:
            self._pass(unit, step, CLOSE_COMPLETE)
        else:  # Flush, CopyData and its kin: no reply of their own
            unit.body.append(step.message)

    def _parse(self, unit: Unit, session: Session, link: Link, step: Step) -> None:
        prepared = step.prepared
        assert prepared is not None
        self._name(session, step)
        if not step.name:
            link.unnamed = prepared
            unit.body.append(builders.join_two(PARSE, b"", prepared.sent, prepared.types))
            unit.expect(Expect(PARSE_COMPLETE, undo=step.undo))
        elif prepared.server_name in link.prepared:
            link.prepared.move_to_end(prepared.server_name)
            unit.expect(Expect(NEVER, builders.PARSE_COMPLETE, undo=step.undo))
        else:
            self._prepare(unit, link, prepared, step.undo, swallow=False)

    def _name(self, session: Session, step: Step) -> None:
        """Decide what the nodes are told of a statement: its text and, if the client named it, its name there."""
        prepared, flow = step.prepared, step.flow
        assert prepared is not None
        assert flow is not None
        sent = self._planner.sent_text(flow, prepared.text)
        if sent != prepared.sent or prepared.named_under is not session.settings:
            again = prepared.named_under is not None and prepared.named_under.meaning == session.settings.meaning
            if step.name and (sent != prepared.sent or not again):
                meaning = (session.settings.meaning, session.salt)
                prepared.server_name = self._names.name(sent, prepared.types, meaning)
            prepared.sent, prepared.named_under = sent, session.settings

    def _know(self, unit: Unit, session: Session, link: Link, step: Step) -> None:
        """Make sure that the link knows the statement."""
        prepared = step.prepared
        assert prepared is not None
        self._name(session, step)
        if not step.name:
            if link.unnamed is not prepared:
                link.unnamed = prepared
                unit.body.append(builders.join_two(PARSE, b"", prepared.sent, prepared.types))
                unit.expect(Expect(PARSE_COMPLETE, swallow=True))
        elif prepared.server_name in link.prepared:
            link.prepared.move_to_end(prepared.server_name)
            unit.names.append(prepared.server_name)
        else:
            self._prepare(unit, link, prepared, None, swallow=True)

    def _prepare(
        self, unit: Unit, link: Link, prepared: Prepared, undo: Callable[[], None] | None, *, swallow: bool
    ) -> None:
        name = prepared.server_name
        while link.stale:
            self._close(unit, link, link.stale.pop(), None)
        if len(link.prepared) >= self._limit:
            self._close(unit, link, *link.prepared.popitem(last=False))
        unit.names.append(name)
        link.prepared[name] = prepared
        unit.body.append(builders.join_two(PARSE, name, prepared.sent, prepared.types))

        def forget() -> None:
            link.prepared.pop(name, None)
            if undo:
                undo()

        unit.expect(Expect(PARSE_COMPLETE, swallow=swallow, undo=forget))

    def _close(self, unit: Unit, link: Link, name: bytes, prepared: Prepared | None) -> None:
        """Close a statement on the link; an error before it makes the server skip that."""

        def keep() -> None:
            if prepared is None:
                link.stale.append(name)
            else:
                link.prepared[name] = prepared
                link.prepared.move_to_end(name, last=False)

        unit.body.append(builders.close_statement(name))
        unit.expect(Expect(CLOSE_COMPLETE, swallow=True, undo=keep))

    def _renamed_bind(self, step: Step) -> bytes:
        assert step.prepared is not None
        if not step.name:
            return step.message
        portal, _, rest = builders.split_bind(step.message[5:])
        return builders.join_two(BIND, portal, step.prepared.server_name, rest)

    def _renamed_describe(self, step: Step) -> bytes:
        if step.prepared is None or not step.name:
            return step.message
        return builders.describe_statement(step.prepared.server_name)

    def _answer(self, unit: Unit, session: Session, step: Step, flow: Flow) -> None:
        replies: dict[int, Callable[[], bytes]] = {
            PARSE: lambda: builders.PARSE_COMPLETE,
            BIND: lambda: builders.BIND_COMPLETE,
            CLOSE: lambda: builders.CLOSE_COMPLETE,
            DESCRIBE: partial(_described, step, flow),
            EXECUTE: partial(local.execution, session, flow),
            QUERY: partial(local.simple, session, flow),
        }
        unit.expect(Expect(NEVER, replies[step.tag], undo=step.undo))
        if step.tag == QUERY:
            unit.body.append(builders.SYNC)
            unit.expect(Expect(READY))

    def _fail(self, unit: Unit, link: Link | None, error: bytes) -> None:
        """The unit fails here. A server that is in the middle of it must fail too."""
        if link is None:
            unit.expect(Expect(NEVER, error))
        else:
            link.unnamed = None
            unit.body.append(builders.parse(b"", UNPARSABLE))
            unit.expect(Expect(PARSE_COMPLETE, error=error))


def _plain(steps: list[Step], link: Link | None) -> bool:
    """Whether the replies are passed on as they are: nothing need be expected."""
    if link is None or link.stale:
        return False
    unnamed = link.unnamed
    for step in steps:
        if step.tag in (QUERY, FUNCTION_CALL) or step.error or (step.flow is not None and step.flow.answered):
            return False
        if step.prepared is None:
            if step.tag == CLOSE and step.message[5:6] == b"S":
                return False
        elif not step.name:
            if step.tag == PARSE:
                unnamed = step.prepared
            elif unnamed is not step.prepared:
                return False
        elif step.tag == PARSE or step.prepared.server_name not in link.prepared:
            return False
    return True


def _described(step: Step, flow: Flow) -> bytes:
    of_statement = step.message[5:6] == b"S"
    return (builders.parameter_description(()) if of_statement else b"") + local.description(flow)
