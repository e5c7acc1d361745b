"""Answers that the proxy gives itself: refusals, a plugin's rows, and SET, RESET and SHOW of `helios.*` settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helios_sdk.contract import Notice, Reject

from heliosproxy.wire import builders
from heliosproxy.wire.errors import error_response, notice_response

if TYPE_CHECKING:
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.session import Session

LAST_DECISION = "last_decision"


def refusal(reject: Reject) -> bytes:
    """The ErrorResponse of a reject."""
    return error_response(
        "ERROR", reject.sqlstate, reject.message, detail=reject.detail, hint=reject.hint, position=reject.position
    )


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
    if deallocates(session, flow):
        del session.prepared[flow.facts.name.encode()]
        return builders.command_complete("DEALLOCATE")
    setting = flow.facts.setting
    assert setting is not None
    key = setting.name.partition(".")[2]
    if flow.answered == "show":
        return builders.data_row_text([shown(session, key)]) + builders.command_complete("SHOW")
    session.set_hint(key, setting.value, local=setting.is_local)
    return builders.command_complete("RESET" if flow.answered == "reset" else "SET")


def deallocates(session: Session, flow: Flow) -> bool:
    """Whether it is a DEALLOCATE of a statement that the client prepared by the protocol, and no server knows so."""
    return flow.facts.kind == "deallocate" and flow.facts.name.encode() in session.prepared and bool(flow.facts.name)


def simple(session: Session, flow: Flow) -> bytes:
    """The whole answer to a simple Query, without ReadyForQuery."""
    if flow.verdict.reject is not None:
        return refusal(flow.verdict.reject)
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
