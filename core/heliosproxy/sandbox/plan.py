"""What a component declares of its functions, as plans: trees that say how to write parameters and read results.

A component is written to and read by the types that *it* declares, matched with the contract by name. One built
against an earlier contract lacks fields and cases that we know: they are left out. One that declares what we do not
know is refused when it is loaded. Both ways of calling, `frame` and `public`, follow the same plans.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from helios_sdk import contract
from wasmtime.component import (
    F64,
    U32,
    U64,
    Bool,
    EnumType,
    FuncType,
    ListType,
    OptionType,
    RecordType,
    ResultType,
    String,
    ValType,
    VariantType,
)

Builder: TypeAlias = Callable[..., object]
ScalarKind: TypeAlias = Literal["bool", "u32", "u64", "f64"]


class PlanError(Exception):
    """A component's function does not have the contract's type."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A bool or a number."""

    kind: ScalarKind


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""


@dataclass(frozen=True, slots=True)
class Enum:
    """One of these names. `other` is written for a name that the component does not know."""

    names: tuple[str, ...]
    other: str | None


@dataclass(frozen=True, slots=True)
class Option:
    """None or `inner`."""

    inner: Plan


@dataclass(frozen=True, slots=True)
class List:
    """A tuple of `inner`."""

    inner: Plan


@dataclass(frozen=True, slots=True)
class Record:
    """Fields in the component's order: (its name, the dataclass's attribute, plan). `build` takes them by keyword."""

    fields: tuple[tuple[str, str, Plan], ...]
    build: Builder
    whole: bool = False
    """The component declares every field of the dataclass, in its order: `build` may take them by position."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Cases: plan of the payload, if any, and what makes an object of it."""

    cases: Mapping[str, tuple[Plan | None, Builder]]


@dataclass(frozen=True, slots=True)
class Result:
    """`ok` or `err(fault)`; either may carry nothing."""

    ok: Plan | None
    err: Plan | None


@dataclass(frozen=True, slots=True)
class Blank:
    """A fact that the hook does not read: whatever the value is, what is empty for `inner` is written."""

    inner: Plan


@dataclass(frozen=True, slots=True)
class Keyed:
    """A list of pairs of which only those with these keys are written."""

    inner: List
    keys: frozenset[str]


Plan: TypeAlias = Scalar | Text | Enum | Option | List | Record | Variant | Result | Blank | Keyed


@dataclass(frozen=True, slots=True)
class Fault:
    """`record fault` of the contract."""

    message: str
    traceback: str = ""


_Actions: Mapping[str, tuple[object, Builder]] = types.MappingProxyType(
    {
        "route": (contract.Route, lambda it: it),
        "rewrite": (contract.Rewrite, lambda it: it),
        "reject": (contract.Reject, lambda it: it),
        "notice": (contract.Notice, lambda it: it),
        "answer": (contract.Rows, lambda it: it),
        "limit": (contract.Limit, lambda it: it),
        "cache": (contract.Cache, lambda it: it),
        "timeout": (int, contract.Timeout),
        "retry": (int, contract.Retry),
        "priority": (contract.PriorityLevel, contract.Priority),
        "pool": (contract.PoolMode, contract.Pool),
        "settings": (tuple[contract.Pair, ...], contract.Settings),
        "mask": (contract.Mask, lambda it: it),
        "tag": (contract.Tag, lambda it: it),
        "wait-replay": (None, contract.WaitReplay),
    }
)
_Selectors: Mapping[str, tuple[object, Builder]] = types.MappingProxyType(
    {
        "any": (None, lambda: contract.ANY),
        "role": (contract.Role, lambda value: contract.Selector("role", value)),
        "sync-mode": (contract.SyncMode, lambda value: contract.Selector("sync-mode", value)),
        "label": (contract.Pair, lambda value: contract.Selector("label", value)),
        "node": (str, lambda value: contract.Selector("node", value)),
        "local": (None, lambda: contract.LOCAL),
    }
)
_Effects: Mapping[str, tuple[object, Builder]] = types.MappingProxyType({"flush": (str | None, contract.Flush)})
_SCALARS: tuple[tuple[type, ScalarKind, type], ...] = (
    (Bool, "bool", bool), (U32, "u32", int), (U64, "u64", int), (F64, "f64", float),
)  # fmt: skip

PARAMETERS: Mapping[str, tuple[object, ...]] = types.MappingProxyType(
    {
        "plugins": (),
        "describe": (str,),
        "configure": (str, str),
        "on-connect": (contract.Client,),
        "on-parse": (contract.Statement,),
        "on-route": (contract.Statement, tuple[contract.Node, ...]),
        "on-result": (tuple[contract.Outcome, ...],),
        "on-tick": (int,),
    }
)
"""The exports that we call, with what we give them."""
RESULTS: Mapping[str, object] = types.MappingProxyType(
    {
        "plugins": tuple[str, ...],
        "describe": contract.Manifest,
        "configure": None,
        "on-connect": contract.Answer,
        "on-parse": contract.Answer,
        "on-route": contract.Answer,
        "on-result": tuple[contract.Effect, ...],
        "on-tick": tuple[contract.Effect, ...],
    }
)
"""What they return; all but `plugins` within `result<…, fault>`."""


def plan_function(name: str, declared: FuncType) -> tuple[tuple[Plan, ...], Plan]:
    """Plans of an export's parameters and result. Raises PlanError naming what does not fit the contract."""
    given = PARAMETERS[name]
    parameters = declared.params
    if len(parameters) != len(given):
        raise PlanError(f"{name} takes {len(parameters)} parameters, the contract says {len(given)}")
    result = declared.result
    if result is None:
        raise PlanError(f"{name} returns nothing")
    plans = tuple(plan(ty, kind, f"{name}: {each}") for (each, ty), kind in zip(parameters, given, strict=True))
    return plans, _plan_result(name, result)


def _plan_result(name: str, declared: ValType) -> Plan:
    wanted = RESULTS[name]
    if name == "plugins":
        return plan(declared, wanted, name)
    if not isinstance(declared, ResultType) or declared.err is None:
        raise PlanError(f"{name} does not return a result with a fault")
    ok = declared.ok
    if (ok is None) != (wanted is None):
        raise PlanError(f"{name}: the result is not the contract's")
    return Result(
        None if ok is None else plan(ok, wanted, name),
        plan(declared.err, Fault, f"{name}: fault"),
    )


def plan(declared: ValType, wanted: object, where: str) -> Plan:
    """How to write or read a value of the component's type `declared` as the contract's `wanted` (an annotation)."""
    for ty, kind, python in _SCALARS:
        if isinstance(declared, ty) and wanted is python:
            return Scalar(kind)
    if isinstance(declared, String) and wanted is str:
        return Text()
    if isinstance(declared, EnumType) and get_origin(wanted) is Literal:
        return _plan_enum(declared, get_args(wanted), where)
    if isinstance(declared, OptionType) and (inner := _optional(wanted)) is not None:
        return Option(plan(declared.payload, inner, where))
    if isinstance(declared, ListType) and get_origin(wanted) is tuple:
        return List(plan(declared.element, get_args(wanted)[0], where))
    if isinstance(declared, RecordType) and isinstance(wanted, type) and is_dataclass(wanted):
        return _plan_record(declared, wanted, where)
    if isinstance(declared, VariantType):
        return _plan_variant(declared, wanted, where)
    raise PlanError(f"{where}: {type(declared).__name__} is not what the contract says")


def restrict(parameter: Plan, reads: frozenset[str]) -> Plan:
    """The plan of a hook's parameter with the facts blanked that the hook does not read.

    `kind` and `read_only` are always given. `tag:<key>` and `comment:<key>` admit that key of `tags` and `comments`.
    """
    if isinstance(parameter, List):
        return parameter if "nodes" in reads or not _is_node(parameter.inner) else Blank(parameter)
    if not isinstance(parameter, Record):
        return parameter
    return Record(
        tuple((name, attribute, _restrict_field(name, each, reads)) for name, attribute, each in parameter.fields),
        parameter.build,
    )


def _is_node(each: Plan) -> bool:
    return isinstance(each, Record) and each.build is contract.Node


def _restrict_field(name: str, each: Plan, reads: frozenset[str]) -> Plan:
    if name in _ALWAYS or name in reads:
        return each
    if name == "client":
        return restrict(each, reads)
    prefix = _KEYED.get(name)
    if prefix is None or not isinstance(each, List):
        return Blank(each)
    keys = frozenset(fact.removeprefix(prefix) for fact in reads if fact.startswith(prefix))
    return Keyed(each, keys) if keys else Blank(each)


_ALWAYS = ("kind", "read-only")
_KEYED: Mapping[str, str] = types.MappingProxyType({"tags": "tag:", "comments": "comment:"})


def _optional(wanted: object) -> object | None:
    """T of `T | None`; else None."""
    if get_origin(wanted) not in (types.UnionType, Union):
        return None
    inner = [each for each in get_args(wanted) if each is not type(None)]
    return inner[0] if len(inner) == 1 else None


def _plan_enum(declared: EnumType, known: tuple[str, ...], where: str) -> Enum:
    names = tuple(declared.names)
    for name in names:
        if name not in known:
            raise PlanError(f"{where}: this proxy does not know {name!r}")
    return Enum(names, "unknown" if "unknown" in names else None)


def _plan_record(declared: RecordType, wanted: type, where: str) -> Record:
    hints = get_type_hints(wanted)
    known = {each.name for each in fields(wanted)}
    planned = []
    for name, ty in declared.fields:
        attribute = name.replace("-", "_")
        if attribute not in known:
            raise PlanError(f"{where}: this proxy does not know the field {name!r}")
        planned.append((name, attribute, plan(ty, hints[attribute], f"{where}.{name}")))
    whole = [attribute for _, attribute, _ in planned] == [each.name for each in fields(wanted)]
    return Record(tuple(planned), wanted, whole)


def _plan_variant(declared: VariantType, wanted: object, where: str) -> Variant:
    if wanted == contract.Action:
        known = _Actions
    elif wanted is contract.Selector:
        known = _Selectors
    elif wanted == contract.Effect:
        known = _Effects
    else:
        raise PlanError(f"{where}: a variant is not what the contract says")
    cases: dict[str, tuple[Plan | None, Builder]] = {}
    for name, payload in declared.cases:
        if name not in known:
            raise PlanError(f"{where}: this proxy does not know {name!r}")
        kind, build = known[name]
        if (payload is None) != (kind is None):
            raise PlanError(f"{where}: {name!r} is not the contract's")
        cases[name] = (None if payload is None else plan(payload, kind, f"{where}.{name}"), build)
    return Variant(types.MappingProxyType(cases))
