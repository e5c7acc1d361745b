"""The hints plugin: `/*helios:route=standby*/` and its like, rules and default targets (docs: README.md beside it).

`on_parse` tells what a hint alone says: what is wrong with it, tags, timeouts, and so on, so that plugins of later
stages see the tags. `on_route` is asked about every statement and says where it runs. Neither keeps anything between
statements but meanings of hints that it has read before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from helios_sdk import PRIMARY, Directive, Directives, Hint, Node, Plugin, Reject, Route, Statement, hook

from .choosing import duplicates, steers, winners
from .decision import Decision
from .replies import notice, reply
from .rules import Rule
from .schema import SCHEMA
from .settings import Settings, read
from .spelling import short
from .vocabulary import FROM_COMMENT, FROM_SESSION, ROUTING, Problem, Value

MEMO_ENTRIES: Final = 2_000
MEMO_LENGTH: Final = 100
"""Longer values are not remembered: what clients write must not fill the plugin's memory."""

DUPLICATE_HELP: Final = "Give each key once in a comment."


class Hints(Plugin):
    """Routing hints in SQL comments and in the session, routing rules, default targets."""

    name = "hints"
    version = "0.1.0"
    stage = "hints"
    tables = ("routing",)
    schema = SCHEMA

    def configured(self) -> None:
        """Read `[routing]`. Raises ValueError: one line per mistake."""
        settings = read(self.config.get("routing", {}))
        self._settings: Settings = settings
        self._comments: dict[tuple[str, str], Value] = {}
        self._sessions: dict[tuple[str, str], Value] = {}
        self._default_read = {name: settings.default_target(level) for name, level in settings.words.levels.items()}
        self._required = settings.required(settings.default_level)
        target = self._default_read[settings.default_level.name]
        self._plain_read = (target, self._required) if self._required else (target,)
        self._default_write = Directive(Route((PRIMARY,)), "Default: write target primary")
        self._plain_write = (self._default_write,)

    @hook(reads=("hints", "authentication"), only_with=("hints",))
    def on_parse(self, statement: Statement) -> Directives:
        """What the hints say that does not depend on nodes."""
        hints = statement.hints
        chosen = winners(hints, steers(statement))
        if not chosen or not self._settings.enabled:
            return None
        if self._untrusted(statement):
            return [_untrusted_notice(chosen)]
        told: list[Directive] = []
        acts: list[Directive] = []
        if len(chosen) < len(hints):
            told += self._duplicates(hints)
        for hint in chosen.values():
            value = self._meaning(hint)
            if value.act:
                acts.append(value.act)
            if value.problem or value.remark:
                told += self._objections(value, hint)
        return _reject_alone(told) or told + acts or None

    @hook(reads=("hints", "authentication", "nodes", "tables", "user", "database", "application-name"))
    def on_route(self, statement: Statement, nodes: tuple[Node, ...]) -> Directives:
        """Where the statement runs."""
        chosen = self._obeyed(statement)
        rule = self._rule(statement, chosen)
        values = self._routing_values(chosen)
        if rule is None and not values:
            return self._plain(statement)
        acts = self._under(rule, values, chosen) if rule else []
        decision = Decision(values, chosen, nodes, self._settings.on_error)
        decision.check()
        if statement.read_only:
            decision.check_read(self._settings.allow_primary_reads)
        if decision.rejected:
            return decision.told
        return acts + self._directives(statement, decision)

    def _duplicates(self, hints: tuple[Hint, ...]) -> list[Directive]:
        told: list[Directive] = []
        for hint in duplicates(hints):
            told += reply(
                Problem(short(f"hint {hint.key} is given twice"), DUPLICATE_HELP), hint, self._settings.on_error
            )
        return told

    def _objections(self, value: Value, hint: Hint) -> list[Directive]:
        """What is to be said of a bad or a doubtful hint."""
        on_error = self._settings.on_error
        if value.problem:
            return reply(value.problem, hint, on_error)
        return [] if on_error == "ignore" else [notice(value.remark, hint, f"Hint: {value.text}")]

    def _obeyed(self, statement: Statement) -> dict[str, Hint]:
        """The hints that count, by key; none where hints are switched off or the client is not trusted with them."""
        if not statement.hints or not self._settings.enabled or self._untrusted(statement):
            return {}
        return winners(statement.hints, steers(statement))

    def _untrusted(self, statement: Statement) -> bool:
        return self._settings.require_auth and statement.client.authentication == "trust"

    def _rule(self, statement: Statement, chosen: Mapping[str, Hint]) -> Rule | None:
        for rule in self._settings.rules:
            if rule.matches(statement, chosen):
                return rule
        return None

    def _routing_values(self, chosen: Mapping[str, Hint]) -> dict[str, Value]:
        """What the hints say about nodes. Bad ones are left out: on_parse has told of them."""
        values: dict[str, Value] = {}
        for key, hint in chosen.items():
            if key in ROUTING:
                value = self._meaning(hint)
                if value.problem is None:
                    values[key] = value
        return values

    def _under(self, rule: Rule, values: dict[str, Value], chosen: Mapping[str, Hint]) -> list[Directive]:
        """Add to `values` what a rule says and no hint does. Returns what the rule says beside routing."""
        for value in rule.routing():
            values.setdefault(value.key, value)
        return rule.acts({key: hint for key, hint in chosen.items() if self._meaning(hint).problem is None})

    def _plain(self, statement: Statement) -> Directives:
        if statement.read_only:
            return self._plain_read
        return None if steers(statement) else self._plain_write

    def _directives(self, statement: Statement, decision: Decision) -> list[Directive]:
        if not statement.read_only:
            return decision.write(None if steers(statement) else self._default_write)
        level = decision.values.get("consistency")
        name = level.text.partition("=")[2] if level else self._settings.default_level.name
        return decision.read(self._default_read[name], self._required)

    def _meaning(self, hint: Hint) -> Value:
        """What the hint means; remembered, since applications write the same few again and again."""
        memo = self._comments if hint.at else self._sessions
        value = memo.get((hint.key, hint.value))
        if value is None:
            value = self._settings.words.read(hint.key, hint.value, FROM_COMMENT if hint.at else FROM_SESSION)
            if len(hint.key) + len(hint.value) <= MEMO_LENGTH:
                if len(memo) >= MEMO_ENTRIES:
                    memo.clear()
                memo[hint.key, hint.value] = value
        return value


def _untrusted_notice(chosen: Mapping[str, Hint]) -> Directive:
    hint = next(iter(chosen.values()))
    message = "hints are ignored: they need a client that has authenticated (require_auth)"
    return notice(message, hint, "Hints ignored: the client was let in by trust")


def _reject_alone(told: list[Directive]) -> list[Directive] | None:
    """The first reject by itself: nothing else there is to say matters then."""
    return next(([directive] for directive in told if isinstance(directive.action, Reject)), None)
