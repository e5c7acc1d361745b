"""The configuration that the plugin owns: `[routing]` and everything below it, as a JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from helios_sdk import Kind

from .vocabulary import LEVELS, POOL_MODES, PRIORITIES, ROUTES, TAGS

Json = Mapping[str, object]


def _table(description: str, properties: Json, required: tuple[str, ...] = ()) -> Json:
    """A table that takes these keys and no others."""
    return {
        "type": "object",
        "description": description,
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _flag(description: str, default: bool) -> Json:
    return {"type": "boolean", "description": description, "default": default}


def _names(description: str) -> Json:
    return {"type": "array", "description": description, "items": {"type": "string", "minLength": 1}, "minItems": 1}


def _level(nodes: list[str], lag: int, meaning: str) -> Json:
    allowed = _names(
        "Nodes that meet the level: primary, standby, standby-sync, standby-semisync, standby-async, * or a name."
    )
    limit = {
        "type": "integer",
        "description": "Largest replication lag in ms. 0: replayed past the last write that was sampled. -1: no limit.",
        "minimum": -1,
        "maximum": 2**32 - 1,
        "default": lag,
    }
    return _table(meaning, {"allowed_nodes": {**allowed, "default": nodes}, "max_lag_ms": limit})


LEVEL_DEFAULTS: Final[Mapping[str, tuple[list[str], int]]] = {
    "strong": (["primary", "standby-sync"], 0),
    "bounded": (["primary", "standby-sync", "standby-semisync"], 1000),
    "eventual": (["*"], -1),
}
"""What a consistency level means unless `[routing.consistency.<level>]` says otherwise: allowed_nodes, max_lag_ms."""

_HINTS: Final = _table(
    "Whether and how hints are obeyed.",
    {
        "enabled": _flag("false: hints are taken out of the statement and not obeyed.", True),
        "allow_node_hints": _flag("Whether node= may name a node.", True),
        "allow_primary_reads": _flag("false: a read that asks for the primary gets the default target.", True),
        "require_auth": _flag("true: hints of clients that were let in by trust are ignored.", False),
        "on_error": {
            "enum": ["reject", "notice", "ignore"],
            "description": "A bad hint: refuse the statement (42601), ignore the hint with a notice, or silently.",
            "default": "reject",
        },
    },
)

_ALIASES: Final[Json] = {
    "type": "object",
    "description": 'Further values of route=: a list of node names, or "auto" for the closest node.',
    "additionalProperties": {"oneOf": [{"const": "auto"}, _names("Node names.")]},
}

_BRANCHES: Final[Json] = {
    "type": "object",
    "description": "Values of branch=.",
    "additionalProperties": {
        **_table(
            "Where a branch is.",
            {
                "nodes": _names("Nodes that hold it. Absent: any."),
                "database": {"type": "string", "minLength": 1, "description": "Its database, if it is another one."},
            },
        ),
        "minProperties": 1,
    },
}

_KIND: Final[Json] = {"enum": list(get_args(Kind))}

_RULES: Final[Json] = {
    "type": "array",
    "description": "Hints for statements that have none of their own. The first rule that matches counts.",
    "items": _table(
        "One rule.",
        {
            "when": {
                "type": "object",
                "description": "All must hold: table, user, database, application_name, kind, or any tag. "
                "A list gives alternatives.",
                "properties": {"kind": {"oneOf": [_KIND, {"type": "array", "items": _KIND, "minItems": 1}]}},
                "additionalProperties": {"oneOf": [{"type": "string"}, _names("Alternatives.")]},
                "minProperties": 1,
            },
            "use": {
                "type": "string",
                "description": 'Hints as in a comment: "route=async,lag=10s".',
                "minLength": 1,
            },
        },
        required=("when", "use"),
    ),
}

_ROUTING: Final = _table(
    "Where statements run.",
    {
        "default_read_target": {
            "type": "string",
            "minLength": 1,
            "description": "A value of route=, for reads.",
            "default": "standby",
        },
        "default_write_target": {
            "const": "primary",
            "description": "For everything that is not proven to be read-only.",
            "default": "primary",
        },
        "default_consistency": {"enum": list(LEVELS), "description": "For reads.", "default": "eventual"},
        "hints": _HINTS,
        "aliases": _ALIASES,
        "branches": _BRANCHES,
        "consistency": _table(
            "What the consistency levels mean.",
            {
                "strong": _level(*LEVEL_DEFAULTS["strong"], "Sees every write that was acknowledged before."),
                "bounded": _level(*LEVEL_DEFAULTS["bounded"], "May be behind, up to a bound."),
                "eventual": _level(*LEVEL_DEFAULTS["eventual"], "May be behind."),
            },
        ),
        "rules": _RULES,
    },
)

_DURATION: Final = "<duration>"

SUPPORTED: Final = [
    {"name": "route", "values": list(ROUTES), "description": "Target nodes; aliases of [routing.aliases] as well."},
    {"name": "node", "values": ["<node>"], "description": "One node, by name."},
    {"name": "consistency", "values": list(LEVELS), "description": "Consistency requirement."},
    {"name": "lag", "values": [_DURATION], "description": "Largest acceptable replication lag."},
    {"name": "pool", "values": list(POOL_MODES), "description": "Pool mode."},
    {"name": "cache", "values": ["skip", "refresh", "ttl=<duration>"], "description": "Cache behaviour."},
    {"name": "timeout", "values": [_DURATION], "description": "Whole time in the proxy and on the server."},
    {"name": "priority", "values": list(PRIORITIES), "description": "Place in queues."},
    {"name": "retry", "values": ["true", "false", "<number>"], "description": "Re-executions at most."},
    {"name": "branch", "values": ["<branch>"], "description": "A branch of [routing.branches]."},
    {"name": "twr", "values": ["true", "false"], "description": "A write waits until a standby has replayed it."},
    *({"name": tag, "values": ["<text>"], "description": "A tag."} for tag in TAGS),
]
"""What `GET /routing/hints` lists."""

SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"routing": _ROUTING, "plugin": _table("Empty: the plugin is configured under [routing].", {})},
    "x-hints": SUPPORTED,
}
