"""Where conversations take place: one server, and in front of it a proxy for each mode, with that server alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args, get_type_hints

from heliosproxy.config.model import Pool
from heliosproxy.demo.local import LocalCluster, start_cluster
from tests.cluster.differential.neighbours import Neighbours
from tests.cluster.differential.schema import CENSUS, SCHEMA
from tests.cluster.differential.talking import IDLE, SILENT, Heard, Place, Talker
from tests.cluster.differential.vocabulary import (
    Cancel,
    Closed,
    Conversation,
    Login,
    On,
    Ready,
    Running,
    Send,
    Settled,
    Step,
    Take,
    Until,
    Vanish,
    startup,
)
from tests.cluster.proxies import RunningProxy, running, wait_for

SIZES = {"session": 4, "transaction": 4, "statement": 4}
"""The pool's size in each mode; see `neighbours`."""
KEEPS = {"session": {}, "transaction": {"prepared_statements": "8"}, "statement": {"prepared_statements": "8"}}
"""Where links are shared they keep few statements, so that they have to prepare them again."""
EVERY = {"transaction": 1, "statement": 2}
"""How often the neighbours have a turn."""
HOLD = {"transaction": ("begin", "rollback"), "statement": ("create temp table held (n int)", "discard all")}


@dataclass(slots=True, repr=False)
class Stage:
    """A server and the proxies in front of it, started when they are first asked for."""

    cluster: LocalCluster
    directory: Path
    stack: ExitStack
    direct: Place
    watch: Talker
    """A superuser's connection to the server, for what no client should be asked."""
    proxies: dict[str, RunningProxy] = field(default_factory=dict)
    neighbours: dict[str, Neighbours] = field(default_factory=dict)
    _said: dict[str, dict[str, list[Heard]]] = field(default_factory=dict)

    def place(self, mode: str) -> Place:
        """Where a mode's clients connect."""
        if mode not in self.proxies:
            self._start(mode)
        proxy = self.proxies[mode]
        return Place(proxy.host, proxy.port, self.direct.user, self.direct.password, self.direct.database)

    def _start(self, mode: str) -> None:
        directory = self.directory / mode
        directory.mkdir()
        sections = {
            "pool": {"mode": f'"{mode}"', "size": str(SIZES[mode]), "wait_timeout": '"4s"'} | KEEPS[mode],
            "routing": {"default_read_target": '"primary"'},
        }
        proxy = self.stack.enter_context(running(self.cluster, self.direct.database, directory, sections))
        self.proxies[mode] = proxy
        self.neighbours[mode] = Neighbours(self.place(mode), self.watch, *HOLD.get(mode, ("", "")))
        self.stack.callback(self.neighbours[mode].leave)

    def known(self, *modes: str) -> tuple[str, ...]:
        """Those of the modes that the configuration knows."""
        return tuple(mode for mode in modes if mode in get_args(get_type_hints(Pool)["mode"]))

    def said_by_the_server(self, conversation: Conversation, *, remember: bool = True) -> dict[str, list[Heard]]:
        """What PostgreSQL itself says; asked once."""
        if conversation.name in self._said:
            return self._said[conversation.name]
        said = Play(self, conversation, self.direct).perform()
        silent = [name for name, heard in said.items() if SILENT in heard]
        assert not silent, f"PostgreSQL itself does not answer as {conversation.name!r} expects: {said}"
        if remember:
            self._said[conversation.name] = said
        return said

    def said_by_the_proxy(self, conversation: Conversation, mode: str) -> dict[str, list[Heard]]:
        """What the proxy in this mode says, with neighbours about."""
        return Play(self, conversation, self.place(mode), mode).perform()

    def settled(self) -> bool:
        """Whether no client has a transaction open."""
        return self.watch.ask("select from pg_stat_activity where usename = 'helios' and xact_start is not null") == []

    def runs(self, text: str) -> bool:
        """Whether a statement with this text in it is being executed and has come to where it waits."""
        waits = "state = 'active' and wait_event is not null and pid <> pg_backend_pid()"
        return self.watch.ask(f"select from pg_stat_activity where {waits} and query like '%{text}%'") != []


@contextmanager
def opened(directory: Path) -> Iterator[Stage]:
    """A stage with a fresh server."""
    with start_cluster(standbys=()) as cluster, ExitStack() as stack:
        cluster.psql("alter system set max_prepared_transactions = 4")
        cluster.psql("alter system set autovacuum = off")  # plans stay what they are
        cluster.stop_node("primary")
        cluster.start_node("primary")
        cluster.psql(SCHEMA, database=cluster.database)
        cluster.psql("vacuum analyze", database=cluster.database)
        address = cluster.nodes[0].address
        direct = Place(address.host, address.port, cluster.user, cluster.password, cluster.database)
        watch = Talker(Place(address.host, address.port, cluster.superuser, cluster.password, cluster.database))
        assert watch.log_in(startup())
        stack.callback(watch.leave)
        yield Stage(cluster, directory, stack, direct, watch)


class Play:
    """One performance of a conversation."""

    def __init__(self, stage: Stage, conversation: Conversation, place: Place, mode: str = "") -> None:
        self._stage = stage
        self._conversation = conversation
        self._place = place
        self._neighbours = stage.neighbours[mode] if mode else None
        self._mode = mode
        self._clients: dict[str, Talker] = {}
        self._turns = 0

    def perform(self) -> dict[str, list[Heard]]:
        """What each client heard."""
        try:
            self._login("", self._conversation.packet or startup())
            self._steps("", self._conversation.steps)
            for name, client in self._clients.items():
                if client.status == IDLE:
                    self._send(name, Send(b"Q" + (len(CENSUS) + 5).to_bytes(4, "big") + CENSUS.encode() + b"\0"))
                    client.until("Z")
                client.leave()
        finally:
            for client in self._clients.values():
                client.close()
            self._settle()
            self._stage.watch.ask("call stage.restore()")
            self._stage.watch.heard.clear()
        return {name: client.heard for name, client in self._clients.items()}

    def _login(self, name: str, packet: bytes) -> None:
        if self._neighbours is not None and self._mode == "session":
            self._neighbours.visit(f"{self._conversation.name}{self._turns}")
            self._turns += 1
        client = self._clients.setdefault(name, Talker(self._place))
        client.log_in(packet)

    def _steps(self, name: str, steps: Sequence[Step]) -> None:
        for step in steps:
            self._step(name, step)

    def _step(self, name: str, step: Step) -> None:
        client = self._clients[name]
        match step:
            case Send():
                self._send(name, step)
            case Ready():
                client.until("Z", step.count)
            case Until():
                client.until(step.tag)
            case Take():
                for _ in range(step.count):
                    client.read()
            case Closed():
                while client.read().tag:
                    pass
            case On():
                if step.name not in self._clients:
                    self._login(step.name, startup())
                self._steps(step.name, step.steps)
            case Login():
                self._login(name, step.packet or startup())
            case Vanish():
                client.close()
            case Cancel():
                client.cancel(client.key[:4] + bytes(len(client.key) - 4) if step.wrong else client.key)
            case Running():
                wait_for(lambda: self._stage.runs(step.text), f"{step.text!r} to run")
            case Settled():
                self._settle()

    def _settle(self) -> None:
        if self._neighbours is not None:
            self._neighbours.release()
        if not any(self._stage.settled() for _ in range(20)):  # the first ones without a pause: mostly it is soon
            wait_for(self._stage.settled, "the transactions to end")

    def _send(self, name: str, step: Send) -> None:
        at_rest = all(client.status == IDLE for client in self._clients.values() if client.socket is not None)
        if self._neighbours is not None and self._mode != "session" and at_rest:
            if self._turns % EVERY[self._mode] == 0:
                self._neighbours.turn(self._conversation.name, self._turns)
            self._turns += 1
        self._clients[name].send(step.data, step.piece)
