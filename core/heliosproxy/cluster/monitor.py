"""Watches the nodes: one task and one kept connection each, by asyncpg under trio-asyncio.

Every look is one query that is health check and replication sample at once, so a node is looked at at least as often as
`[health] interval` and `lag_interval` ask. Standbys are looked at right after the primary, so that what they have
replayed is compared with a fresh position.

*Error handling*: whatever a look raises is the node's state, not ours. A refused connection, or a server that says it
does not serve (starting, stopping, wrong password, no such database), is down at once; time-outs and everything else
count, `[health] failures` in a row.
"""

from __future__ import annotations

import socket

import asyncpg
import trio
import trio_asyncio
from trio_asyncio import aio_as_trio

from heliosproxy.cluster.bell import Bell
from heliosproxy.cluster.connect import ANYTHING, connect, describe, drop
from heliosproxy.cluster.keeper import Keeper
from heliosproxy.cluster.node import Node
from heliosproxy.cluster.observe import LOOK, Seen, seen
from heliosproxy.cluster.registry import Cluster
from heliosproxy.cluster.resolve import merge, resolve
from heliosproxy.config.kinds import Address

RESOLVE_INTERVAL = 30.0
"""Seconds between looks at what a node's host name stands for; a failed connection looks at once."""
MIN_GAP = 0.05
"""Seconds between looks at a node, however many links to it are reported lost."""
MAX_PAUSE = 5.0
"""Seconds up to which the pause between looks at a node that is down grows."""
STANDBY_PATIENCE = 1.5
"""A standby waits this much longer than the primary for its turn, since the primary's look wakes it."""
DOWN_AT_ONCE = (
    ConnectionRefusedError,
    FileNotFoundError,  # of a Unix socket
    asyncpg.CannotConnectNowError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


class Monitors:
    """Everything that watches `cluster`'s nodes and databases."""

    def __init__(self, cluster: Cluster, keeper: Keeper | None = None) -> None:
        self._cluster = cluster
        self._keeper = keeper or Keeper(cluster)
        self._watchers = {node: Watcher(cluster, node, self) for node in cluster.nodes}
        cluster.reported = self.reported

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started once every node was looked at, or did not answer in time."""
        async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
            for watcher in self._watchers.values():
                nursery.start_soon(watcher.run)
            nursery.start_soon(self._keeper.run)
            for watcher in self._watchers.values():
                await watcher.looked.wait()
            task_status.started()

    def reported(self, node: Node, error: BaseException) -> None:
        """The switch lost a link to `node`, or could not open one: look now. In the latter case on a new connection:
        the old one says nothing of whether others can be opened, which a certificate or a port may prevent."""
        watcher = self._watchers[node]
        watcher.afresh = watcher.afresh or not isinstance(error, ConnectionResetError)
        watcher.bell.ring_nowait()

    def wake_standbys(self) -> None:
        """The primary's position is fresh: see how far the others are."""
        for node, watcher in self._watchers.items():
            if node.healthy and node is not self._cluster.primary:
                watcher.bell.ring_nowait()


class Watcher:
    """Looks at one node, again and again. `looked` is set after the first time; `bell` asks for a look now; `afresh`:
    that the next one is on a new connection."""

    def __init__(self, cluster: Cluster, node: Node, monitors: Monitors) -> None:
        self.bell = Bell()
        self.looked = trio.Event()
        self.afresh = False
        self._cluster = cluster
        self._node = node
        self._monitors = monitors
        self._link: asyncpg.Connection | None = None
        self._linked: Address | None = None
        self._began = self._resolved = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._check()
                self.looked.set()
                await self._rest()
        finally:
            self._drop()

    async def _rest(self) -> None:
        with trio.move_on_after(self._pause()):
            await self.bell.wait()
        await trio.sleep_until(self._began + MIN_GAP)

    def _pause(self) -> float:
        node, health = self._node, self._cluster.health
        period = min(health.interval, health.lag_interval)
        if node.healthy:
            return period if node is self._cluster.primary else period * STANDBY_PATIENCE
        return max(period, min(MAX_PAUSE, period * 1.5 ** min(node.failures, 20)))

    async def _check(self) -> None:
        self._began = trio.current_time()
        timeout = self._cluster.health.timeout
        try:
            with trio.fail_after(timeout):
                result = await self._look()
        except trio.TooSlowError:
            self._lost(f"no answer within {timeout:g} s", at_once=False)
        except ANYTHING as error:
            self._lost(describe(error), at_once=isinstance(error, DOWN_AT_ONCE))
        else:
            self._cluster.saw(self._node, result)
            if self._node is self._cluster.primary:
                self._monitors.wake_standbys()

    def _lost(self, reason: str, *, at_once: bool) -> None:
        self._drop()
        self._cluster.lost(self._node, reason, at_once=at_once, now=trio.current_time())

    async def _look(self) -> Seen:
        if trio.current_time() - self._resolved > RESOLVE_INTERVAL:
            await self._resolve()
        if self.afresh:
            await self._renew()
        if self._link is not None:
            try:
                return await self._ask(self._link)
            except ANYTHING:
                # An old connection may have been cut while nobody looked: a new one tells how the server is.
                self._drop()
        return await self._ask(await self._connect())

    async def _renew(self) -> None:
        """A new connection. The old one stays if the server has no room for another: it is up nevertheless."""
        self.afresh = False
        old, linked = self._link, self._linked
        self._link = self._linked = None
        try:
            await self._connect()
        except asyncpg.TooManyConnectionsError:
            self._link, self._linked = old, linked
        except BaseException:
            drop(old)
            raise
        else:
            drop(old)

    async def _ask(self, link: asyncpg.Connection) -> Seen:
        at = trio.current_time()
        row = await aio_as_trio(link.fetchrow)(LOOK)
        return seen(row, at, trio.current_time() - at)

    async def _connect(self) -> asyncpg.Connection:
        """A connection to the first address that gives one, which becomes the node's first."""
        await self._resolve()
        health, contexts, addresses = self._cluster.health, self._cluster.contexts, self._node.addresses
        for address in addresses:
            try:
                with trio.fail_after(health.timeout / len(addresses)):
                    link = await connect(
                        self._node, health, contexts,
                        database=health.database, statement_timeout=health.timeout, at=address,
                    )  # fmt: skip
            except (OSError, trio.TooSlowError):
                if address == addresses[-1]:
                    raise
                continue
            self._link, self._linked = link, address
            self._cluster.moved(self._node, (address, *(other for other in addresses if other != address)))
            return link
        raise OSError(f"{self._node.config.address.host} has no address")

    async def _resolve(self) -> None:
        """Ask what the host stands for. Where nobody knows, what it stood for counts, if it ever did."""
        self._resolved = trio.current_time()
        try:
            found = await resolve(self._node.config.address, self._cluster.health.timeout / 2)
        except (trio.TooSlowError, socket.gaierror):
            if not self._node.addresses:
                raise
            return
        self._cluster.moved(self._node, merge(self._node.addresses, found))
        if self._linked not in self._node.addresses:
            self._drop()

    def _drop(self) -> None:
        drop(self._link)
        self._link = self._linked = None
