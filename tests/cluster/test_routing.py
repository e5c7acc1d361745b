"""Where statements run, as clients see it: each case through every driver's way of asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import asyncpg
import pg8000.dbapi
import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster.proxies import (
    ASYNC,
    DEADLINE,
    PRIMARY,
    STANDBYS,
    SYNC,
    WHERE,
    Connect,
    RunningProxy,
    running,
    wait_for,
)

SCHEMA = """
create table t (n int);
insert into t values (1);
create sequence s;
create function fickle() returns text language sql volatile as $$ select current_setting('cluster_name') $$;
create function steady() returns text language sql stable as $$ select current_setting('cluster_name') $$;
"""


@dataclass
class Refused(Exception):
    """What a driver raised, reduced to what every driver tells."""

    sqlstate: str
    position: str


def by_simple_query(proxy: RunningProxy, sql: str) -> object:
    with psycopg.connect(**proxy.parameters(), autocommit=True) as client:
        return fetch(client, sql.format(one="1"))


def by_bound_parameter(proxy: RunningProxy, sql: str) -> object:
    with psycopg.connect(**proxy.parameters(), autocommit=True) as client:
        return fetch(client, sql.format(one="%s"), (1,))


def by_prepared_statement(proxy: RunningProxy, sql: str) -> object:
    with psycopg.connect(**proxy.parameters(), autocommit=True) as client:
        fetch(client, sql.format(one="%s"), (1,), prepare=True)
        return fetch(client, sql.format(one="%s"), (1,), prepare=True)


def fetch(client: psycopg.Connection, sql: str, *arguments: object, **how: bool) -> object:
    try:
        row = client.execute(sql, *arguments, **how).fetchone()  # type: ignore[call-overload]
    except psycopg.Error as error:
        raise Refused(error.sqlstate or "", error.diag.statement_position or "") from error
    return row[0]


def by_asyncpg(proxy: RunningProxy, sql: str) -> object:
    async def ask() -> object:
        client = await asyncpg.connect(
            host=proxy.host, port=proxy.port, user=proxy.cluster.user, password=proxy.cluster.password,
            database=proxy.database,
        )  # fmt: skip
        try:
            return await client.fetchval(sql.format(one="$1"), 1)
        except asyncpg.PostgresError as error:
            raise Refused(error.sqlstate, error.position or "") from error
        finally:
            await client.close()

    return asyncio.run(asyncio.wait_for(ask(), DEADLINE))


def by_pg8000(proxy: RunningProxy, sql: str) -> object:
    # Not pg8000.native, which takes the colon of a hint for a placeholder.
    client = pg8000.dbapi.connect(
        proxy.cluster.user, proxy.host, proxy.database, proxy.port, proxy.cluster.password, timeout=DEADLINE
    )
    client.autocommit = True
    cursor = client.cursor()
    try:
        cursor.execute(sql.format(one="%s"), (1,))
        return cursor.fetchone()[0]
    except pg8000.dbapi.DatabaseError as error:
        raise Refused(error.args[0]["C"], error.args[0].get("P", "")) from error
    finally:
        client.close()


Ask = Callable[[RunningProxy, str], object]
WAYS = (by_simple_query, by_bound_parameter, by_prepared_statement, by_asyncpg, by_pg8000)


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    cluster.psql(f"set role {cluster.user}; {SCHEMA}", database=database)
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), {"pool": {"wait_timeout": '"3s"'}}) as started:
        started.replayed()
        yield started
        assert started.faults() == []


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Connect]:
    with proxy.connections() as connect:
        yield connect


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def ask(request: pytest.FixtureRequest, proxy: RunningProxy) -> Iterator[Callable[[str], object]]:
    """Runs a statement, in which `{one}` is 1 or a parameter that is, and returns its only value."""
    with proxy.deadline():
        yield lambda sql: request.param(proxy, sql)


ONE = "cast({one} as int) = 1"
WHERE_ONE = f"{WHERE} where {ONE}"


@pytest.mark.parametrize(
    ("sql", "nodes"),
    [
        (WHERE_ONE, STANDBYS),
        (f"{WHERE} from t where {ONE}", STANDBYS),
        (f"select steady() where {ONE}", STANDBYS),
        (f"/*helios:route=primary*/ {WHERE_ONE}", {PRIMARY}),
        (f"/*helios:node={ASYNC}*/ {WHERE_ONE}", {ASYNC}),
        (f"/*helios:node={SYNC}*/ {WHERE_ONE}", {SYNC}),
        (f"/*helios:route=sync*/ {WHERE_ONE}", {SYNC}),
        (f"/*helios:route=async*/ {WHERE_ONE}", {ASYNC}),
        (f"/* helios:route=primary*/ {WHERE_ONE}", STANDBYS),
        (f"select /*helios:route=primary*/ current_setting('cluster_name') where {ONE}", {PRIMARY}),
        (f"{WHERE_ONE} /*helios:route=sync,*/ /*helios: Route = ASYNC */", {ASYNC}),
        (f"{WHERE_ONE} -- /*helios:route=primary*/", STANDBYS),
    ],
)
def test_a_read_runs_where_its_hint_says(ask: Callable[[str], object], sql: str, nodes: set[str]) -> None:
    assert ask(sql) in nodes


@pytest.mark.parametrize("hint", ["", "/*helios:route=async*/"])
@pytest.mark.parametrize(
    "sql",
    [
        "insert into t values (cast({one} as int)) returning current_setting('cluster_name')",
        "update t set n = n where n = cast({one} as int) returning current_setting('cluster_name')",
        f"{WHERE} from t where n = cast({{one}} as int) limit 1 for update",
        f"with x as (insert into t values (cast({{one}} as int)) returning n) {WHERE} from x",
        f"{WHERE} where nextval('s') > 0 and {ONE}",
        f"select fickle() where {ONE}",
        f"{WHERE} where clock_timestamp() is not null and {ONE}",
        f"{WHERE} where txid_current() is not null and {ONE}",
    ],
)
def test_R3_what_is_not_proven_read_only_runs_on_the_primary(
    ask: Callable[[str], object], hint: str, sql: str
) -> None:
    assert ask(hint + sql) == PRIMARY


def test_an_unknown_function_or_table_is_for_the_primary_to_refuse(ask: Callable[[str], object]) -> None:
    with pytest.raises(Refused, match="42883"):
        ask("select no_such_function(cast({one} as int))")
    with pytest.raises(Refused, match="42P01"):
        ask("select {one}::int from no_such_table")


def test_the_log_of_decisions_has_the_primary_for_unknown_names(connect: Connect) -> None:
    client = connect()
    with pytest.raises(psycopg.errors.UndefinedFunction):
        client.execute("select no_such_function()")
    assert last_decision(client).startswith("primary: ")


@pytest.mark.parametrize(
    "hint", ["route=async,consistency=strong", "route=nowhere", "node=no-such-node", "lag=10", "route=primary,lag=1s"]
)
def test_a_bad_hint_is_refused_with_its_position(ask: Callable[[str], object], hint: str) -> None:
    with pytest.raises(Refused) as caught:
        ask(f"/*helios:{hint}*/ {WHERE_ONE}")
    assert caught.value.sqlstate == "42601"
    assert 1 < int(caught.value.position) <= len(f"/*helios:{hint}*/")


def test_the_session_lives_on_after_a_refused_hint(connect: Connect) -> None:
    client = connect()
    for parameters in (None, (1,)):
        with pytest.raises(psycopg.errors.SyntaxError):
            client.execute(f"/*helios:route=nowhere*/ {WHERE}" + (" where %s = 1" if parameters else ""), parameters)
        assert client.execute("select 7").fetchone() == (7,)


def test_a_bad_hint_in_a_transaction_aborts_it_as_any_error_does(connect: Connect) -> None:
    client = connect()
    client.execute("begin")
    with pytest.raises(psycopg.errors.SyntaxError):
        client.execute("/*helios:route=nowhere*/ select 1")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        client.execute("select 1")
    client.execute("rollback")
    assert client.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "literal",
    [
        "'/*helios:route=primary*/'",
        "E'\\'/*helios:route=primary*/'",
        "$x$/*helios:route=primary*/$x$",
        "U&'/*helios:route=primary*/'",
        '1 as "/*helios:route=primary*/"',
    ],
)
def test_S7_what_looks_like_a_hint_inside_a_literal_or_a_name_is_none(connect: Connect, literal: str) -> None:
    cursor = connect().execute(f"select current_setting('cluster_name'), {literal}".encode())
    row = cursor.fetchone()
    assert row is not None
    assert row[0] in STANDBYS
    assert "/*helios:route=primary*/" in f"{row[1]} {cursor.description[1].name}"  # type: ignore[index]


def test_S7_a_hint_is_blanked_so_that_error_positions_hold(connect: Connect) -> None:
    sql = "/*helios:route=primary*/ select no_such_column from t"
    with pytest.raises(psycopg.errors.UndefinedColumn) as caught:
        connect().execute(sql)
    assert caught.value.diag.statement_position == str(sql.index("no_such_column") + 1)


def test_session_hints_are_set_shown_and_reset(connect: Connect) -> None:
    client = connect()
    assert show(client, "helios.route") == ""
    for node, route in ((ASYNC, "async"), (SYNC, "sync"), (PRIMARY, "primary")):
        client.execute(f"set helios.route = '{route}'".encode())
        assert show(client, "helios.route") == route
        assert show(client, "helios.route", prepare=True) == route
        assert fetch(client, WHERE) == node
        assert fetch(client, f"{WHERE} where %s = 1", (1,), prepare=True) == node
    assert fetch(client, f"/*helios:route=async*/ {WHERE}") == ASYNC
    client.execute("reset helios.route")
    assert show(client, "helios.route") == ""
    assert fetch(client, WHERE) in STANDBYS


def test_session_hints_can_come_with_the_start_up_packet(connect: Connect) -> None:
    assert fetch(connect("route=async"), WHERE) == ASYNC
    assert fetch(connect("route=sync"), WHERE) == SYNC
    assert fetch(connect(f"node={ASYNC}"), WHERE) == ASYNC
    assert fetch(connect("route=primary"), WHERE) == PRIMARY


def test_session_hints_are_one_sessions_only(connect: Connect) -> None:
    first, second = connect(), connect()
    first.execute("set helios.route = 'primary'")
    for _ in range(3):
        assert fetch(first, WHERE) == PRIMARY
        assert fetch(second, WHERE) in STANDBYS


def test_the_last_decision_names_the_node_and_why(connect: Connect) -> None:
    client = connect()
    fetch(client, f"/*helios:node={ASYNC}*/ {WHERE}")
    assert last_decision(client).startswith(f"{ASYNC}: ")
    assert ASYNC in last_decision(client).partition(": ")[2]
    client.execute("insert into t values (2)")
    assert last_decision(client).startswith("primary: insert runs on the primary")


def test_R3_a_write_with_a_hint_for_a_standby_runs_on_the_primary_with_a_notice(connect: Connect) -> None:
    client = connect()
    told: list[str] = []
    client.add_notice_handler(lambda diagnostic: told.append(diagnostic.message_primary or ""))
    for parameters in (None, (3,)):
        value = "%s" if parameters else "3"
        sql = f"/*helios:route=async*/ insert into t values ({value}) returning current_setting('cluster_name')"
        assert fetch(client, sql, parameters) == PRIMARY
        assert len(told) == 1
        assert "route=async" in told.pop()


def test_a_named_node_that_is_down_gives_a_warning_and_another_node(
    proxy: RunningProxy, cluster: LocalCluster, connect: Connect
) -> None:
    client = connect()
    told: list[tuple[str, str]] = []
    client.add_notice_handler(lambda found: told.append((found.severity or "", found.message_primary or "")))
    sql = f"/*helios:node={ASYNC}*/ {WHERE}"
    assert fetch(client, sql) == ASYNC
    cluster.stop_node(ASYNC)
    try:
        for parameters in ((), (1,)):
            asked = fetch(client, sql + (" where %s = 1" if parameters else ""), parameters or None)
            assert asked in (PRIMARY, SYNC)
            assert told
            severity, message = told.pop()
            assert severity == "WARNING"
            assert ASYNC in message
    finally:
        cluster.start_node(ASYNC)
    wait_for(lambda: fetch(client, sql) == ASYNC, f"{ASYNC} to be used again")


def test_a_transaction_stays_on_the_primary_and_a_read_only_one_on_a_standby(connect: Connect) -> None:
    client = connect()
    for begin, nodes in (("begin", {PRIMARY}), ("begin read only", STANDBYS)):
        client.execute(begin.encode())
        assert len({fetch(client, WHERE) for _ in range(5)} & nodes) == 1
        client.execute("commit")


def last_decision(client: psycopg.Connection) -> str:
    return show(client, "helios.last_decision")


def show(client: psycopg.Connection, name: str, *, prepare: bool = False) -> str:
    return str(fetch(client, f"show {name}", None, prepare=prepare))
