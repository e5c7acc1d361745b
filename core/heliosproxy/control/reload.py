"""Reading heliosproxy.toml again while the proxy runs.

Who may come in, and with what: `[auth]` with its users, rules and maps, the files that it names, `[client_tls]`,
`[server_tls]` and what nodes say of it, certificates, `[client_limits]`, `[health]`; who clients are on the nodes, and
the time-outs of sessions. Everything else needs a restart, and is named. A file with a mistake changes nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import trio

from heliosproxy.config.errors import ConfigError, ConfigErrors
from heliosproxy.config.load import load
from heliosproxy.config.model import Config, PoolFor
from heliosproxy.config.tls import BadTls

if TYPE_CHECKING:
    from heliosproxy.switch.proxy import Proxy

log = logging.getLogger("heliosproxy.reload")

_WHOLE = ("auth", "client_tls", "server_tls", "client_limits", "health")
"""Sections that hold at once."""
_OF_NODES = ("tls", "require_auth")
"""Keys of nodes that do."""
_OF_POOLS = (
    "server_user", "server_password",
    "idle_session_timeout", "idle_in_transaction_session_timeout", "statement_timeout", "transaction_timeout",
)  # fmt: skip
"""And of pools, where `[[pools]]` has the same entries in the same order."""
_SHOWN: Mapping[str, str] = MappingProxyType(
    {field.name: f"[{field.name}]" for field in dataclasses.fields(Config) if field.name != "file"}
    | {"nodes": "[[nodes]]", "pools": "[[pools]]", "tables": "tables of plugins"}
)
"""The parts of a configuration as the file writes them."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload has done."""

    changed: tuple[str, ...]
    """Sections that say something else than before and now hold. Files that they name were read in any case."""
    needs_restart: tuple[str, ...]
    """Sections that say something else than before and still do not hold."""


class Reloader:
    """Reads the file that the proxy was started with; one at a time, in the order in which it was asked for."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._lock = trio.Lock()

    async def reload(self) -> Reloaded:
        """Take over what the file says now. Raises ConfigErrors, and then nothing has changed."""
        async with self._lock:
            running = self._proxy.config
            try:
                loaded = await trio.to_thread.run_sync(load, running.file, os.environ, abandon_on_cancel=True)
            except ConfigErrors as errors:
                log.error("%s has mistakes, and nothing was changed:\n%s", running.file, errors.render())
                raise
            for warning in loaded.warnings:
                log.warning("%s", warning)
            taken = _taken(running, loaded.config)
            try:
                await self._proxy.reload(taken)
            except BadTls as bad:  # a file that has changed since it was checked
                raise ConfigErrors([ConfigError(running.file, 0, 0, bad.key, bad.message, bad.hint)]) from None
            done = Reloaded(tuple(_changed(running, taken)), tuple(_needs_restart(taken, loaded.config)))
            log.info("%s was read again; %s", running.file, _words(done))
            return done


def _changed(running: Config, taken: Config) -> Iterator[str]:
    for name in _SHOWN:
        if getattr(running, name) != getattr(taken, name):
            yield _SHOWN[name]


def _needs_restart(taken: Config, read: Config) -> Iterator[str]:
    return (shown for name, shown in _SHOWN.items() if getattr(taken, name) != getattr(read, name))


def _taken(running: Config, read: Config) -> Config:
    """What runs, with what the file says now and may hold at once."""
    found = {node.name: node for node in read.nodes}
    nodes = tuple(_with(node, found.get(node.name, node), _OF_NODES) for node in running.nodes)
    pools = running.pools
    if [_of_whom(entry) for entry in running.pools] == [_of_whom(entry) for entry in read.pools]:
        pools = tuple(_with(*each, _OF_POOLS) for each in zip(running.pools, read.pools, strict=True))
    taken = _with(running, read, _WHOLE)
    return dataclasses.replace(taken, nodes=nodes, pool=_with(running.pool, read.pool, _OF_POOLS), pools=pools)


def _with(section: T, other: T, keys: Iterable[str]) -> T:
    """The section with these keys as in the other."""
    return dataclasses.replace(section, **{key: getattr(other, key) for key in keys})  # type: ignore[type-var]


def _of_whom(entry: PoolFor) -> tuple[str | None, str | None]:
    return entry.database, entry.user


def _words(done: Reloaded) -> str:
    said = f"changed: {', '.join(done.changed)}" if done.changed else "nothing in it has changed"
    return said + (f"; a restart is needed for {', '.join(done.needs_restart)}" if done.needs_restart else "")
