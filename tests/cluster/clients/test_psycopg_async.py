"""psycopg 3, asynchronous, with psycopg_pool: workers take jobs from a queue, and are told of new ones by NOTIFY."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tests.cluster.clients.crowd import LINKS, OWN_LINK, AsyncMember, async_crowd, play_asyncio
from tests.cluster.clients.support import NUMBERS, one
from tests.cluster.proxies import DEADLINE, Connect, RunningProxy

JOBS = 120
TAKE = """
    update job set worker = %(worker)s, attempts = attempts + 1, state = 'taken'
    where id = (select id from job where state = 'new' order by id for update skip locked limit 1)
    returning id, payload
"""

Client = psycopg.AsyncConnection


@pytest.fixture(scope="module")
def schema() -> str:
    return f"""
        create table job (id serial primary key, payload jsonb not null, state text not null default 'new',
            worker int, attempts int not null default 0, result text);
        create function announce() returns trigger language plpgsql as $$
            begin perform pg_notify('job', new.id::text); return new; end $$;
        create trigger announced after insert on job for each row execute function announce();
        {NUMBERS}
    """


async def opened(proxy: RunningProxy, **changes: object) -> Client:
    parameters = {"autocommit": True, "prepare_threshold": 1, **proxy.parameters(**changes)}
    return await Client.connect(**parameters)  # type: ignore[arg-type]


async def work(client: Client, worker: int) -> int | None:
    """One job, done in one transaction; every third fails at first and is put back."""
    async with client.transaction(), client.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(TAKE, {"worker": worker})
        job = await cursor.fetchone()
        if job is None:
            return None
        try:
            async with client.transaction():
                divisor = job["payload"]["divisor"]
                await cursor.execute("select %s / %s as answer", (job["payload"]["dividend"], divisor))
                answer = await cursor.fetchone()
                assert answer is not None
                result = str(answer["answer"])
        except psycopg.errors.DivisionByZero:
            result = "impossible"
        await cursor.execute("update job set state = 'done', result = %s where id = %s", (result, job["id"]))
    return int(job["id"])


def test_a_crowd_of_workers_does_every_job_once(proxy: RunningProxy, connect: Connect) -> None:
    done: Counter[int] = Counter()
    connect().execute(
        "insert into job (payload) select jsonb_build_object('dividend', i * 10, 'divisor', i %% 5)"
        " from generate_series(1, %s) i",
        (JOBS,),
    )

    async def worker(member: AsyncMember) -> None:
        async with await opened(proxy) as client:
            await member.meet()
            while (job := await work(client, member.number)) is not None:
                done[job] += 1
                row = await (await client.execute(OWN_LINK)).fetchone()
                assert row is not None
                member.links.add(row[0])
            await member.meet()

    with proxy.deadline(60):
        async_crowd(worker)
    assert done == Counter(range(1, JOBS + 1))
    rows = connect().execute("select id, result, attempts, state from job order by id").fetchall()
    assert rows == [(i, str(i * 10 // (i % 5)) if i % 5 else "impossible", 1, "done") for i in range(1, JOBS + 1)]


def test_a_listener_is_told_of_every_job_in_order(proxy: RunningProxy) -> None:
    async def scene() -> None:
        async with AsyncExitStack() as stack, asyncio.timeout(DEADLINE):
            listener = await stack.enter_async_context(await opened(proxy))
            makers = [await stack.enter_async_context(await opened(proxy)) for _ in range(4)]
            await listener.execute("listen job")
            made = []
            for n in range(16):
                cursor = await makers[n % 4].execute("insert into job (payload) values ('{}') returning id::text")
                made += [row[0] async for row in cursor]
            heard = [notification.payload async for notification in listener.notifies(stop_after=16)]
            assert heard == made
            row = await (await listener.execute("select count(*) from job where id >= %s", (int(made[0]),))).fetchone()
            assert row == (16,)

    with proxy.deadline():
        play_asyncio(scene())


def test_a_pool_of_more_connections_than_there_are_links(proxy: RunningProxy) -> None:
    async def scene() -> None:
        pool: AsyncConnectionPool[Client] = AsyncConnectionPool(
            "", kwargs=proxy.parameters(), min_size=2 * LINKS, max_size=4 * LINKS, open=False,
            check=AsyncConnectionPool.check_connection, timeout=DEADLINE,
        )  # fmt: skip

        async def ask(n: int) -> tuple[object, ...] | None:
            async with pool.connection() as client:
                await client.execute("insert into scratch values (%s, %s)", (n, "kept" if n % 4 else "lost"))
                if n % 4 == 0:
                    await client.rollback()
                    await client.execute("select set_config('application_name', %s, true)", (f"asks for {n}",))
                query = "select word, current_setting('application_name') = %s from numbers where n = %s"
                row = await (await client.execute(query, (f"asks for {n}", n))).fetchone()
                return row

        async with pool, asyncio.timeout(DEADLINE):
            answers = await asyncio.gather(*(ask(n) for n in range(1, 121)))
            assert answers == [(f"word {n}", n % 4 == 0) for n in range(1, 121)]
            async with pool.connection() as client:
                row = await (await client.execute("select word, count(*) from scratch group by 1")).fetchall()
                assert row == [("kept", 90)]

    with proxy.deadline():
        play_asyncio(scene())


def test_pipelines_cursors_and_copy(proxy: RunningProxy, connect: Connect) -> None:
    async def scene() -> None:
        async with asyncio.timeout(DEADLINE), await opened(proxy) as client:
            await client.execute("truncate scratch")
            async with client.cursor() as cursor, cursor.copy("copy scratch from stdin") as copy:
                for n in range(3_000):
                    await copy.write_row((n, f"copied {n}"))
            async with client.transaction(), client.cursor("walk") as cursor:
                cursor.itersize = 250
                await cursor.execute("select n from scratch order by n")
                assert [n async for (n,) in cursor] == list(range(3_000))
            async with client.pipeline():
                asked = [await client.execute("select word from scratch where n = %s", (n,)) for n in range(50)]
                await client.execute("delete from scratch where n >= 50")
            assert [await cursor.fetchone() for cursor in asked] == [(f"copied {n}",) for n in range(50)]
            async with client.cursor() as cursor, cursor.copy("copy scratch (word) to stdout") as copy:
                assert sorted([row[0] async for row in copy.rows()]) == sorted(f"copied {n}" for n in range(50))

    with proxy.deadline():
        play_asyncio(scene())
    assert one(connect(), "select count(*) from scratch") == 50


def test_a_task_that_is_cancelled_cancels_its_statement(proxy: RunningProxy, connect: Connect) -> None:
    watcher = connect()
    running = "select count(*) from pg_stat_activity where state = 'active' and query = 'select pg_sleep(63)'"

    async def scene() -> None:
        async with asyncio.timeout(DEADLINE), await opened(proxy) as client:
            sleeping = asyncio.create_task(client.execute("select pg_sleep(63)"))
            while not one(watcher, running):
                await asyncio.sleep(0)
            sleeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeping
            assert await (await client.execute("select 1")).fetchone() == (1,)
            assert one(watcher, running) == 0

    with proxy.deadline():
        play_asyncio(scene())
