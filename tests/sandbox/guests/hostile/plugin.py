"""Plugins that do not behave. What they do is chosen by the statement's first hint, or by their configuration."""

from __future__ import annotations

import datetime
import os
import random
import sys
import time
import uuid

from helios_sdk import (
    Answer,
    Client,
    Directive,
    Flush,
    Limit,
    Manifest,
    Node,
    Notice,
    Outcome,
    Pair,
    Plugin,
    Reject,
    Retry,
    Rewrite,
    Route,
    Rows,
    Selector,
    Settings,
    Statement,
    Tag,
    Timeout,
    hook,
)


def forever() -> None:
    while True:
        pass


class Loop(Plugin):
    """Never comes back, whatever it is asked."""

    name = "loop"
    version = "1.0"
    stage = "rules"

    @hook()
    def on_connect(self, client: Client) -> None:
        forever()

    @hook()
    def on_parse(self, statement: Statement) -> None:
        forever()

    @hook()
    def on_route(self, statement: Statement, nodes: tuple[Node, ...]) -> None:
        forever()

    @hook()
    def on_result(self, outcomes: tuple[Outcome, ...]) -> None:
        forever()

    @hook()
    def on_tick(self, milliseconds: int) -> None:
        forever()


def recurse(depth: int) -> int:
    return recurse(depth + 1) + 1


def grow() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))


def undeclared_clock() -> None:
    import wit_world.imports.clock as clock

    clock.now()


def undeclared_log() -> None:
    import wit_world.imports.log as log

    log.write(log.Level.INFO, "psst")


class Misbehave(Plugin):
    """Does what the hint says."""

    name = "misbehave"
    version = "1.0"
    stage = "rules"

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.hoard: list[bytearray] = []

    @hook(reads=("hints",))
    def on_parse(self, statement: Statement) -> object:
        self.calls += 1
        key = statement.hints[0].key
        if key == "count":
            return Directive(Tag("calls", str(self.calls)), "count")
        if key == "leak":
            self.hoard.append(bytearray(int(statement.hints[0].value)))
            return None
        if key == "answer":
            return Answer((Directive(ANSWERS[statement.hints[0].value](), "odd"),))
        return DEEDS[key](self)

    @hook()
    def on_tick(self, milliseconds: int) -> object:
        return [Flush("t")] * milliseconds


DEEDS = {
    "loop": lambda self: forever(),
    "grow": lambda self: grow(),
    "abort": lambda self: os.abort(),
    "recurse": lambda self: recurse(0),
    "raise": lambda self: {}["missing"],
    "none": lambda self: None,
    "number": lambda self: 7,
    "many": lambda self: [Directive(Tag("a", "b"), "r")] * 101,
    "reason": lambda self: Directive(Tag("a", "b"), "r" * 5_000),
    "clock-import": lambda self: undeclared_clock(),
    "log-import": lambda self: undeclared_log(),
    "self.clock": lambda self: self.clock.now(),
    "self.log": lambda self: self.log.info("psst"),
    "print": lambda self: print("psst"),
    "time": lambda self: time.time(),
    "now": lambda self: datetime.datetime.now(),
    "uuid": lambda self: uuid.uuid4(),
    "random": lambda self: random.random(),
    "urandom": lambda self: os.urandom(4),
    "open": lambda self: open("/etc/passwd"),  # noqa: SIM115
    "import": lambda self: __import__("wave"),
}
ANSWERS = {
    "huge text": lambda: Rewrite("x" * (20 << 20)),
    "huge rows": lambda: Rows(("a",), ((None,),) * 400_000),
    "nul": lambda: Rewrite("select '\0'"),
    "sqlstate": lambda: Reject("4260", "no"),
    "success": lambda: Reject("00000", "no"),
    "lower case": lambda: Notice("info", "abcde", "no"),
    "nowhere": lambda: Route(()),
    "nameless node": lambda: Route((Selector("node", ""),)),
    "position": lambda: Reject("42601", "no", position=0),
    "ragged": lambda: Rows(("a", "b"), (("1",),)),
    "columnless": lambda: Rows((), ()),
    "rate": lambda: Limit("b", float("nan"), 1),
    "bucket": lambda: Limit("", 1.0, 1),
    "timeout": lambda: Timeout(0),
    "retry": lambda: Retry(1_000_000),
    "negative": lambda: Timeout(-1),
    "setting": lambda: Settings((Pair("a; drop table t", "x"),)),
    "blank": lambda: Rewrite("  "),
    "tag": lambda: Tag("", "x"),
    "enumeration": lambda: Notice("loud", "01000", "no"),  # type: ignore[arg-type]
    "type": lambda: Timeout("soon"),  # type: ignore[arg-type]
}


class BadStart(Plugin):
    """Fails while it is configured, as its configuration says."""

    name = "badstart"
    version = "1.0"
    stage = "rules"

    def configured(self) -> None:
        how = self.config["plugin"].get("how")
        if how == "loop":
            forever()
        if how == "raise":
            raise ValueError("plugin.how: raising is what you asked for")
        if how == "abort":
            os.abort()

    @hook()
    def on_tick(self, milliseconds: int) -> None:
        os.abort()


class BadManifest(Plugin):
    """Never describes itself, in a component."""

    name = "badmanifest"
    version = "1.0"
    stage = "rules"

    @classmethod
    def manifest(cls) -> Manifest:
        if sys.platform == "wasi":
            forever()
        return super().manifest()

    @hook()
    def on_tick(self, milliseconds: int) -> None:
        return None
