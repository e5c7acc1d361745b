"""Pools as the servers see them: how many connections there are, who gets one next, and when they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.running import find
from tests.cli.support import fetch
from tests.cluster.proxies import PRIMARY, Keys, RunningProxy, helios, running, wait_for

Start = Callable[..., RunningProxy]

ASK = "/*helios:route=primary*/ select 1"


@pytest.fixture
def start(cluster: LocalCluster, database: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a proxy whose `[pool]` has these keys, and whose `[[pools]]`, if given, is this one entry."""
    started: list[RunningProxy] = []
    with ExitStack() as stack:

        def start_one(entry: Keys | None = None, **pool: str) -> RunningProxy:
            sections = {"pool": pool, **({"[pools]": entry} if entry else {})}
            started.append(stack.enter_context(running(cluster, database, tmp_path, sections)))
            return started[-1]

        yield start_one
    assert [proxy.faults() for proxy in started] == [[]]


def backends(cluster: LocalCluster, database: str, user: str) -> int:
    """Connections of a user to a database of the primary. The proxy's own checks come as somebody else."""
    text = f"select count(*) from pg_stat_activity where datname = '{database}' and usename = '{user}'"
    return int(cluster.psql(text))


def pool_of(proxy: RunningProxy, user: str, database: str) -> Any:
    """What the admin API says of a pool of the primary; None if there is none yet."""
    found = find(config=proxy.file)
    assert found is not None
    pools = fetch(found.admin, "/status")[1]["pools"]
    return next((p for p in pools if (p["node"], p["user"], p["database"]) == (PRIMARY, user, database)), None)


def send(client: psycopg.Connection, sql: str) -> None:
    """Ask without waiting for the answer, which `answer` returns."""
    client.pgconn.send_query(sql.encode())
    client.pgconn.flush()


def answer(client: psycopg.Connection) -> bytes | None:
    """The first value of the answer to what was sent."""
    result = client.pgconn.get_result()
    assert result is not None
    assert client.pgconn.get_result() is None
    return result.get_value(0, 0)


def test_there_are_as_many_connections_as_size_allows(start: Start, cluster: LocalCluster, database: str) -> None:
    with start(size="2").connections() as connect:
        first, second, third = connect(), connect(), connect()
        first.execute("begin")
        second.execute("begin")
        send(third, ASK)
        assert backends(cluster, database, cluster.user) == 2
        first.execute("commit")
        assert answer(third) == b"1"
        assert backends(cluster, database, cluster.user) == 2


def test_53300_after_wait_timeout_names_the_pool_and_the_session_lives(
    start: Start, cluster: LocalCluster, database: str
) -> None:
    with start(size="1", wait_timeout='"500ms"').connections() as connect:
        holder, late = connect(), connect()
        holder.execute("begin")
        with pytest.raises(psycopg.errors.TooManyConnections) as caught:
            late.execute(ASK)
        told = caught.value.diag
        expected = f"no link for {cluster.user}@{database} on {PRIMARY} became free within 0.5 s: 1 of 1 are in use, 0"
        assert (told.message_primary or "").startswith(expected)
        assert told.message_hint == "Raise size in [pool], or keep transactions shorter."
        holder.execute("commit")
        assert late.execute(ASK).fetchone() == (1,)


def test_a_hint_for_priority_decides_who_is_next(start: Start, cluster: LocalCluster, database: str) -> None:
    proxy = start(size="1")
    cluster.psql(f"set role {cluster.user}; create sequence places", database=database)
    with proxy.connections() as connect:
        holder = connect()
        holder.execute("begin")
        order = ("low", "normal", "critical", "high", "low", "critical")
        clients = [connect() for _ in order]
        for at, (priority, client) in enumerate(zip(order, clients, strict=True), start=1):
            send(client, f"/*helios:priority={priority}*/ select nextval('places')")
            wait_for(lambda at=at: pool_of(proxy, cluster.user, database)["waiting"] == at, "a client to wait")  # type: ignore[misc]
        holder.execute("commit")
        places = [int(answer(client) or b"") for client in clients]
    assert places == [5, 4, 1, 3, 6, 2]


def test_min_size_is_opened_ahead_and_kept_while_more_than_that_idles_away(
    start: Start, cluster: LocalCluster, database: str
) -> None:
    proxy = start(size="5", min_size="2", idle_timeout='"1s"')
    with proxy.connections() as connect:
        clients = [connect() for _ in range(4)]
        clients[0].execute("begin")
        wait_for(lambda: backends(cluster, database, cluster.user) == 2, "a connection opened ahead")
        for client in clients[1:]:
            client.execute("begin")
        assert backends(cluster, database, cluster.user) == 4
        for client in clients:
            client.execute("commit")
        wait_for(lambda: backends(cluster, database, cluster.user) == 2, "two connections to idle away")
        assert pool_of(proxy, cluster.user, database)["closed"] == {"idle": 2}


def test_a_connection_past_its_lifetime_is_replaced_under_a_client_that_works_on(
    start: Start, cluster: LocalCluster, database: str
) -> None:
    proxy = start(size="1", max_lifetime='"500ms"')
    with proxy.connections() as connect:
        client = connect()
        pids = set()

        def replaced() -> bool:
            pids.add(client.execute("/*helios:route=primary*/ select pg_backend_pid()").fetchone())
            return len(pids) >= 3

        wait_for(replaced, "two connections to be replaced")
        assert set(pool_of(proxy, cluster.user, database)["closed"]) == {"lifetime"}


def test_the_reserve_helps_those_who_have_waited(start: Start, cluster: LocalCluster, database: str) -> None:
    proxy = start(size="1", reserve="1", reserve_after='"300ms"')
    with proxy.connections() as connect:
        holder, late = connect(), connect()
        holder.execute("begin")
        late.execute("begin")
        assert backends(cluster, database, cluster.user) == 2
        assert "2 of 1+1" in helios("status", "--config", str(proxy.file)).stdout
        holder.execute("commit")
        late.execute("commit")
        wait_for(lambda: backends(cluster, database, cluster.user) == 1, "the reserve to be closed")


def test_an_idle_connection_of_one_user_makes_room_for_another_under_a_cap(
    start: Start, cluster: LocalCluster, database: str
) -> None:
    proxy = start(size="5", max_database_connections="2")
    with proxy.connections() as connect:
        ours = [connect(), connect()]
        for client in ours:
            client.execute("begin")
        for client in ours:
            client.execute("commit")
        assert backends(cluster, database, cluster.user) == 2
        other = connect(user=cluster.superuser)
        other.execute("begin")
        wait_for(lambda: backends(cluster, database, cluster.user) == 1, "an idle connection to be closed")
        assert pool_of(proxy, cluster.user, database)["closed"] == {"evicted": 1}
        ours[0].execute("begin")
        send(ours[1], ASK)
        wait_for(lambda: pool_of(proxy, cluster.user, database)["waiting"] == 1, "the cap to be reached")
        other.execute("commit")
        assert answer(ours[1]) == b"1"
        assert backends(cluster, database, cluster.user) == 2


def test_an_entry_of_pools_holds_for_its_database_only(
    start: Start, cluster: LocalCluster, database: str, new_database: Callable[[], str]
) -> None:
    small = new_database()
    proxy = start({"database": f'"{small}"', "size": "1", "wait_timeout": '"300ms"'}, size="2")
    with proxy.connections() as connect:
        for client in (connect(), connect()):
            client.execute("begin")
        connect(dbname=small).execute("begin")
        late = connect(dbname=small)
        with pytest.raises(psycopg.errors.TooManyConnections) as caught:
            late.execute("begin; select 1")
        assert caught.value.diag.message_hint == (
            f'Raise size in [[pools]] for database "{small}", or keep transactions shorter.'
        )
        sizes = {name: pool_of(proxy, cluster.user, name)["size"] for name in (database, small)}
        assert sizes == {database: 2, small: 1}


def test_where_the_server_has_no_room_clients_wait_for_the_connections_that_there_are(
    start: Start, cluster: LocalCluster, database: str
) -> None:
    proxy = start(size="5")
    cluster.psql(f"alter role {cluster.user} connection limit 2")
    try:
        with proxy.connections() as connect:
            clients = [connect() for _ in range(3)]
            clients[0].execute("begin")
            clients[1].execute("begin")
            send(clients[2], ASK)
            wait_for(lambda: pool_of(proxy, cluster.user, database)["problem"], "the server to refuse a connection")
            assert "too many connections for role" in pool_of(proxy, cluster.user, database)["problem"]
            clients[0].execute("commit")
            assert answer(clients[2]) == b"1"
            attempts = pool_of(proxy, cluster.user, database)["not_opened"]
            assert attempts < 20
    finally:
        cluster.psql(f"alter role {cluster.user} connection limit -1")
