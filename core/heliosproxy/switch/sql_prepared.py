"""PREPARE, EXECUTE and DEALLOCATE, kept per session while links change.

A statement that was prepared by SQL bears its client's own name on a link, since EXECUTE names it in a text that the
proxy does not change. So before a text that names statements is sent, the link is brought to know, under those names,
what this session means by them, and nothing where it means nothing. Two sessions that mean the same share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from heliosproxy.sql.facts import Facts
from heliosproxy.sql.prepare import prepared
from heliosproxy.switch.prepared import OUR_NAMES, UNKNOWN_TYPE, Prepared, is_momentary
from heliosproxy.wire.errors import error_response

if TYPE_CHECKING:
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.planner import Planner
    from heliosproxy.switch.session import Session

NAMING = frozenset(("prepare", "execute", "deallocate", "explain", "ddl", "multi"))
"""Kinds of statement that may name prepared ones."""


class Need(NamedTuple):
    """What a link must do first: forget the statement of this name, or learn it (`prepared`), or both."""

    name: bytes
    forget: bool
    prepared: Prepared | None


def names_any(facts: Facts) -> bool:
    """Whether the text names prepared statements."""
    return facts.kind in NAMING and any(part.executes or part.kind in _NAMERS for part in facts.parts or (facts,))


_NAMERS = frozenset(("prepare", "deallocate"))


def reserved(facts: Facts) -> bytes:
    """The ErrorResponse for a PREPARE under a name of the proxy's; empty if it is none."""
    for part in facts.parts or (facts,):
        if part.kind == "prepare" and part.name.startswith(OUR_NAMES):
            text = f'prepared statement name "{part.name}" is reserved'
            return error_response("ERROR", "42939", text, hint=f'Names that begin with "{OUR_NAMES}" are the proxy\'s.')
    return b""


def stood_for(session: Session, planner: Planner, flow: Flow) -> tuple[Flow, ...]:
    """The flows of what an EXECUTE stands for (S2)."""
    known = (session.prepared.get(name.encode()) for name in flow.facts.executes)
    return tuple(planner.flow(session, one.text, one.shape, one.own_types) for one in known if one is not None)


def prepare(session: Session, planner: Planner, text: bytes, facts: Facts) -> tuple[bytes, Prepared] | None:
    """The name and the statement of a text that is one PREPARE; None if it cannot be read."""
    inner = prepared(text.decode("utf-8", "replace"))
    if inner is None:
        return None
    inside = inner.text.encode()
    statement = Prepared(inside, b"\0\0", planner.shape(session, inside))
    statement.sql = text
    if not inner.plain:
        statement.own_types = (UNKNOWN_TYPE,)
    return facts.name.encode(), statement


def identity(session: Session, name: bytes, statement: Prepared) -> object:
    """What a name means to a session: equal for sessions that mean the same (L7)."""
    if is_momentary(statement.sql or statement.text):
        return statement
    return name, statement.sql, statement.text, statement.types, session.settings.meaning, session.salt


Wants: TypeAlias = "tuple[tuple[bytes, Prepared | None], ...]"
"""What names must mean on the link: a statement, or nothing."""


def wants(session: Session, facts: Facts) -> Wants:
    """What the names in a text mean to the session before it runs."""
    parts = facts.parts or (facts,)
    names = [name for part in parts for name in (part.executes or ((part.name,) if part.kind in _NAMERS else ()))]
    return tuple((name, session.prepared.get(name)) for name in dict.fromkeys(map(str.encode, names)) if name)


def needs(session: Session, link: Link, wanted: Wants, limit: int) -> Iterator[Need]:
    """What the link must do so that names mean what is wanted. `link.declared` is as if it had been done; at most
    `limit` statements are kept there."""
    for name, statement in wanted:
        meaning = identity(session, name, statement) if statement is not None else None
        there = link.declared.pop(name, None)
        if meaning is not None:
            if len(link.declared) >= limit:
                yield Need(link.declared.popitem(last=False)[0], True, None)
            link.declared[name] = meaning
        if there != meaning:
            yield Need(name, there is not None, statement)


def forgets(name: bytes) -> bytes:
    """SQL that makes a server forget the statement of this name."""
    return b'DEALLOCATE "' + name.replace(b'"', b'""') + b'"'
