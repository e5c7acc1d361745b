"""Calls that leave state in the session, or read what a statement before left there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from heliosproxy.sql.tree import Json, Tree, constant, items, strings

Name: TypeAlias = tuple[str, str]
"""Schema (`""`: not written) and name."""


def dotted(parts: list[str]) -> Name:
    """The last two parts of a dotted name as schema and name (a leading database name is dropped)."""
    return (parts[-2] if len(parts) > 1 else "", parts[-1] if parts else "")


def sets_locally(call: Tree) -> bool:
    """Whether a FuncCall is `set_config(…, …, true)`: a setting that ends with the transaction."""
    arguments = items(call, "args")
    return (
        strings(call, "funcname") in (["set_config"], ["pg_catalog", "set_config"])
        and len(arguments) == 3
        and not any("NamedArgExpr" in argument for argument in arguments)
        and constant(arguments[2]) is True
    )


SESSION_FUNCTIONS: Mapping[str, str] = MappingProxyType({
    "pg_advisory_lock": "advisory lock",
    "pg_advisory_lock_shared": "advisory lock",
    "pg_try_advisory_lock": "advisory lock",
    "pg_try_advisory_lock_shared": "advisory lock",
    "set_config": "set_config",
    "currval": "currval",
    "lastval": "lastval",
    "setseed": "setseed",
})
"""Built-in functions that leave something in the session or read what a statement before left there. Unlocking leaves
nothing that was not there before."""

RELEASING_FUNCTIONS: Mapping[str, str] = MappingProxyType({"pg_advisory_unlock_all": "advisory lock"})
"""Built-in functions that end all of what others left, and which reason that takes away."""


def session_state(tree: Json) -> tuple[str, ...]:
    """Why calls within this tree leave state in the session that must stay on its link.

    A call counts by its last name, whatever its schema, so that a search_path cannot hide it.
    """
    reasons: set[str] = set()
    pending: list[Json] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, dict):
            call = node.get("FuncCall")
            if isinstance(call, dict) and (reason := call_state(call)):
                reasons.add(reason)
            pending.extend(value for value in node.values() if isinstance(value, (dict, list)))
    return tuple(sorted(reasons))


def call_state(call: Tree) -> str:
    """Why this FuncCall leaves state in the session; empty if it does not."""
    reason = SESSION_FUNCTIONS.get(dotted(strings(call, "funcname"))[1], "")
    return "" if reason and sets_locally(call) else reason


SETS_BY_CALL = b"set_config"
_SET_BY_NAME = re.compile(rb"set_config\s*\(\s*'([A-Za-z_][A-Za-z0-9_.]*)'\s*,")


def set_by_call(text: bytes) -> tuple[str, ...]:
    """The settings that calls of set_config in a text name; empty unless every one of them names a constant."""
    names = _SET_BY_NAME.findall(text)
    return tuple(name.decode() for name in names) if len(names) == text.lower().count(SETS_BY_CALL) else ()


def names_session_state(text: str) -> tuple[str, ...]:
    """As `session_state`, for a text that has no tree: for those of the functions whose name occurs in it at all."""
    folded = text.lower()
    return tuple(sorted({reason for name, reason in SESSION_FUNCTIONS.items() if name in folded}))


