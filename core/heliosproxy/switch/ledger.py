"""What a unit leaves: on its link, in its session, in the decision log and the counters."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

from heliosproxy.switch import local
from heliosproxy.switch.flows import Decision, Flow
from heliosproxy.switch.loss import IDLE, flows_of
from heliosproxy.switch.observers import Observers
from heliosproxy.switch.settings import Settings
from heliosproxy.wire.errors import notice_response

if TYPE_CHECKING:
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.planner import Planner
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.unit import Unit

OUR_NAMES = "helios_"
"""Names of statements on links begin so."""


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
        for flow in flows_of(unit):
            setting = flow.facts.setting
            if setting is not None and setting.action != "show" and session.settings.follows(setting.name):
                continue  # ParameterStatus tells its new value
            link.dirt = max(link.dirt, flow.dirt)
            if flow.facts.ddl and flow.facts.kind != "unknown":
                of_relations = flow.facts.ddl_of_relations
                self._planner.ddl_happened(session.client.database, of_relations=of_relations)  # and when it has ended
            pin = flow.facts.pins or ("hint pool=session" if flow.verdict.pool == "session" else "")
            if pin and not session.pin:
                session.keep_link(pin)

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
            self.decided(session, flow, link.node.name, note)
            if flow.verdict.notices:
                notices += local.notices(flow.verdict.notices)
        if relaxed:
            self.fallbacks += 1
            notices += notice_response("WARNING", "01000", relaxed)
        return notices

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
            setting = flow.facts.setting
            if not unit.failed and setting is not None and setting.action == "reset-all":
                session.forget_hints()
            if not unit.failed and flow.facts.kind in _DISCARDING:
                _discarded(session, link, flow)
        if session.changed_schema and session.status == IDLE:  # whatever the outcome looked like (O2)
            of_relations = not session.changed_functions
            session.changed_schema = session.changed_functions = False
            self._planner.ddl_happened(session.client.database, of_relations=of_relations)


_DISCARDING = frozenset(("deallocate", "discard", "multi"))


def _discarded(session: Session, link: Link, flow: Flow) -> None:
    """DEALLOCATE and DISCARD ALL have taken prepared statements, or all of the session's state."""
    for facts in flow.facts.parts or (flow.facts,):
        everything = facts.unpins or (facts.kind == "deallocate" and not facts.name)
        if everything:
            session.prepared.clear()
        if everything or (facts.kind == "deallocate" and facts.name.startswith(OUR_NAMES)):
            link.forget_statements()
        if facts.unpins:
            session.unpin()
            session.forget_hints()
            link.settings = Settings(link.settings.reported)
            link.dirt = 2
