"""Answers that the proxy gives itself: refusals, a plugin's rows, and SET, RESET and SHOW of `helios.*` settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Literal

from helios_sdk.contract import Notice, Reject

from heliosproxy.wire import builders
from heliosproxy.wire.errors import error_response, notice_response

if TYPE_CHECKING:
    from heliosproxy.sql.facts import Facts
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.session import Session

LAST_DECISION = "last_decision"


def refusal(reject: Reject) -> bytes:
    """The ErrorResponse of a reject."""
    return error_response(
        "ERROR", reject.sqlstate, reject.message, detail=reject.detail, hint=reject.hint, position=reject.position
    )


def refused(flows: Iterable[Flow]) -> bytes:
    """The ErrorResponse of the first of these flows that a plugin rejects; empty if it rejects none."""
    return next((refusal(flow.verdict.reject) for flow in flows if flow.verdict.reject is not None), b"")


def notices(found: tuple[Notice, ...]) -> bytes:
    """The NoticeResponses of a verdict."""
    return b"".join(_notice(notice) for notice in found)


def _notice(notice: Notice) -> bytes:
    severity = {"warning": "WARNING", "notice": "NOTICE", "info": "INFO"}[notice.severity]
    return notice_response(
        severity,  # type: ignore[arg-type]
        notice.sqlstate,
        notice.message,
        hint=notice.hint,
        position=notice.position,
    )


def description(flow: Flow) -> bytes:
    """RowDescription or NoData of a statement that the proxy answers."""
    columns = _columns(flow)
    return builders.row_description_text(columns) if columns is not None else builders.NO_DATA


def execution(session: Session, flow: Flow) -> bytes:
    """The rows and CommandComplete of a statement that the proxy answers; what it sets is set."""
    if flow.answered == "rows":
        return _rows(flow)
    if flow.answered == "deallocate":
        return builders.command_complete("DEALLOCATE" if flow.facts.name else "DEALLOCATE ALL")
    setting = flow.facts.setting
    assert setting is not None
    key = setting.name.partition(".")[2]
    if flow.answered == "show":
        return builders.data_row_text([shown(session, key)]) + builders.command_complete("SHOW")
    session.set_hint(key, setting.value, local=setting.is_local)
    return builders.command_complete("RESET" if flow.answered == "reset" else "SET")


def deallocate(session: Session, facts: Facts) -> Callable[[], None] | None:
    """Forget a prepared statement, or all; returns what undoes it. None: the session has none of that name."""
    name = facts.name.encode()
    if name and name not in session.prepared:
        return None
    gone = {name: session.prepared[name]} if name else dict(session.prepared)
    for each in gone:
        del session.prepared[each]
    return partial(session.prepared.update, gone)


def unknown_statement(name: bytes) -> bytes:
    """PostgreSQL's error for a prepared statement that there is not."""
    shown = f'prepared statement "{name.decode("utf-8", "replace")}"' if name else "unnamed prepared statement"
    return error_response("ERROR", "26000", f"{shown} does not exist")


def no_transactions(severity: Literal["ERROR", "FATAL"] = "ERROR") -> bytes:
    """The refusal of a transaction block in pool mode statement."""
    text = "transaction blocks are not allowed in pool mode statement"
    return error_response(severity, "0A000", text, hint='Set [pool] mode = "transaction".')


def changed_result() -> bytes:
    """PostgreSQL's error for a prepared statement whose rows are no longer of the type that its client knows."""
    routine = "RevalidateCachedQuery"  # by which drivers know it, and prepare it again
    return error_response("ERROR", "0A000", "cached plan must not change result type", routine=routine)


def simple(session: Session, flow: Flow) -> bytes:
    """The whole answer to a simple Query, without ReadyForQuery."""
    described = description(flow) if _columns(flow) is not None else b""
    return described + execution(session, flow)


def shown(session: Session, key: str) -> str:
    """The value of a `helios.*` setting; of `last_decision`, where the previous statement ran and why."""
    if key != LAST_DECISION:
        return session.hints.get(key, "")
    if session.last is None:
        return "no statement yet"
    return f"{session.last.node or 'no node'}: {session.last.reason}"


def _columns(flow: Flow) -> tuple[str, ...] | None:
    if flow.answered == "rows" and flow.verdict.answer is not None:
        return flow.verdict.answer.columns
    if flow.answered == "show" and flow.facts.setting is not None:
        return (flow.facts.setting.name,)
    return None


def _rows(flow: Flow) -> bytes:
    answer = flow.verdict.answer
    assert answer is not None
    rows = b"".join(builders.data_row_text(row) for row in answer.rows)
    return rows + builders.command_complete(answer.command_tag or f"SELECT {len(answer.rows)}")
