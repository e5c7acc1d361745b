"""`[[routing.rules]]`: hints that the administrator gives to statements that say none themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from helios_sdk import Directive, Hint, Statement

from .vocabulary import ROUTING, Value

FACTS: Final = ("table", "user", "database", "application_name", "kind")
"""Keys of `when` that are facts of the statement. Every other key is a tag."""

Choice = frozenset[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: it matches where each of `facts` and `tags` has one of its values; then `values` hold."""

    facts: Mapping[str, Choice]
    tags: Mapping[str, Choice]
    values: Mapping[str, Value]

    def matches(self, statement: Statement, hints: Mapping[str, Hint]) -> bool:
        """Whether every condition holds. `hints`: those to be obeyed, by key."""
        return all(_has_tag(hints.get(key), choice) for key, choice in self.tags.items()) and all(
            _has_fact(name, statement, choice) for name, choice in self.facts.items()
        )

    def acts(self, hints: Mapping[str, Hint]) -> list[Directive]:
        """What has nothing to do with nodes, except where a hint has its own word for it."""
        return [value.act for key, value in self.values.items() if value.act and key not in hints]

    def routing(self) -> Iterable[Value]:
        """What says where the statement runs."""
        return (value for key, value in self.values.items() if key in ROUTING)


def _has_tag(hint: Hint | None, choice: Choice) -> bool:
    return hint is not None and hint.value in choice


def _has_fact(name: str, statement: Statement, choice: Choice) -> bool:
    if name == "table":
        return any(table in choice or table.rpartition(".")[2] in choice for table in statement.tables)
    if name == "kind":
        return statement.kind in choice
    client = statement.client
    if name == "user":
        return client.user in choice
    return (client.database if name == "database" else client.application_name) in choice
