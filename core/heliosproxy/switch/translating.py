"""The extended protocol, second half: what a link is sent for a unit's steps.

Names become the link's, a statement that the link does not know is prepared on the way, and what the proxy answers
itself is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from heliosproxy.switch import local, sql_prepared
from heliosproxy.switch.loss import FAILED
from heliosproxy.switch.prepared import Prepared, StatementNames, row_type
from heliosproxy.switch.resolving import (
    BIND,
    CLOSE,
    DESCRIBE,
    EXECUTE,
    FUNCTION_CALL,
    PARSE,
    QUERY,
    SYNC,
    Step,
)
from heliosproxy.switch.settings import reading_changes
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
from heliosproxy.wire.framing import first_message

if TYPE_CHECKING:
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.planner import Planner
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.sql_prepared import Need

OWN = b"helios:"
"""Names the statement and the portal by which the proxy runs SQL of its own within a client's unit."""


class Translator:
    """Writes steps for links. One for the whole switch."""

    def __init__(self, names: StatementNames, planner: Planner) -> None:
        self._names = names
        self._planner = planner

    def translate(self, unit: Unit, session: Session, link: Link | None) -> None:
        """Write the unit's resolved steps into its `body` and `expected`; without a link, if no server is needed."""
        if link is not None and unit.restartable and unit.complete and _plain(unit.steps, link):
            self._write_plainly(unit, session, link)
            return
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

    def _write_plainly(self, unit: Unit, session: Session, link: Link) -> None:
        """Every reply is the client's, as it comes: nothing is expected."""
        for step in unit.steps:
            prepared = step.prepared
            if prepared is None or step.tag == EXECUTE:
                unit.body.append(step.message)
            elif step.name:
                link.prepared.move_to_end(prepared.server_name)
                unit.names[prepared.server_name] = step.name
                unit.body.append(_renamed_bind(step) if step.tag == BIND else _renamed_describe(step))
            elif step.tag == PARSE and step.flow is not None:
                self._name(session, step, step.flow)
                link.unnamed = prepared
                unit.body.append(builders.join_two(PARSE, b"", prepared.sent, prepared.types))
            else:
                unit.body.append(step.message)

    def _pass(self, unit: Unit, step: Step, ends: frozenset[int]) -> None:
        unit.body.append(step.message)
        unit.expect(Expect(ends))

    def unsure(self, unit: Unit, session: Session, link: Link) -> list[Prepared]:
        """Named statements that the link must learn, and that cannot simply be sent ahead: whose rows the client knows,
        since those may have changed, or whose literals would read differently under the settings of now."""
        found: list[Prepared] = []
        fresh: set[Prepared] = set()
        for step in unit.steps:
            prepared = step.prepared
            if prepared is None or not step.name or prepared.server_name in link.prepared:
                continue
            if step.tag == PARSE:
                fresh.add(prepared)
            elif prepared not in fresh and prepared not in found and self._is_unsure(session, link, step, prepared):
                found.append(prepared)
        return found

    def _is_unsure(self, session: Session, link: Link, step: Step, prepared: Prepared) -> bool:
        if step.flow is None or prepared.sql or session.status == FAILED:
            return False
        self._name(session, step, step.flow)
        if prepared.server_name in link.prepared or prepared.named_under is None:
            return False
        return bool(prepared.described) or prepared.named_under.reading != session.settings.reading

    def examine(self, link: Link, prepared: Prepared, done: Callable[[Unit, bool], None]) -> None:
        """Prepare the statement on the link, under the settings under which its client has parsed it, and see whether
        its rows are still those that the client knows. `done` gets the reply, and whether the link is left with the
        wrong settings."""
        assert prepared.named_under is not None
        before, after = reading_changes(link.settings, prepared.named_under)
        replies: list[Unit] = []

        def examined(reply: Unit) -> None:
            replies.append(reply)
            if not reply.sqlstate:
                prepared.changed = bool(prepared.described) and row_type(reply.reply) != prepared.described
                prepared.parameters = first_message(reply.reply, b"t")
                link.prepared[prepared.server_name] = prepared
            if not before:
                done(reply, False)

        def restored(last: Unit) -> None:
            done(replies[0], bool(wrong) or bool(last.sqlstate))

        wrong: list[Unit] = []
        if before:
            link.run(before, lambda reply: wrong.append(reply) if reply.sqlstate else None)
        while link.stale:
            link.run_messages(builders.close_statement(link.stale.pop()))
        while len(link.prepared) >= link.most_statements:
            link.run_messages(builders.close_statement(link.prepared.popitem(last=False)[0]))
        parse = builders.join_two(PARSE, prepared.server_name, prepared.sent, prepared.types)
        describe = builders.describe_statement(prepared.server_name)
        link.run_messages(parse, describe, on_done=examined)
        if before:
            link.run(after, restored)

    def _write(self, unit: Unit, session: Session, link: Link, step: Step) -> None:
        flows = (step.flow,) if step.flow is not None else ()
        wanted = sql_prepared.all_wants(session, link, step.wants, flows, unread=step.wants_all)
        for need in sql_prepared.needs(session, link, wanted) if wanted else ():
            self._teach(unit, session, link, need)
        if step.prepared is not None and step.prepared.changed and step.tag in (BIND, DESCRIBE):
            before = step.prepared.parameters if step.tag == DESCRIBE else b""
            self._fail(unit, link, before + local.changed_result())
            return
        if step.tag == PARSE:
            self._parse(unit, session, link, step)
        elif step.tag == BIND:
            self._know(unit, session, link, step)
            unit.body.append(_renamed_bind(step))
            unit.expect(Expect(BIND_COMPLETE))
        elif step.tag == DESCRIBE:
            if step.prepared is not None:
                self._know(unit, session, link, step)
            unit.body.append(_renamed_describe(step))
            described = step.describes
            unit.expect(Expect(DESCRIBED, seen=described.was_described if described is not None else None))
        elif step.tag == EXECUTE:
            unit.body.append(step.message)
            unit.expect(Expect(EXECUTED, undo=self._declared(unit, session, link, step)))
        elif step.tag in (QUERY, FUNCTION_CALL):
            self._pass(unit, step, READY)
        elif step.tag == CLOSE and step.message[5:6] == b"S":
            unit.expect(Expect(NEVER, builders.CLOSE_COMPLETE, undo=step.undo))
        elif step.tag == CLOSE:
            self._pass(unit, step, CLOSE_COMPLETE)
        else:  # Flush, CopyData and its kin: no reply of their own
            unit.body.append(step.message)

    def _parse(self, unit: Unit, session: Session, link: Link, step: Step) -> None:
        prepared, flow = step.prepared, step.flow
        assert prepared is not None
        assert flow is not None
        self._name(session, step, flow)
        if not step.name:
            before, link.unnamed = link.unnamed, prepared

            def skipped() -> None:
                link.unnamed = before
                if step.undo is not None:
                    step.undo()

            unit.body.append(builders.join_two(PARSE, b"", prepared.sent, prepared.types))
            unit.expect(Expect(PARSE_COMPLETE, undo=skipped, failed=step.failed))
        elif prepared.server_name in link.prepared:
            link.prepared.move_to_end(prepared.server_name)
            unit.expect(Expect(NEVER, builders.PARSE_COMPLETE, undo=step.undo))
        else:
            unit.names[prepared.server_name] = step.name
            self._prepare(unit, link, prepared, step.undo, swallow=False)

    def _name(self, session: Session, step: Step, flow: Flow) -> None:
        """Decide what the nodes are told of a statement: its text and, if the client named it, its name there."""
        prepared = step.prepared
        assert prepared is not None
        sent = self._planner.sent_text(flow, prepared.text)
        if sent != prepared.sent or prepared.named_under is None:
            if step.name and prepared.private:
                prepared.server_name = self._names.new()
            elif step.name:
                generation = self._planner.cluster.generation(session.client.database)
                meaning = (session.client.database, session.settings.fingerprint, session.salt, generation)
                prepared.server_name = self._names.name(sent, prepared.types, meaning)
            prepared.sent, prepared.named_under = sent, session.settings
            prepared.rewritten = flow.verdict.rewrite is not None

    def _know(self, unit: Unit, session: Session, link: Link, step: Step) -> None:
        """Make sure that the link knows the statement."""
        prepared, flow = step.prepared, step.flow
        assert prepared is not None
        assert flow is not None
        if prepared.sql:
            return
        self._name(session, step, flow)
        if not step.name:
            if link.unnamed is not prepared:
                link.unnamed = prepared
                unit.body.append(builders.join_two(PARSE, b"", prepared.sent, prepared.types))
                unit.expect(Expect(PARSE_COMPLETE, swallow=True))
        elif prepared.server_name in link.prepared:
            link.prepared.move_to_end(prepared.server_name)
            unit.names[prepared.server_name] = step.name
        else:
            then = prepared.named_under or session.settings
            if unit.unsettled or then.reading != session.settings.reading:  # it reads otherwise now: nobody shares that
                prepared.server_name, prepared.named_under = self._names.new(), session.settings
            unit.names[prepared.server_name] = step.name
            self._prepare(unit, link, prepared, None, swallow=True)

    def _prepare(
        self, unit: Unit, link: Link, prepared: Prepared, undo: Callable[[], None] | None, *, swallow: bool
    ) -> None:
        name = prepared.server_name
        while link.stale:
            self._close(unit, link, link.stale.pop(), None)
        if len(link.prepared) >= link.most_statements:
            self._close(unit, link, *link.prepared.popitem(last=False))
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

    def _teach(self, unit: Unit, session: Session, link: Link, need: Need) -> None:
        """Make the link forget or learn a statement under its client's name."""
        if need.forget:

            def is_there() -> None:
                link.declared[need.name] = object()  # the server skipped it: whose it is does not matter any more

            unit.body.append(builders.close_statement(need.name))
            unit.expect(Expect(CLOSE_COMPLETE, swallow=True, undo=is_there))
        if need.prepared is None:
            return

        def forget() -> None:
            link.declared.pop(need.name, None)

        then = need.prepared.named_under
        if then is not None and then.reading != session.settings.reading:
            link.declared[need.name] = object()  # it reads otherwise now: nobody shares that

        if need.prepared.sql:
            self._run(unit, need.prepared.sql, forget)
        else:
            sent = need.prepared.sent or need.prepared.text
            unit.body.append(builders.join_two(PARSE, need.name, sent, need.prepared.types))
            unit.expect(Expect(PARSE_COMPLETE, swallow=True, undo=forget))

    @staticmethod
    def _run(unit: Unit, sql: bytes, undo: Callable[[], None]) -> None:
        """Run SQL of the proxy's own within the unit."""
        unit.body += (
            builders.parse(OWN, sql),
            builders.join_two(BIND, OWN, OWN, bytes(6)),
            builders.execute(OWN),
            builders.close_portal(OWN),
            builders.close_statement(OWN),
        )
        for ends in (PARSE_COMPLETE, BIND_COMPLETE, EXECUTED, CLOSE_COMPLETE, CLOSE_COMPLETE):
            unit.expect(Expect(ends, swallow=True, undo=undo if ends is EXECUTED else None))

    @staticmethod
    def _declared(unit: Unit, session: Session, link: Link, step: Step) -> Callable[[], None] | None:
        """What undoes an Execute; if it is of a PREPARE, the link is about to learn a statement."""
        if step.declares is None:
            return step.undo
        name, prepared = step.declares
        late = prepared in unit.late
        link.declared[name] = object() if late else sql_prepared.identity(session, name, prepared)

        def undo() -> None:
            link.declared.pop(name, None)
            if step.undo is not None:
                step.undo()

        return undo

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


def _plain(steps: list[Step], link: Link) -> bool:
    """Whether the replies are passed on as they are: nothing need be expected."""
    if link.stale:
        return False
    unnamed = link.unnamed
    for at, step in enumerate(steps):
        if at and step.tag == PARSE and not step.name:
            return False  # what an error before it leaves unparsed must be known
        if step.wants or step.wants_all or step.describes is not None:
            return False
        if link.declared and step.flow is not None and step.flow.dirt > 1:
            return False
        if step.prepared is not None and (step.prepared.changed or step.prepared.rewritten):
            return False
        if step.tag in (QUERY, FUNCTION_CALL) or step.error or (step.flow is not None and step.flow.answered):
            return False
        if step.prepared is None or step.tag == EXECUTE:
            if step.tag == EXECUTE and step.undo is not None:
                return False
            if step.tag == CLOSE and step.message[5:6] == b"S":
                return False
        elif not step.name:
            if step.tag == PARSE:
                unnamed = step.prepared
            elif unnamed is not step.prepared:
                return False
        elif step.tag == PARSE or step.prepared.server_name not in link.prepared or _is_rewritten(step.flow):
            return False
    return True


def _is_rewritten(flow: Flow | None) -> bool:
    return flow is not None and flow.verdict.rewrite is not None


def _described(step: Step, flow: Flow) -> bytes:
    of_statement = step.message[5:6] == b"S"
    return (builders.parameter_description(()) if of_statement else b"") + local.description(flow)


def _renamed_bind(step: Step) -> bytes:
    assert step.prepared is not None
    if not step.name or step.prepared.sql:
        return step.message
    portal, _, rest = builders.split_bind(step.message[5:])
    return builders.join_two(BIND, portal, step.prepared.server_name, rest)


def _renamed_describe(step: Step) -> bytes:
    if step.prepared is None or not step.name or step.prepared.sql:
        return step.message
    return builders.describe_statement(step.prepared.server_name)
