"""The proxy and its admin API together, from the first socket to the last, as `helios run` and `helios demo` run them.

Signals: the first SIGTERM or SIGINT asks for an orderly end, a second one ends everything now; SIGHUP reads the
configuration again.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Config
from heliosproxy.control.admin import open_listener, serve_admin
from heliosproxy.control.reload import Reloader
from heliosproxy.sandbox import Plugin, Sandbox
from heliosproxy.switch.proxy import Proxy

log = logging.getLogger("heliosproxy")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class CannotListen(Exception):
    """An address cannot be listened on: it is taken, mostly. `key`: which one, `listen` or `admin`."""

    def __init__(self, key: str, address: Address, error: OSError) -> None:
        self.key = key
        super().__init__(f"cannot listen on {address} ([proxy] {key}): {error.strerror or error}")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where it answers, once it does; ports are those actually taken."""

    proxy: Address
    admin: Address


Started = Callable[[Addresses], Awaitable[None]]


async def serve(
    config: Config,
    plugins: Sequence[Plugin],
    sandbox: Sandbox,
    *,
    started: Started | None = None,
    duration: float | None = None,
) -> bool:
    """Serve until a signal, or for `duration` seconds; whether everything in flight could end well.

    `started` is called once both listeners answer; what it raises ends everything and is raised here.
    Raises CannotListen before anything else has happened. Nodes that do not answer are no error. The plugins stay the
    caller's to close.
    """
    listener = _open_admin(config)
    try:
        admin = Address(config.proxy.admin.host, listener.getsockname()[1])
        return await _Serving(config, plugins, sandbox, listener, admin).run(started, duration)
    finally:
        listener.close()


def _freeze() -> None:
    """Let the garbage collector look no more at what stays for ever: modules, plugins, the grammar. A full collection
    of all that holds everybody up for 50 ms."""
    gc.collect()
    gc.freeze()


def _open_admin(config: Config) -> socket.socket:
    try:
        return open_listener(config.proxy.admin)
    except OSError as error:
        raise CannotListen("admin", config.proxy.admin, error) from None


class _Serving:
    """One run. A failure is noted and raised outside of the nursery, which would wrap it."""

    def __init__(
        self, config: Config, plugins: Sequence[Plugin], sandbox: Sandbox, listener: socket.socket, admin: Address
    ) -> None:
        self._config = config
        self._sandbox = sandbox
        self._listener = listener
        self._admin = admin
        self._proxy = Proxy(config, plugins)
        self._reloader = Reloader(self._proxy)
        self._wanted, self._asked = trio.open_memory_channel[None](1)
        self._failure: Exception | None = None
        self._orderly = True

    async def run(self, started: Started | None, duration: float | None) -> bool:
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals, nursery.cancel_scope)
                try:
                    await self._start(nursery)
                    nursery.start_soon(self._reload)
                    _freeze()
                    if started is not None:
                        await started(Addresses(self._proxy.address, self._admin))
                except Exception as error:
                    self._failure = error
                    nursery.cancel_scope.cancel()
                if duration is not None:
                    nursery.start_soon(self._end_after, duration)
        if self._failure is not None:
            raise self._failure
        return self._orderly

    async def _start(self, nursery: trio.Nursery) -> None:
        try:
            await nursery.start(self._serve_clients, nursery.cancel_scope)
        except OSError as error:
            raise CannotListen("listen", self._config.proxy.listen, error) from None
        parts = (self._listener, self._proxy, self._sandbox, self._config, self._reloader)
        await nursery.start(partial(serve_admin, *parts))
        log.info("clients connect to %s, the admin API is at http://%s", self._proxy.address, self._admin)
        if (directory := self._config.proxy.unix_socket_directory) is not None:
            log.info("clients on this machine also connect to the Unix socket in %s", directory)
        for node in self._proxy.cluster.nodes:
            if not node.healthy:
                log.warning("%s at %s is not there yet: %s", node.name, node.config.address, node.reason)

    async def _serve_clients(
        self, everything: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await self._proxy.run(task_status=task_status)
        everything.cancel()

    async def _obey(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                with contextlib.suppress(trio.WouldBlock):  # one that has not begun yet reads what is there by then
                    self._wanted.send_nowait(None)
                continue
            if self._proxy.stopping.is_set():
                log.warning("%s again: ending now", name)
                self._orderly = False
                everything.cancel()
                return
            log.info("%s: finishing what is in flight", name)
            self._proxy.stop()

    async def _reload(self) -> None:
        """Read the configuration again when SIGHUP asks for it. What goes wrong changes nothing, and ends nothing."""
        async for _ in self._asked:
            try:
                await self._reloader.reload()
            except ConfigErrors:
                pass  # they are in the log
            except Exception:
                log.exception("internal error while the configuration was read again")

    async def _end_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self._proxy.stop()
