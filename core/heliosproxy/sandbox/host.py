"""What a guest may call: the contract's imports, linked to the real thing where granted, else to a denial (P2).

One component holds many plugins, so every instance imports everything; what its plugin did not ask for in its
manifest ends in a trap that names the capability. Host functions are bounded, since an epoch does not interrupt them.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component, ComponentInstanceType, Linker

LINE_LENGTH = 2_000
"""Longest line of a plugin's in the log, in characters."""
LINES_PER_SECOND = 50
"""Lines that a plugin may write a second; the rest is dropped, with a line that says how many."""

_PACKAGE = re.compile(r"helios:plugin/([a-z-]+)@0\.1\.\d+")
_FUNCTIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {"types": frozenset(), "log": frozenset({"write"}), "clock": frozenset({"now"})}
)
_LEVELS: Mapping[str, int] = MappingProxyType(
    {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
)


def foreign_imports(engine: Engine, component: Component) -> list[str]:
    """What the component imports beyond the contract, by name. Such a component is not loaded."""
    return [name for name, extern in component.type.imports(engine).items() if not _in_contract(engine, name, extern)]


def _in_contract(engine: Engine, name: str, extern: Any) -> bool:
    match = _PACKAGE.fullmatch(name)
    if match is None or match[1] not in _FUNCTIONS:
        return False
    instance = extern.ty
    if not isinstance(instance, ComponentInstanceType):
        return False
    functions = {each for each, item in instance.exports(engine).items() if type(item.ty).__name__ == "FuncType"}
    return functions <= _FUNCTIONS[match[1]]


class Host:
    """The host functions of one instance. `clock_used` says whether the clock was read since it was last set False."""

    def __init__(self, plugin: str, granted: frozenset[str], log: PluginLog) -> None:
        self.clock_used = False
        self._plugin = plugin
        self._granted = granted
        self._log = log

    def linker(self, engine: Engine, component: Component) -> Linker:
        """A linker that defines what the component imports, under the names it imports it by."""
        linker = Linker(engine)
        with linker.root() as root:
            for name in component.type.imports(engine):
                match = _PACKAGE.fullmatch(name)
                if match and match[1] != "types":
                    with root.add_instance(name) as instance:
                        self._define(match[1], instance.add_func)
        return linker

    def _define(self, interface: str, add: Callable[[str, Callable[..., Any]], None]) -> None:
        name: str
        function: Callable[..., Any]
        name, function = ("write", self._write) if interface == "log" else ("now", self._now)
        add(name, function if interface in self._granted else self._denial(interface))

    def _denial(self, capability: str) -> Callable[..., None]:
        def deny(*_: object) -> None:
            raise WasmtimeError(f"plugin {self._plugin} was not granted the capability {capability}")

        return deny

    def _write(self, _: object, level: str, message: str) -> None:
        self._log.write(level, message)

    def _now(self, _: object) -> int:
        self.clock_used = True
        return time.time_ns() // 1_000_000


class PluginLog:
    """A plugin's lines in the proxy's log, under `heliosproxy.plugin.<name>`."""

    def __init__(self, plugin: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logging.getLogger(f"heliosproxy.plugin.{plugin}")
        self._clock = clock
        self._second = 0.0
        self._lines = 0

    def write(self, level: str, message: str) -> None:
        """Write a line: cut to length, control characters replaced, dropped above the rate."""
        now = self._clock()
        if now - self._second >= 1.0:
            if self._lines > LINES_PER_SECOND:
                self._logger.warning("%d lines of this plugin were dropped", self._lines - LINES_PER_SECOND)
            self._second, self._lines = now, 0
        self._lines += 1
        if self._lines <= LINES_PER_SECOND:
            text = "".join(char if char.isprintable() else " " for char in message[:LINE_LENGTH])
            self._logger.log(_LEVELS.get(level, logging.INFO), "%s", text)
