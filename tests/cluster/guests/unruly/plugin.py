"""Plugins that misbehave when a hint of their name asks for it, each fault once with either answer to a failure."""

from __future__ import annotations

import os

from helios_sdk import Answer, Directive, Node, Plugin, Rows, Statement, Tag, hook


def loop() -> None:
    """Never come back."""
    while True:
        pass


def grow() -> None:
    """Want more memory than there is."""
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))


def fail() -> None:
    """Have a bug."""
    raise LookupError("there is a bug in here")


class Unruly(Plugin):
    """What all of them share."""

    version = "1.0"
    stage = "rules"
    deed = staticmethod(fail)

    def asked(self, statement: Statement) -> bool:
        """Whether a hint of the statement names this plugin."""
        return any(hint.key == self.name for hint in statement.hints)


class Open(Unruly):
    """Its statements go on without it."""

    @hook(reads=("hints",), only_with=("hints",))
    def on_parse(self, statement: Statement) -> object:
        """Misbehave."""
        return self.deed() if self.asked(statement) else None


class Closed(Unruly):
    """Its statements are refused."""

    @hook(reads=("hints",), only_with=("hints",), on_failure="closed")
    def on_parse(self, statement: Statement) -> object:
        """Misbehave."""
        return self.deed() if self.asked(statement) else None


class LoopOpen(Open):
    """Never comes back."""

    name = "loopopen"
    deed = staticmethod(loop)


class LoopClosed(Closed):
    """Never comes back."""

    name = "loopclosed"
    deed = staticmethod(loop)


class GrowOpen(Open):
    """Takes all memory."""

    name = "growopen"
    deed = staticmethod(grow)


class GrowClosed(Closed):
    """Takes all memory."""

    name = "growclosed"
    deed = staticmethod(grow)


class TrapOpen(Open):
    """Traps."""

    name = "trapopen"
    deed = staticmethod(os.abort)


class TrapClosed(Closed):
    """Traps."""

    name = "trapclosed"
    deed = staticmethod(os.abort)


class BugOpen(Open):
    """Raises."""

    name = "bugopen"


class BugClosed(Closed):
    """Raises."""

    name = "bugclosed"


class HugeOpen(Open):
    """Answers with more than anybody wants."""

    name = "hugeopen"
    deed = staticmethod(lambda: Directive(Rows(("a",), (("x" * 1000,),) * 20_000), "huge"))


class HugeClosed(Closed):
    """Answers with more than anybody wants."""

    name = "hugeclosed"
    deed = staticmethod(lambda: Directive(Rows(("a",), (("x" * 1000,),) * 20_000), "huge"))


class RouteLoop(Unruly):
    """Never comes back from the other hook."""

    name = "routeloop"

    @hook(reads=("hints", "nodes"), only_with=("hints",), on_failure="closed")
    def on_route(self, statement: Statement, nodes: tuple[Node, ...]) -> None:
        """Misbehave."""
        if self.asked(statement):
            loop()


class Leak(Unruly):
    """Keeps something of every call, and counts how many this instance has had."""

    name = "leak"

    def __init__(self) -> None:
        super().__init__()
        self.hoard: list[bytearray] = []

    @hook(reads=("hints",), only_with=("hints",))
    def on_parse(self, statement: Statement) -> object:
        """Leak, and say how often it did."""
        if not self.asked(statement):
            return None
        self.hoard.append(bytearray(20_000))
        return Answer((Directive(Tag("leaked", str(len(self.hoard))), "it leaks"),))
