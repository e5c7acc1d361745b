"""What the client gets when its link died, as the table of failures in docs/life-of-a-query.md has it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliosproxy.switch.unit import TIMED_OUT
from heliosproxy.wire import builders
from heliosproxy.wire.errors import error_response

if TYPE_CHECKING:
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.unit import Unit

IDLE, FAILED = ord("I"), ord("E")
TERMINATED = "57P01"
"""What an administrator's pg_terminate_backend and a shutdown say; final for the statement (L3)."""
_OUTCOME_UNKNOWN = frozenset(("commit", "prepare-transaction", "commit-prepared"))
_ENDS_TRANSACTION = frozenset(("rollback", "commit"))


@dataclass(frozen=True, slots=True)
class Repeat:
    """Run the unit again, elsewhere."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The unit ends with this error; the session lives. `transaction`: and what it was in the middle of is gone."""

    error: bytes
    transaction: bool


@dataclass(frozen=True, slots=True)
class End:
    """The session cannot live without what was on the link."""

    error: bytes


def after(session: Session, unit: Unit | None, link: Link, reason: str) -> Repeat | Fail | End | None:
    """What becomes of the session whose link died; `unit` is what its client was waiting for. None: nothing to say now,
    a transaction fails when its next statement comes."""
    if unit is not None and unit.breaks_copy and link.last_words:
        return End(link.last_words)
    where = f"the connection to {link.node.name} was lost: {reason}"
    if session.pin or (unit is not None and unit.mid_message):
        why = session.pin or "its answer had begun"
        if link.last_words:  # the server's own, which clients know: 57P01 and its kin
            return End(link.last_words)
        return End(error_response("FATAL", "08006", where, detail=f"It held this session's state ({why})."))
    if unit is None:
        if session.ask and session.status == IDLE:
            detail = "It held settings that this session had changed."
            return End(error_response("FATAL", "08006", where, detail=detail))
        return None
    flows = flows_of(unit)
    in_transaction = session.status != IDLE
    reads = bool(flows) and all(flow.read_only for flow in flows)
    if not in_transaction and reads and _may_repeat(unit, link):
        return Repeat() if not unit.overdue_since else Fail(TIMED_OUT, False)
    if _may_have_committed(flows) or not (reads or in_transaction):
        return Fail(error_response("ERROR", "08007", where, detail="The outcome is not known."), False)
    if link.failure_code == TERMINATED and not in_transaction:
        return Fail(error_response("ERROR", TERMINATED, reason), False)
    return Fail(TIMED_OUT if unit.overdue_since else error_response("ERROR", "08006", where), in_transaction)


def _may_have_committed(flows: tuple[Flow, ...]) -> bool:
    """Whether a transaction may have ended with it (O1), also as one of several statements (O2)."""
    parts = [part for flow in flows for part in flow.facts.parts or (flow.facts,)]
    return any(part.kind in _OUTCOME_UNKNOWN for part in parts)


def _may_repeat(unit: Unit, link: Link) -> bool:
    """Only while no byte of its answer has been forwarded (L2), once (L4), and not against an administrator (L3)."""
    return unit.restartable and not unit.forwarded and unit.attempts < 1 and link.failure_code != TERMINATED


def answer_in_lost_transaction(unit: Unit) -> tuple[bytes, bool, bool]:
    """The answer to a statement of a transaction whose link died; whether it has ended it, and whether it was accepted.

    As in PostgreSQL's own aborted transactions, nothing but the transaction's end is accepted.
    """
    kinds = {flow.facts.kind for flow in flows_of(unit)}
    runs_unknown = not kinds and any(step.tag == ord("E") for step in unit.steps)
    if runs_unknown or not kinds <= _ENDS_TRANSACTION:
        return aborted(), False, False
    if unit.simple:
        return builders.command_complete("ROLLBACK"), True, True
    replies, over = b"", False
    for step in unit.steps:
        if step.error:
            return replies + step.error, over, False
        replies += _ROLLED_BACK.get(step.tag, b"")
        over = over or step.tag == ord("E")
    return replies, over, True


def rolls_back(session: Session, unit: Unit) -> bool:
    """Whether the transaction that ended with this unit was surely rolled back; `session.status` is from before it."""
    flows = flows_of(unit)
    if session.status == FAILED or not flows:
        return session.status == FAILED
    last = (flows[-1].facts.parts or (flows[-1].facts,))[-1]
    if unit.failed:
        return session.status != IDLE or not any(flow.facts.transaction_control for flow in flows)
    return last.kind == "rollback"


def aborted() -> bytes:
    """PostgreSQL's error for statements in an aborted transaction."""
    text = "current transaction is aborted, commands ignored until end of transaction block"
    return error_response("ERROR", "25P02", text)


def flows_of(unit: Unit) -> tuple[Flow, ...]:
    """The flows of all the unit's statements."""
    return tuple(unit.flows) or ((unit.flow,) if unit.flow is not None else ())


_ROLLED_BACK = {
    ord("P"): builders.PARSE_COMPLETE,
    ord("B"): builders.BIND_COMPLETE,
    ord("C"): builders.CLOSE_COMPLETE,
    ord("D"): builders.NO_DATA,
    ord("E"): builders.command_complete("ROLLBACK"),
}
