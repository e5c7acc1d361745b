"""asyncpg: stations that send measurements, with its cache of statements and its pool, as it is by default."""

# ruff: noqa: PT012 - what is to fail here is a transaction, and that has more than one statement

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

import asyncpg
import pytest

from tests.cluster.clients.crowd import CLIENTS, LINKS, OWN_LINK, AsyncMember, async_crowd, play_asyncio
from tests.cluster.clients.support import NUMBERS
from tests.cluster.proxies import DEADLINE, RunningProxy

START = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
HOURS = 40
COLUMNS = ("station", "taken", "state", "place", "values", "raw")

Client = asyncpg.Connection
Scene = Callable[[Client], Awaitable[None]]


@pytest.fixture(scope="module")
def schema() -> str:
    return f"""
        create type state as enum ('ok', 'suspect', 'broken');
        create type place as (latitude float8, longitude float8, label text);
        create domain celsius as numeric(5, 2) check (value > -273.15);
        create table measurement (station int, taken timestamptz, state state not null, place place, "values" float8[],
            raw jsonb, primary key (station, taken));
        create table alarm (id bigserial primary key, station int, degrees celsius, at tstzrange);
        {NUMBERS}
    """


def parameters(proxy: RunningProxy) -> dict[str, object]:
    return {
        "host": proxy.host, "port": proxy.port, "user": proxy.cluster.user, "password": proxy.cluster.password,
        "database": proxy.database, "timeout": DEADLINE,
    }  # fmt: skip


@asynccontextmanager
async def opened(proxy: RunningProxy, **settings: str) -> AsyncIterator[Client]:
    client = await asyncpg.connect(**parameters(proxy), server_settings=settings)
    try:
        yield client
    finally:
        await client.close(timeout=DEADLINE)


def run(proxy: RunningProxy, scene: Scene, **settings: str) -> None:
    """Play a scene of one client, within a test's deadline."""

    async def play() -> None:
        async with asyncio.timeout(DEADLINE), opened(proxy, **settings) as client:
            await client.execute("truncate scratch")
            await scene(client)

    with proxy.deadline():
        play_asyncio(play())


def measurement(station: int, hour: int) -> tuple[object, ...]:
    state = ("ok", "ok", "suspect", "broken")[(station + hour) % 4]
    place = (48.1 + station, 11.5, f"station {station}, 'quoted' and \"so\"")
    taken = START + datetime.timedelta(hours=hour)
    return station, taken, state, place, [hour * 0.5, None, float(station)], json.dumps({"hour": hour})


# --- the stations ---------------------------------------------------------------------------------------------------


async def report(client: Client, station: int, hour: int) -> None:
    """One measurement in a transaction, and an alarm that is taken back."""
    async with client.transaction():
        await client.execute("insert into measurement values ($1, $2, $3, $4, $5, $6)", *measurement(station, hour))
        with pytest.raises(asyncpg.CheckViolationError):
            async with client.transaction():
                await client.execute("insert into alarm (station, degrees) values ($1, $2)", station, Decimal(-300))
        if hour % 10 == 0:
            span = asyncpg.Range(START, START + datetime.timedelta(hours=hour))
            alarm = "insert into alarm (station, degrees, at) values ($1, $2, $3)"
            await client.execute(alarm, station, Decimal("41.25"), span)


async def look_back(client: Client, station: int, hour: int) -> None:
    """What the station has sent so far is what the server says."""
    latest = await client.fetchrow("select * from measurement where station = $1 order by taken desc limit 1", station)
    assert tuple(latest) == measurement(station, hour)
    states = await client.fetch("select state, count(*) from measurement where station = $1 group by 1", station)
    wanted = [measurement(station, n)[2] for n in range(hour + 1)]
    assert {row["state"]: row["count"] for row in states} == {state: wanted.count(state) for state in wanted}
    total = "select sum(v) from measurement, unnest(\"values\") v where station = $1"
    assert await client.fetchval(total, station) == sum(n * 0.5 + station for n in range(hour + 1))


def test_a_crowd_of_stations_reports_each_its_own(proxy: RunningProxy) -> None:
    async def station(member: AsyncMember) -> None:
        zone = f"Etc/GMT-{member.number + 1}"
        async with opened(proxy, timezone=zone, application_name=f"station {member.number}") as client:
            await client.set_type_codec("place", format="tuple", encoder=tuple, decoder=tuple, schema="public")
            await member.meet()
            for hour in range(HOURS):
                await report(client, member.number, hour)
                await look_back(client, member.number, hour)
                member.links.add(await client.fetchval(OWN_LINK))
                shown = await client.fetchrow("select current_setting('timezone'), current_setting('application_name')")
                assert tuple(shown) == (zone, f"station {member.number}")
            await member.meet()

    with proxy.deadline(60):
        async_crowd(station)
    run(proxy, _books_agree)


async def _books_agree(client: Client) -> None:
    assert await client.fetchval("select count(*) from measurement") == CLIENTS * HOURS
    assert await client.fetchval("select count(*) from alarm") == CLIENTS * 4
    until = START + datetime.timedelta(hours=30)
    assert await client.fetchval("select count(*) from alarm where upper(at) = $1", until) == CLIENTS


def test_a_pool_with_its_reset_on_each_release_shares_few_links(proxy: RunningProxy) -> None:
    """On release the pool sends SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL."""

    async def scene() -> None:
        links: set[int] = set()
        async with asyncio.timeout(DEADLINE):
            pool = await asyncpg.create_pool(**parameters(proxy), min_size=2 * LINKS, max_size=4 * LINKS)

            async def ask(n: int) -> None:
                async with pool.acquire() as client:
                    assert await client.fetchval("show work_mem") == "4MB"
                    assert await client.fetchval("show timezone") == "UTC"
                    await client.execute("set timezone = 'Asia/Tokyo'")
                    async with client.transaction():
                        await client.execute("set local work_mem = '77kB'")
                        assert await client.fetchval("select word from numbers where n = $1", n) == f"word {n}"
                    links.add(await client.fetchval(OWN_LINK))

            await asyncio.gather(*(ask(n) for n in range(1, 101)))
            await asyncio.gather(*(pool.fetchval("select $1::int", n) for n in range(50)))
            await pool.close()
        assert 1 < len(links) <= LINKS

    with proxy.deadline(60):
        play_asyncio(scene())


# --- one thing at a time --------------------------------------------------------------------------------------------


def test_its_statement_cache(proxy: RunningProxy) -> None:
    async def scene(client: Client) -> None:
        for n in range(1, 200):
            assert await client.fetchval("select word from numbers where n = $1", n) == f"word {n}"
        statement = await client.prepare("select n, word from numbers where n between $1 and $2 order by n")
        assert [tuple(row) for row in await statement.fetch(7, 8)] == [(7, "word 7"), (8, "word 8")]
        assert [parameter.name for parameter in statement.get_parameters()] == ["int4", "int4"]
        for n in range(150):  # more than its cache of 100 holds
            assert await client.fetchval(f"select {n} + $1::int", 1) == n + 1

    run(proxy, scene)


def test_a_crowd_whose_statements_have_equal_numbers_and_other_texts(proxy: RunningProxy) -> None:
    async def reader(member: AsyncMember) -> None:
        async with opened(proxy) as client:
            await member.meet()
            for round_ in range(30):
                for factor in range(4):
                    asked = f"select $1::int * {member.number + 10 * factor}, pg_backend_pid()"
                    answer, link = await client.fetchrow(asked, round_)
                    assert answer == round_ * (member.number + 10 * factor)
                    member.links.add(link)
            await member.meet()

    with proxy.deadline():
        async_crowd(reader)


def test_types_that_it_has_to_look_up(proxy: RunningProxy) -> None:
    async def scene(client: Client) -> None:
        answer = await client.fetchrow(
            "select $1::state[], $2::place, $3::celsius, $4::int4range, $5::uuid, $6::inet, $7::interval, $8::place[]",
            ["ok", "broken"], (1.0, 2.0, "x"), Decimal("20.50"), asyncpg.Range(1, 5), uuid.UUID(int=7),
            ipaddress.ip_address("10.0.0.1"), datetime.timedelta(days=1, hours=2), [(1.0, 2.0, "y"), None],
        )  # fmt: skip
        assert list(answer)[:7] == [
            ["ok", "broken"], (1.0, 2.0, "x"), Decimal("20.50"), asyncpg.Range(1, 5), uuid.UUID(int=7),
            ipaddress.ip_address("10.0.0.1"), datetime.timedelta(days=1, hours=2),
        ]  # fmt: skip
        assert answer[7] == [(1.0, 2.0, "y"), None]

    run(proxy, scene)


def test_a_type_that_is_made_and_changed_meanwhile(proxy: RunningProxy) -> None:
    async def scene(client: Client) -> None:
        for field in ("text", "int", "date"):
            await client.execute(f"drop type if exists pair; create type pair as (a int, b {field})")
            await client.reload_schema_state()
            assert tuple(await client.fetchval("select row(1, null)::pair")) == (1, None)

    run(proxy, scene)


@pytest.mark.parametrize("isolation", ["serializable", "repeatable_read", "read_committed"])
def test_transactions_and_savepoints(proxy: RunningProxy, isolation: str) -> None:
    async def scene(client: Client) -> None:
        async with client.transaction(isolation=isolation):
            await client.execute("insert into scratch values (1)")
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with client.transaction():
                    await client.execute("insert into scratch values (2)")
                    await client.execute("select 1 / 0")
            assert await client.fetchval("show transaction_isolation") == isolation.replace("_", " ")
        with pytest.raises(ZeroDivisionError):
            async with client.transaction():
                await client.execute("insert into scratch values (3)")
                raise ZeroDivisionError
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with client.transaction(isolation=isolation, readonly=True):
                await client.execute("insert into scratch values (4)")
        assert await client.fetchval("select array_agg(n) from scratch") == [1]

    run(proxy, scene)


def test_executemany_copy_and_cursors(proxy: RunningProxy) -> None:
    async def scene(client: Client) -> None:
        await client.executemany("insert into scratch values ($1, $2)", [(n, str(n)) for n in range(1_000)])
        with pytest.raises(asyncpg.DivisionByZeroError):  # all of it or nothing
            await client.executemany("insert into scratch values (1 / $1)", [(1,), (0,)])
        records = [(n, "copied") for n in range(1_000, 3_000)]
        assert await client.copy_records_to_table("scratch", records=records) == "COPY 2000"
        async with client.transaction():
            seen = [row[0] async for row in client.cursor("select n from scratch order by n", prefetch=70)]
            cursor = await client.cursor("select n from scratch where n >= $1 order by n", 10)
            await cursor.forward(5)
            assert [row["n"] for row in await cursor.fetch(3)] == [15, 16, 17]
        assert seen == list(range(3_000))
        copied = bytearray()
        await client.copy_from_query("select n from scratch where n < $1 order by n", 4, output=_into(copied))
        assert bytes(copied) == b"0\n1\n2\n3\n"

    run(proxy, scene)


def _into(buffer: bytearray) -> Callable[[bytes], Awaitable[None]]:
    async def take(data: bytes) -> None:
        buffer.extend(data)

    return take


def test_listeners_hear_in_order_while_links_change_hands(proxy: RunningProxy) -> None:
    async def scene(client: Client) -> None:
        heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        told: list[str] = []
        client.add_log_listener(lambda _, message: told.append(message.message))
        async with opened(proxy) as speaker, opened(proxy) as other:
            await client.add_listener("weather", lambda *event: heard.put_nowait((event[2], event[3])))
            for n in range(10):
                await (speaker, other)[n % 2].execute(f"notify weather, '{n}'")
                await client.execute("do $$ begin raise notice 'seen'; end $$")
            assert [await heard.get() for _ in range(10)] == [("weather", str(n)) for n in range(10)]
            await client.reset()
            await speaker.execute("notify weather, 'late'")
            assert await client.fetchval("select 1") == 1
        assert heard.empty()
        assert told == ["seen"] * 10

    run(proxy, scene)


def test_it_cancels_when_it_times_out(proxy: RunningProxy) -> None:
    async def scene(client: Client) -> None:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await client.fetchval("select pg_sleep(62)", timeout=0.1)
            assert await client.fetchval("select $1::int", 5) == 5

    run(proxy, scene)


def test_a_statement_whose_table_changed_is_prepared_again(proxy: RunningProxy) -> None:
    async def scene(client: Client) -> None:
        await client.execute("insert into scratch values (1, 'x')")
        for extra in range(3):
            assert tuple(await client.fetchrow("select * from scratch")) == (1, "x", *range(extra))
            await client.execute(f"alter table scratch add column more_{extra} int default {extra}")
        await client.execute("alter table scratch drop more_0, drop more_1, drop more_2")
        assert tuple(await client.fetchrow("select * from scratch")) == (1, "x")

    run(proxy, scene)
