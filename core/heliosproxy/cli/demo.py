"""`helios demo`: a PostgreSQL cluster on this machine with the proxy in front of it; afterwards nothing is left."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import cast

import trio

from heliosproxy.cli import output
from heliosproxy.cli.client import NoProxy, Target, get
from heliosproxy.cli.run import close_all, load_plugins, log_to_stderr, register
from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Config
from heliosproxy.control.serve import Addresses, CannotListen, serve
from heliosproxy.control.shapes import ReadyShown
from heliosproxy.demo.configuration import compose, write_private
from heliosproxy.demo.headless import NotAnswering, Ready, ready, wait_answering, welcome
from heliosproxy.demo.local import ClusterError, LocalCluster, start_cluster
from heliosproxy.demo.processes import free_port
from heliosproxy.demo.running import Running
from heliosproxy.sandbox import Plugin, Sandbox

HOST = "127.0.0.1"
PROXY_PORT, ADMIN_PORT = 6432, 9090
ATTEMPTS = 5
"""Choices of ports: another process may take one in between."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given. `listen`: the proxy's port, None for 6432 or a free one; `duration` in seconds."""

    headless: bool = False
    ready_file: Path | None = None
    duration: float | None = None
    listen: int | None = None


class Interrupted(BaseException):
    """A signal came while nobody listened for signals: everything made so far is undone. Not an Exception, as
    KeyboardInterrupt is none."""


def run_demo(options: Options) -> int:
    """The command; the exit code. Ends at SIGTERM or SIGINT, or after the duration."""
    log_to_stderr(logging.WARNING if not options.headless else logging.INFO)
    try:
        if options.ready_file is not None:
            options.ready_file.unlink(missing_ok=True)  # left behind by a run that was killed
        with _signals_interrupt():
            output.say("starting a PostgreSQL cluster: a primary, a synchronous and an asynchronous standby …")
            with start_cluster() as cluster, Sandbox() as sandbox:
                return _Demo(options, cluster, sandbox).run()
    except (ClusterError, NotAnswering, CannotListen, OSError) as error:
        output.say(f"the demo cannot run: {error}")
        return output.FAILURE
    except ConfigErrors as errors:
        output.say(f"the demo cannot run:\n{errors.render()}")
        return output.CONFIGURATION
    except Interrupted:
        return output.OK


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGINT raise Interrupted, once, while nobody else (trio, later) takes them."""

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted

    before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Demo:
    """One demo, its cluster running."""

    def __init__(self, options: Options, cluster: LocalCluster, sandbox: Sandbox) -> None:
        self._options = options
        self._cluster = cluster
        self._sandbox = sandbox
        self._file = cluster.directory / "heliosproxy.toml"
        self._stack = contextlib.ExitStack()

    def run(self) -> int:
        plugins = self._bundled()
        with self._stack:
            for attempt in range(1, ATTEMPTS + 1):
                self._write_configuration(plugins)
                try:
                    return self._serve()
                except CannotListen as error:
                    if attempt == ATTEMPTS or (error.key == "listen" and self._options.listen is not None):
                        raise
        raise AssertionError("the last attempt returns or raises")

    def _bundled(self) -> list[str]:
        found = self._sandbox.installed(Config(self._file, ()))
        names = [each.name for each in found if each.origin == "bundled" and not each.problems]
        if not names:
            output.say("warning: no bundled plugin is installed, so hints do nothing")
        return names

    def _write_configuration(self, plugins: Sequence[str]) -> None:
        given = self._options.listen
        listen = Address(HOST, _free(PROXY_PORT) if given is None else given)
        write_private(self._file, compose(self._cluster, listen, Address(HOST, _free(ADMIN_PORT)), plugins))

    def _serve(self) -> int:
        loaded, plugins = load_plugins(self._file, self._sandbox)
        duration = self._options.duration
        try:
            orderly = trio.run(self._serving, loaded.config, plugins, duration)
        finally:
            close_all(plugins)
        return output.OK if orderly else output.FAILURE

    async def _serving(self, config: Config, plugins: Sequence[Plugin], duration: float | None) -> bool:
        return await serve(config, plugins, self._sandbox, started=self._announce, duration=duration)

    async def _announce(self, addresses: Addresses) -> None:
        """Once everything answers: register, and tell."""
        await wait_answering(self._cluster, addresses.proxy)
        await _wait_ready(addresses.admin)
        running = Running(os.getpid(), str(addresses.admin), str(addresses.proxy), str(self._file), demo=True)
        register(running, self._stack)
        self._tell(ready(self._cluster, addresses))

    def _tell(self, access: Ready) -> None:
        file = self._options.ready_file
        if file is not None:
            write_private(file, json.dumps(access, indent=2) + "\n")
            self._stack.callback(file.unlink, missing_ok=True)
        if not self._options.headless:
            print(welcome(access, self._file), flush=True)


async def _wait_ready(admin: Address) -> None:
    """Raises NotAnswering unless the admin API says that it is ready."""
    try:
        answer = await trio.to_thread.run_sync(lambda: get(Target(str(admin), "the demo"), "/readyz"))
    except NoProxy as error:
        raise NotAnswering(str(error)) from None
    said = cast(ReadyShown, answer)
    if not said["ready"]:
        raise NotAnswering("; ".join(said["reasons"]))


def _free(preferred: int) -> int:
    """The port, or another one where it is taken."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, preferred))
        except OSError:
            return free_port(HOST)
    return preferred
