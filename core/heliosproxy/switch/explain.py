"""What would be done with a statement, and why: every step of a decision, without executing anything.

The plugins are asked as for a statement that comes for the first time, so their own counters go up. Nothing else
remembers the question: no flow is installed, no decision recorded, no turn of the balancer taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from helios_sdk.contract import Action, Client, Reject, Rewrite, Route, Rows, Selector

from heliosproxy.cluster.balance import Balancer
from heliosproxy.cluster.select import shortcoming
from heliosproxy.flow.verdict import Applied, Verdict
from heliosproxy.sql.shape import printable, query_hash, shape
from heliosproxy.switch.flows import Flow
from heliosproxy.switch.planner import Asked, Planner

if TYPE_CHECKING:
    from heliosproxy.cluster.node import Node


@dataclass(frozen=True, slots=True)
class HintFound:
    """A hint. `at`: position in the statement in characters from 1; 0: a setting of the session."""

    key: str
    value: str
    at: int


@dataclass(frozen=True, slots=True)
class Said:
    """A directive: what it asks for, and the plugin's reason."""

    action: str
    reason: str


@dataclass(frozen=True, slots=True)
class HookStep:
    """A hook, in the order of asking. `skipped` says why it was not called; `microseconds` is None where it was not."""

    plugin: str
    hook: str
    microseconds: float | None
    skipped: str
    directives: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node's standing. `qualifies`: the statement may run there now; `why_not`: what it lacks of what was asked."""

    name: str
    role: str
    sync: str
    healthy: bool
    lag_ms: float | None
    qualifies: bool
    why_not: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, step by step. Literals of the statement are in none of its texts, but hints' values are."""

    query: str
    """The statement's shape, for people."""
    query_hash: str
    kind: str
    read_only: bool
    proof: str
    """Why it is not read-only; empty if it is."""
    tables: tuple[str, ...]
    functions: tuple[str, ...]
    hints: tuple[HintFound, ...]
    remembered: bool
    """Whether the flow table holds a verdict for the shape, of any session class."""
    hooks: tuple[HookStep, ...]
    verdict: Mapping[str, str]
    """The fields of the merged verdict that are set."""
    answered: str
    """How the proxy answers by itself; empty: a server is asked."""
    candidates: tuple[Candidate, ...]
    """Every node; none where no server is asked."""
    fallback: str
    """Why the nodes that qualify are not those that were asked for; empty if they are."""
    node: str
    """Where it would run; of several the least busy, equals taking turns. Empty: nowhere."""
    reason: str
    sent: str
    """What the node would be given, shown like `query`."""


def explain(
    planner: Planner, client: Client, text: str, session_hints: Mapping[str, str], *, session_mode: bool = False
) -> Explanation:
    """Decide about `text`, sent by `client` outside a transaction, as `Planner.flow` would.

    `session_hints` are `helios.*` settings without the prefix; `session_mode`: pool mode session. The text is taken as
    UTF-8 with standard_conforming_strings on. What is proven rests on the catalogue as it is known now. Never raises.
    """
    planner.refresh()
    data = text.encode("utf-8", "replace")
    shaped = shape(data)
    asked: list[Asked] = []
    flow = planner.decide(client, dict(session_hints), data, shaped, asked=asked)
    node, fallback, candidates = _destination(planner, flow, session_mode and not session_hints)
    return Explanation(
        query=printable(shaped),
        query_hash=query_hash(shaped),
        kind=flow.facts.kind,
        read_only=flow.read_only,
        proof="" if flow.read_only else flow.proof.reason,
        tables=flow.facts.tables,
        functions=flow.facts.functions,
        hints=tuple(HintFound(hint.key, hint.value, hint.at) for hint in flow.hints),
        remembered=any(entry.shape == shaped for entry in planner.table),
        hooks=_steps(asked, flow.verdict.applied),
        verdict=_set_fields(flow.verdict),
        answered=_answered(flow),
        candidates=candidates,
        fallback=fallback,
        node=node,
        reason=_reason(flow, session_mode and not session_hints),
        sent="" if flow.answered else printable(shape(planner.sent_text(flow, data))),
    )


def _destination(planner: Planner, flow: Flow, on_primary: bool) -> tuple[str, str, tuple[Candidate, ...]]:
    """The node, the note on a fallback, and every node's standing."""
    if flow.answered:
        return "", "", ()
    cluster = planner.cluster
    found = planner.candidates(flow)
    nodes = found.nodes
    if on_primary:
        nodes = () if cluster.primary is None else (cluster.primary,)
    # A balancer of its own: the real one would count this as the node's turn.
    chosen = Balancer().choose(nodes, flow.verdict.sticky) if nodes else None
    standing = tuple(_standing(planner, flow, node, nodes) for node in cluster.nodes)
    return chosen.name if chosen else "", "" if on_primary else found.relaxed, standing


def _standing(planner: Planner, flow: Flow, node: Node, nodes: Sequence[Node]) -> Candidate:
    why_not = shortcoming(planner.cluster, flow.routes, node)
    if not why_not and node not in nodes:
        why_not = "others are preferred"
    return Candidate(
        node.name, node.role or "", node.sync_mode or "", node.healthy, node.lag_ms, node in nodes, why_not
    )


def _reason(flow: Flow, on_primary: bool) -> str:
    if on_primary and not flow.answered:
        return "pool mode session: the session's link, to the primary unless the session has hints"
    if not flow.read_only and not flow.answered:
        return f"{flow.facts.kind} runs on the primary: {flow.proof.reason}"
    return flow.verdict.reason or "default: the primary"


def _answered(flow: Flow) -> str:
    verdict = flow.verdict
    if verdict.reject is not None:
        return f"refused with {verdict.reject.sqlstate}: {verdict.reject.message}"
    if verdict.answer is not None:
        return f"answered with {len(verdict.answer.rows)} rows of a plugin"
    return f"{flow.answered} of a setting of the proxy" if flow.answered else ""


def _steps(asked: Sequence[Asked], applied: Sequence[Applied]) -> tuple[HookStep, ...]:
    """The hooks that were asked, with what each said; then what has no such hook (a refusal because one failed)."""
    steps = [
        HookStep(
            each.plugin,
            each.hook,
            None if each.skipped else round(each.microseconds, 1),
            each.skipped,
            _said(applied, each.plugin, each.hook),
        )
        for each in asked
    ]
    known = {(each.plugin, each.hook) for each in asked}
    others = dict.fromkeys((a.plugin, a.hook) for a in applied if (a.plugin, a.hook) not in known)
    return (*steps, *(HookStep(plugin, hook, None, "", _said(applied, plugin, hook)) for plugin, hook in others))


def _said(applied: Sequence[Applied], plugin: str, hook: str) -> tuple[Said, ...]:
    given = [each.directive for each in applied if (each.plugin, each.hook) == (plugin, hook)]
    return tuple(Said(describe(directive.action), directive.reason) for directive in given)


def _set_fields(verdict: Verdict) -> dict[str, str]:
    """The verdict's fields that differ from their defaults, as text. Those derived from them are left out."""
    default = Verdict()
    names = [field.name for field in fields(Verdict) if field.name != "applied"]
    values = {name: getattr(verdict, name) for name in names if getattr(verdict, name) != getattr(default, name)}
    return {name: _rewritten(value) if name == "rewrite" else _text(value) for name, value in values.items()}


def describe(action: Action) -> str:
    """An action on one line, without text that a plugin took from a statement."""
    match action:
        case Route():
            return f"route {_text(action)}"
        case Reject(sqlstate, message):
            return f"reject {sqlstate}: {message}"
        case Rewrite(text):
            return f"rewrite {_rewritten(text)}"
        case Rows():
            return f"answer {_text(action)}"
    return f"{_kebab(type(action).__name__)} {_text(action)}".rstrip()


def _rewritten(text: str) -> str:
    return printable(shape(text.encode()))


def _kebab(name: str) -> str:
    return "".join("-" + char.lower() if char.isupper() else char for char in name).lstrip("-")


def _text(value: object) -> str:
    """Any value of the contract's vocabulary: records as `field value` of what is set, lists with `or` or commas."""
    match value:
        case bool() | int() | float() | str():
            return str(value)
        case Selector():
            return str(value)
        case Rows(columns, rows):
            return f"{len(rows)} rows of {', '.join(columns)}"
        case tuple():
            return (" or " if value and isinstance(value[0], Selector) else ", ").join(map(_text, value))
        case Route(select, otherwise):
            rest = _fields(value, ("select", "otherwise"))
            return " ".join(["to", _text(select), *(["otherwise", _text(otherwise)] if otherwise else []), *rest])
    return " ".join(_fields(value, ()))


def _fields(value: object, without: tuple[str, ...]) -> list[str]:
    """`name value` of each field that is set."""
    found = []
    for field in fields(value):  # type: ignore[arg-type]  # records of the contract are dataclasses
        content = getattr(value, field.name)
        if field.name in without or content is None or content == field.default or content == ():
            continue
        name, _, unit = field.name.rpartition("_")
        if unit == "ms":
            found.append(f"{name.replace('_', ' ')} {content} ms".strip())
        else:
            found.append(f"{field.name.replace('_', ' ')} {_text(content)}")
    return found
