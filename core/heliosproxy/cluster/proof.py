"""Whether a statement is harmless: read-only (SAFETY R1), and what it leaves in its session (L1).

Everything that the statement names is followed through the catalogue to the functions that would run: views, policies,
operators, casts, domains, aggregates, types' own functions, columns that are calls. One volatile function anywhere, or
one name that the catalogue does not have, and nothing is proven.

What is taken on trust is the volatility that a function declares: PostgreSQL itself keeps a stable function from
writing, but not from calling a volatile one that does. A standby refuses the write then, and the statement runs again
on the primary (R2). Support functions of the planner and of index access methods, which take or return `internal`, are
trusted without even that: only a superuser can write them, in C.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from helios_sdk.contract import Kind

from heliosproxy.cluster.catalogue import Catalogue, Oid
from heliosproxy.cluster.effect import NO_EFFECT, Effect, Leaves
from heliosproxy.cluster.expand import Expander, Node, attributes, nodes
from heliosproxy.sql.facts import Facts
from heliosproxy.sql.references import References

LeavesWord: TypeAlias = Literal["nothing", "sequences", "anything"]


@dataclass(frozen=True, slots=True)
class Proof:
    """What is proven of a statement, for one catalogue."""

    read_only: bool
    leaves: LeavesWord
    """What it may leave in the session, its transaction ended: nothing; sequences (currval and lastval); anything."""
    reason: str = ""
    """Why it is not read-only; empty if it is."""
    leaves_reason: str = ""
    """Why it may leave something; empty if it leaves nothing."""


def prove(facts: Facts, catalogue: Catalogue | None) -> Proof:
    """What is proven of a statement. Without a catalogue, only of statements that name nothing.

    Takes some microseconds once the objects were met, a millisecond or so when not. Never raises.
    """
    if facts.parts:
        return _together([prove(part, catalogue) for part in facts.parts])
    if facts.references is None:
        return _utility(facts)
    effect = _effect(facts.references, catalogue)
    if facts.references.writes or facts.kind not in _READS:
        effect = Effect(_not_a_read(facts)) | effect
    if facts.pins:
        effect |= Effect("", Leaves.ANYTHING, ", ".join(facts.pins))
    return _proof(effect)


def prove_types(types: Iterable[Oid], catalogue: Catalogue | None) -> Proof:
    """What is proven of reading values of these types, as a Parse message names them for its parameters.

    A parameter's type decides which input function runs, a domain's constraints included; the text does not show it.
    """
    if catalogue is None:
        return _proof(_NO_CATALOGUE)
    effect = NO_EFFECT
    for oid in types:
        if oid:
            effect |= _prover(catalogue).effect(("type", oid))
    return _proof(effect)


_READS: frozenset[Kind] = frozenset(("select", "show", "explain", "copy", "declare", "execute"))
_NO_CATALOGUE = Effect("the catalogue is not known", Leaves.ANYTHING, "the catalogue is not known")
_WORDS: Mapping[Leaves, LeavesWord] = MappingProxyType({
    Leaves.NOTHING: "nothing", Leaves.SEQUENCES: "sequences", Leaves.ANYTHING: "anything",
})  # fmt: skip
_LEAVE_NOTHING: frozenset[Kind] = frozenset((
    "begin", "commit", "rollback", "savepoint", "prepare-transaction", "commit-prepared", "discard", "deallocate",
    "fetch", "close", "unlisten", "notify", "lock", "reset", "prepare",
))  # fmt: skip


def _proof(effect: Effect) -> Proof:
    return Proof(not effect.writes, _WORDS[effect.leaves], effect.writes, effect.because)


def _not_a_read(facts: Facts) -> str:
    if facts.kind == "unknown":
        return "it could not be read"
    if facts.references is not None and facts.kind in _READS:
        return "it locks rows" if facts.locks_rows and not facts.references.written else "it writes"
    return f"{facts.kind} is not a read"


def _together(proofs: list[Proof]) -> Proof:
    effect = NO_EFFECT
    for proof in proofs:
        leaves = next(level for level, word in _WORDS.items() if word == proof.leaves)
        effect |= Effect(proof.reason, leaves, proof.leaves_reason)
    return _proof(effect)


def _utility(facts: Facts) -> Proof:
    if facts.kind == "empty":
        return Proof(True, "nothing")
    local = facts.kind == "set" and not facts.pins  # SET LOCAL, SET TRANSACTION
    reason = _not_a_read(facts)
    if not facts.pins and (local or facts.kind in _LEAVE_NOTHING):
        return Proof(False, "nothing", reason)
    return Proof(False, "anything", reason, ", ".join(facts.pins) or reason)


def _effect(references: References, catalogue: Catalogue | None) -> Effect:
    named = [*nodes(references), *attributes(references)]
    if not named:
        return NO_EFFECT
    if catalogue is None:
        return _NO_CATALOGUE
    prover = _prover(catalogue)
    total = NO_EFFECT
    for node in named:
        effect = prover.effect(node)
        if effect is not NO_EFFECT:
            total |= effect
    return total


class _Prover:
    """Follows objects to everything they use, remembering what it found."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._expander = Expander(catalogue)
        self._effects: dict[Node, Effect] = {}

    def effect(self, node: Node) -> Effect:
        found = self._effects.get(node)
        return found if found is not None else self._follow(node)

    def _follow(self, start: Node) -> Effect:
        # An effect is that of everything reachable, so that cycles do no harm. Only the start's is remembered: in a
        # cycle, an inner object's would not be complete yet.
        total, seen, pending = NO_EFFECT, {start}, [start]
        while pending:
            node = pending.pop()
            known = self._effects.get(node)
            if known is not None:
                total |= known
                continue
            own, used = self._expander.expand(node)
            total |= own
            pending.extend(other for other in used if other not in seen)
            seen.update(used)
        self._remember(start, NO_EFFECT if total == NO_EFFECT else total)
        return total

    def _remember(self, node: Node, effect: Effect) -> None:
        # Names that do not exist come from clients: they must not fill the memory.
        if len(self._effects) >= MAX_REMEMBERED:
            self._effects.clear()
        self._effects[node] = effect


MAX_REMEMBERED = 50_000
"""Objects and names whose effect is remembered per catalogue."""


def _prover(catalogue: Catalogue) -> _Prover:
    found = catalogue.memo.get("prover")
    if not isinstance(found, _Prover):
        found = catalogue.memo["prover"] = _Prover(catalogue)
    return found
