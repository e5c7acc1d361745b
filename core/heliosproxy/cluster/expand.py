"""One step of the proof: what an object does by itself, and which objects it uses.

An object is a tuple: its sort, then oids or names. A name stands for every object that bears it, in every schema,
unless its schema was written. Cycles (a type with a cast by a function that takes the type) are the caller's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from heliosproxy.cluster import builtins
from heliosproxy.cluster.catalogue import FIRST_USER_OID, Catalogue, Function, Oid, Relation, Type
from heliosproxy.cluster.effect import NO_EFFECT, Effect, Leaves, anything, leaving, not_known
from heliosproxy.sql.references import SET_LOCALLY, References, expression
from heliosproxy.sql.tree import parse

Node: TypeAlias = (
    tuple[str, str] | tuple[str, str, str] | tuple[str, str, str, str] | tuple[str, Oid] | tuple[str, Oid, str]
)
Step: TypeAlias = tuple[Effect, list[Node]]
"""What the object does by itself, and the objects it uses."""


def nodes(references: References, schema: str = "") -> Iterator[Node]:
    """The objects that a statement names. `schema` is what an unwritten schema means; empty: any."""
    for sort, names in (
        ("named relation", references.relations),
        ("named function", references.functions),
        ("named operator", references.operators),
        ("named type", references.types),
        ("named sampler", references.samplers),
    ):
        for written, name in names:
            yield sort, written or schema, name
    for target in references.written:
        yield "named target", target.relation[0] or schema, target.relation[1], target.command


def attributes(references: References) -> Iterator[Node]:
    """The functions that a statement may call in column style. A deparsed definition spells such calls out."""
    for name in references.attributes:
        yield "attribute", name


class Expander:
    """Takes objects of one catalogue apart."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        lists: tuple[Mapping[Oid, object], ...] = (
            catalogue.casts_from, catalogue.casts_to, catalogue.type_support,
        )  # fmt: skip
        # Built-in types need a look only where a user has hung something on one of them.
        self._plain_built_ins = not any(oid < FIRST_USER_OID for group in lists for oid in group)
        self._rows_become_others = any(
            cast.implicit and self._is_row(cast.source) for casts in catalogue.casts_from.values() for cast in casts
        )

    def expand(self, node: Node) -> Step:
        """One step. Never raises for objects that the catalogue does not have: they may do anything."""
        sort, *key = node
        return _STEPS[sort](self, *key)

    # Names

    def named_relation(self, schema: str, name: str) -> Step:
        found: list[Node] = [
            ("relation", relation.oid)
            for relation in self._catalogue.relations_by_name.get(name, ())
            if schema in ("", relation.schema) and relation.kind != "c"
        ]
        return (NO_EFFECT if found else not_known(f"relation {_dotted(schema, name)}")), found

    def named_target(self, schema: str, name: str, command: str) -> Step:
        found: list[Node] = [
            ("target", relation.oid, command)
            for relation in self._catalogue.relations_by_name.get(name, ())
            if schema in ("", relation.schema) and relation.kind != "c"
        ]
        return (NO_EFFECT if found else not_known(f"relation {_dotted(schema, name)}")), found

    def _functions(self, schema: str, name: str) -> Iterator[Function]:
        for function in self._catalogue.functions_by_name.get(name, ()):
            if schema in ("", function.schema):
                yield function

    def named_function(self, schema: str, name: str) -> Step:
        if (schema, name) == SET_LOCALLY:
            others: list[Node] = [("function", f.oid) for f in self._functions("", "set_config") if not f.built_in]
            return Effect("set_config() changes a setting"), others
        found: list[Node] = [("function", function.oid) for function in self._functions(schema, name)]
        # f(x) is a cast if f is a type and no function fits.
        found += self._cast_nodes(schema, name)
        return (NO_EFFECT if found else not_known(f"function {_dotted(schema, name)}")), found

    def named_operator(self, schema: str, name: str) -> Step:
        found: list[Node] = []
        for operator in self._catalogue.operators_by_name.get(name, ()):
            if schema in ("", operator.schema):
                found += (("function", oid) for oid in operator.functions)
                found += self._types(operator.types)
        return (NO_EFFECT if found else not_known(f"operator {_dotted(schema, name)}")), found

    def named_type(self, schema: str, name: str) -> Step:
        found = self._cast_nodes(schema, name)
        return (NO_EFFECT if found else not_known(f"type {_dotted(schema, name)}")), found

    def _cast_nodes(self, schema: str, name: str) -> list[Node]:
        found: list[Node] = []
        for type_ in self._catalogue.types_by_name.get(name, ()):
            if schema in ("", type_.schema):
                found += (("type", type_.oid), ("cast to", type_.oid))
        return found

    def named_sampler(self, schema: str, name: str) -> Step:
        found = list(self._functions(schema, name))
        if found and name in builtins.SAMPLERS and all(function.built_in for function in found):
            return NO_EFFECT, []
        return anything(f"TABLESAMPLE {_dotted(schema, name)} is not built in"), []

    def attribute(self, name: str) -> Step:
        found = (function for function in self._functions("", name) if self._takes_row(function))
        return NO_EFFECT, [("function", function.oid) for function in found]

    def _takes_row(self, function: Function) -> bool:
        return function.takes_one and (self._rows_become_others or self._is_row(function.first))

    def _is_row(self, oid: Oid) -> bool:
        found = self._catalogue.types.get(oid)
        if found is None or found.kind == "d":  # a domain may be over a composite type
            return True
        return found.kind == "c" or (found.kind == "p" and found.name in builtins.TAKES_ROWS)

    # Functions and types

    def function(self, oid: Oid) -> Step:
        found = self._catalogue.functions.get(oid)
        if found is None:
            return not_known(f"function {oid}"), []
        used = self._types(found.types)
        if found.built_in:
            return _built_in(found), used
        used += (("function", part) for part in found.parts)
        if found.defaults:
            used.append(("sql", f"SELECT {found.defaults}"))
        return _user_defined(found), used

    def _types(self, oids: Iterable[Oid]) -> list[Node]:
        return [("type", oid) for oid in oids if oid >= FIRST_USER_OID or not self._plain_built_ins]

    def type_(self, oid: Oid) -> Step:
        found = self._catalogue.types.get(oid)
        if found is None:
            return not_known(f"type {oid}"), []
        used = self._types(found.inner)
        used += (("function", function) for function in found.functions)
        used += (("function", function) for function in self._catalogue.type_support.get(oid, ()))
        used += (("sql", f"SELECT {check}") for check in found.checks)
        used += self._implicit_casts(found)
        row = self._catalogue.relations.get(found.relation)
        if row is not None:
            used += self._types(row.types)
        return NO_EFFECT, used

    def _implicit_casts(self, found: Type) -> list[Node]:
        # Values of a user-defined type come from something that the statement names, which leads to the type: its
        # casts are followed from there. Values of built-in types may be literals, so that casts of those are also
        # followed from the type that they become.
        used: list[Node] = []
        for cast in self._catalogue.casts_from.get(found.oid, ()):
            # JSON constructors call an explicit cast of a user-defined type to json.
            if cast.implicit or found.oid >= FIRST_USER_OID:
                used += _cast(cast.function)
                used += self._types((cast.target,))
        for cast in self._catalogue.casts_to.get(found.oid, ()):
            if cast.implicit and cast.source < FIRST_USER_OID:
                used += _cast(cast.function)
        return used

    def cast_to(self, oid: Oid) -> Step:
        used: list[Node] = []
        for cast in self._catalogue.casts_to.get(oid, ()):
            if cast.source < FIRST_USER_OID:
                used += _cast(cast.function)
        found = self._catalogue.types.get(oid)
        inner = found.inner if found is not None else ()
        used += (("cast to", other) for other in inner if other >= FIRST_USER_OID or not self._plain_built_ins)
        return NO_EFFECT, used

    # Relations

    def relation(self, oid: Oid) -> Step:
        found = self._catalogue.relations.get(oid)
        if found is None:
            return not_known(f"relation {oid}"), []
        if found.kind == "f":
            return anything(f"{found.name} is a foreign table"), []
        used = self._types(found.types)
        if found.definition is not None:
            used.append(("sql", found.definition))
        if found.row_security:
            used += self._expressions(oid, "policy")
        used += self._expressions(oid, "virtual")
        used += (("relation", inheriting) for inheriting in self._catalogue.children.get(oid, ()))
        temporary = found.persistence == "t"
        return (Effect(f"{found.name} is a temporary table") if temporary else NO_EFFECT), used

    def _expressions(self, oid: Oid, use: str) -> list[Node]:
        return [("sql", f"SELECT {text}") for text in self._catalogue.expressions.get((oid, use), ())]

    def target(self, oid: Oid, command: str) -> Step:
        found = self._catalogue.relations.get(oid)
        if found is None:
            return not_known(f"relation {oid}"), []
        effect = self._target_effect(found, command)
        used: list[Node] = [("relation", oid)]
        for use in ("default", "check", "index", "policy"):
            used += self._expressions(oid, use)
        if found.partition_key:
            used.append(("sql", f"SELECT {found.partition_key}"))
        used += (("function", trigger.function) for trigger in self._catalogue.triggers.get(oid, ()))
        used += (("target", inheriting, command) for inheriting in self._catalogue.children.get(oid, ()))
        used += self._cascades(oid, command)
        for type_ in found.types:
            used += self._stored(type_)
        return effect, used

    def _target_effect(self, found: Relation, command: str) -> Effect:
        if found.kind not in ("r", "p"):
            return anything(f"{found.name} is not an ordinary table")
        if found.rules:
            return anything(f"{found.name} has rules")
        if any(trigger.conditional for trigger in self._catalogue.triggers.get(found.oid, ())):
            return anything(f"{found.name} has a trigger with a condition")
        if found.identity and command != "delete":
            return Effect("", Leaves.SEQUENCES, f"{found.name} has an identity column")
        return NO_EFFECT

    def _cascades(self, oid: Oid, command: str) -> Iterator[Node]:
        for cascade in self._catalogue.cascades.get(oid, ()):
            if (command == "delete" and cascade.on_delete) or (command == "update" and cascade.on_update):
                yield "target", cascade.relation, "update"
                yield "target", cascade.relation, "delete"

    def _stored(self, oid: Oid) -> Iterator[Node]:
        if oid >= FIRST_USER_OID or not self._plain_built_ins:
            yield "cast to", oid
        found = self._catalogue.types.get(oid)
        if found is not None and found.default:
            yield "sql", f"SELECT {found.default}"

    # Definitions

    def sql(self, text: str) -> Step:
        references = expression(parse(text))
        if references is None:
            return anything("a definition could not be read"), []
        # Deparsed under search_path = pg_catalog: what is not qualified is built in.
        return NO_EFFECT, list(nodes(references, "pg_catalog"))


def _cast(function: Oid) -> list[Node]:
    return [("function", function)] if function else []


def _built_in(function: Function) -> Effect:
    name = function.name
    refused = builtins.NOT_HARMLESS.get(name)
    volatile = function.volatility == "v" and function.kind != "a" and name not in builtins.OBSERVES
    if not volatile and refused is None:
        return NO_EFFECT
    reason = f"{name}() {refused}" if refused is not None else f"{name}() is volatile"
    if name in builtins.LEAVES_NOTHING:
        return Effect(reason)
    if name in builtins.LEAVES_SEQUENCES:
        return Effect(reason, Leaves.SEQUENCES, f"{name}() sets what currval and lastval read")
    return Effect(reason, Leaves.ANYTHING, reason)


def _user_defined(function: Function) -> Effect:
    if function.kind == "a":
        return NO_EFFECT  # its parts do the work
    name = _dotted(function.schema, function.name)
    if function.volatility == "v":
        return anything(f"{name}() is volatile")
    compiled = function.language in ("c", "internal") and function.extension
    if compiled and function.volatility == "i" and not function.settings:
        return NO_EFFECT  # a superuser installed it, and an immutable function keeps no state
    # A stable function may still call one that sets, listens or locks.
    return leaving(f"{name}() is user-defined")


def _dotted(schema: str, name: str) -> str:
    return f"{schema}.{name}" if schema and schema != "pg_catalog" else name


_STEPS: Mapping[str, Callable[..., Step]] = MappingProxyType({
    "named relation": Expander.named_relation,
    "named target": Expander.named_target,
    "named function": Expander.named_function,
    "named operator": Expander.named_operator,
    "named type": Expander.named_type,
    "named sampler": Expander.named_sampler,
    "attribute": Expander.attribute,
    "function": Expander.function,
    "type": Expander.type_,
    "cast to": Expander.cast_to,
    "relation": Expander.relation,
    "target": Expander.target,
    "sql": Expander.sql,
})
