"""Test a plugin natively, without building it: the class as it is, configured as the proxy would."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TypeVar

from helios_sdk.capabilities import Clock, Log
from helios_sdk.contract import LogLevel
from helios_sdk.plugin import Plugin

_P = TypeVar("_P", bound=Plugin)


class RecordingLog(Log):
    """A log that keeps its lines in `lines`, as (level, message)."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: list[tuple[LogLevel, str]] = []
        super().__init__(lambda level, message: self.lines.append((level, message)))


def load(plugin: type[_P], config: Mapping[str, Mapping[str, object]] | None = None) -> _P:
    """An instance of `plugin`, configured; its hooks are callable.

    `config` maps owned tables, and `plugin`, to what the file says; absent tables are empty. Granted capabilities
    work: the log is a `RecordingLog`, the clock the real one. Raises what `configured` raises. The schema is not
    checked here: the proxy does that before it calls `configured`.
    """
    given = config or {}
    unknown = set(given) - {*plugin.tables, "plugin"}
    if unknown:
        raise ValueError(f"{plugin.name} owns no table {', '.join(sorted(unknown))}")
    instance = plugin()
    if "log" in plugin.capabilities:
        instance.log = RecordingLog()
    if "clock" in plugin.capabilities:
        instance.clock = Clock(lambda: time.time_ns() // 1_000_000)
    instance.config = {table: given.get(table, {}) for table in (*plugin.tables, "plugin")}
    instance.configured()
    return instance
