"""`[routing]` read into what the decisions work from. The schema was checked before; this checks what it cannot say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from helios_sdk import ANY, LOCAL, Directive, Route, Selector

from .nodesets import Select, disjoint
from .rules import FACTS, Choice, Rule
from .schema import LEVEL_DEFAULTS
from .spelling import near
from .vocabulary import KEYS, LEVELS, ROUTES, RULE, TAGS, Branch, Level, Origin, Value, Vocabulary, parse

Table: TypeAlias = Mapping[str, object]
OnError: TypeAlias = Literal["reject", "notice", "ignore"]

_CLASSES: Mapping[str, Select] = {
    "*": (ANY,),
    "primary": ROUTES["primary"],
    "standby": ROUTES["standby"],
    "standby-sync": ROUTES["sync"],
    "standby-semisync": ROUTES["semisync"],
    "standby-async": ROUTES["async"],
}
"""Entries of allowed_nodes that are no node's name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says, ready for use."""

    words: Vocabulary
    rules: tuple[Rule, ...]
    default_level: Level
    enabled: bool = True
    allow_primary_reads: bool = True
    require_auth: bool = False
    on_error: OnError = "reject"

    def default_target(self, level: Level) -> Directive:
        """The default read target under a level.

        A level that limits the lag and allows the primary makes the target a preference: that the standby is not
        there yet and the primary answers is then what was asked for, not a fallback to warn of.
        """
        route = self.words.default
        if level.max_lag_ms is not None and ROUTES["primary"][0] in level.select and route.otherwise:
            route = Route((ANY,), prefer=route.select)
        return Directive(route, f"Default: read target {self.words.default_read}")

    def required(self, level: Level) -> Directive | None:
        """The default level as a requirement; None where it asks for nothing."""
        if level.select == (ANY,) and level.max_lag_ms is None:
            return None
        return Directive(level.action, f"Default: consistency {level.name}")


def read(routing: Table) -> Settings:
    """The settings that `[routing]` stands for. Raises ValueError: one line, `path: what is wrong`, per mistake."""
    mistakes: list[str] = []
    hints = _table(routing, "hints")
    words = Vocabulary(
        _aliases(_table(routing, "aliases"), mistakes),
        {name: _level(name, _table(_table(routing, "consistency"), name)) for name in LEVELS},
        {name: _branch(cast(Table, entry)) for name, entry in _table(routing, "branches").items()},
        str(routing.get("default_read_target", "standby")).lower(),
        bool(hints.get("allow_node_hints", True)),
    )
    if not words.target(words.default_read):
        mistakes.append(f"routing.default_read_target: {words.default_read!r} is none of {', '.join(words.routes())}")
    rules = tuple(_rules(cast("list[Table]", routing.get("rules", [])), words, mistakes))
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return Settings(
        words,
        rules,
        words.levels[str(routing.get("default_consistency", "eventual"))],
        bool(hints.get("enabled", True)),
        bool(hints.get("allow_primary_reads", True)),
        bool(hints.get("require_auth", False)),
        cast(OnError, hints.get("on_error", "reject")),
    )


def _table(parent: Table, key: str) -> Table:
    return cast(Table, parent.get(key, {}))


def _strings(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(cast("list[str]", value))


def _aliases(table: Table, mistakes: list[str]) -> Mapping[str, Select]:
    aliases: dict[str, Select] = {}
    for name, nodes in table.items():
        alias = name.lower()
        if alias in ROUTES and not (alias == "local" and nodes == "auto"):
            mistakes.append(f"routing.aliases.{name}: route={alias} has a meaning of its own; choose another name")
        elif alias in aliases:
            mistakes.append(f"routing.aliases.{name}: the same name in other letters is an alias already")
        else:
            aliases[alias] = (LOCAL,) if nodes == "auto" else tuple(Selector("node", node) for node in _strings(nodes))
    return aliases


def _level(name: str, table: Table) -> Level:
    nodes, lag = LEVEL_DEFAULTS[name]
    entries = _strings(table.get("allowed_nodes", nodes))
    limit = int(cast(int, table.get("max_lag_ms", lag)))
    level = next(level for level in LEVELS if level == name)
    return Level(level, _allowed(entries), None if limit < 0 else limit)


def _allowed(entries: tuple[str, ...]) -> Select:
    named = (selector for entry in entries for selector in _CLASSES.get(entry.lower(), (Selector("node", entry),)))
    select = tuple(dict.fromkeys(named))
    return (ANY,) if ANY in select else select


def _branch(table: Table) -> Branch:
    nodes = _strings(table.get("nodes", []))
    database = table.get("database")
    return Branch(tuple(Selector("node", node) for node in nodes), None if database is None else str(database))


def _rules(entries: list[Table], words: Vocabulary, mistakes: list[str]) -> Iterator[Rule]:
    for index, entry in enumerate(entries):
        path = f"routing.rules[{index}]"
        when = {key: _strings(value) for key, value in _table(entry, "when").items()}
        mistakes += (f"{path}.when.{key}: {text}" for key in when if (text := _bad_condition(key)))
        condition = ", ".join(f"{key}={'|'.join(values)}" for key, values in when.items())
        origin = Origin(RULE, f"Rule {index + 1}: use ", f" ({condition})")
        use = parse(str(entry.get("use", "")))
        values = [words.read(key, value, origin) for key, value in use]
        mistakes += (f"{path}.use: {text}" for text in _bad_use(values))
        yield Rule(
            {key: Choice(choice) for key, choice in when.items() if key in FACTS},
            {key.lower(): Choice(choice) for key, choice in when.items() if key not in FACTS},
            {value.key: value for value in values},
        )


def _bad_condition(key: str) -> str:
    """What is wrong with a key of `when`, if anything."""
    if key.lower() in KEYS and key.lower() not in TAGS:
        return "a rule looks at facts and tags; this hint is none"
    meant = None if key in FACTS or key.lower() in TAGS else near(key.lower(), (*FACTS, *TAGS))
    return f"did you mean {meant}?" if meant else ""


def _bad_use(values: list[Value]) -> Iterator[str]:
    """What is wrong with a rule's hints, as far as that does not depend on the nodes."""
    for value in values:
        if value.problem:
            yield f"{value.problem.message}. {value.problem.help}"
        if value.remark:
            yield value.remark
    named = {value.key: value for value in values}
    if len(named) < len(values):
        yield "a key is given twice"
    route, level = named.get("route"), named.get("consistency")
    if route is None or route.problem:
        return
    if route.select == ROUTES["primary"]:
        yield from (f"{named[key].text} contradicts route=primary" for key in ("lag", "twr") if _given(named.get(key)))
    elif level and level.select and disjoint(route.select, level.select, ()):
        yield f"{route.text} contradicts {level.text}, which allows none of its nodes"


def _given(value: Value | None) -> bool:
    return value is not None and bool(value.select)
