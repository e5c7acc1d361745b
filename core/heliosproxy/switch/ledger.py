"""What a unit leaves: on its link, in its session, in the decision log and the counters."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

from heliosproxy.sql.statements import PREPARES, SEQUENCE_VALUES, SETS
from heliosproxy.switch import local
from heliosproxy.switch.flows import Decision, Flow
from heliosproxy.switch.loss import IDLE, flows_of
from heliosproxy.switch.observers import Observers
from heliosproxy.switch.settings import may_mean
from heliosproxy.switch.sql_prepared import identity
from heliosproxy.wire.errors import notice_response

if TYPE_CHECKING:
    from heliosproxy.sql.effects import Setting
    from heliosproxy.sql.facts import Facts
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.planner import Planner
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.unit import Unit


class Ledger:
    """Kept for the whole switch. Counters since start."""

    def __init__(self, planner: Planner) -> None:
        self.observers = Observers(planner)
        self.statements = 0
        self.fallbacks = 0
        """Statements that ran elsewhere than their verdict asked, since no node qualified."""
        self._planner = planner

    def mark(self, session: Session, unit: Unit, link: Link) -> None:
        """Before it is sent: what it may leave on the link (L1), and whether the session must keep that."""
        unit.dirt_before = link.dirt
        for flow in flows_of(unit)[unit.marked :]:
            if not flow.quiet:
                self._mark_flow(session, link, flow)
        unit.marked = len(unit.flows)
        for executed in (unit.flow,) if unit.simple else unit.executed:
            if executed is not None and not executed.quiet:
                _mark_resets(session, unit, link, executed)

    def _mark_flow(self, session: Session, link: Link, flow: Flow) -> None:
        parts = flow.facts.parts or (flow.facts,)
        followed = [_mark_setting(session, link, facts.setting) for facts in parts]
        if not all(followed):
            link.dirt = max(link.dirt, flow.dirt)
            session.ask = session.ask or (flow.dirt > 1 and bool(link.asked))
            by_call = bool(flow.sets) and _mark_calls(session, link, flow.sets)
            pins = [pin for facts, is_followed in zip(parts, followed, strict=True)
                    for pin in facts.pins if not is_followed and not (by_call and pin == "set_config")]  # fmt: skip
            if any(pin.startswith(SETS) for pin in pins):
                session.season()
            session.keep_link(*pins, *(PREPARES,) if PREPARES in flow.facts.pins else ())
        if flow.dirt == 1 and session.keeps_sequences:
            session.keep_link(SEQUENCE_VALUES)
        if flow.verdict.pool == "session":
            session.keep_link("hint pool=session")
        if flow.facts.ddl and flow.facts.kind != "unknown":
            of_relations = flow.facts.ddl_of_relations
            self._planner.ddl_happened(session.client.database, of_relations=of_relations)  # and when it has ended

    def sent(self, session: Session, unit: Unit, link: Link) -> bytes:
        """It is on its way: log the decision. Returns the notices that go ahead of the answer."""
        qualified = unit.flow.qualified if unit.flow is not None else None
        relaxed = qualified.relaxed if qualified is not None else ""
        note = relaxed
        if session.status != IDLE:
            note, relaxed = "in its transaction", ""
        elif session.pin:
            note, relaxed = f"pinned: {session.pin}", ""
        notices = b""
        for flow in flows_of(unit):
            if flow.facts.kind != "execute" or len(unit.flows) < 2:  # it stands for what it executes
                self.decided(session, flow, link.node.name, note)
            if flow.verdict.notices:
                notices += local.notices(flow.verdict.notices)
        if relaxed:
            self.fallbacks += 1
            notices += notice_response("WARNING", "01000", relaxed)
        return notices

    def _keep_books(self, session: Session, unit: Unit, link: Link) -> None:
        """What it has ended of what the session had: reasons, savepoints, statements, start-up values.

        Several statements with transactions among them may have committed some and rolled back others: then nothing
        that may still be is taken for over (L1, O2).
        """
        if not (unit.executed or unit.late or (unit.simple and unit.flow is not None and unit.flow.keeps_books)):
            return
        flows = [flow for flow in ((unit.flow,) if unit.simple else unit.executed) if flow is not None and flow.matters]
        parts = [facts for flow in flows for facts in flow.facts.parts or (flow.facts,)]
        mixed = len(parts) > 1 and any(part.transaction_control for part in parts)
        if mixed:
            session.keep_all_pins()
        held = session.pins
        if unit.failed and any(part.kind == "deallocate" for part in parts):
            link.dirt = 2  # which of them has happened is not known
        for flow in flows if not unit.failed else ():
            for facts in flow.facts.parts or (flow.facts,):
                if unit.simple or not flow.answered:
                    _release(session, link, facts, held, certain=not mixed and not session.savepoints)
        for prepared in unit.late:
            prepared.named_under = session.settings

    def decided(self, session: Session, flow: Flow, node: str, note: str) -> None:
        """Log a decision; `node` is empty where none was asked."""
        flow.calls += 1
        self.statements += 1
        decision = Decision(time(), session.id, flow, node, note)
        self._planner.decisions.append(decision)
        if flow.answered != "show":
            session.last = decision

    def ended(self, session: Session, unit: Unit, link: Link) -> None:
        """It was answered; `session.status` is what it has come to."""
        if unit.flow is not None:
            seconds = monotonic() - unit.started
            unit.flow.seconds += seconds
            if self.observers.active:
                self.observers.ended(session, unit, unit.flow, link.node.name, seconds)
        for flow in flows_of(unit):
            if flow.facts.ddl and not unit.unparsed:
                session.changed_schema = True
                session.changed_functions = session.changed_functions or not flow.facts.ddl_of_relations
        self._keep_books(session, unit, link)
        if unit.unparsed and unit.simple and session.status == IDLE:  # nothing of it has run
            link.dirt = unit.dirt_before
            session.forget_pins()
        if unit.declares is not None and not unit.failed:
            name, statement = unit.declares
            session.prepared[name] = statement
            link.declared[name] = identity(session, name, statement)
        if session.changed_schema and session.status == IDLE:  # whatever the outcome looked like (O2)
            of_relations = not session.changed_functions
            session.changed_schema = session.changed_functions = False
            self._planner.ddl_happened(session.client.database, of_relations=of_relations)


def _mark_setting(session: Session, link: Link, setting: Setting | None) -> bool:
    """A setting is about to change; whether it is one that follows the session."""
    if setting is None or setting.action in ("show", "current"):
        return False
    if setting.name == "session_authorization":  # it takes the role away
        session.ask = session.ask or bool(link.asked)
    names = session.settings.followed(setting.name)
    unseen = any(name in link.asked for name in names)
    if setting.action == "reset-all":
        session.ask = session.ask or bool(link.asked)
    if unseen:
        session.hide_settings(ask=not setting.is_local)
    elif not names and setting.is_local and may_mean(setting.name):
        session.hide_settings(ask=False)
    return bool(names)


def _mark_resets(session: Session, unit: Unit, link: Link, flow: Flow) -> None:
    """It resets settings: is that what its client means who named others at start-up?"""
    for facts in flow.facts.parts or (flow.facts,):
        setting = facts.setting
        if facts.unpins:
            _mark_reset(session, unit, link, "**")
        elif setting is not None and setting.action == "reset-all":
            _mark_reset(session, unit, link, "*")
        elif setting is not None and setting.action in ("reset", "default") and not setting.is_local:
            _mark_reset(session, unit, link, setting.name)


def _mark_calls(session: Session, link: Link, names: tuple[str, ...]) -> bool:
    """set_config is about to be called for these settings; whether all of them follow the session."""
    followed = [session.settings.followed(name) for name in names]
    if any(key in link.asked for keys in followed for key in keys):
        session.hide_settings(ask=True)
    elif not all(followed) and any(map(may_mean, names)):
        session.hide_settings(ask=False)
    return all(followed)


def _mark_reset(session: Session, unit: Unit, link: Link, name: str) -> None:
    """A setting goes back to the server's own value, or all of them do: not what a client means who named others."""
    start, base = session.start, link.base
    if name in ("*", "**"):
        differs = start != base
    else:
        own = [item for item in (*start.values, *start.extra) if item[0].lower() == name]
        differs = any(item not in base.values for item in own)
    if differs:
        unit.resets |= {name}


def _release(session: Session, link: Link, facts: Facts, held: frozenset[str], *, certain: bool) -> None:
    """What a statement that has succeeded has ended: reasons to keep the link, prepared statements. `held`: the reasons
    there were before its text; `certain`: no part of its transaction can be rolled back by itself."""
    for reason in facts.releases if certain else ():
        session.release_pins(reason)
    if facts.transaction is not None and facts.transaction.chain:
        session.transaction_ended(rolled_back=facts.kind == "rollback")
    if facts.kind == "savepoint" and facts.transaction is not None:
        session.savepoint(facts.transaction.action, facts.transaction.name)
    session.keep_link(*held.intersection(facts.pins))
    if facts.setting is not None and facts.setting.action == "reset-all":
        session.forget_hints()
    if facts.kind == "deallocate" and facts.name:
        session.prepared.pop(facts.name.encode(), None)
        link.declared.pop(facts.name.encode(), None)
        link.prepared.pop(facts.name.encode(), None)
    elif facts.unpins or facts.kind == "deallocate":
        session.prepared.clear()
        link.forget_statements()
    if facts.unpins:
        session.unpin()
        session.forget_hints()
        session.ask = session.ask or bool(link.asked)
        link.dirt = 2
