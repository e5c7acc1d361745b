"""The admin API: JSON over HTTP, on loopback only, for the command line and whoever watches the proxy.

Handlers run in the proxy's own thread and read its state directly; what takes long gives way in between.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import trio
from helios_sdk.contract import Client
from hypercorn.config import Config as ServerConfig
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Config
from heliosproxy.control import views
from heliosproxy.control.guard import Guard, failure, read_body
from heliosproxy.control.reload import Reloader
from heliosproxy.control.shapes import PluginsShown, ReadyShown, ReloadShown
from heliosproxy.switch.explain import explain

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework

    from heliosproxy.sandbox import Found, Sandbox
    from heliosproxy.switch.proxy import Proxy

MOST_DECISIONS = 1000
DECISIONS = 100
"""Shown unless `limit` says otherwise."""
AT_ONCE = 50
"""Decisions put into words before others get their turn."""
CATALOGUE_WAIT = 2.0
"""Seconds that an explanation waits for the catalogue of its database."""
MOST_CATALOGUES = 32
"""Databases beyond which an explanation does not ask for another one's catalogue: clients come first."""
READ_TIMEOUT = 30
"""Seconds that a connection may be silent."""
PARAMETERS = ("sql", "user", "database", "application_name", "hints")

log = logging.getLogger("heliosproxy.admin")


def open_listener(address: Address) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises OSError where the address cannot be had."""
    family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


async def serve_admin(
    listener: socket.socket,
    proxy: Proxy,
    sandbox: Sandbox,
    config: Config,
    reloader: Reloader,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `listener`, which is closed at the end, until cancelled. Started once requests are answered.

    `proxy` must be running in the same thread.
    """
    try:
        found = await trio.to_thread.run_sync(sandbox.installed, config)
        app: ASGIFramework = application(proxy, found, config, reloader)  # type: ignore[assignment]  # ASGI, spelt differently
        settings = _settings(listener.detach())
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, app, settings)
            task_status.started()
    finally:
        listener.close()


def _settings(descriptor: int) -> ServerConfig:
    settings = ServerConfig()
    settings.bind = [f"fd://{descriptor}"]
    settings.errorlog = logging.getLogger("heliosproxy.admin.http")
    settings.errorlog.setLevel(logging.WARNING)
    settings.read_timeout = READ_TIMEOUT
    settings.graceful_timeout = 1.0
    settings.h11_max_incomplete_size = 64 * 1024
    settings.include_server_header = False
    return settings


def application(proxy: Proxy, installed: list[Found], config: Config, reloader: Reloader) -> Starlette:
    """The ASGI application. `installed`: every plugin there is."""
    admin = _Admin(proxy, installed, config, reloader)
    return Starlette(
        routes=[
            Route("/livez", admin.livez),
            Route("/readyz", admin.readyz),
            Route("/status", admin.status),
            Route("/reload", admin.reload, methods=["POST"]),
            Route("/plugins", admin.plugins),
            Route("/routing/hints", admin.hints),
            Route("/routing/decisions", admin.decisions),
            Route("/routing/explain", admin.explain, methods=["GET", "POST"]),
        ],
        middleware=[Middleware(Guard)],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return failure(error.status_code, error.detail)


async def _failed(request: Request, error: Exception) -> Response:
    # Our own mistake: starlette raises it again for the server's log, the client gets no inside of it.
    return failure(500, f"{request.url.path} failed: {type(error).__name__}", "see the proxy's log")


class _Admin:
    """The handlers."""

    def __init__(self, proxy: Proxy, installed: list[Found], config: Config, reloader: Reloader) -> None:
        self._proxy = proxy
        self._reloader = reloader
        self._installed = installed
        self._config = config

    async def livez(self, _: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(self, _: Request) -> Response:
        reasons = views.not_ready(self._proxy)
        shown: ReadyShown = {"ready": not reasons, "reasons": reasons}
        return JSONResponse(shown, 503 if reasons else 200)

    async def status(self, _: Request) -> Response:
        return JSONResponse(views.status(self._proxy))

    async def reload(self, request: Request) -> Response:
        await _posted(request)  # it must be JSON, which a page of another origin cannot send unasked
        try:
            done = await self._reloader.reload()
        except ConfigErrors as errors:
            hint = f"{self._config.file} has mistakes, and nothing was changed"
            return failure(422, str(errors), hint)
        shown: ReloadShown = {"changed": list(done.changed), "needs_restart": list(done.needs_restart)}
        return JSONResponse(shown)

    async def plugins(self, _: Request) -> Response:
        shown: PluginsShown = {"plugins": views.plugins(self._proxy, self._installed)}
        return JSONResponse(shown)

    async def hints(self, _: Request) -> Response:
        enabled = [plugin.manifest for plugin in self._proxy.planner.plugins if plugin.state == "enabled"]
        return JSONResponse({"hints": views.hints(enabled, self._config)})

    async def decisions(self, request: Request) -> Response:
        given = request.query_params.get("limit", str(DECISIONS))
        if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= MOST_DECISIONS):
            return failure(400, f"limit is {given[:20]!r}", f"give a number from 1 to {MOST_DECISIONS}")
        newest = list(reversed(self._proxy.planner.decisions))[: int(given)]
        shown = []
        for at, decision in enumerate(newest):
            if at % AT_ONCE == AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            shown.append(decision.record())
        return JSONResponse({"decisions": shown})

    async def explain(self, request: Request) -> Response:
        asked = await _posted(request) if request.method == "POST" else _from_url(request)
        sql = asked.pop("sql", "")
        if not sql or "\0" in sql:
            return failure(400, "there is no statement to explain", 'give one as "sql"')
        hints = dict(pair.split("=", 1) for pair in asked.pop("hints", "").split(",") if "=" in pair)
        client = self._client(asked)
        note = await self._catalogue(client.database)
        session_mode = self._config.pool.mode == "session"
        found = explain(self._proxy.planner, client, sql, hints, session_mode=session_mode)
        shown = {**asdict(found), "user": client.user, "database": client.database, "note": note}
        return JSONResponse(shown)

    def _client(self, asked: Mapping[str, str]) -> Client:
        """Whom the statement would come from; who is not named is the first user, in the database of `[health]`."""
        users = self._config.auth.users
        return Client(
            user=asked.get("user") or (users[0].name if users else self._config.health.user),
            database=asked.get("database") or self._config.health.database,
            application_name=asked.get("application_name", ""),
            address="127.0.0.1",
            authentication=self._config.auth.method,
        )

    async def _catalogue(self, database: str) -> str:
        """Wait for the database's catalogue, as a login would; what to say if there is none."""
        snapshots = self._proxy.cluster.snapshots
        held = {each.database for each in snapshots.statistics()}
        if database not in held and len(held) < MOST_CATALOGUES:
            self._proxy.cluster.request_catalogue(database)
        with trio.move_on_after(CATALOGUE_WAIT):
            while not self._proxy.cluster.catalogue(database):
                error = next((each.error for each in snapshots.statistics() if each.database == database), "")
                if error or database not in {each.database for each in snapshots.statistics()}:
                    return f"the catalogue of database {database} is not known: {error or 'nobody uses it'}"
                await trio.sleep(0.02)
            return ""
        return f"the catalogue of database {database} is not known yet"


def _from_url(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.query_params.items() if name in PARAMETERS}


async def _posted(request: Request) -> dict[str, str]:
    """The parameters of a JSON body. Raises HTTPException."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "the body must be application/json")
    try:
        body: object = json.loads(await read_body(request))
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    if not isinstance(body, dict) or not all(isinstance(value, str) for value in body.values()):
        raise HTTPException(400, "the body must be an object of texts: sql, user, database, application_name, hints")
    try:
        "".join(body.values()).encode()
    except UnicodeEncodeError:
        raise HTTPException(400, "a text in the body is no Unicode: half of a surrogate pair") from None
    return {name: value for name, value in body.items() if name in PARAMETERS}
