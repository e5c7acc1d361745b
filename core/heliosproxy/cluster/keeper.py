"""Fills the catalogue snapshots: reads each when it is asked for and after DDL, and looks for changes now and then."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import asyncpg
import trio
from trio_asyncio import aio_as_trio

from heliosproxy.cluster.catalogue import Catalogue, catalogue_fingerprint, read_catalogue
from heliosproxy.cluster.connect import ANYTHING, connect, describe, drop
from heliosproxy.cluster.registry import Cluster
from heliosproxy.cluster.snapshots import Snapshot

log = logging.getLogger("heliosproxy.cluster")

TIMEOUT = 30.0
"""Seconds that a reading may take."""
QUIET = 0.1
"""Seconds without further DDL after which the catalogue is read again: a migration is many statements."""
QUIET_AT_MOST = 1.0
RETRY = 1.0
"""Seconds to the first retry after a failure; each further one takes twice as long, up to the catalogue interval."""

Read = Callable[[asyncpg.Connection], Awaitable[Catalogue]]
Look = Callable[[asyncpg.Connection], Awaitable[str]]


class NoNodeError(Exception):
    """There is no healthy node to read the catalogue from."""


class Keeper:
    """Keeps `cluster.snapshots` true. Reads from the primary, or from any healthy node while there is none."""

    def __init__(self, cluster: Cluster, read: Read = read_catalogue, look: Look = catalogue_fingerprint) -> None:
        self._cluster = cluster
        self._read = read
        self._look = look

    async def run(self) -> None:
        """Until cancelled. Must run inside `trio_asyncio.open_loop()`."""
        async with trio.open_nursery() as nursery:
            while True:
                for snapshot in self._cluster.snapshots.take_new():
                    nursery.start_soon(self._keep, snapshot)
                await self._cluster.snapshots.news.wait()

    async def _keep(self, snapshot: Snapshot) -> None:
        retry = RETRY
        while not snapshot.dropped:
            interval = self._cluster.health.catalogue_interval
            if await self._refresh(snapshot):
                pause, retry = interval, RETRY
            else:
                pause, retry = min(retry, interval), retry * 2
            with trio.move_on_after(pause):
                await snapshot.bell.wait()
                await _wait_quiet(snapshot)

    async def _refresh(self, snapshot: Snapshot) -> bool:
        """Look at the server, and read its catalogue if it changed; whether that went well."""
        link = None
        try:
            with trio.fail_after(TIMEOUT):
                link = await self._connect(snapshot.database)
                await self._compare(snapshot, link)
        except ANYTHING as error:
            if describe(error) != snapshot.error:
                log.warning("no catalogue of database %s: %s", snapshot.database, describe(error))
            snapshot.error = describe(error)
            return False
        finally:
            drop(link)
        snapshot.error = ""
        return True

    async def _connect(self, database: str) -> asyncpg.Connection:
        node = self._cluster.primary or next((node for node in self._cluster.nodes if node.healthy), None)
        if node is None:
            raise NoNodeError("no healthy node to read it from")
        health, contexts = self._cluster.health, self._cluster.contexts
        return await connect(node, health, contexts, database=database, statement_timeout=TIMEOUT)

    async def _compare(self, snapshot: Snapshot, link: asyncpg.Connection) -> None:
        generation = snapshot.generation
        # The fingerprint first: what changes between the two is then read now, and seen as a change once more.
        fingerprint = await aio_as_trio(self._look)(link)
        if snapshot.catalogue is not None and fingerprint == snapshot.fingerprint:
            self._cluster.snapshots.checked(snapshot, generation)
            return
        catalogue = await aio_as_trio(self._read)(link)
        self._cluster.snapshots.install(snapshot, catalogue, fingerprint, generation)


async def _wait_quiet(snapshot: Snapshot) -> None:
    with trio.move_on_after(QUIET_AT_MOST):
        while True:
            with trio.move_on_after(QUIET) as silence:
                await snapshot.bell.wait()
            if silence.cancelled_caught:
                return
