"""A stage for the switch without sockets: clients say bytes, servers are asked and answer, the clock is a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from helios_sdk.contract import (
    PRIMARY,
    STANDBY,
    Answer,
    Client,
    Directive,
    HookSpec,
    Manifest,
    Route,
    Statement,
)
from helios_sdk.contract import Node as ContractNode

from heliosproxy.cluster.balance import Balancer
from heliosproxy.cluster.node import Node
from heliosproxy.cluster.proof import Proof
from heliosproxy.cluster.registry import Cluster
from heliosproxy.config.access import ClientLimits
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Config, NodeConfig, Pool
from heliosproxy.sql.facts import Facts
from heliosproxy.switch import planner
from heliosproxy.switch.link import Link
from heliosproxy.switch.planner import Planner
from heliosproxy.switch.pool import Pool as LinkPool
from heliosproxy.switch.session import Session
from heliosproxy.switch.settings import Settings, from_parameters
from heliosproxy.switch.switch import Switch
from heliosproxy.wire import builders
from heliosproxy.wire.errors import error_response, parse_fields

REPORTED = {"client_encoding": "UTF8", "standard_conforming_strings": "on", "TimeZone": "UTC", "DateStyle": "ISO, MDY"}
IDLE, IN_TRANSACTION, FAILED = (builders.ready_for_query(status) for status in b"ITE")
ONE_ROW = builders.row_description_text(["n"]) + builders.data_row_text(["1"]) + builders.command_complete("SELECT 1")


def split(data: bytes) -> list[bytes]:
    """A byte stream as whole messages."""
    messages = []
    while data:
        size = int.from_bytes(data[1:5], "big") + 1
        messages.append(data[:size])
        data = data[size:]
    return messages


def tags(data: bytes) -> str:
    """The message types in a byte stream."""
    return "".join(chr(message[0]) for message in split(data))


def sqlstate(data: bytes) -> str:
    """The SQLSTATE of the first ErrorResponse in a byte stream; empty if there is none."""
    for message in split(data):
        if message[0] == ord("E"):
            return parse_fields(message[5:])["C"]
    return ""


def bind(name: bytes = b"", portal: bytes = b"") -> bytes:
    """Bind without parameters, every column as text."""
    return builders.join_two(ord("B"), portal, name, bytes(6))


def run(name: bytes = b"") -> bytes:
    """Bind and Execute."""
    return bind(name) + builders.execute()


class ReadsOnStandbys:
    """A plugin that routes reads to standbys, run natively."""

    manifest = Manifest("reads", "1", "Reads on standbys.", "0.1", "routing", (HookSpec("on-route"),))
    hooks: ClassVar = {"on-route": manifest.hooks[0]}
    state = "enabled"
    reason = ""

    def on_route(self, statement: Statement, nodes: tuple[ContractNode, ...]) -> Answer:
        route = Directive(Route((STANDBY,), (PRIMARY,)), "reads run on standbys")
        return Answer((route,) if statement.read_only else ())


class Server:
    """The far end of a link: what it was sent, and what it answers."""

    def __init__(self, stage: Stage, link: Link) -> None:
        self._stage = stage
        self.link = link
        self.received = b""
        self.closed = False

    def takes(self) -> bytes:
        """What arrived since the last call."""
        data, self.received = self.received, b""
        return data

    def answers(self, data: bytes) -> None:
        """Send bytes to the proxy."""
        self._stage.switch.link_data(self.link, data)

    def dies(self, reason: str = "reset by peer") -> None:
        """The connection is gone."""
        self._stage.switch.links.lost(self.link, reason)


class Speaker:
    """A client: what it says, and what it hears."""

    def __init__(self, stage: Stage, session: Session) -> None:
        self._stage = stage
        self.session = session
        self.heard = b""
        self.closed = False

    def says(self, *messages: bytes) -> None:
        """Send bytes to the proxy."""
        self._stage.switch.client_data(self.session, b"".join(messages))

    def asks(self, sql: str) -> None:
        """Send a simple query."""
        self.says(builders.query(sql.encode()))

    def hears(self) -> bytes:
        """What arrived since the last call."""
        data, self.heard = self.heard, b""
        return data

    def leaves(self) -> None:
        """Close the connection without a word."""
        self.closed = True
        self._stage.switch.client_gone(self.session)


class Stage:
    """A primary and a standby, a switch, and everybody around it. It is the switch's port."""

    def __init__(
        self,
        *,
        nodes: Sequence[str] = ("primary", "standby"),
        reads_on_standbys: bool = False,
        limits: Mapping[str, int] | None = None,
        asked: Mapping[str, str] | None = None,
        **pool: object,
    ) -> None:
        self.asked = asked or {}
        """Settings that the servers do not report."""
        configs = tuple(NodeConfig(name, Address("127.0.0.1", 5432 + at)) for at, name in enumerate(nodes))
        policy, bounds = Pool(**pool), ClientLimits(**(limits or {}))  # type: ignore[arg-type]
        config = Config(Path("heliosproxy.toml"), configs, pool=policy, client_limits=bounds)
        self.cluster = Cluster(configs)
        for node in self.cluster.nodes:
            node.role = "primary" if node.name == "primary" else "standby"
            node.healthy, node.reason = True, ""
        self.cluster.primary = self.cluster.by_name.get("primary")
        plugins = (ReadsOnStandbys(),) if reads_on_standbys else ()
        self.planner = Planner(self.cluster, plugins, flows=100, balancer=Balancer())
        self.reasons: Counter[str] = Counter()
        """How often whom a limit ended, or denied something, by reason."""
        self.switch = Switch(config, self.cluster, self.planner, self, self._count)
        self.servers: list[Server] = []
        self.cancels: list[tuple[Link, Callable[[], None]]] = []
        self.opening: list[LinkPool] = []
        self.speakers: dict[int, Speaker] = {}
        self.open_at_once = True
        self.ending: list[Callable[[], None]] = []
        self.end_at_once = True

    def _count(self, reason: str) -> None:
        self.reasons[reason] += 1

    def client(self, user: str = "alice", **settings: str) -> Speaker:
        """Somebody who has logged in."""
        identity = len(self.speakers) + 1
        wanted = from_parameters({**REPORTED, **settings}, asked=self.asked)
        session = Session(identity, (identity, b"key!"), Client(user, "db"), wanted)
        speaker = self.speakers[identity] = Speaker(self, session)
        self.switch.add_session(session)
        return speaker

    def server(self, number: int = 0) -> Server:
        """The servers in the order in which links to them were opened."""
        return self.servers[number]

    def open(self, pool: LinkPool, **parameters: str) -> Server:
        """A link that was asked for is there."""
        reported = {**REPORTED, **parameters}
        settings = from_parameters(reported, asked=self.asked)
        link = Link(pool.node, (len(self.servers), b"secret"), settings, tuple(self.asked))
        server = Server(self, link)
        self.servers.append(server)
        self.switch.links.opened(pool, link)
        return server

    # switch.Port

    def to_client(self, session: Session, data: bytes) -> None:
        self.speakers[session.id].heard += data

    def to_link(self, link: Link) -> None:
        self._far_end(link).received += b"".join(link.outgoing)
        link.outgoing.clear()

    def close_client(self, session: Session) -> None:
        self.speakers[session.id].closed = True

    def close_link(self, link: Link, done: Callable[[], None]) -> None:
        self._far_end(link).closed = True
        self.ending.append(done)
        if self.end_at_once:
            self.end()

    def end(self) -> None:
        """The servers have closed the links that were closed."""
        while self.ending:
            self.ending.pop(0)()

    def open_link(self, pool: LinkPool) -> None:
        if self.open_at_once:
            self.open(pool)
        else:
            self.opening.append(pool)

    def cancel(self, link: Link, done: Callable[[], None]) -> None:
        self.cancels.append((link, done))

    def _far_end(self, link: Link) -> Server:
        return next(server for server in self.servers if server.link is link)


def proven(facts: Facts, catalogue: object) -> Proof:
    """The proof that a catalogue of harmless tables would give: SELECT reads, plain DML leaves nothing."""
    harmless = ("select", "insert", "update", "delete", "begin", "commit", "rollback", "show", "prepare", "execute")
    reads = facts.kind == "select" or (facts.kind == "execute" and not facts.functions)
    return Proof(reads, "nothing" if facts.kind in harmless else "anything", "")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    """Makes stages whose statements are proven by `proven`."""
    monkeypatch.setattr(planner, "prove", proven)
    return Stage


def server_error(code: str = "22012", severity: str = "ERROR") -> bytes:
    """An ErrorResponse of the server."""
    return error_response(severity, code, "it went wrong")  # type: ignore[arg-type]


__all__ = ["FAILED", "IDLE", "IN_TRANSACTION", "ONE_ROW", "Node", "Settings", "Stage", "server_error", "split", "tags"]
