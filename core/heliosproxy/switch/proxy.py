"""The proxy as a whole: listeners, logins, the reactor, links and cancels, put together as structured trio.

Resource handling: every socket belongs to a task of this nursery or to the reactor, which closes it. Cancelling `run`
closes everything at once; `stop` asks for an orderly end first.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

import trio

from heliosproxy.auth.users import Users
from heliosproxy.cluster.balance import Balancer
from heliosproxy.cluster.monitor import Monitors
from heliosproxy.cluster.registry import Cluster
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Config
from heliosproxy.switch.link import Link
from heliosproxy.switch.local import notices
from heliosproxy.switch.login import Admitted, Conversation, application_name, greeting, log_in
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
BACKLOG = 1024
_Greeting: TypeAlias = tuple[dict[str, str], dict[str, str], bytes]
GREETING_AGE = 30.0
"""Seconds for which a greeting is remembered: ALTER ROLE … SET and a server's new configuration show after that."""
QUEUED_MOST = 256 * 1024
"""Bytes of a client's statements in the queue, above which it is not read."""
UNITS_MOST = 1000
"""Statements in the queue, likewise."""
GREETINGS = 1000
"""Different combinations of database, user and start-up settings whose greeting is remembered."""
CATALOGUE_WAIT = 2.0
"""Seconds for which the first client of a database waits for its catalogue, so that its reads are spread at once."""


@dataclass(frozen=True, slots=True)
class ProxyStatistics:
    """The proxy now. Counters since start."""

    clients: int
    logins: int
    refused: int
    statements: int
    uptime: float


class Proxy:
    """A running proxy. `cluster`, `planner` and `switch` may be read by whoever shows or steers it."""

    def __init__(self, config: Config, plugins: Sequence[Plugin]) -> None:
        self.config = config
        self.users = Users(config.auth.users)
        self.cluster = Cluster(config.nodes, region=config.proxy.region, health=config.health)
        self.planner = Planner(self.cluster, plugins, flows=config.plugins.flows, balancer=Balancer())
        self.switch = Switch(config, self.cluster, self.planner, self)
        self.address = config.proxy.listen
        """Where it listens, once it does."""
        self.stopping = trio.Event()
        self._reactor = Reactor()
        self._reactor.producer_of = self._producer_of
        self._clients: dict[int, Endpoint] = {}
        self._links: dict[Link, Endpoint] = {}
        self._held: dict[int, Session] = {}
        self._owners: dict[Endpoint, Session | Link] = {}
        self._greetings: OrderedDict[tuple[object, ...], tuple[float, _Greeting]] = OrderedDict()
        self._asking: dict[tuple[object, ...], trio.Event] = {}
        self._waited: set[str] = set()
        self._ids = count(1)
        self._nursery: trio.Nursery | None = None
        self._started = monotonic()
        self._logins = self._refused = 0

    def statistics(self) -> ProxyStatistics:
        """The proxy now."""
        uptime = monotonic() - self._started
        return ProxyStatistics(len(self._clients), self._logins, self._refused, self.switch.ledger.statements, uptime)

    # --- its life ---------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` has been called and its work is done.

        Started once it listens and has looked at every node. Raises OSError if it cannot listen.
        """
        listeners = await self._listen()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(Monitors(self.cluster).run)
                self.cluster.request_catalogue(self.config.health.database)
                nursery.start_soon(partial(self._reactor.run, self._tick, TICK, self._settle))
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(trio.serve_listeners, self._serve, [listener])
                    task_status.started()
                    await self.stopping.wait()
                    accepting.cancel_scope.cancel()
                await self._drain()
                nursery.cancel_scope.cancel()
        finally:
            self._reactor.close()

    def stop(self) -> None:
        """Take no more clients, let what is in flight finish up to `[proxy] shutdown_timeout`, then end."""
        self.stopping.set()

    async def _listen(self) -> list[trio.SocketListener]:
        address = self.config.proxy.listen
        listeners = await trio.open_tcp_listeners(address.port, host=address.host, backlog=BACKLOG)
        self.address = Address(address.host, listeners[0].socket.getsockname()[1])
        return listeners

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

    async def _serve(self, stream: trio.SocketStream) -> None:
        """One connection, from its first byte to the reactor, or to its end."""
        talk = Conversation(stream)
        try:
            with trio.move_on_after(self.config.proxy.login_timeout) as deadline:
                admitted = await log_in(talk, self.users, self.config.auth.method, self._on_cancel)
                if admitted is not None:
                    await self._admit(talk, admitted)
            if deadline.cancelled_caught:
                raise PeerError("the login took too long", "08006")
        except PeerError as error:
            self._refused += 1
            log.info("login refused: %s", error.message)
            await _say(stream, error.response("FATAL"))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            self._refused += 1
        except Exception:  # a bug of ours must not end the listener
            self._refused += 1
            log.exception("internal error during a login")
        finally:
            if stream.socket.fileno() >= 0:
                await trio.aclose_forcefully(stream)

    async def _admit(self, talk: Conversation, admitted: Admitted) -> None:
        client = admitted.client
        await talk.send(builders.AUTHENTICATION_OK)
        verdict = self.planner.greet(client)
        if verdict.reject is not None:
            raise PeerError(verdict.reject.message, verdict.reject.sqlstate, hint=verdict.reject.hint)
        parameters, asked, said = await self._greeting(admitted)
        self.cluster.request_catalogue(client.database)
        await self._catalogue(client.database)
        identity = next(self._ids)
        key = (identity & 0x7FFFFFFF, secrets.token_bytes(32 if admitted.protocol_minor >= 2 else 4))
        settings = from_parameters(parameters, admitted.settings, asked)
        session = Session(
            identity, key, client, settings, admitted.hints, max_message=self.config.proxy.max_message
        )
        await talk.send(said + notices(verdict.notices) + greeting(parameters, key))
        self._logins += 1
        connection = socket.socket(fileno=talk.stream.socket.detach())
        on_data, on_closed = partial(self._client_data, session), partial(self._client_gone, session)
        endpoint = self._reactor.adopt(connection, on_data, on_closed)
        self._clients[identity] = endpoint
        self._owners[endpoint] = session
        self.switch.add_session(session)
        if self.stopping.is_set():
            self.switch.shut_down(everyone=False)
        elif admitted.rest:
            self._client_data(session, admitted.rest)
        self._reactor.flush()

    async def _greeting(self, admitted: Admitted) -> tuple[dict[str, str], dict[str, str], bytes]:
        """What the server reports to a client with these start-up settings, which it also checks; what of the tracked
        settings it does not report; and the notices of its login.

        Found out by logging in as the client would, once for each combination; application_name is nobody's business.
        """
        client = admitted.client
        wanted = {name: value for name, value in admitted.settings.items() if name != "application_name"}
        key = (client.database, client.user, tuple(sorted(wanted.items())))
        while (found := self._remembered(key)) is None:
            asking = self._asking.get(key)
            if asking is not None:  # somebody like this client has asked already
                await asking.wait()
                continue
            self._asking[key] = trio.Event()
            try:
                opened = await self._look(client.database, client.user, wanted)
                opened.socket.close()
                self._greetings[key] = monotonic(), (opened.parameters, opened.asked, opened.notices)
            finally:
                self._asking.pop(key).set()
            if len(self._greetings) > GREETINGS:
                self._greetings.popitem(last=False)
        parameters, asked, said = found
        name, notice = application_name(client.application_name, parameters.get("server_version", ""))
        return {**parameters, "application_name": name}, asked, said + notice

    def _remembered(self, key: tuple[object, ...]) -> _Greeting | None:
        since, greeting = self._greetings.get(key, (0.0, None))
        return greeting if monotonic() - since < GREETING_AGE else None

    async def _look(self, database: str, user: str, settings: Mapping[str, str]) -> Opened:
        """Log in to the primary; to any other node where there is none; wait where there is no node at all."""
        policy = self.switch.policies.of(database, user)
        login = self.users.on_nodes(user, policy)
        timeout, tracked = policy.connect_timeout, policy.tracked_settings
        give_up = trio.current_time() + self.config.proxy.login_timeout / 2
        while True:
            primary = self.cluster.primary
            others = [node for node in self.cluster.nodes if node.healthy and node is not primary]
            for node in [primary, *others] if primary is not None else others:
                try:
                    return await open_link(node, database, login, timeout, tracked, settings)
                except Unreachable as error:
                    self.cluster.reported(node, error)
            if trio.current_time() > give_up:
                reasons = "; ".join(f"{node.name}: {node.reason}" for node in self.cluster.nodes if node.reason)
                raise PeerError(f"no node is up ({reasons})", "57P03")
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
        if session.id in self._clients and session.id not in self._held and _is_flooding(session):
            self._held[session.id] = session
            self._clients[session.id].hold(True)

    def _settle(self) -> None:
        """After each round: read those again whose queue has become short."""
        for identity, session in list(self._held.items()):
            if session.closing or (len(session.units) < UNITS_MOST / 2 and session.queued < LOW_WATER):
                del self._held[identity]
                if (endpoint := self._clients.get(identity)) is not None:
                    endpoint.hold(False)

    def _client_gone(self, session: Session, reason: str) -> None:
        endpoint = self._clients.pop(session.id, None)
        if endpoint is not None:
            self._owners.pop(endpoint, None)
        self.switch.client_gone(session)

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
        endpoint = self._clients.pop(session.id, None)
        if endpoint is not None:
            self._owners.pop(endpoint, None)
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
        """Ask the node to cancel what the link runs."""
        assert self._nursery is not None
        self._nursery.start_soon(self._cancel, link, done)

    async def _open(self, pool: Pool) -> None:
        login = self.users.on_nodes(pool.asked_by, pool.policy)
        try:
            policy = pool.policy
            opened = await open_link(
                pool.node, pool.database, login, policy.connect_timeout, policy.tracked_settings
            )
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
        endpoint = self._reactor.adopt(opened.socket, partial(self._link_data, link), partial(self._link_lost, link))
        self._links[link] = endpoint
        self._owners[endpoint] = link
        self.switch.links.opened(pool, link)

    def _then(self, call: Callable[..., object], *arguments: object) -> None:
        """Something has happened outside of the reactor: let the switch act on it."""
        self._reactor.guarded(call, *arguments)
        self._reactor.guarded(self._settle)
        self._reactor.flush()

    async def _cancel(self, link: Link, done: Callable[[], None]) -> None:
        sure = await send_cancel(link.node, link.key, self.config.pool.connect_timeout)
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


def _is_flooding(session: Session) -> bool:
    units = session.units
    if len(units) < 2:
        return bool(units) and units[0].size > QUEUED_MOST
    return len(units) > UNITS_MOST or session.queued > QUEUED_MOST


async def _say(stream: trio.SocketStream, data: bytes) -> None:
    """Last words, if anybody still listens."""
    with trio.move_on_after(1):
        try:
            await stream.send_all(data)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return
