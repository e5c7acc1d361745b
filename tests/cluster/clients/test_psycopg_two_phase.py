"""psycopg 3: two-phase commit, which leaves its transaction to whoever comes next, on whatever link."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from heliosproxy.demo.local import start_cluster
from tests.cluster.clients.crowd import TRANSACTION_MODE
from tests.cluster.clients.support import NUMBERS
from tests.cluster.proxies import Connect, RunningProxy, running


@pytest.fixture(scope="module")
def schema() -> str:
    return NUMBERS


@pytest.fixture(scope="module")
def two_phase(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    """A proxy before a server that allows prepared transactions, which is not PostgreSQL's default."""
    with start_cluster(standbys=()) as cluster:
        cluster.psql("alter system set max_prepared_transactions = 10")
        cluster.stop_node("primary")
        cluster.start_node("primary")
        with running(cluster, "helios", tmp_path_factory.mktemp("proxy"), TRANSACTION_MODE) as started:
            yield started
            assert started.faults() == []


def test_two_phase_commit(two_phase: RunningProxy) -> None:
    with two_phase.connections() as connect:
        client, others = connect(autocommit=False), [connect() for _ in range(3)]
        client.execute("create table ledger (n int)")
        client.commit()
        for n, others_turn in enumerate(others):
            client.tpc_begin(client.xid(1, f"transfer {n}", "here"))
            client.execute("insert into ledger values (%s)", (n,))
            client.tpc_prepare()
            with others_turn.transaction():  # on the link that the client has just given back
                others_turn.execute("select 1")
                client.tpc_rollback() if n == 1 else client.tpc_commit()
        client.tpc_begin(client.xid(1, "left behind", ""))
        client.execute("insert into ledger values (9)")
        client.tpc_prepare()
        client.close()
        (found,) = others[0].tpc_recover()
        assert (found.gtrid, found.database) == ("left behind", "helios")
        assert others[0].execute("select array_agg(n order by n) from ledger").fetchone() == ([0, 2],)
        others[0].tpc_commit(found)
        assert others[1].execute("select array_agg(n order by n) from ledger").fetchone() == ([0, 2, 9],)


def test_two_phase_commit_where_the_server_does_not_allow_it(connect: Connect) -> None:
    client = connect(autocommit=False)
    client.tpc_begin(client.xid(1, "transfer", ""))
    client.execute("insert into scratch values (1)")
    with pytest.raises(psycopg.NotSupportedError, match="prepared transactions are disabled"):
        client.tpc_prepare()
    client.close()
