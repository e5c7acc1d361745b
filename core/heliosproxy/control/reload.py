"""Reading heliosproxy.toml again while the proxy runs.

Who may come in, and with what: `[auth]` with its users, rules and maps, the files that it names, `[client_tls]`,
`[server_tls]` and what nodes say of it, certificates, `[client_limits]`. Everything else needs a restart, and is named.
A file with a mistake changes nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from heliosproxy.config.access import ServerTls
from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.load import load
from heliosproxy.config.model import Config, NodeConfig

if TYPE_CHECKING:
    from heliosproxy.switch.proxy import Proxy

log = logging.getLogger("heliosproxy.reload")

_APPLIED = ("auth", "client_tls", "server_tls", "client_limits")
"""Sections that hold at once."""
_OF_NODES = ("tls", "require_auth")
"""Keys of nodes that do."""


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
                loaded = await trio.to_thread.run_sync(load, running.file, os.environ)
            except ConfigErrors as errors:
                log.error("%s has mistakes, and nothing was changed:\n%s", running.file, errors.render())
                raise
            for warning in loaded.warnings:
                log.warning("%s", warning)
            done = Reloaded(tuple(_changed(running, loaded.config)), tuple(_needs_restart(running, loaded.config)))
            await self._proxy.reload(_mixed(running, loaded.config))
            log.info("%s was read again; %s", running.file, _words(done))
            return done


def _changed(running: Config, read: Config) -> Iterator[str]:
    for name in _APPLIED:
        if getattr(running, name) != getattr(read, name):
            yield f"[{name}]"
    if any(before != after for before, after in zip(running.nodes, _nodes(running, read), strict=True)):
        yield "[[nodes]]"


def _needs_restart(running: Config, read: Config) -> Iterator[str]:
    for field in dataclasses.fields(Config):
        name = field.name
        if name in _APPLIED or name == "file":
            continue
        before, after = getattr(running, name), getattr(read, name)
        if name == "nodes":
            before, after = tuple(map(_without_access, before)), tuple(map(_without_access, after))
        if before != after:
            yield {"nodes": "[[nodes]]", "pools": "[[pools]]", "tables": "tables of plugins"}.get(name, f"[{name}]")


def _without_access(node: NodeConfig) -> NodeConfig:
    return dataclasses.replace(node, tls=ServerTls(), require_auth=())


def _nodes(running: Config, read: Config) -> tuple[NodeConfig, ...]:
    """The nodes that run, with what the file says now of how they are spoken to. One that is gone is as it was."""
    found = {node.name: node for node in read.nodes}
    return tuple(
        dataclasses.replace(node, **{key: getattr(found.get(node.name, node), key) for key in _OF_NODES})
        for node in running.nodes
    )


def _mixed(running: Config, read: Config) -> Config:
    """What runs, with what the file says now of who may come in."""
    taken = {name: getattr(read, name) for name in _APPLIED}
    return dataclasses.replace(running, nodes=_nodes(running, read), **taken)


def _words(done: Reloaded) -> str:
    said = f"changed: {', '.join(done.changed)}" if done.changed else "nothing in it has changed"
    return said + (f"; a restart is needed for {', '.join(done.needs_restart)}" if done.needs_restart else "")
