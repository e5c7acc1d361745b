"""A flow as it is remembered, and the decisions that were made by it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from helios_sdk.contract import PRIMARY, Hint, Route

from heliosproxy.cluster.proof import Proof
from heliosproxy.cluster.select import Qualified
from heliosproxy.flow.verdict import Verdict
from heliosproxy.sql.effects import Transaction
from heliosproxy.sql.facts import Facts
from heliosproxy.sql.shape import printable, query_hash
from heliosproxy.switch.bounds import OWN, grows

PREFIX = OWN
"""Of the settings that are the proxy's own."""
PRIMARY_ONLY = (Route((PRIMARY,)),)
"""Where a statement runs that no plugin routes."""
_DIRT = {"nothing": 0, "sequences": 1, "anything": 2}


class Flow:
    """A remembered flow: the verdict, what it was made from, and where it may run now."""

    __slots__ = (
        "answered",
        "calls",
        "dirt",
        "expires",
        "facts",
        "grows",
        "hints",
        "keeps_books",
        "matters",
        "names_statements",
        "proof",
        "qualified",
        "qualified_version",
        "quiet",
        "read_only",
        "seconds",
        "sets",
        "shape",
        "verdict",
    )

    def __init__(self, shape: bytes, facts: Facts, proof: Proof, verdict: Verdict, hints: tuple[Hint, ...]) -> None:
        self.shape = shape
        self.facts = facts
        self.proof = proof
        self.verdict = verdict
        self.hints = hints
        self.read_only = proof.read_only and not facts.pins  # a session that stays there must be able to write
        self.dirt = _DIRT[proof.leaves]
        self.names_statements = facts.names_statements
        """Whether it names prepared statements."""
        self.matters = self.names_statements or any(map(_matters, facts.parts or (facts,)))
        """Whether its execution changes what the proxy keeps of a session, or of its transaction."""
        leaves = self.dirt or facts.pins or facts.ddl or facts.unpins or verdict.pool == "session"
        self.quiet = not leaves and not any(part.setting for part in facts.parts or (facts,))
        """Whether nothing at all need be noted of it when it is sent."""
        self.grows = any(map(grows, facts.parts or (facts,)))
        """Whether its execution may make more of what is bounded for a session."""
        self.keeps_books = self.matters and facts.transaction not in _PLAIN
        """Whether something is to be noted when it has ended, where it is the whole of a unit."""
        self.answered = _answered(facts, verdict)
        """How the proxy itself answers: reject, rows, deallocate, or what SET, RESET or SHOW of its own settings does;
        empty: a server answers."""
        self.qualified: Qualified | None = None
        self.qualified_version = -1
        self.expires: float | None = None
        self.sets: tuple[str, ...] = ()
        """Settings that it names in calls of set_config, if it names them all."""
        self.calls = 0
        self.seconds = 0.0

    def only_on_primary(self, sqlstate: str) -> None:
        """A standby refused it with this SQLSTATE, and always will."""
        self.qualified = None
        self.read_only = False
        self.proof = replace(self.proof, read_only=False, reason=f"a standby refused it with {sqlstate}")

    @property
    def routes(self) -> tuple[Route, ...]:
        """Where it may run: what is not proven read-only runs on the primary, whatever anybody says (R3)."""
        if not self.read_only:
            return PRIMARY_ONLY
        return self.verdict.routes or PRIMARY_ONLY


_PLAIN = frozenset((Transaction("begin"), Transaction("commit"), Transaction("rollback")))


def _matters(facts: Facts) -> bool:
    return facts.transaction is not None or facts.setting is not None or facts.unpins or bool(facts.releases)


FlowKey = tuple[bytes, int, object]


def _answered(facts: Facts, verdict: Verdict) -> str:
    if verdict.reject is not None:
        return "reject"
    if verdict.answer is not None:
        return "rows"
    if facts.kind == "deallocate":
        return "deallocate"
    setting = facts.setting
    if setting is not None and setting.name.startswith(PREFIX):
        return setting.action
    return ""


class Decision(NamedTuple):
    """What was decided for one statement. `node` is empty where none was asked."""

    time: float
    session: int
    flow: Flow
    node: str
    note: str

    @property
    def reason(self) -> str:
        """Why, in one line."""
        reason = self.flow.verdict.reason
        if not self.flow.read_only and not self.flow.answered:
            reason = f"{self.flow.facts.kind} runs on the primary ({self.flow.proof.reason})"
        return "; ".join(part for part in (reason, self.note) if part) or "default: the primary"

    def record(self) -> dict[str, object]:
        """As `GET /routing/decisions` shows it."""
        return {
            "query_hash": query_hash(self.flow.shape),
            "query": printable(self.flow.shape),
            "kind": self.flow.facts.kind,
            "read_only": self.flow.read_only,
            "hints_parsed": [{hint.key: hint.value} for hint in self.flow.hints],
            "target_node": self.node,
            "reason": self.reason,
            "session": self.session,
            "timestamp": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds"),
        }
