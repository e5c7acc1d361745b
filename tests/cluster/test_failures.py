"""What clients see when servers fail: the session lives, reads go on, and nobody is told what is not known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster.proxies import ASYNC, DEADLINE, PRIMARY, SYNC, WHERE, Connect, RunningProxy, running, wait_for

LONG_READ = "select count(*) from generate_series(1, 300000000)"
LOST = {"57P01", "08006"}
WRITE_LOST = {"08007", "08006", "57P01", "57P03"}


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    cluster.psql(f"set role {cluster.user}; create table t (n int)", database=database)
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), {"pool": {"wait_timeout": '"1s"'}}) as started:
        started.replayed()
        yield started
        assert started.faults() == []


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Connect]:
    with proxy.connections(60) as connect:
        yield connect


@contextmanager
def without(cluster: LocalCluster, node: str, end: Callable[[str], None]) -> Iterator[None]:
    """A node that is ended, and comes back."""
    end(node)
    try:
        yield
    finally:
        cluster.start_node(node)
        if all(cluster.running(each.name) for each in cluster.nodes):
            streaming = "select count(*) = 2 from pg_stat_replication where state = 'streaming'"
            wait_for(lambda: cluster.psql(streaming) == "t", "the standbys to stream")


@contextmanager
def meanwhile(client: psycopg.Connection, sql: str) -> Iterator[list[psycopg.Error | object]]:
    """Runs a statement in a thread; the list holds its answer or its error after the block."""
    outcome: list[psycopg.Error | object] = []

    def ask() -> None:
        try:
            outcome.append(client.execute(sql.encode()).fetchone())
        except psycopg.Error as error:
            outcome.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield outcome
    finally:
        asking.join(DEADLINE)
        assert not asking.is_alive()


def backend(proxy: RunningProxy, node: str, text: str) -> str:
    """Waits until a server process of the clients' runs the text; its process id."""
    asked = (
        f"select pid from pg_stat_activity where usename = '{proxy.cluster.user}' and state = 'active' "
        f"and query like '%{text}%' limit 1"
    )
    wait_for(lambda: proxy.cluster.psql(asked, node, database=proxy.database), f"{text} to run on {node}")
    return proxy.cluster.psql(asked, node, database=proxy.database)


def terminate(proxy: RunningProxy, node: str, text: str) -> None:
    pid = backend(proxy, node, text)
    assert proxy.cluster.psql(f"select pg_terminate_backend({pid})", node) == "t"


def sqlstate(outcome: list[psycopg.Error | object]) -> str:
    [error] = outcome
    assert isinstance(error, psycopg.Error), error
    return error.sqlstate or f"connection lost: {error}"


def test_L3_a_read_that_an_administrator_terminates_is_final_and_the_session_lives(
    proxy: RunningProxy, connect: Connect
) -> None:
    client = connect(f"node={ASYNC}")
    with meanwhile(client, LONG_READ) as outcome:
        terminate(proxy, ASYNC, "generate_series(1, 300000000)")
    assert sqlstate(outcome) in LOST
    assert client.execute("select 1").fetchone() == (1,)


def test_L3_a_read_that_an_administrator_cancels_is_final(proxy: RunningProxy, connect: Connect) -> None:
    client = connect(f"node={ASYNC}")
    with meanwhile(client, LONG_READ) as outcome:
        pid = backend(proxy, ASYNC, "generate_series(1, 300000000)")
        proxy.cluster.psql(f"select pg_cancel_backend({pid})", ASYNC)
    assert sqlstate(outcome) == "57014"
    assert client.execute("select 1").fetchone() == (1,)


def test_L3_a_statement_timeout_is_final(connect: Connect) -> None:
    client = connect(options=f"-c helios.node={ASYNC} -c statement_timeout=100")
    with pytest.raises(psycopg.errors.QueryCanceled):
        client.execute(LONG_READ)
    assert client.execute("select 1").fetchone() == (1,)


def test_a_write_whose_link_is_terminated_has_an_unknown_outcome(proxy: RunningProxy, connect: Connect) -> None:
    client = connect()
    with meanwhile(client, "insert into t select 1 from pg_sleep(64)") as outcome:
        terminate(proxy, PRIMARY, "pg_sleep(64)")
    assert sqlstate(outcome) in {"08007", "57P01"}
    assert client.execute("select 1").fetchone() == (1,)


def test_a_transaction_whose_link_is_terminated_is_failed_until_rollback(proxy: RunningProxy, connect: Connect) -> None:
    client = connect()
    client.execute("begin")
    client.execute("insert into t values (1)")
    with meanwhile(client, "select pg_sleep(65)") as outcome:
        terminate(proxy, PRIMARY, "pg_sleep(65)")
    assert sqlstate(outcome) in LOST
    for _ in range(2):
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            client.execute("select 1")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            client.execute("select %s", (1,))
    client.execute("rollback")
    assert client.execute("/*helios:route=primary*/ select count(*) from t").fetchone() == (0,)


def test_a_transaction_that_loses_its_link_while_idle_is_failed_until_commit(
    proxy: RunningProxy, connect: Connect
) -> None:
    client = connect()
    client.execute("begin")
    row = client.execute("select pg_backend_pid()").fetchone()
    assert row is not None
    proxy.cluster.psql(f"select pg_terminate_backend({row[0]})")
    gone = f"select count(*) from pg_stat_activity where pid = {row[0]}"
    wait_for(lambda: proxy.cluster.psql(gone) == "0", "the server process to end")
    with pytest.raises(psycopg.Error) as caught:
        client.execute("insert into t values (2)")
    assert caught.value.sqlstate in {"25P02", "08006"}
    assert client.execute("commit").statusmessage == "ROLLBACK"
    assert client.execute("/*helios:route=primary*/ select count(*) from t").fetchone() == (0,)


def test_idle_links_that_die_are_not_noticed_by_anybody(proxy: RunningProxy, connect: Connect) -> None:
    clients = [connect("route=primary") for _ in range(5)]
    for _ in range(5):
        for client in clients:
            client.execute("select 1")
        ended = f"select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = '{proxy.cluster.user}'"
        proxy.cluster.psql(ended)
        for client in clients:
            assert client.execute("/*helios:route=standby*/ select 1").fetchone() == (1,)
    wait_for(lambda: clients[0].execute(WHERE).fetchone() == (PRIMARY,), "the primary's links to be back", 10)


@pytest.mark.parametrize(("hint", "prepared"), [("", False), ("", True), (f"/*helios:node={ASYNC}*/", False)])
def test_L4_reads_go_on_when_a_standby_is_killed(
    cluster: LocalCluster, connect: Connect, hint: str, prepared: bool
) -> None:
    """Statements, not transactions: none of them may fail, and each gets its own answer."""
    stop = threading.Event()
    answers, errors, nodes = [0] * 8, [], set()

    def read(number: int, client: psycopg.Connection) -> None:
        while not stop.is_set():
            try:
                asked = f"{hint} select %s::int, current_setting('cluster_name')"
                row = client.execute(asked.encode(), (number,), prepare=prepared).fetchone()
            except psycopg.Error as error:
                errors.append(f"{error.sqlstate} {error}")
                return
            assert row is not None
            if row[0] != number:
                errors.append(f"{number} got {row[0]}")
            nodes.add(row[1])
            answers[number] += 1

    readers = [threading.Thread(target=read, args=(number, connect())) for number in range(8)]
    for reader in readers:
        reader.start()
    try:
        wait_for(lambda: ASYNC in nodes and min(answers) > 20, "everyone to read")
        with without(cluster, ASYNC, cluster.kill_node):
            before = list(answers)
            wait_for(lambda: errors or all(a - b > 20 for a, b in zip(answers, before, strict=True)), "reads to go on")
            nodes.clear()
        wait_for(lambda: errors or ASYNC in nodes, "the standby to be used again")
    finally:
        stop.set()
        for reader in readers:
            reader.join(DEADLINE)
    assert errors == []


def test_reads_go_on_when_both_standbys_are_down(cluster: LocalCluster, connect: Connect) -> None:
    client = connect()
    with without(cluster, ASYNC, cluster.stop_node), without(cluster, SYNC, cluster.stop_node):
        assert client.execute(WHERE).fetchone() == (PRIMARY,)
        assert client.execute(f"{WHERE} where %s = 1", (1,)).fetchone() == (PRIMARY,)
    wait_for(lambda: client.execute(WHERE).fetchone() != (PRIMARY,), "the standbys to be used again")


def test_writes_fail_clearly_while_the_primary_is_down_and_come_back(
    cluster: LocalCluster, connect: Connect
) -> None:
    writer, in_transaction, reader = connect(), connect(), connect()
    in_transaction.execute("begin")
    in_transaction.execute("insert into t values (3)")
    with without(cluster, PRIMARY, cluster.kill_node):
        for _ in range(2):
            with pytest.raises(psycopg.Error) as caught:
                writer.execute("insert into t values (4)")
            assert caught.value.sqlstate in WRITE_LOST
            assert reader.execute("select 5").fetchone() == (5,)
        with pytest.raises(psycopg.Error) as caught:
            in_transaction.execute("insert into t values (3)")
        assert caught.value.sqlstate in {"08006", "25P02"}
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            in_transaction.execute("select 1")
        in_transaction.execute("rollback")
        assert in_transaction.execute("select 6").fetchone() == (6,)
        assert connect(application_name="a newcomer").execute("select 7").fetchone() == (7,)

    def writes() -> bool:
        try:
            return writer.execute("insert into t values (7)").rowcount == 1
        except psycopg.Error as error:
            refused.add(error.sqlstate)
            return False

    refused: set[str | None] = set()
    wait_for(writes, "writes to come back")
    assert refused <= WRITE_LOST
    found = writer.execute("/*helios:route=primary*/ select array_agg(distinct n) from t where n in (3, 7)").fetchone()
    assert found == ([7],)


def test_O1_a_commit_whose_server_dies_has_an_unknown_outcome(
    proxy: RunningProxy, cluster: LocalCluster, connect: Connect
) -> None:
    client = connect()
    with without(cluster, SYNC, cluster.stop_node):  # so that the commit waits
        client.execute("begin")
        client.execute("insert into t values (8)")
        with meanwhile(client, "commit") as outcome:
            terminate(proxy, PRIMARY, "commit")
    # The server commits, warns that the standby does not have it yet, and ends.
    assert sqlstate(outcome) == "08007"
    assert client.execute("select 1").fetchone() == (1,)
