"""Plugins that behave: what the sandbox's tests compare and count with."""

from __future__ import annotations

from collections.abc import Iterable

from helios_sdk import (
    Answer,
    Client,
    Directive,
    Effect,
    Flush,
    Node,
    Outcome,
    Plugin,
    Rewrite,
    Statement,
    Tag,
    hook,
)

from .actions import ACTIONS
from .words import GREETING


class Echo(Plugin):
    """Says what it was given, and every action there is."""

    name = "echo"
    version = "1.2.3"
    stage = "observers"

    @hook(reads=("user", "database", "application-name", "address", "tenant", "authentication", "server-name"))
    def on_connect(self, client: Client) -> Directive:
        return Directive(Tag("given", repr(client)), "echo")

    @hook(reads=(
        "text", "shape", "hints", "tables", "functions", "parameters", "user", "database", "application-name",
        "address", "tenant", "authentication", "server-name", "tag:a", "comment:traceparent",
    ))  # fmt: skip
    def on_parse(self, statement: Statement) -> Answer:
        given = Directive(Rewrite(repr(statement)), "echo")
        return Answer((given, *(Directive(action, "every action") for action in ACTIONS)), 4_000_000_000)

    @hook(reads=("nodes",))
    def on_route(self, statement: Statement, nodes: tuple[Node, ...]) -> Iterable[Directive]:
        yield Directive(Tag("given", repr((statement, nodes))), "echo")

    @hook()
    def on_result(self, outcomes: tuple[Outcome, ...]) -> Iterable[Effect]:
        return [Flush(), *(Flush(repr(outcome)) for outcome in outcomes)]

    @hook()
    def on_tick(self, milliseconds: int) -> Flush:
        return Flush(str(milliseconds))


class Hidden(Plugin):
    """Reads next to nothing, and says what it sees all the same."""

    name = "hidden"
    version = "1.0"
    stage = "guard"

    @hook(reads=("user", "tag:a"))
    def on_parse(self, statement: Statement) -> Directive:
        return Directive(Tag("given", repr(statement)), "echo")

    @hook()
    def on_route(self, statement: Statement, nodes: tuple[Node, ...]) -> Directive:
        return Directive(Tag("given", repr((statement, nodes))), "echo")


class Granted(Plugin):
    """Uses what it was granted."""

    name = "granted"
    version = "1.0"
    stage = "rules"
    capabilities = ("log", "clock")
    tables = ("greetings",)
    schema = {
        "type": "object",
        "properties": {
            "greetings": {
                "type": "object",
                "properties": {"word": {"type": "string"}, "times": {"type": "integer", "minimum": 1}},
                "additionalProperties": False,
            },
            "plugin": {"type": "object", "properties": {"loud": {"type": "boolean"}}},
        },
    }

    def configured(self) -> None:
        self.word = str(self.config["greetings"].get("word", GREETING))
        if self.word == "boo":
            raise ValueError("greetings.word: boo is no greeting")

    @hook(reads=("hints",))
    def on_parse(self, statement: Statement) -> Answer | None:
        for hint in statement.hints:
            if hint.key == "log":
                self.log.warning(f"{self.word} {hint.value}")
            elif hint.key == "print":
                print(self.word, hint.value)
            elif hint.key == "flood":
                for line in range(int(hint.value)):
                    self.log.info(f"line {line}")
            elif hint.key == "clock":
                return Answer((Directive(Tag("now", str(self.clock.now())), "time"),), int(hint.value) or None)
        return None
