"""Two hundred clients on ten links: everyone gets its own answers, whatever it and the others do."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster.proxies import RunningProxy, running

CLIENTS, LINKS, STEPS, PATIENCE = 200, 10, 25, 60.0
SCHEMA = """
create table accounts (owner int, key int, value text, primary key (owner, key));
insert into accounts select owner, key, owner || '/' || key
from generate_series(0, 199) owner, generate_series(0, 9) key;
"""


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    cluster.psql(f"set role {cluster.user}; {SCHEMA}", database=database)
    sections = {"pool": {"size": str(LINKS)}}
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as started:
        started.replayed()
        yield started
        assert started.faults() == []


class Account:
    """A client that owns ten rows, knows what is in them, and checks every answer."""

    def __init__(self, number: int, client: psycopg.AsyncConnection) -> None:
        self.number = number
        self.client = client
        self.rows = {key: f"{number}/{key}" for key in range(10)}
        self.random = random.Random(number)
        self.checked: Counter[str] = Counter()

    async def live(self) -> None:
        """Do things in any order."""
        deeds: list[Callable[[int], Awaitable[None]]] = [
            self.reads_simply, self.reads_a_parameter, self.reads_prepared, self.says_who_it_is, self.writes,
            self.commits, self.rolls_back, self.fails, self.fails_in_a_transaction, self.pipelines,
        ]  # fmt: skip
        for _ in range(STEPS):
            deed = self.random.choice(deeds)
            await deed(self.random.randrange(10))
            self.checked[deed.__name__] += 1

    async def reads_simply(self, key: int) -> None:
        await self.expect(f"select owner from accounts where owner = {self.number} limit 1", (), (self.number,))

    async def reads_a_parameter(self, key: int) -> None:
        asked = "/*helios:route=primary*/ select owner, key, value from accounts where owner = %s and key = %s"
        await self.expect(asked, (self.number, key), (self.number, key, self.rows[key]))

    async def reads_prepared(self, key: int) -> None:
        asked = "/*helios:route=primary*/ select value, owner from accounts where owner = %s and key = %s"
        await self.expect(asked, (self.number, key), (self.rows[key], self.number), prepare=True)

    async def says_who_it_is(self, key: int) -> None:
        await self.expect(f"select '{self.number}', %s::int + 0", (key,), (str(self.number), key))

    async def writes(self, key: int, value: str | None = None) -> None:
        self.rows[key] = value or f"{self.number}/{key} {self.random.random()}"
        asked = "update accounts set value = %s where owner = %s and key = %s returning value"
        await self.expect(asked, (self.rows[key], self.number, key), (self.rows[key],))

    async def commits(self, key: int) -> None:
        async with self.client.transaction():
            await self.reads_prepared(key)
            await self.writes(key)
            await self.reads_a_parameter(key)

    async def rolls_back(self, key: int) -> None:
        before = self.rows[key]
        async with self.client.transaction(force_rollback=True):
            await self.writes(key, "never")
            await self.reads_a_parameter(key)
        self.rows[key] = before
        await self.reads_a_parameter(key)

    async def fails(self, key: int) -> None:
        with pytest.raises(psycopg.errors.InvalidTextRepresentation) as caught:
            await self.client.execute("select %s::text::int", (f"not {self.number}",))
        assert f'"not {self.number}"' in str(caught.value)

    async def fails_in_a_transaction(self, key: int) -> None:
        async def fail() -> None:
            async with self.client.transaction():
                await self.client.execute("delete from accounts where owner = %s", (self.number,))
                await self.client.execute("select 1 / 0")

        with pytest.raises(psycopg.errors.DivisionByZero):
            await fail()
        await self.reads_a_parameter(key)

    async def pipelines(self, key: int) -> None:
        async with self.client.pipeline():
            cursors = [await self.client.execute("select %s::int, %s::int", (self.number, n)) for n in range(key + 1)]
        assert [await cursor.fetchone() for cursor in cursors] == [(self.number, n) for n in range(key + 1)]

    async def expect(
        self, sql: str, parameters: tuple[object, ...], row: tuple[object, ...], prepare: bool | None = None
    ) -> None:
        cursor = await self.client.execute(sql.encode(), parameters or None, prepare=prepare)
        assert await cursor.fetchall() == [row]


async def play(proxy: RunningProxy) -> tuple[Counter[str], int]:
    """What was checked, and the most connections that the primary saw."""
    parameters = proxy.parameters()
    opened = [psycopg.AsyncConnection.connect(**parameters, autocommit=True) for _ in range(CLIENTS)]  # type: ignore[arg-type]
    clients = await asyncio.gather(*opened)
    accounts = [Account(number, client) for number, client in enumerate(clients)]
    most = asyncio.create_task(most_connections(proxy))
    try:
        await asyncio.gather(*(account.live() for account in accounts))
    finally:
        most.cancel()
        for client in clients:
            await client.close()
    return sum((account.checked for account in accounts), Counter()), await most


async def most_connections(proxy: RunningProxy) -> int:
    """The most connections of the clients' user to the primary, until this is cancelled."""
    most = 0
    asked = "select count(*) from pg_stat_activity where usename = %s and datname = %s"
    dsn = proxy.cluster.dsn(user=proxy.cluster.superuser, database=proxy.database)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watcher:
        try:
            while True:
                cursor = await watcher.execute(asked, (proxy.cluster.user, proxy.database))
                row = await cursor.fetchone()
                assert row is not None
                most = max(most, row[0])
        except asyncio.CancelledError:
            return most


def test_two_hundred_clients_over_ten_links_get_their_own_answers(proxy: RunningProxy) -> None:
    with proxy.deadline(PATIENCE):
        checked, most = asyncio.run(asyncio.wait_for(play(proxy), PATIENCE))
    assert sum(checked.values()) == CLIENTS * STEPS
    assert len(checked) == 10
    assert 2 <= most <= LINKS
