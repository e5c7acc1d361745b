"""`helios run`: the proxy, until a signal ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio

from heliosproxy.cli import output
from heliosproxy.cli.loading import InstalledPlugins, load_with_plugins
from heliosproxy.cli.process import prepare_process
from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.load import Loaded, load
from heliosproxy.config.model import Config
from heliosproxy.config.tables import Problem
from heliosproxy.control.serve import Addresses, CannotListen, Started, serve
from heliosproxy.demo.running import Running, registered
from heliosproxy.sandbox import Limits, LoadError, Plugin, Sandbox

log = logging.getLogger("heliosproxy")


def run_proxy(file: Path) -> int:
    """The command; the exit code."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read again
    log_to_stderr()
    with contextlib.ExitStack() as stack:
        try:
            sandbox = stack.enter_context(Sandbox(limits_of(file)))
            loaded, plugins = load_plugins(file, sandbox)
        except ConfigErrors as errors:
            output.say(errors.render())
            return output.CONFIGURATION
        stack.callback(close_all, plugins)
        for warning in loaded.warnings:
            output.say(f"warning: {warning}")
        started = partial(_registered, loaded.config, stack) if not loaded.config.proxy.admin.port else None
        return run_until_ended(loaded.config, plugins, sandbox, started)


def run_until_ended(
    config: Config,
    plugins: Sequence[Plugin],
    sandbox: Sandbox,
    started: Started | None = None,
    duration: float | None = None,
) -> int:
    """Serve; the exit code."""
    prepare_process(config)
    try:
        orderly = trio.run(partial(serve, config, plugins, sandbox, started=started, duration=duration))
    except CannotListen as error:
        output.say(str(error))
        return output.FAILURE
    return output.OK if orderly else output.FAILURE


async def _registered(config: Config, stack: contextlib.ExitStack, addresses: Addresses) -> None:
    """Let other commands find it, since the file does not tell the port."""
    file = str(config.file.resolve())
    register(Running(os.getpid(), str(addresses.admin), str(addresses.proxy), file, demo=False), stack)


def register(running: Running, stack: contextlib.ExitStack) -> None:
    """Let it be found until the stack unwinds. That it cannot be is worth a warning, not an end."""
    try:
        stack.enter_context(registered(running))
    except OSError as error:
        log.warning("other commands will not find this proxy by themselves: %s", error)


def limits_of(file: Path) -> Limits:
    """What `[plugins]` allows an instance. A file with mistakes gives what can be read; they are reported later."""
    try:
        return Limits.of(load(file, os.environ).config.plugins)
    except ConfigErrors as errors:
        return Limits.of(errors.loaded.config.plugins) if errors.loaded is not None else Limits()


class _Loaded(InstalledPlugins):
    """Keeps the plugins that could be loaded, instead of letting them go."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._of = sandbox
        self.plugins: list[Plugin] = []

    def refusals(self, config: Config) -> Sequence[Problem]:
        """Loads the plugins."""
        try:
            self.plugins = self._of.load(config)
        except LoadError as error:
            return error.problems
        return ()


def load_plugins(file: Path, sandbox: Sandbox) -> tuple[Loaded, list[Plugin]]:
    """The configuration and its plugins, which are the caller's to close. Raises ConfigErrors with every mistake."""
    known = _Loaded(sandbox)
    return load_with_plugins(file, os.environ, known), known.plugins


def close_all(plugins: Sequence[Plugin]) -> None:
    """Give the plugins' instances back."""
    for plugin in plugins:
        plugin.close()


def log_to_stderr(level: int = logging.INFO) -> None:
    """The log, as lines of text."""
    form = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=level, format=form)
