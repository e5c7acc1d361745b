"""PostgreSQL's own programs and Python's drivers, with their defaults, through a proxy in transaction mode."""

# ruff: noqa: PT012 - what is to fail here is a transaction, and that has more than one statement

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import asyncpg
import pg8000.native
import psycopg
import pytest
from psycopg import sql

from heliosproxy.demo.local import LocalCluster
from tests.cluster.proxies import DEADLINE, PRIMARY, Connect, RunningProxy, running, wait_for

SCHEMA = """
create table numbers (n int primary key, word text);
insert into numbers select i, 'word ' || i from generate_series(1, 1000) i;
create table scratch (n int, word text);
"""


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    cluster.psql(f"set role {cluster.user}; {SCHEMA}", database=database)
    with running(cluster, database, tmp_path_factory.mktemp("proxy")) as started:
        started.replayed()
        yield started
        assert started.faults() == []


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Connect]:
    with proxy.connections() as connect:
        connect("route=primary").execute("truncate scratch")
        yield connect


# --- psql and pgbench -----------------------------------------------------------------------------------------------


def psql(proxy: RunningProxy, *commands: str, text: str = "") -> str:
    arguments = [argument for command in commands for argument in ("-c", command)]
    done = proxy.program(
        "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *arguments, text=text, PGOPTIONS="-c helios.route=primary"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_psql_runs_several_commands_and_a_script(proxy: RunningProxy) -> None:
    assert psql(proxy, "select 1", "select 2; select 3", "begin", "select 4", "commit") == "1\n2\n3\n4\n"
    assert psql(proxy, text="select 5;\nselect 6 \\; select 7;\n") == "5\n6\n7\n"


def test_psql_describes_tables(proxy: RunningProxy) -> None:
    assert "numbers|table" in psql(proxy, "\\dt")
    described = psql(proxy, "\\pset tuples_only off", "\\d numbers")
    assert "n|integer||not null|" in described
    assert '"numbers_pkey" PRIMARY KEY, btree (n)' in described
    assert proxy.cluster.user in psql(proxy, "\\du")


def test_psql_copies_in_and_out(proxy: RunningProxy) -> None:
    lines = "".join(f"{n}\tline {n}\n" for n in range(5_000))
    psql(proxy, "truncate scratch")
    script = f"copy scratch from stdin;\n{lines}\\.\nselect count(*), sum(n) from scratch;\n"
    assert psql(proxy, text=script) == "5000|12497500\n"
    assert psql(proxy, "copy scratch to stdout") == lines
    assert psql(proxy, "copy (select n from numbers where n <= 3 order by n) to stdout") == "1\n2\n3\n"


def test_psql_shows_the_error_of_a_bad_copy_and_goes_on(proxy: RunningProxy) -> None:
    done = proxy.program("psql", "-XAtq", text="copy scratch from stdin;\nnot a number\tx\n\\.\nselect 'alive';\n")
    assert "invalid input syntax for type integer" in done.stderr
    assert done.stdout == "alive\n"


@pytest.fixture(scope="module")
def bench(proxy: RunningProxy) -> RunningProxy:
    done = proxy.program("pgbench", "-i", "-q", "-s", "1")
    assert done.returncode == 0, done.stderr
    proxy.replayed()
    return proxy


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench_runs_tpcb_and_selects_without_a_failure(bench: RunningProxy, protocol: str) -> None:
    scripts = ["-b", "select-only", "-b", "tpcb-like"]
    done = bench.program("pgbench", "-n", *scripts, "-M", protocol, "-c", "8", "-T", "2")
    assert (done.returncode, done.stderr.replace("pgbench (16.14)\n", "")) == (0, "")
    assert "number of failed transactions: 0 (0.000%)" in done.stdout
    processed = re.search(r"actually processed: (\d+)", done.stdout)
    assert processed is not None
    assert int(processed[1]) > 100


def test_pgbench_books_balance_afterwards(bench: RunningProxy, connect: Connect) -> None:
    row = connect("route=primary").execute(
        "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),"
        " (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history)"
    ).fetchone()
    assert row is not None
    assert len(set(row)) == 1


# --- psycopg --------------------------------------------------------------------------------------------------------


def count(client: psycopg.Connection) -> int:
    row = client.execute("select count(*) from scratch").fetchone()
    assert row is not None
    return int(row[0])


def test_psycopg_transactions_commit_and_roll_back(connect: Connect) -> None:
    client = connect("route=primary", autocommit=False)
    client.execute("insert into scratch values (1)")
    client.rollback()
    client.execute("insert into scratch values (2)")
    client.commit()
    assert count(client) == 1
    client.rollback()
    with pytest.raises(ZeroDivisionError), client.transaction():
        client.execute("insert into scratch values (3)")
        raise ZeroDivisionError
    with client.transaction():
        client.execute("insert into scratch values (4)")
        with pytest.raises(psycopg.errors.DivisionByZero), client.transaction():
            client.execute("insert into scratch values (5)")
            client.execute("select 1 / 0")
    assert client.execute("select array_agg(n order by n) from scratch").fetchone() == ([2, 4],)


def test_psycopg_server_side_cursors_fetch_in_pieces(connect: Connect) -> None:
    client = connect(autocommit=False)
    with client.cursor("named") as cursor:
        cursor.itersize = 100
        cursor.execute("select n from numbers order by n")
        assert [n for (n,) in cursor] == list(range(1, 1001))
    with client.cursor("scrolled", scrollable=True) as cursor:
        cursor.execute("select n from numbers order by n")
        cursor.scroll(500)
        assert cursor.fetchone() == (501,)
        cursor.scroll(-2)
        assert cursor.fetchone() == (500,)
    client.commit()


def test_psycopg_pipelines_answer_in_order(connect: Connect) -> None:
    client = connect("route=primary")
    with client.pipeline():
        cursors = [client.execute("select word from numbers where n = %s", (n,)) for n in range(1, 101)]
        client.execute("insert into scratch values (1)")
    assert [cursor.fetchone() for cursor in cursors] == [(f"word {n}",) for n in range(1, 101)]
    assert count(client) == 1


def test_psycopg_pipelines_skip_what_follows_an_error(connect: Connect) -> None:
    client = connect("route=primary")
    with pytest.raises(psycopg.errors.DivisionByZero), client.pipeline() as pipeline:
        client.execute("insert into scratch values (1)")
        client.execute("select 1 / %s", (0,))
        client.execute("insert into scratch values (2)")
        pipeline.sync()
    assert count(client) == 0
    with client.pipeline():
        client.execute("insert into scratch values (3)")
    assert count(client) == 1


def test_psycopg_prepares_by_itself_after_five_uses_and_forgets_by_deallocate(connect: Connect) -> None:
    client = connect()
    client.prepare_threshold = 2
    client.prepared_max = 3
    for round_ in range(4):
        for column in ("n", "word", "n + 1", "n + 2", "n + 3"):
            for _ in range(3):
                asked = sql.SQL("select {} from numbers where n = %s").format(sql.SQL(column))
                assert len(client.execute(asked, (round_ + 1,)).fetchall()) == 1


def test_psycopg_copies_in_and_out(connect: Connect) -> None:
    client = connect("route=primary")
    with client.cursor() as cursor:
        with cursor.copy("copy scratch from stdin") as copy:
            for n in range(2_000):
                copy.write_row((n, f"word {n}"))
        with cursor.copy("copy (select n, word from scratch order by n) to stdout") as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows()) == [(n, f"word {n}") for n in range(2_000)]
        with pytest.raises(ZeroDivisionError), cursor.copy("copy scratch from stdin") as copy:
            copy.write_row((1, "x"))
            raise ZeroDivisionError
    assert count(client) == 2_000


def test_psycopg_executemany_inserts_and_returns(connect: Connect) -> None:
    client = connect("route=primary")
    with client.cursor() as cursor:
        cursor.executemany("insert into scratch values (%s, %s)", [(n, "x") for n in range(500)])
        assert cursor.rowcount == 500
        cursor.executemany("select word from numbers where n = %s", [(n,) for n in (3, 5)], returning=True)
        first = cursor.fetchone()
        assert cursor.nextset()
        assert (first, cursor.fetchone()) == (("word 3",), ("word 5",))
    assert count(client) == 500


def test_psycopg_receives_notices_and_errors_with_their_fields(connect: Connect) -> None:
    client = connect()
    told: list[str] = []
    client.add_notice_handler(lambda diagnostic: told.append(str(diagnostic.message_primary)))
    client.execute("do $$ begin raise notice 'hello'; raise warning 'world'; end $$")
    assert told == ["hello", "world"]
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        client.execute("insert into numbers values (1, 'again')")
    assert caught.value.diag.constraint_name == "numbers_pkey"


def test_psycopg_cancels_its_own_statement(connect: Connect) -> None:
    client, watcher = connect(), connect("route=primary")

    def cancel() -> None:
        _wait_running(watcher, "pg_sleep(61)")
        client.cancel_safe(timeout=10)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        client.execute("select pg_sleep(61)")
    canceller.join(DEADLINE)
    assert client.execute("select 1").fetchone() == (1,)


def _wait_running(watcher: psycopg.Connection, text: str) -> None:
    asked = "select 1 from pg_stat_activity where state = 'active' and query like %s and pid <> pg_backend_pid()"
    wait_for(lambda: watcher.execute(asked, (f"%{text}%",)).fetchone(), f"{text} to run")


def test_psycopg_sees_large_results_whole(connect: Connect) -> None:
    client = connect()
    rows = client.execute("select i, repeat('x', 1000) from generate_series(1, 20000) i").fetchall()
    assert len(rows) == 20_000
    assert rows[-1] == (20_000, "x" * 1000)
    assert client.execute("select repeat('y', 30000000)").fetchone() == ("y" * 30_000_000,)
    assert client.execute("select length(%s)", ("z" * 5_000_000,)).fetchone() == (5_000_000,)


# --- asyncpg --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def async_client(proxy: RunningProxy, hints: str = "") -> AsyncIterator[asyncpg.Connection]:
    settings = {f"helios.{hint.partition('=')[0]}": hint.partition("=")[2] for hint in hints.split()}
    client = await asyncpg.connect(
        host=proxy.host, port=proxy.port, user=proxy.cluster.user, password=proxy.cluster.password,
        database=proxy.database, server_settings=settings,
    )  # fmt: skip
    try:
        yield client
    finally:
        await client.close()


def run(proxy: RunningProxy, scene: Callable[[asyncpg.Connection], Awaitable[None]], hints: str = "") -> None:
    async def play() -> None:
        async with async_client(proxy, hints) as client:
            await scene(client)

    asyncio.run(asyncio.wait_for(play(), DEADLINE))


def test_asyncpg_uses_its_statement_cache(proxy: RunningProxy) -> None:
    async def scene(client: asyncpg.Connection) -> None:
        for n in range(1, 200):
            assert await client.fetchval("select word from numbers where n = $1", n) == f"word {n}"
        statement = await client.prepare("select n, word from numbers where n between $1 and $2 order by n")
        assert [tuple(row) for row in await statement.fetch(7, 8)] == [(7, "word 7"), (8, "word 8")]
        for n in range(150):  # more than its cache of 100 holds
            assert await client.fetchval(f"select {n} + $1::int", 1) == n + 1

    run(proxy, scene)


def test_asyncpg_learns_of_types_that_it_does_not_know(proxy: RunningProxy) -> None:
    async def scene(client: asyncpg.Connection) -> None:
        await client.execute("drop type if exists pair; create type pair as (a int, b text)")
        assert tuple(await client.fetchval("/*helios:route=primary*/ select row(1, 'x')::pair")) == (1, "x")

    run(proxy, scene, "route=primary")


def test_asyncpg_transactions_and_savepoints(proxy: RunningProxy, connect: Connect) -> None:
    async def scene(client: asyncpg.Connection) -> None:
        async with client.transaction():
            await client.execute("insert into scratch values (1)")
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with client.transaction():
                    await client.execute("insert into scratch values (2)")
                    await client.execute("select 1 / 0")
            assert await client.fetchval("select current_setting('cluster_name')") == PRIMARY
        with pytest.raises(ZeroDivisionError):
            async with client.transaction():
                await client.execute("insert into scratch values (3)")
                raise ZeroDivisionError
        assert await client.fetchval("select array_agg(n) from scratch") == [1]

    run(proxy, scene, "route=primary")


def test_asyncpg_executemany_copy_and_cursor(proxy: RunningProxy, connect: Connect) -> None:
    async def scene(client: asyncpg.Connection) -> None:
        await client.executemany("insert into scratch values ($1, $2)", [(n, str(n)) for n in range(1_000)])
        await client.copy_records_to_table("scratch", records=[(n, "copied") for n in range(1_000, 3_000)])
        async with client.transaction():
            seen = [row[0] async for row in client.cursor("select n from scratch order by n", prefetch=70)]
        assert seen == list(range(3_000))

    run(proxy, scene, "route=primary")


def test_asyncpg_cancels_when_it_times_out(proxy: RunningProxy) -> None:
    async def scene(client: asyncpg.Connection) -> None:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await client.fetchval("select pg_sleep(62)", timeout=0.1)
            assert await client.fetchval("select $1::int", 5) == 5

    run(proxy, scene)


def test_asyncpg_resets_a_session_that_goes_back_to_its_pool(proxy: RunningProxy) -> None:
    async def play() -> None:
        pool = asyncpg.create_pool(
            host=proxy.host, port=proxy.port, user=proxy.cluster.user, password=proxy.cluster.password,
            database=proxy.database, min_size=1, max_size=4,
        )  # fmt: skip
        async with pool:
            asked = [pool.fetchval("select word from numbers where n = $1", n) for n in range(1, 101)]
            assert await asyncio.gather(*asked) == [f"word {n}" for n in range(1, 101)]

    asyncio.run(asyncio.wait_for(play(), DEADLINE))


# --- pg8000 ---------------------------------------------------------------------------------------------------------


def test_pg8000_queries_writes_and_rolls_back(proxy: RunningProxy, connect: Connect) -> None:
    with proxy.deadline():
        client = pg8000.native.Connection(
            proxy.cluster.user, proxy.host, proxy.database, proxy.port, proxy.cluster.password, timeout=DEADLINE
        )
        assert client.run("select word from numbers where n = :n", n=3) == [["word 3"]]
        statement = client.prepare("select n from numbers where word = :word")
        assert [statement.run(word=f"word {n}") for n in (1, 2)] == [[[1]], [[2]]]
        statement.close()
        client.run("start transaction")
        client.run("insert into scratch values (:n)", n=1)
        client.run("rollback")
        with pytest.raises(pg8000.native.DatabaseError):
            client.run("select 1 / 0")
        client.run("insert into scratch values (:n)", n=2)
        client.close()
    assert connect("route=primary").execute("select n from scratch").fetchall() == [(2,)]
