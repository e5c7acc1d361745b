"""A stage for pools: a clock that is told the time, users and databases, caps, and statements with a priority."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from random import Random
from typing import ClassVar
from unittest.mock import patch

from helios_sdk.contract import Answer, Directive, HookSpec, Manifest, Priority, PriorityLevel, Statement
from helios_sdk.contract import Node as ContractNode

from heliosproxy.cluster.balance import Balancer
from heliosproxy.config.model import PoolFor
from heliosproxy.switch import links, planner, switch
from heliosproxy.switch.planner import Planner
from heliosproxy.switch.pool import Pool, PoolStatistics
from heliosproxy.switch.switch import Switch
from tests.switch.stage import IDLE, ONE_ROW, Server, Speaker, Stage, proven

Make = Callable[..., "Theatre"]


class Priorities:
    """A plugin that takes a statement's priority from the table that it names, run natively."""

    manifest = Manifest("priorities", "1", "Priorities by table.", "0.1", "limits", (HookSpec("on-route"),))
    hooks: ClassVar = {"on-route": manifest.hooks[0]}
    state = "enabled"
    reason = ""

    def on_route(self, statement: Statement, nodes: tuple[ContractNode, ...]) -> Answer:
        levels: tuple[PriorityLevel, ...] = ("low", "normal", "high", "critical")
        named = [level for level in levels if level in statement.tables]
        return Answer(tuple(Directive(Priority(level), "by table") for level in named))


class Theatre(Stage):
    """A stage with one node, whose clock stands still until it is told to go on."""

    def __init__(self, *, pools: Sequence[PoolFor] = (), max_connections: int | None = None, **pool: object) -> None:
        super().__init__(nodes=("primary",), **pool)
        self.now = 1000.0
        (self.node,) = self.cluster.nodes
        self.node.config = replace(self.node.config, max_connections=max_connections)
        config = replace(self.switch.config, pools=tuple(pools))
        self.planner = Planner(self.cluster, (Priorities(),), flows=100, balancer=Balancer())
        self.switch = Switch(config, self.cluster, self.planner, self)
        self.open_at_once = True

    def user(self, name: str = "alice", database: str = "db") -> Speaker:
        """Somebody who has logged in to a database."""
        speaker = self.client(name)
        speaker.session.client = replace(speaker.session.client, database=database)
        return speaker

    def asking(self, name: str = "alice", database: str = "db", priority: str = "normal") -> Speaker:
        """Somebody new who asks something at once."""
        speaker = self.user(name, database)
        speaker.asks(f"select 1 from {priority}")
        return speaker

    def passes(self, seconds: float) -> None:
        """Time goes by, and then a tick."""
        self.now += seconds
        self.switch.tick(self.now)

    def pool(self, user: str = "alice", database: str = "db") -> Pool:
        """The pool of a user for a database."""
        return self.switch.links.pool(self.cluster.nodes[0], database, user)

    def statistics(self, user: str = "alice", database: str = "db") -> PoolStatistics:
        """What the pool says of itself."""
        return self.pool(user, database).statistics(self.now)

    def serving(self, speaker: Speaker) -> Server:
        """The server that has the client's statement; AssertionError if it waits."""
        link = speaker.session.link
        assert link is not None, "it waits"
        return next(server for server in self.servers if server.link is link)

    def answer(self, speaker: Speaker) -> None:
        """Its server answers the client."""
        self.serving(speaker).answers(ONE_ROW + IDLE)

    @property
    def alive(self) -> list[Server]:
        """Servers whose links are open."""
        return [server for server in self.servers if not server.link.closed]


def waits(speaker: Speaker) -> bool:
    """Whether it is in a queue for a link."""
    return speaker.session.pool is not None


@contextmanager
def theatre(**keys: object) -> Iterator[Theatre]:
    """A theatre whose clock is the switch's, where chance is the same each time, and `stage.proven` proves."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(planner, "prove", proven))
        stack.enter_context(patch.object(links, "SystemRandom", lambda: Random(1)))
        play = Theatre(**keys)  # type: ignore[arg-type]
        for module in (links, switch):
            stack.enter_context(patch.object(module, "monotonic", lambda: play.now))
        yield play
