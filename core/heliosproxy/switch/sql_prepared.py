"""PREPARE, EXECUTE and DEALLOCATE, kept per session while links change.

A statement that was prepared by SQL bears its client's own name on a link, since EXECUTE names it in a text that the
proxy does not change. So before a text that names statements is sent, the link is brought to know, under those names,
what this session means by them, and nothing where it means nothing. Two sessions that mean the same share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from heliosproxy.sql.facts import Facts
from heliosproxy.sql.prepare import prepared
from heliosproxy.switch.loss import FAILED
from heliosproxy.switch.prepared import OUR_NAMES, UNKNOWN_TYPE, Prepared, is_momentary
from heliosproxy.wire.errors import error_response

if TYPE_CHECKING:
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.planner import Planner
    from heliosproxy.switch.session import Session

class Need(NamedTuple):
    """What a link must do first: forget the statement of this name, or learn it (`prepared`), or both."""

    name: bytes
    forget: bool
    prepared: Prepared | None


_NAMERS = frozenset(("prepare", "deallocate"))


def reserved(facts: Facts) -> bytes:
    """The ErrorResponse for SQL that names a statement as the proxy does; empty if it does not. To deallocate one's own
    needs no server, and is allowed."""
    for part in facts.parts or (facts,):
        named = part.kind == "prepare" or (bool(facts.parts) and part.kind in _NAMERS)
        names = part.executes or ((part.name,) if named else ())
        for name in names:
            if name.startswith(OUR_NAMES):
                hint = f'Names that begin with "{OUR_NAMES}" are the proxy\'s.'
                return error_response("ERROR", "42939", f'prepared statement name "{name}" is reserved', hint=hint)
    return b""


def stood_for(session: Session, planner: Planner, flow: Flow) -> tuple[Flow, ...]:
    """The flows of what an EXECUTE stands for (S2); of what is not known, one of which nothing is proven."""
    known = (session.prepared.get(name.encode()) for name in flow.facts.executes)
    return tuple(
        planner.flow(session, one.text, one.shape, one.own_types) if one is not None else planner.function_call
        for one in known
    )


def prepare(session: Session, planner: Planner, text: bytes, facts: Facts) -> tuple[bytes, Prepared] | None:
    """The name and the statement of a text that is one PREPARE; None if it cannot be read."""
    inner = prepared(text.decode("utf-8", "replace"))
    if inner is None or UNREADABLE in facts.name:
        return None
    inside = inner.text.encode()
    statement = Prepared(inside, b"\0\0", planner.shape(session, inside))
    statement.sql = text
    statement.named_under, statement.salt = session.settings, session.salt
    if not inner.plain:
        statement.own_types = (UNKNOWN_TYPE,)
    return facts.name.encode(), statement


UNREADABLE = "\ufffd"
"""What stands in a name for bytes that are no UTF-8."""


def identity(session: Session, name: bytes, statement: Prepared) -> object:
    """What a name means to a session: equal for sessions that mean the same (L7)."""
    if is_momentary(statement.sql or statement.text):
        return statement
    settings = statement.named_under or session.settings
    return name, statement.sql, statement.text, statement.types, settings.fingerprint, statement.salt


Wants: TypeAlias = "tuple[tuple[bytes, Prepared | None], ...]"
"""What names must mean on the link: a statement, or nothing."""


def wants(session: Session, facts: Facts) -> Wants:
    """What the names in a text mean to the session before it runs."""
    parts = facts.parts or (facts,)
    names = [name for part in parts for name in (part.executes or ((part.name,) if part.kind in _NAMERS else ()))]
    return tuple((name, session.prepared.get(name)) for name in dict.fromkeys(map(str.encode, names)) if name)


def wants_all(session: Session, link: Link, *, own: bool) -> Wants:
    """As `wants`, for what nothing is proven of, and which may run any SQL: what the link has a name for must be the
    session's, and with `own`, what the session has a name for must be there."""
    names = dict.fromkeys((*(session.prepared if own else ()), *link.declared))
    return tuple((name, session.prepared.get(name)) for name in names if name)


def all_wants(session: Session, link: Link, wanted: Wants, flows: Iterable[Flow], *, unread: bool) -> Wants:
    """What is wanted for statements of these flows, what may come of those included of which nothing is proven;
    `unread`: of a text that may name any."""
    if unread or (link.declared and any(flow.dirt > 1 for flow in flows)):
        return wanted + wants_all(session, link, own=unread)
    return wanted


def needs(session: Session, link: Link, wanted: Wants) -> Iterator[Need]:
    """What the link must do so that names mean what is wanted. `link.declared` is as if it had been done; at most
    `most_statements` are kept there, or as many as are wanted at once.

    In an aborted transaction nothing can be learned, but forgotten.
    """
    for name, statement in wanted:
        meaning = identity(session, name, statement) if statement is not None else None
        there = link.declared.pop(name, None)
        if there == meaning:
            if there is not None:
                link.declared[name] = there
            continue
        if session.status == FAILED:
            statement = None
        if statement is not None:
            link.declared[name] = meaning
        if there is not None or statement is not None:
            yield Need(name, there is not None, statement)
    kept = {name for name, _ in wanted}
    others = [name for name in link.declared if name not in kept]
    for name in others[: max(0, len(others) + len(kept) - link.most_statements)]:
        del link.declared[name]
        yield Need(name, True, None)
