"""`[pool] mode = "session"`: a client keeps its link, and with it everything that lives in a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster.proxies import ASYNC, PRIMARY, WHERE, RunningProxy, running


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    sections = {"pool": {"mode": '"session"', "size": "4", "wait_timeout": '"10s"'}}
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as started:
        yield started
        assert started.faults() == []


def test_what_a_session_has_stays(proxy: RunningProxy) -> None:
    with proxy.connections() as connect:
        client, other = connect(), connect()
        client.execute("set work_mem = '99kB'")
        client.execute("create temp table mine (n int)")
        client.execute("insert into mine values (1), (2)")
        client.execute("prepare by_sql as select count(*) from mine")
        pid = client.execute("select pg_backend_pid()").fetchone()
        other.execute("select 1")
        assert client.execute("execute by_sql").fetchone() == (2,)
        assert client.execute("show work_mem").fetchone() == ("99kB",)
        assert client.execute("select pg_backend_pid()").fetchone() == pid
        assert other.execute("show work_mem").fetchone() != ("99kB",)


def test_reads_run_where_the_session_is_unless_it_says_otherwise_when_it_begins(proxy: RunningProxy) -> None:
    with proxy.connections() as connect:
        client = connect()
        assert client.execute(WHERE).fetchone() == (PRIMARY,)
        assert client.execute(f"/*helios:route=async*/ {WHERE}").fetchone() == (PRIMARY,)
        assert connect("route=async").execute(WHERE).fetchone() == (ASYNC,)


def test_the_next_client_finds_nothing_of_the_last(proxy: RunningProxy) -> None:
    with proxy.connections() as connect:
        for _ in range(8):  # twice the pool
            with connect() as client:
                assert client.execute("show work_mem").fetchone() != ("98kB",)
                assert client.execute("select to_regclass('pg_temp.left_behind')").fetchone() == (None,)
                client.execute("set work_mem = '98kB'")
                client.execute("create temp table left_behind (n int)")


def test_a_client_waits_for_a_session_to_end(proxy: RunningProxy) -> None:
    with proxy.connections() as connect:
        sessions = [connect() for _ in range(4)]
        for session in sessions:
            session.execute("select 1")
        late = connect()
        with late.pipeline():
            answer = late.execute(WHERE)
            sessions[0].close()
            assert answer.fetchone() == (PRIMARY,)
