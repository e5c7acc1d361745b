"""The proxy as a whole: listeners, logins, the reactor, links and cancels, put together as structured trio.

Resource handling: every socket belongs to a task of this nursery or to the reactor, which closes it. Cancelling `run`
closes everything at once; `stop` asks for an orderly end first.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING

import trio

from heliosproxy.auth.users import Users
from heliosproxy.cluster.auth_query import AuthQuery
from heliosproxy.cluster.balance import Balancer
from heliosproxy.cluster.monitor import Monitors
from heliosproxy.cluster.registry import Cluster
from heliosproxy.config.model import Config
from heliosproxy.config.tls import Contexts
from heliosproxy.switch.access import Access, strangers_of
from heliosproxy.switch.admission import Admission, Reason, Ticket
from heliosproxy.switch.arrivals import Arrival, Arrivals, PluginRefusal
from heliosproxy.switch.greetings import Greetings
from heliosproxy.switch.link import Link
from heliosproxy.switch.listeners import accept, listening
from heliosproxy.switch.local import notices
from heliosproxy.switch.login import Admitted
from heliosproxy.switch.opening import Opened, Unreachable, open_link, send_cancel
from heliosproxy.switch.planner import Planner
from heliosproxy.switch.pool import Pool
from heliosproxy.switch.reactor import LOW_WATER, Endpoint, Reactor
from heliosproxy.switch.session import Session
from heliosproxy.switch.settings import from_parameters
from heliosproxy.switch.switch import Switch
from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError

if TYPE_CHECKING:
    from heliosproxy.sandbox.plugin import Plugin

log = logging.getLogger("heliosproxy.proxy")

TICK = 0.1
"""Seconds between looks at those who wait and those who idle."""
QUEUED_MOST = 256 * 1024
"""Bytes of a client's statements in the queue, above which it is not read."""
UNITS_MOST = 1000
"""Statements in the queue, likewise."""
CATALOGUE_WAIT = 2.0
"""Seconds for which the first client of a database waits for its catalogue, so that its reads are spread at once."""


@dataclass(frozen=True, slots=True)
class ProxyStatistics:
    """The proxy now. Counters since start."""

    clients: int
    logins: int
    """Clients that have logged in."""
    logging_in: int
    """Logins under way."""
    refused: Mapping[Reason, int]
    """How often a client was refused, ended, or denied something, by reason."""
    statements: int
    uptime: float


class Proxy:
    """A running proxy. `cluster`, `planner` and `switch` may be read by whoever shows or steers it."""

    def __init__(self, config: Config, plugins: Sequence[Plugin]) -> None:
        self.config = config
        self.cluster = Cluster(config.nodes, region=config.proxy.region, health=config.health)
        self.planner = Planner(self.cluster, plugins, flows=config.plugins.flows, balancer=Balancer())
        self.admission = Admission(config.client_limits)
        self.switch = Switch(config, self.cluster, self.planner, self, counts=self.admission.count)
        self._auth_query = AuthQuery(self.cluster, config.auth, config.health)
        self.users = Users(config.auth, self._auth_query, strangers=strangers_of(config.client_tls))
        self._arrivals = Arrivals(
            Access.of(config.auth, config.client_tls), self.users, self.admission, config.proxy.login_timeout,
            self._enter, self._on_cancel,
        )  # fmt: skip
        self.address = config.proxy.listen
        """Where it listens, once it does."""
        self.stopping = trio.Event()
        self._reactor = Reactor()
        self._reactor.producer_of = self._producer_of
        self._clients: dict[int, Endpoint] = {}
        self._links: dict[Link, Endpoint] = {}
        self._held: dict[int, Session] = {}
        self._owners: dict[Endpoint, Session | Link] = {}
        self._tickets: dict[int, Ticket] = {}
        self._greetings = Greetings(self._look)
        self._waited: set[str] = set()
        self._ids = count(1)
        self._nursery: trio.Nursery | None = None
        self._started = monotonic()

    def statistics(self) -> ProxyStatistics:
        """The proxy now."""
        uptime = monotonic() - self._started
        doors = self.admission.statistics()
        statements = self.switch.ledger.statements
        refused = dict(doors.refused)
        return ProxyStatistics(doors.clients, doors.admitted, doors.logins, refused, statements, uptime)

    # --- its life ---------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` has been called and its work is done.

        Started once it listens and has looked at every node. Raises OSError if it cannot listen.
        """
        async with listening(self.config.proxy) as (listeners, self.address):
            try:
                async with trio.open_nursery() as nursery:
                    await self._run(nursery, listeners, task_status)
            finally:
                self._reactor.close()

    async def _run(
        self, nursery: trio.Nursery, listeners: Sequence[socket.socket], task_status: trio.TaskStatus[None]
    ) -> None:
        self._nursery = nursery
        await self.users.prepare()
        await nursery.start(Monitors(self.cluster).run)
        await nursery.start(self._auth_query.run)
        self.cluster.request_catalogue(self.config.health.database)
        nursery.start_soon(partial(self._reactor.run, self._tick, TICK, self._settle))
        async with trio.open_nursery() as accepting:
            for listener in listeners:
                self._reactor.notice(listener)
                accepting.start_soon(accept, listener, partial(_start, accepting, self._arrivals))
            task_status.started()
            await self.stopping.wait()
            accepting.cancel_scope.cancel()
        await self._drain()
        nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Take no more clients, let what is in flight finish up to `[proxy] shutdown_timeout`, then end."""
        self.stopping.set()

    async def reload(self, config: Config) -> None:
        """Take over who may come in, and with what: `auth`, `client_tls`, `client_limits`, `server_tls` and what nodes
        say of it, `health`, and who clients are on the nodes and their time-outs in `pool` and `pools`. Whoever is in
        stays in. The rest of `config` must be what it was.

        Raises BadTls, and then nothing has changed.
        """
        access, contexts = await trio.to_thread.run_sync(_read_again, config, abandon_on_cancel=True)
        users = self.users.replaced(config.auth, self._auth_query)
        await users.prepare()
        self.config = config
        self.users = self._arrivals.users = users
        self._arrivals.access = access
        self.admission.limits = config.client_limits
        self.cluster.contexts.replace(contexts)
        self.cluster.health = config.health
        self._auth_query.configure(config.auth, config.health)
        for node, found in zip(self.cluster.nodes, config.nodes, strict=True):
            node.config = found
        self.switch.reload(config)
        self._greetings.forget()

    async def _drain(self) -> None:
        self.switch.shut_down(everyone=False)
        self._reactor.flush()
        with trio.move_on_after(self.config.proxy.shutdown_timeout):
            while self.switch.busy:
                await trio.sleep(TICK / 2)
                self.switch.shut_down(everyone=False)
                self._reactor.flush()
        self.switch.shut_down(everyone=True)
        self._reactor.flush()

    def _tick(self, now: float) -> None:
        self.switch.tick(now)
        self._settle()

    # --- clients ----------------------------------------------------------------------------------------------------

    async def _enter(self, arrival: Arrival, admitted: Admitted) -> None:
        """Greet a client that has been let in, and hand it to the reactor."""
        client, talk = admitted.client, arrival.talk
        talk.send_later(builders.AUTHENTICATION_OK)
        verdict = self.planner.greet(client)
        if verdict.reject is not None:
            raise PluginRefusal(verdict.reject.message, verdict.reject.sqlstate, hint=verdict.reject.hint)
        greeting = await self._greetings.of(client.database, client.user, admitted.settings)
        greeted = greeting.to(client.application_name)
        self.cluster.request_catalogue(client.database)
        await self._catalogue(client.database)
        identity = next(self._ids)
        key = (identity & 0x7FFFFFFF, secrets.token_bytes(32 if admitted.protocol_minor >= 2 else 4))
        session = Session(
            identity, key, client, greeted.settings, admitted.hints, max_message=self.config.proxy.max_message
        )
        ready = builders.backend_key_data(*key) + builders.ready_for_query(ord("I"))
        await talk.send(notices(verdict.notices) + greeted.said + ready)
        self._adopt(arrival, session)
        if self.stopping.is_set():
            self.switch.shut_down(everyone=False)
        elif admitted.rest:
            self._client_data(session, admitted.rest)
        self._reactor.flush()

    def _adopt(self, arrival: Arrival, session: Session) -> None:
        connection, tls = arrival.talk.stream.detach()
        on_data, on_closed = partial(self._client_data, session), partial(self._client_gone, session)
        endpoint = self._reactor.adopt(connection, on_data, on_closed, tls)
        arrival.entered = True
        self._tickets[session.id] = arrival.ticket
        self._clients[session.id] = endpoint
        self._owners[endpoint] = session
        self.switch.add_session(session)

    async def _look(self, database: str, user: str, settings: Mapping[str, str]) -> Opened:
        """Log in to the primary; to any other node where there is none; wait where there is no node at all."""
        policy = self.switch.policies.of(database, user)
        login = self.users.on_nodes(user, policy)
        timeout, tracked = policy.connect_timeout, policy.tracked_settings
        give_up = trio.current_time() + self.config.proxy.login_timeout / 2
        failed: dict[str, str] = {}
        while True:
            primary = self.cluster.primary
            others = [node for node in self.cluster.nodes if node.healthy and node is not primary]
            for node in [primary, *others] if primary is not None else others:
                try:
                    return await open_link(
                        node, database, login, timeout, tracked, settings, contexts=self.cluster.contexts
                    )
                except Unreachable as error:
                    failed[node.name] = error.message
                    self.cluster.reported(node, error)
            if trio.current_time() > give_up:
                reasons = {**failed, **{node.name: node.reason for node in self.cluster.nodes if node.reason}}
                words = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
                raise PeerError(f"no node is up ({words})", "57P03")
            await trio.sleep(TICK)

    async def _catalogue(self, database: str) -> None:
        if database in self._waited:
            return  # once: where the catalogue cannot be read, not every login is to be slow
        self._waited.add(database)
        with trio.move_on_after(CATALOGUE_WAIT):
            while self.cluster.catalogue(database) is None and self.cluster.primary is not None:
                await trio.sleep(TICK / 5)

    def _client_data(self, session: Session, data: bytes) -> None:
        self.switch.client_data(session, data)
        if session.id in self._clients and session.id not in self._held and (session.has_more or _is_flooding(session)):
            self._held[session.id] = session
            self._clients[session.id].hold(True)

    def _settle(self) -> None:
        """After each round: serve those who had more to do, read those again whose queue has become short."""
        self._reactor.has_more = self.switch.go_on()
        for identity, session in list(self._held.items()):
            if session.has_more:
                continue
            if session.closing or (len(session.units) < UNITS_MOST / 2 and session.queued < LOW_WATER):
                del self._held[identity]
                if (endpoint := self._clients.get(identity)) is not None:
                    endpoint.hold(False)

    def _client_gone(self, session: Session, reason: str) -> None:
        self._forget(session)
        self.switch.client_gone(session)

    def _forget(self, session: Session) -> Endpoint | None:
        """The client is here no more, or will not be."""
        endpoint = self._clients.pop(session.id, None)
        if endpoint is not None:
            self._owners.pop(endpoint, None)
            self.admission.left(self._tickets.pop(session.id))
        return endpoint

    async def _on_cancel(self, key: tuple[int, bytes]) -> None:
        """Returns when the request has done all that it will ever do: clients take the end of its connection for that,
        as with PostgreSQL, and send their next statement."""
        done = trio.Event()
        self._then(self.switch.cancel, key, done.set)
        await done.wait()

    # --- what the switch asks for (switch.Port) ---------------------------------------------------------------------

    def to_client(self, session: Session, data: bytes) -> None:
        """Send bytes to a client, if it is still there."""
        endpoint = self._clients.get(session.id)
        if endpoint is not None:
            endpoint.send(data)

    def to_link(self, link: Link) -> None:
        """Send what is in `link.outgoing`."""
        endpoint = self._links.get(link)
        if endpoint is not None and link.outgoing:
            endpoint.send(link.outgoing[0] if len(link.outgoing) == 1 else b"".join(link.outgoing))
        link.outgoing.clear()

    def close_client(self, session: Session) -> None:
        """Send what is due and close."""
        endpoint = self._forget(session)
        if endpoint is not None:
            endpoint.close()

    def close_link(self, link: Link, done: Callable[[], None]) -> None:
        """Say Terminate and close; `done` once the server has closed as well."""
        endpoint = self._links.pop(link, None)
        if endpoint is None:
            done()
            return
        self._owners.pop(endpoint, None)
        endpoint.send(builders.TERMINATE)
        endpoint.close(done)

    def open_link(self, pool: Pool) -> None:
        """Open a link in a task of its own."""
        assert self._nursery is not None
        self._nursery.start_soon(self._open, pool)

    def cancel(self, link: Link, done: Callable[[], None]) -> None:
        """Ask the node to cancel what the link runs, the way that the link goes."""
        assert self._nursery is not None
        endpoint = self._links.get(link)  # now, since the link may be closed before the request is sent
        if endpoint is None:
            done()
        else:
            self._nursery.start_soon(self._cancel, link, endpoint.tls is not None, done)

    async def _open(self, pool: Pool) -> None:
        login = self.users.on_nodes(pool.asked_by, pool.policy)
        if login.user != pool.user:  # by a reload, since it was asked for
            self._then(self.switch.links.not_wanted, pool)
            return
        try:
            policy = pool.policy
            opened = await open_link(
                pool.node, pool.database, login, policy.connect_timeout, policy.tracked_settings,
                contexts=self.cluster.contexts,
            )  # fmt: skip
        except PeerError as error:
            log.warning("no link to %s for %s@%s: %s", pool.node.name, pool.user, pool.database, error.message)
            self._then(self.switch.links.not_opened, pool, error, isinstance(error, Unreachable))
        except Exception:  # a bug of ours must not end the nursery that everything lives in
            log.exception("internal error while opening a link to %s", pool.node.name)
            self._then(self.switch.links.not_opened, pool, PeerError("internal error", "XX000"), False)
        else:
            self._then(self._opened, pool, opened)

    def _opened(self, pool: Pool, opened: Opened) -> None:
        settings = from_parameters(opened.parameters, asked=opened.asked)
        link = Link(pool.node, opened.key, settings, tuple(opened.asked))
        on_data, on_lost = partial(self._link_data, link), partial(self._link_lost, link)
        endpoint = self._reactor.adopt(opened.socket, on_data, on_lost, opened.tls)
        self._links[link] = endpoint
        self._owners[endpoint] = link
        self.switch.links.opened(pool, link)
        if opened.rest and not endpoint.closed:
            self._link_data(link, opened.rest)

    def _then(self, call: Callable[..., object], *arguments: object) -> None:
        """Something has happened outside of the reactor: let the switch act on it."""
        self._reactor.guarded(call, *arguments)
        self._reactor.guarded(self._settle)
        self._reactor.flush()

    async def _cancel(self, link: Link, encrypted: bool, done: Callable[[], None]) -> None:
        timeout = self.config.pool.connect_timeout
        sure = await send_cancel(link.node, link.key, timeout, encrypted=encrypted, contexts=self.cluster.contexts)
        if not sure:  # it may still hit whoever has the link then
            self._then(self.switch.links.close, link, "a cancel request was not acknowledged")
        self._then(done)

    def _link_data(self, link: Link, data: bytes) -> None:
        self.switch.link_data(link, data)

    def _link_lost(self, link: Link, reason: str) -> None:
        endpoint = self._links.pop(link, None)
        if endpoint is not None:
            self._owners.pop(endpoint, None)
        log.warning("link to %s lost: %s", link.node.name, link.failure or reason)
        self.cluster.reported(link.node, ConnectionResetError(reason))
        self.switch.links.lost(link, reason)

    def _producer_of(self, endpoint: Endpoint) -> Endpoint | None:
        """Whose bytes fill this endpoint: a client's come from its session's link, a link's from its client."""
        owner = self._owners.get(endpoint)
        if isinstance(owner, Session):  # without a link it fills its own, with what the proxy answers itself
            return self._links.get(owner.link) if owner.link is not None else endpoint
        if isinstance(owner, Link) and owner.session is not None:
            return self._clients.get(owner.session.id)
        return None


def _start(nursery: trio.Nursery, arrivals: Arrivals, connection: socket.socket, address: str) -> None:
    nursery.start_soon(arrivals.serve, connection, address)


def _read_again(config: Config) -> tuple[Access, Contexts]:
    """What is made from the files that the configuration names. Raises BadTls."""
    contexts = Contexts()
    for node in config.nodes:
        contexts.of(node.tls)
        if node.tls.sslmode != "disable":
            contexts.named(node.tls, node.address.host)
    return Access.of(config.auth, config.client_tls), contexts


def _is_flooding(session: Session) -> bool:
    units = session.units
    if len(units) < 2:
        return bool(units) and units[0].size > QUEUED_MOST
    return len(units) > UNITS_MOST or session.queued > QUEUED_MOST
