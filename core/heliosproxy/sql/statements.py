"""One statement's tree, read: a function per family of statements."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from helios_sdk.contract import Kind

from heliosproxy.sql import effects
from heliosproxy.sql.effects import Setting, Transaction
from heliosproxy.sql.references import (
    NO_REFERENCES,
    References,
    Written,
    collect,
    merge,
    relation_name,
)
from heliosproxy.sql.session import RELEASING_FUNCTIONS, Name, names_session_state, session_state
from heliosproxy.sql.tree import Tree, child, items, text_of

CURSOR_WITH_HOLD = 0x0020
"""`CURSOR_OPT_HOLD` of PostgreSQL's parsenodes.h."""

TEMPORARY_TABLE = "temporary table"
TEMPORARY_OBJECT = "temporary object"
HELD_CURSOR = "cursor WITH HOLD"
LISTENS = "LISTEN"
PREPARES = "PREPARE"
SEQUENCE_VALUES = "sequence values"
SETS = "SET "
"""Reasons for which a session keeps its link; the last is followed by the setting's name, and alone stands for all."""


@dataclass(frozen=True, slots=True)
class Single:
    """The facts of one statement; fields as in `facts.Facts`."""

    kind: Kind
    references: References | None = None
    relations: tuple[Name, ...] = ()
    """Relations that it names, where `references` is None."""
    transaction: Transaction | None = None
    setting: Setting | None = None
    name: str = ""
    pins: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    unpins: bool = False
    executes: tuple[str, ...] = ()
    ddl: bool = False
    ddl_of_relations: bool = False
    locks_rows: bool = False


def read(tree: Tree) -> Single:
    """The facts of `{type: fields}`. A type that is not known is DDL: most are, and it is the cautious answer."""
    [(kind, _)] = tree.items()
    return _READERS.get(kind, _other)(tree, child(tree, kind))


def _rows(kind: Kind) -> Callable[[Tree, Tree], Single]:
    def reader(tree: Tree, body: Tree) -> Single:
        return _of_rows(kind, tree)

    return reader


def _of_rows(kind: Kind, tree: Tree, name: str = "") -> Single:
    found = collect(tree)
    if found is None:
        return Single(kind, name=name, pins=session_state(tree), locks_rows=True)
    releases = tuple(RELEASING_FUNCTIONS[name] for _, name in found.functions if name in RELEASING_FUNCTIONS)
    return Single(kind, found, name=name, pins=found.session, releases=releases, locks_rows=found.locks_rows)


def _select(tree: Tree, body: Tree) -> Single:
    into = child(_leftmost(body), "intoClause")
    if into:
        temporary = effects.creates_temporary({"into": into})
        pins = (TEMPORARY_TABLE,) if temporary else session_state(tree)
        return Single("select", relations=(relation_name(child(into, "rel")),), pins=pins, ddl=True)
    return _rows("select")(tree, body)


def _leftmost(select: Tree) -> Tree:
    # The INTO of a UNION stands in its leftmost SELECT.
    while "larg" in select:
        select = child(select, "larg")
    return select


def _transaction(tree: Tree, body: Tree) -> Single:
    found = effects.transaction(body)
    kinds: Mapping[str, Kind] = _TRANSACTION_KINDS
    kind = kinds.get(found.action, "unknown") if found is not None else "unknown"
    return Single(kind, transaction=found, name=found.name if found is not None else "")


_TRANSACTION_KINDS: Mapping[str, Kind] = MappingProxyType({
    "begin": "begin", "commit": "commit", "rollback": "rollback", "savepoint": "savepoint", "release": "savepoint",
    "rollback-to": "savepoint", "prepare": "prepare-transaction", "commit-prepared": "commit-prepared",
    "rollback-prepared": "commit-prepared",
})  # fmt: skip


def _set(tree: Tree, body: Tree) -> Single:
    transaction = effects.set_transaction(body)
    if transaction is not None:
        return Single("set", transaction=transaction)
    setting = effects.setting(body)
    if setting is None:
        return Single("set", pins=("SET",))
    kind: Kind = "reset" if setting.action in ("reset", "reset-all") else "set"
    if setting.is_local or setting.action == "current":
        return Single(kind, setting=setting)
    if setting.action == "set":
        return Single(kind, setting=setting, pins=(f"{SETS}{setting.name}",))
    if "." in setting.name:  # a server goes on knowing a custom one, as empty
        return Single(kind, setting=setting)
    released = f"{SETS}{setting.name}" if setting.name else SETS
    return Single(kind, setting=setting, releases=(released,))


def _show(tree: Tree, body: Tree) -> Single:
    return Single("show", NO_REFERENCES, setting=Setting("show", text_of(body, "name").lower()))


def _discard(tree: Tree, body: Tree) -> Single:
    target = text_of(body, "target")
    return Single("discard", releases=_DISCARDED.get(target, ()), unpins=target == "DISCARD_ALL")


_DISCARDED: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "DISCARD_TEMP": (TEMPORARY_TABLE, TEMPORARY_OBJECT),
    "DISCARD_SEQUENCES": ("currval", "lastval", SEQUENCE_VALUES),
})


def _all_of(kind: Kind, field: str, releases: str) -> Callable[[Tree, Tree], Single]:
    """Statements that end one thing by name, or without one all of a kind."""

    def reader(tree: Tree, body: Tree) -> Single:
        name = text_of(body, field)
        return Single(kind, name=name, releases=() if name else (releases,))

    return reader


def _named(kind: Kind, field: str, *pins: str) -> Callable[[Tree, Tree], Single]:
    def reader(tree: Tree, body: Tree) -> Single:
        return Single(kind, name=text_of(body, field), pins=pins)

    return reader


def _declare(tree: Tree, body: Tree) -> Single:
    query = child(body, "query")
    options = body.get("options", 0)
    hold = isinstance(options, int) and bool(options & CURSOR_WITH_HOLD)
    found = _of_rows("declare", query, text_of(body, "portalname"))
    return replace(found, pins=(*found.pins, HELD_CURSOR)) if hold else found


def _execute(tree: Tree, body: Tree) -> Single:
    """It reads and leaves what its arguments do; what it executes has facts of its own (S2)."""
    name = text_of(body, "name")
    found = [collect(argument) for argument in items(body, "params")]
    known = [references for references in found if references is not None]
    references = merge(known) if len(known) == len(found) else None
    return Single("execute", references, name=name, pins=session_state(body.get("params")), executes=(name,))


def _do(tree: Tree, body: Tree) -> Single:
    """What a block of code leaves in its session is guessed from the words in it."""
    definitions = [child(item, "DefElem") for item in items(body, "args")]
    code = " ".join(text_of(child(child(one, "arg"), "String"), "sval") for one in definitions)
    return Single("do", pins=_state_in_code(code), ddl=True)


_IN_CODE = MappingProxyType({
    re.compile(r"\btemp(?:orary)?\s+(?:table|view|sequence)\b", re.IGNORECASE): TEMPORARY_TABLE,
    re.compile(r"\blisten\b", re.IGNORECASE): LISTENS,
})


def _state_in_code(code: str) -> tuple[str, ...]:
    return names_session_state(code) + tuple(reason for word, reason in _IN_CODE.items() if word.search(code))


def _explain(tree: Tree, body: Tree) -> Single:
    query = child(body, "query")
    inner = read(query)
    rows = inner.kind in ("select", "insert", "update", "delete", "merge") and not inner.ddl
    rows = rows or inner.kind == "execute"
    pins = inner.pins if _analyzes(body) else ()
    return Single(
        "explain",
        inner.references if rows else None,
        inner.relations,
        name=inner.name,
        executes=inner.executes,
        pins=pins,
        ddl=inner.ddl and _analyzes(body),
        locks_rows=inner.locks_rows,
    )


def _analyzes(body: Tree) -> bool:
    options = [child(option, "DefElem") for option in items(body, "options")]
    return any(text_of(option, "defname") == "analyze" for option in options)


def _copy(tree: Tree, body: Tree) -> Single:
    relation = child(body, "relation")
    query = child(body, "query")
    if "filename" in body or "is_program" in body:
        return Single("copy", relations=(relation_name(relation),) if relation else ())
    if query:
        return _of_rows("copy", query)
    return Single("copy", _copied(relation_name(relation), body), pins=session_state(body))


def _copied(name: Name, body: Tree) -> References | None:
    if not body.get("is_from"):
        return References(relations=(name,))
    condition = child(body, "whereClause")
    named = collect(condition) if condition else NO_REFERENCES
    written = References(relations=(name,), written=(Written(name, "insert"),), writes=True)
    return merge((named, written)) if named is not None else None


def _relations(kind: Kind, ddl: bool = False) -> Callable[[Tree, Tree], Single]:
    def reader(tree: Tree, body: Tree) -> Single:
        names = (relation_name(child(item, "RangeVar")) for item in items(body, "relations"))
        return Single(kind, relations=tuple(names), ddl=ddl)

    return reader


def _plain(kind: Kind, *pins: str, ddl: bool = False) -> Callable[[Tree, Tree], Single]:
    def reader(tree: Tree, body: Tree) -> Single:
        return Single(kind, ddl=ddl, pins=pins)

    return reader


def _other(tree: Tree, body: Tree) -> Single:
    target = child(body, "relation") or child(body, "view") or child(child(body, "into"), "rel")
    temporary = effects.creates_temporary(body)
    # CREATE TABLE AS runs its query; other DDL has no calls that outlive it, but may hold some in its definitions.
    pins = (TEMPORARY_OBJECT,) if temporary else session_state(body.get("query"))
    [kind] = tree
    names = (relation_name(target),) if target else ()
    executed = text_of(child(child(body, "query"), "ExecuteStmt"), "name")
    executes = (executed,) if executed else ()
    of_relations = kind in _OF_RELATIONS
    return Single("ddl", relations=names, ddl=True, ddl_of_relations=of_relations, pins=pins, executes=executes)


_OF_RELATIONS = frozenset((
    "CreateStmt", "CreateSeqStmt", "IndexStmt", "ViewStmt", "AlterTableStmt", "AlterSeqStmt", "RuleStmt",
    "CreateTrigStmt", "CreatePolicyStmt", "AlterPolicyStmt", "CommentStmt", "GrantStmt", "DropStmt",
))  # fmt: skip
"""DDL after which every function, operator and cast that is there was there before, as it is: dropping one of several
overloads makes no other one appear. What an event trigger does besides is not seen here."""


_READERS: Mapping[str, Callable[[Tree, Tree], Single]] = MappingProxyType({
    "SelectStmt": _select,
    "InsertStmt": _rows("insert"),
    "UpdateStmt": _rows("update"),
    "DeleteStmt": _rows("delete"),
    "MergeStmt": _rows("merge"),
    "TransactionStmt": _transaction,
    "VariableSetStmt": _set,
    "VariableShowStmt": _show,
    "DiscardStmt": _discard,
    "PrepareStmt": _named("prepare", "name"),
    "ExecuteStmt": _execute,
    "DeallocateStmt": _all_of("deallocate", "name", PREPARES),
    "DeclareCursorStmt": _declare,
    "FetchStmt": _named("fetch", "portalname"),
    "ClosePortalStmt": _all_of("close", "portalname", HELD_CURSOR),
    "ListenStmt": _named("listen", "conditionname", LISTENS),
    "UnlistenStmt": _all_of("unlisten", "conditionname", LISTENS),
    "NotifyStmt": _named("notify", "conditionname"),
    "LockStmt": _relations("lock"),
    "TruncateStmt": _relations("utility"),
    "ExplainStmt": _explain,
    "CopyStmt": _copy,
    "CallStmt": _plain("call", ddl=True),
    "DoStmt": _do,
    "LoadStmt": _plain("utility", "LOAD"),
    "ConstraintsSetStmt": _plain("utility"),
    "CheckPointStmt": _plain("utility"),
    "VacuumStmt": _plain("utility"),
    "ClusterStmt": _plain("utility"),
    "ReindexStmt": _plain("utility"),
})
