"""How much of everything one session may have, so that it takes no more of the proxy than its share.

`[client_limits]` says how many prepared statements and settings; the rest has fixed bounds, far beyond what programs
do. Where one is reached, the statement that asks for more is refused and the session lives: 53400 where a key of the
configuration says so, else 54000.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from heliosproxy.sql.statements import SETS
from heliosproxy.wire.errors import error_response

if TYPE_CHECKING:
    from heliosproxy.sql.effects import Setting
    from heliosproxy.sql.facts import Facts
    from heliosproxy.switch.admission import Reason
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.unit import Unit

OWN = "helios."
"""The settings that the proxy keeps itself begin so."""
LONG_TEXT = 8192
"""Bytes of a text from which on the texts of a session's prepared statements are added up when one is added."""
MOST_TEXT = 64 * 1024 * 1024
"""Bytes of the texts of a session's prepared statements."""
MOST_SAVEPOINTS = 10_000
"""Savepoints of a transaction; those of one name that follow each other without a change in between count once."""
MOST_PORTALS = 1_000
"""Portals of a transaction whose statements change what the proxy keeps of a session, or are answered by it."""
MOST_BEFORE_SYNC = 10_000
"""Different statements before a Sync; of those that change what the proxy keeps of a session, all."""


def statements(session: Session, name: bytes, text: bytes) -> bytes:
    """The refusal of a prepared statement that would be one too many; empty if it is not. The unnamed one never is."""
    if not name or name in session.prepared:
        return b""
    limit = session.limits.max_prepared_statements
    if len(session.prepared) - (b"" in session.prepared) >= limit:
        return _by_key(session, "too many prepared statements in this session", "max_prepared_statements", limit)
    if len(text) > LONG_TEXT and len(text) + sum(len(one.text) for one in session.prepared.values()) > MOST_TEXT:
        message = "the prepared statements of this session are too long"
        return _refusal(session, "max_prepared_statements", "54000", message, f"The proxy keeps {MOST_TEXT} bytes.")
    return b""


def settings(session: Session, flow: Flow, others: Iterable[Flow] = ()) -> bytes:
    """The refusal of a flow that would change one setting too many of those that are kept for the session; `others`
    are on their way."""
    new = set(_changed(session, flow))
    if not new:
        return b""
    kept = {OWN + key for key in (*session.hints, *session.local_hints)}
    kept.update(pin.removeprefix(SETS) for pin in session.pins if pin.startswith(SETS))
    if new <= kept:
        return b""
    kept.update(new, *(_changed(session, other) for other in others if other.grows))
    limit = session.limits.max_settings
    if len(kept) <= limit:
        return b""
    return _by_key(session, "too many changed settings in this session", "max_settings", limit)


def savepoints(session: Session, flow: Flow) -> bytes:
    """The refusal of a savepoint that would be one too many."""
    if len(session.savepoints) < MOST_SAVEPOINTS or not any(map(_sets_savepoint, _parts(flow))):
        return b""
    return _by_bound(session, "max_savepoints", "too many savepoints in this transaction", MOST_SAVEPOINTS)


def portals(session: Session) -> bytes:
    """The refusal of a portal that would be one too many."""
    if len(session.portals) < MOST_PORTALS:
        return b""
    return _by_bound(session, "max_portals", "too many portals in this transaction", MOST_PORTALS)


def before_sync(session: Session, unit: Unit) -> bytes:
    """The refusal of what follows so much without a Sync."""
    if len(unit.flows) + len(unit.executed) + len(unit.names) + len(unit.late) <= MOST_BEFORE_SYNC:
        return b""
    return _by_bound(session, "max_before_sync", "too many different statements before a Sync", MOST_BEFORE_SYNC)


def grows(facts: Facts) -> bool:
    """Whether its execution may make a session's settings or savepoints one more."""
    return _sets_savepoint(facts) or (facts.setting is not None and _is_kept(facts.setting))


def _sets_savepoint(facts: Facts) -> bool:
    return facts.transaction is not None and facts.transaction.action == "savepoint"


def _is_kept(setting: Setting) -> bool:
    if setting.name.startswith(OWN):
        return setting.action in ("set", "default")
    return setting.action == "set" and not setting.is_local


def _changed(session: Session, flow: Flow) -> Iterator[str]:
    for part in _parts(flow):
        setting = part.setting
        if setting is not None and _is_kept(setting) and not session.settings.followed(setting.name):
            yield setting.name


def _parts(flow: Flow) -> tuple[Facts, ...]:
    return flow.facts.parts or (flow.facts,)


def _by_key(session: Session, message: str, key: Reason, limit: int) -> bytes:
    hint = f"Do with fewer, or raise {key} in [client_limits]."
    return _refusal(session, key, "53400", message, f"{key} is {limit}.", hint)


def _by_bound(session: Session, reason: Reason, message: str, limit: int) -> bytes:
    return _refusal(session, reason, "54000", message, f"The proxy keeps {limit}.")


def _refusal(
    session: Session, reason: Reason, sqlstate: str, message: str, detail: str, hint: str | None = None
) -> bytes:
    session.counts(reason)
    return error_response("ERROR", sqlstate, message, detail=detail, hint=hint)
