"""What the tests of the hints plugin have in common: statements with hints, and what the plugin says of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import jsonschema
from helios_sdk import (
    Directive,
    Hint,
    Node,
    Notice,
    Reject,
    Route,
    Selector,
    Statement,
)
from helios_sdk.testing import load

from plugins.hints.plugin import Hints
from plugins.hints.schema import SCHEMA

SYNC, SEMISYNC, ASYNC = (Selector("sync-mode", mode) for mode in ("sync", "semisync", "async"))
NODES = (
    Node("primary", "primary"),
    Node("standby-sync-1", "standby", "sync"),
    Node("standby-semi-1", "standby", "semisync"),
    Node("standby-async-1", "standby", "async"),
    Node("standby-async-2", "standby", "async"),
)
Config = Mapping[str, object]
BRANCHES: Config = {"analytics": {"nodes": ["standby-async-1"]}, "dev": {"database": "dev"}}
_A = TypeVar("_A")


def plugin(routing: Config | None = None) -> Hints:
    """The plugin under a `[routing]` that its schema accepts."""
    config = {"routing": routing or {}, "plugin": {}}
    jsonschema.validate(config, SCHEMA)
    return load(Hints, config)


def strict(on_error: str) -> Config:
    return {"hints": {"on_error": on_error}}


def node(name: str) -> Selector:
    return Selector("node", name)


def lexed(text: str) -> tuple[Hint, ...]:
    """The hints of a text whose comments are all hints, as the kernel hands them over."""
    found = []
    for comment in re.finditer(r"/\*helios:(.*?)\*/", text):
        at = comment.start(1)
        for item in comment[1].split(","):
            key, _, value = item.partition("=")
            found.append(Hint(key.strip().lower(), value.strip(), at + len(item) - len(item.lstrip()) + 1))
            at += len(item) + 1
    return tuple(found)


def statement(text: str = "", session: str = "", **facts: object) -> Statement:
    """A read with these hints in a comment (unless the text has comments already) and in the session."""
    comment = text if "/*" in text or not text else f"/*helios:{text}*/"
    items = [item.partition("=") for item in session.split(",") if item]
    hints = (*lexed(comment), *(Hint(key, value) for key, _, value in items))
    plain = Statement("select", True, hints=hints)
    return replace(plain, **facts)  # type: ignore[arg-type]


def write(text: str = "", session: str = "", **facts: object) -> Statement:
    return replace(statement(text, session, **facts), kind="insert", read_only=False)


def directives(hints: Hints, given: Statement, nodes: tuple[Node, ...] = NODES) -> list[Directive]:
    """What both hooks say, as the kernel calls them: a reject ends it."""
    said = listed(hints.on_parse(given)) if given.hints else []
    if any(isinstance(directive.action, Reject) for directive in said):
        return said
    return said + listed(hints.on_route(given, nodes))


def listed(answer: object) -> list[Directive]:
    if answer is None:
        return []
    assert isinstance(answer, list | tuple)
    return list(answer)


def actions(hints: Hints, given: Statement) -> list[object]:
    return [directive.action for directive in directives(hints, given)]


def of(kind: type[_A], hints: Hints, given: Statement) -> list[_A]:
    return [action for action in actions(hints, given) if isinstance(action, kind)]


def routes(hints: Hints, given: Statement) -> list[Route]:
    return of(Route, hints, given)


def reject(hints: Hints, given: Statement) -> Reject:
    """The one directive there is, a reject with 42601."""
    said = actions(hints, given)
    assert len(said) == 1
    assert isinstance(said[0], Reject)
    assert said[0].sqlstate == "42601"
    return said[0]


def only_notice(hints: Hints, given: Statement) -> Notice:
    (said,) = of(Notice, hints, given)
    return said


def rule(when: Config, use: str) -> Config:
    """A `[routing]` with this one rule."""
    return {"rules": [{"when": when, "use": use}]}
