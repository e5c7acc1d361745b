"""One real cluster for all tests that need servers, and a database of its own for each module."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import helios_sdk
import psycopg
import pytest
import trio_asyncio
from helios_sdk.build import build, contract_dir

from heliosproxy.demo.local import LocalCluster, start_cluster

numbers = itertools.count(1)
GUESTS = Path(__file__).parent / "guests"


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """The shared cluster. A test that stops, kills or pauses a node brings it back; one that promotes uses its own."""
    with start_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def components(pytestconfig: pytest.Config) -> Path:
    """A directory with the component of all plugins in guests, built once for each state of their sources."""
    assert pytestconfig.cache is not None
    sdk = Path(helios_sdk.__file__).parent
    digest = hashlib.sha256()
    for source in [*sorted(GUESTS.glob("*/*.py")), *sorted(sdk.glob("*.py")), contract_dir() / "helios.wit"]:
        digest.update(source.read_bytes())
    directory = pytestconfig.cache.mkdir("helios-guests") / digest.hexdigest()[:16]
    if not (directory / "guests.wasm").is_file():
        build(sorted(each.parent for each in GUESTS.glob("*/plugin.py")), directory / "guests.wasm")
    return directory


@pytest.fixture(scope="module")
def new_database(cluster: LocalCluster) -> Iterator[Callable[[], str]]:
    """Makes empty databases, each there on every node when the call returns; they are dropped after the module."""
    made: list[str] = []

    def create() -> str:
        made.append(f"test_{next(numbers)}")
        cluster.psql(f"create database {made[-1]} owner {cluster.user}")
        for node in cluster.nodes[1:]:
            cluster.wait_replayed(node.name)
        return made[-1]

    yield create
    for name in made:
        cluster.psql(f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def database(new_database: Callable[[], str]) -> str:
    """An empty database for the module, owned by `cluster.user`."""
    return new_database()


@pytest.fixture
def connect(cluster: LocalCluster, database: str) -> Iterator[Callable[..., psycopg.Connection]]:
    """Opens connections, `connect("standby-sync-1", user=…)`, to the module's database; default: primary, cluster.user.

    They are psycopg's, in autocommit, and closed after the test.
    """
    with ExitStack() as stack:

        def open_one(node: str = "primary", *, user: str | None = None) -> psycopg.Connection:
            dsn = cluster.dsn(node, user=user, database=database)
            return stack.enter_context(psycopg.connect(dsn, autocommit=True, connect_timeout=10))

        yield open_one


@pytest.fixture
async def asyncio_loop() -> AsyncIterator[object]:
    """An asyncio loop inside trio, so that a test may `await aio_as_trio(…)` asyncpg."""
    async with trio_asyncio.open_loop() as loop:
        yield loop


@pytest.fixture
async def connection(cluster: LocalCluster, database: str, asyncio_loop: object) -> AsyncIterator[asyncpg.Connection]:
    """An asyncpg connection to the primary and the module's database, as superuser; use it under `aio_as_trio`."""
    dsn = cluster.dsn(user=cluster.superuser, database=database)
    link = await trio_asyncio.aio_as_trio(asyncpg.connect)(dsn, timeout=10)
    yield link
    await trio_asyncio.aio_as_trio(link.close)(timeout=10)
