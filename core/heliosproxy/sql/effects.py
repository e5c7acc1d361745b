"""What statements do besides reading and writing rows: transactions, settings, state that stays in the session."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from heliosproxy.sql.tree import Tree, child, constant, items, strings, text_of

TransactionAction: TypeAlias = Literal[
    "begin", "commit", "rollback", "savepoint", "release", "rollback-to",
    "prepare", "commit-prepared", "rollback-prepared", "set",
]  # fmt: skip
SettingAction: TypeAlias = Literal["set", "default", "reset", "reset-all", "show", "current"]


@dataclass(frozen=True, slots=True)
class Transaction:
    """Transaction control. `set` is SET TRANSACTION; None: the statement does not say."""

    action: TransactionAction
    read_only: bool | None = None
    isolation: str | None = None
    """Lower case: `serializable`, `repeatable read`, …"""
    deferrable: bool | None = None
    chain: bool = False
    name: str = ""
    """The savepoint, or the identifier of the prepared transaction."""

    @property
    def serializable(self) -> bool:
        """Whether it asks for SERIALIZABLE, which a standby refuses."""
        return self.isolation == "serializable"


@dataclass(frozen=True, slots=True)
class Setting:
    """SET, RESET or SHOW of a setting."""

    action: SettingAction
    name: str
    """Lower case; empty for RESET ALL. `session characteristics` stands for SET SESSION CHARACTERISTICS."""
    value: str | None = None
    """What is assigned, as `set_config` takes it (a list joined, its names quoted where needed); None where nothing is,
    or where it has no such form (SET TIME ZONE INTERVAL …)."""
    is_local: bool = False


_ACTIONS: dict[str, TransactionAction] = {
    "TRANS_STMT_BEGIN": "begin",
    "TRANS_STMT_START": "begin",
    "TRANS_STMT_COMMIT": "commit",
    "TRANS_STMT_ROLLBACK": "rollback",
    "TRANS_STMT_SAVEPOINT": "savepoint",
    "TRANS_STMT_RELEASE": "release",
    "TRANS_STMT_ROLLBACK_TO": "rollback-to",
    "TRANS_STMT_PREPARE": "prepare",
    "TRANS_STMT_COMMIT_PREPARED": "commit-prepared",
    "TRANS_STMT_ROLLBACK_PREPARED": "rollback-prepared",
}


def transaction(statement: Tree) -> Transaction | None:
    """A TransactionStmt's fields as facts; None for an action that is not known."""
    action = _ACTIONS.get(text_of(statement, "kind"))
    if action is None:
        return None
    name = text_of(statement, "savepoint_name") or text_of(statement, "gid")
    return _with_options(action, items(statement, "options"), bool(statement.get("chain")), name)


def _with_options(action: TransactionAction, options: list[Tree], chain: bool = False, name: str = "") -> Transaction:
    values = {text_of(option, "defname"): constant(child(option, "arg")) for option in _definitions(options)}
    isolation = values.get("transaction_isolation")
    return Transaction(
        action,
        _truth(values.get("transaction_read_only")),
        isolation.lower() if isinstance(isolation, str) else None,
        _truth(values.get("transaction_deferrable")),
        chain,
        name,
    )


def _definitions(options: list[Tree]) -> list[Tree]:
    return [child(option, "DefElem") for option in options]


def _truth(value: str | bool | None) -> bool | None:
    return None if value is None else value not in ("0", False)


def set_transaction(statement: Tree) -> Transaction | None:
    """What SET TRANSACTION says; None for every other VariableSetStmt."""
    if text_of(statement, "kind") != "VAR_SET_MULTI" or not text_of(statement, "name").startswith("TRANSACTION"):
        return None
    return _with_options("set", items(statement, "args"))


_SETTINGS: dict[str, SettingAction] = {
    "VAR_SET_VALUE": "set",
    "VAR_SET_DEFAULT": "default",
    "VAR_SET_CURRENT": "current",
    "VAR_SET_MULTI": "set",
    "VAR_RESET": "reset",
    "VAR_RESET_ALL": "reset-all",
}
_QUOTED_LISTS = frozenset(
    ("search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries",
     "shared_preload_libraries", "unix_socket_directories"),
)  # fmt: skip
_BARE_NAME = re.compile(r"[a-z_][a-z0-9_$]*\Z")


def setting(statement: Tree) -> Setting | None:
    """A VariableSetStmt's fields as facts; None for SET TRANSACTION and for what is not known."""
    action = _SETTINGS.get(text_of(statement, "kind"))
    if action is None or set_transaction(statement) is not None:
        return None
    name = text_of(statement, "name").lower()
    value = _value(name, items(statement, "args")) if action == "set" else None
    return Setting(action, name, value, bool(statement.get("is_local")))


def _value(name: str, arguments: list[Tree]) -> str | None:
    values = [constant(argument) for argument in arguments]
    if not values or any(value is None for value in values):
        return None
    texts = [("true" if value else "false") if isinstance(value, bool) else str(value) for value in values]
    if name in _QUOTED_LISTS:
        texts = [text if _BARE_NAME.match(text) else '"' + text.replace('"', '""') + '"' for text in texts]
    return ", ".join(texts)


def creates_temporary(statement: Tree) -> bool:
    """Whether a CREATE statement or SELECT INTO makes an object that lives as long as the session."""
    for field in ("relation", "view", "sequence"):
        if _is_temporary(child(statement, field)):
            return True
    return _is_temporary(child(child(statement, "into"), "rel")) or names_temporary_schema(statement)


def _is_temporary(range_var: Tree) -> bool:
    return text_of(range_var, "relpersistence") == "t" or text_of(range_var, "schemaname") == "pg_temp"


def names_temporary_schema(statement: Tree) -> bool:
    """Whether a name that the statement defines (a function, a type …) stands in pg_temp."""
    fields = ("funcname", "typeName", "defnames", "domainname", "typevar")
    return any("pg_temp" in strings(statement, field) for field in fields) or _is_temporary(child(statement, "typevar"))
