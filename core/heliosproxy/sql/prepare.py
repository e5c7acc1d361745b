"""PREPARE: what is inside it."""

from __future__ import annotations

from typing import NamedTuple

from pglast import Error
from pglast.parser import scan

from heliosproxy.sql.tree import child, items, parse, strings

_PLAIN_TYPES = frozenset((
    "bool", "bpchar", "bytea", "date", "float4", "float8", "int2", "int4", "int8", "interval", "json", "jsonb",
    "numeric", "oid", "text", "time", "timestamp", "timestamptz", "timetz", "uuid", "varchar",
))  # fmt: skip


class Inner(NamedTuple):
    """The statement that a PREPARE prepares. `plain`: it declares no parameter of a type that might be a domain."""

    text: str
    plain: bool


def prepared(text: str) -> Inner | None:
    """What a PREPARE prepares; None if the text is anything else, or cannot be read."""
    trees = parse(text)
    body = child(trees[0], "PrepareStmt") if trees and len(trees) == 1 else {}
    position = _after_as(text) if body else -1
    if position < 0:
        return None
    names = [strings(child(item, "TypeName"), "names") for item in items(body, "argtypes")]
    plain = all(name[-1] in _PLAIN_TYPES and name[:-1] in ([], ["pg_catalog"]) for name in names)
    return Inner(text[position:].rstrip().removesuffix(";"), plain)


def _after_as(text: str) -> int:
    """Where the text goes on after the AS of its PREPARE."""
    depth = 0
    try:
        tokens = scan(text)
    except Error:
        return -1
    for token in tokens:
        if token.name == "AS" and not depth:
            return token.end + 1
        depth += (token.name == "ASCII_40") - (token.name == "ASCII_41")
    return -1
