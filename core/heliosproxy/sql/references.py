"""Everything that a statement names and that the catalogue must know to be harmless (SAFETY R1).

Names are as written after case folding; nothing is resolved here. `""` stands for a schema that was not written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from heliosproxy.sql.grammar import FIXED, LEAVES
from heliosproxy.sql.session import Name, call_state, dotted, sets_locally
from heliosproxy.sql.tree import Json, Tree, child, items, strings, text_of

Command: TypeAlias = Literal["insert", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Written:
    """A relation that is written to, and how."""

    relation: Name
    command: Command


@dataclass(frozen=True, slots=True)
class References:
    """What a statement names. Each field is without duplicates; the order is of no meaning except in `relations`."""

    relations: tuple[Name, ...] = ()
    """Tables, views, sequences …, those written to included, in the text's order. No names of CTEs."""
    functions: tuple[Name, ...] = ()
    """Called functions, aggregates and window functions; also those that the grammar calls (`EXTRACT`, `AT TIME ZONE`).
    A call `f(x)` may turn out to be a cast to a type named f."""
    operators: tuple[Name, ...] = ()
    """Operators, those implied by IN, BETWEEN, CASE x WHEN, USING … included."""
    types: tuple[Name, ...] = ()
    """Types of casts, typed literals and column definitions."""
    attributes: tuple[str, ...] = ()
    """Names after a dot: columns, or functions called in column style (`t.f`)."""
    samplers: tuple[Name, ...] = ()
    """TABLESAMPLE methods."""
    written: tuple[Written, ...] = ()
    writes: bool = False
    """It writes or locks rows: DML, also in a CTE, or FOR UPDATE/SHARE."""
    locks_rows: bool = False
    session: tuple[str, ...] = ()
    """Why calls leave state in the session (`session.call_state`)."""


NO_REFERENCES = References()


def collect(statement: Tree) -> References | None:
    """The references of a SELECT, INSERT, UPDATE, DELETE or MERGE (`{type: fields}`).

    None where the statement contains a node that is not understood (`grammar`), so that nothing can be proven of it.
    """
    collector = _Collector()
    try:
        collector.walk(statement)
    except _NotUnderstoodError:
        return None
    return collector.references()


def expression(parsed: tuple[Tree, ...] | None) -> References | None:
    """The references of the only statement of a parsed text; None if there is not exactly one."""
    return collect(parsed[0]) if parsed is not None and len(parsed) == 1 else None


def relation_name(range_var: Tree) -> Name:
    """The name of a RangeVar."""
    return text_of(range_var, "schemaname"), text_of(range_var, "relname")


SET_LOCALLY: Name = ("pg_catalog", "set_config(local)")
"""How a call that `sets_locally` is told apart among functions."""

_EQUALITY: Name = ("", "=")
_BETWEEN = frozenset(("AEXPR_BETWEEN", "AEXPR_NOT_BETWEEN", "AEXPR_BETWEEN_SYM", "AEXPR_NOT_BETWEEN_SYM"))
_COMPARISONS: tuple[Name, ...] = (("", "<="), ("", ">="), ("", "<"), ("", ">"))


class _NotUnderstoodError(Exception):
    """A node type, or a use of one, that the walk does not understand."""


Scope: TypeAlias = frozenset[str]
_NO_CTES: Scope = frozenset()


@dataclass(slots=True)
class _Collector:
    """Walks without recursion: `pending` holds nodes still to visit, with the CTE names that are in scope there."""

    pending: list[tuple[str, Tree, Scope]] = field(default_factory=list)
    relations: dict[Name, int] = field(default_factory=dict)
    functions: set[Name] = field(default_factory=set)
    operators: set[Name] = field(default_factory=set)
    types: set[Name] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    samplers: set[Name] = field(default_factory=set)
    written: set[Written] = field(default_factory=set)
    writes: bool = False
    locks_rows: bool = False
    session: set[str] = field(default_factory=set)

    def references(self) -> References:
        return References(
            tuple(sorted(self.relations, key=self.relations.__getitem__)),
            tuple(self.functions), tuple(self.operators), tuple(self.types), tuple(self.attributes),
            tuple(self.samplers), tuple(self.written), self.writes, self.locks_rows, tuple(sorted(self.session)),
        )  # fmt: skip

    def walk(self, statement: Tree) -> None:
        self._push_wrapped(statement, _NO_CTES)
        pending, handlers = self.pending, _HANDLERS
        while pending:
            kind, body, scope = pending.pop()
            fixed = FIXED.get(kind)
            if fixed is None:
                raise _NotUnderstoodError(kind)
            handler = handlers.get(kind)
            if handler is not None:
                scope = handler(self, body, scope)
            self._push_fields(body, fixed, scope)

    def _push_fields(self, body: Tree, fixed: Mapping[str, str], scope: Scope) -> None:
        for name, value in body.items():
            if isinstance(value, dict):
                kind = fixed.get(name)
                if kind is None:
                    self._push_wrapped(value, scope)
                elif kind != "WithClause":  # its statement has pushed it, scope by scope
                    self.pending.append((kind, value, scope))
            elif isinstance(value, list):
                for item in value:
                    self._push_wrapped(item, scope)

    def _push_wrapped(self, node: Json, scope: Scope) -> None:
        if isinstance(node, dict):
            for kind, body in node.items():
                if kind not in LEAVES and isinstance(body, dict):
                    self.pending.append((kind, body, scope))
        elif isinstance(node, list):
            raise _NotUnderstoodError("a list in a list")

    # One method per node type that names something. Each answers the scope of the node's own fields.

    def with_clause(self, body: Tree, scope: Scope) -> Scope:
        clause = child(body, "withClause")
        if not clause:
            return scope
        queries = [child(query, "CommonTableExpr") for query in items(clause, "ctes")]
        inside = scope | {text_of(query, "ctename") for query in queries}
        seen = inside if clause.get("recursive") else scope
        for query in queries:
            self.pending.append(("CommonTableExpr", query, seen))
            seen = seen | {text_of(query, "ctename")}
        return inside

    def select(self, body: Tree, scope: Scope) -> Scope:
        if "lockingClause" in body:
            self.writes = self.locks_rows = True
        return self.with_clause(body, scope)

    def write(self, body: Tree, command: Command) -> None:
        self.writes = True
        self.written.add(Written(relation_name(child(body, "relation")), command))

    def insert(self, body: Tree, scope: Scope) -> Scope:
        self.write(body, "insert")
        if "onConflictClause" in body:
            self.write(body, "update")
            self.operators.add(_EQUALITY)
        return self._target(body, scope)

    def update(self, body: Tree, scope: Scope) -> Scope:
        self.write(body, "update")
        return self._target(body, scope)

    def delete(self, body: Tree, scope: Scope) -> Scope:
        self.write(body, "delete")
        return self._target(body, scope)

    def merge(self, body: Tree, scope: Scope) -> Scope:
        for command in _MERGE_COMMANDS:
            self.write(body, command)
        return self._target(body, scope)

    def _target(self, body: Tree, scope: Scope) -> Scope:
        # A target is never a CTE, whatever is in scope.
        self.relation(child(body, "relation"), _NO_CTES)
        return self.with_clause(body, scope)

    def relation(self, body: Tree, scope: Scope) -> Scope:
        schema, name = relation_name(body)
        if schema or name not in scope:
            at = body.get("location", 0)
            self.relations.setdefault((schema, name), at if isinstance(at, int) else 0)
        return scope

    def column(self, body: Tree, scope: Scope) -> Scope:
        self.attributes.update(strings(body, "fields")[1:])
        return scope

    def indirection(self, body: Tree, scope: Scope) -> Scope:
        self.attributes.update(strings(body, "indirection"))
        return scope

    def call(self, body: Tree, scope: Scope) -> Scope:
        self.functions.add(SET_LOCALLY if sets_locally(body) else dotted(strings(body, "funcname")))
        if reason := call_state(body):
            self.session.add(reason)
        return scope

    def operator(self, body: Tree, scope: Scope) -> Scope:
        if body.get("kind") in _BETWEEN:
            self.operators.update(_COMPARISONS)
        else:
            self.operators.add(dotted(strings(body, "name")))
        return scope

    def sub_link(self, body: Tree, scope: Scope) -> Scope:
        named = strings(body, "operName")
        if named:
            self.operators.add(dotted(named))
        elif "testexpr" in body:
            self.operators.add(_EQUALITY)
        return scope

    def equality(self, body: Tree, scope: Scope) -> Scope:
        self.operators.add(_EQUALITY)
        return scope

    def sort(self, body: Tree, scope: Scope) -> Scope:
        if "useOp" in body:
            self.operators.add(dotted(strings(body, "useOp")))
        return scope

    def type_name(self, body: Tree, scope: Scope) -> Scope:
        if body.get("pct_type"):
            raise _NotUnderstoodError("%TYPE")
        names = strings(body, "names")
        if names:
            self.types.add(dotted(names))
        return scope

    def sampler(self, body: Tree, scope: Scope) -> Scope:
        self.samplers.add(dotted(strings(body, "method")))
        return scope


_MERGE_COMMANDS: tuple[Command, ...] = ("insert", "update", "delete")
_HANDLERS: Mapping[str, Callable[[_Collector, Tree, Scope], Scope]] = MappingProxyType({
    "SelectStmt": _Collector.select,
    "InsertStmt": _Collector.insert,
    "UpdateStmt": _Collector.update,
    "DeleteStmt": _Collector.delete,
    "MergeStmt": _Collector.merge,
    "RangeVar": _Collector.relation,
    "ColumnRef": _Collector.column,
    "A_Indirection": _Collector.indirection,
    "FuncCall": _Collector.call,
    "A_Expr": _Collector.operator,
    "SubLink": _Collector.sub_link,
    "CaseExpr": _Collector.equality,
    "JoinExpr": _Collector.equality,
    "CTECycleClause": _Collector.equality,
    "SortBy": _Collector.sort,
    "TypeName": _Collector.type_name,
    "RangeTableSample": _Collector.sampler,
})


def merge(parts: Iterable[References]) -> References:
    """The union of several statements' references."""
    parts = tuple(parts)
    return References(
        _union(part.relations for part in parts),
        _union(part.functions for part in parts),
        _union(part.operators for part in parts),
        _union(part.types for part in parts),
        tuple(dict.fromkeys(name for part in parts for name in part.attributes)),
        _union(part.samplers for part in parts),
        tuple(dict.fromkeys(item for part in parts for item in part.written)),
        any(part.writes for part in parts),
        any(part.locks_rows for part in parts),
        tuple(sorted({reason for part in parts for reason in part.session})),
    )


def _union(groups: Iterable[tuple[Name, ...]]) -> tuple[Name, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))
