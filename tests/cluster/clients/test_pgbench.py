"""pgbench: its TPC-B and a script of its own, in the three ways in which it sends statements, in both pool modes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster.clients.crowd import CLIENTS, TRANSACTION_MODE
from tests.cluster.clients.support import one
from tests.cluster.proxies import RunningProxy, running

TRANSACTIONS = 60
BANK = r"""
\set account random(1, 1000)
\set delta random(-5000, 5000)
select set_config('timezone', 'Etc/GMT+' || :client_id::text, false);
begin;
set local work_mem = '1MB';
insert into seen (client, zone) select :client_id, current_setting('timezone') returning client \gset seen_
savepoint here;
update pgbench_accounts set abalance = abalance + :delta where aid = :account;
rollback to here;
commit;
\if :seen_client = :client_id
insert into seen (client, zone, link) select :client_id, current_setting('timezone'), pg_backend_pid();
\endif
"""
LINKS_IN_SESSION_MODE = {**TRANSACTION_MODE, "pool": {"mode": '"session"', "size": str(2 * CLIENTS)}}


@pytest.fixture(scope="module", params=["transaction", "session"])
def bank(
    request: pytest.FixtureRequest, cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningProxy]:
    sections = TRANSACTION_MODE if request.param == "transaction" else LINKS_IN_SESSION_MODE
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as proxy:
        done = proxy.program("pgbench", "-i", "-q", "-s", "1")
        assert done.returncode == 0, done.stderr
        proxy.program("psql", "-Xqc", "drop table if exists seen; create table seen (client int, zone text, link int)")
        yield proxy
        assert proxy.faults() == []


def run(proxy: RunningProxy, *arguments: str) -> None:
    """pgbench, of whose transactions none may fail.

    A thread for each client: while it waits for the answer to a Parse, no client of the same thread goes on, and one
    that has a link would wait for one that waits for a link.
    """
    done = proxy.program("pgbench", "-n", "-c", str(CLIENTS), "-j", str(CLIENTS), "-t", str(TRANSACTIONS), *arguments)
    assert (done.returncode, re.sub(r"pgbench \(.*\)\n", "", done.stderr)) == (0, "")
    assert f"actually processed: {CLIENTS * TRANSACTIONS}/{CLIENTS * TRANSACTIONS}" in done.stdout
    assert "number of failed transactions: 0 (0.000%)" in done.stdout


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_books_balance_after_tpcb_and_selects(bank: RunningProxy, protocol: str) -> None:
    with bank.connections() as connect:
        client = connect()
        before = one(client, "select count(*) from pgbench_history")
        run(bank, "-M", protocol, "-b", "tpcb-like")
        run(bank, "-M", protocol, "-b", "select-only@3", "-b", "simple-update@1")
        sums = client.execute(
            "select (select sum(abalance) from pgbench_accounts), (select sum(delta) from pgbench_history),"
            " (select count(*) from pgbench_history)"
        ).fetchone()
        assert sums is not None
        assert sums[0] == sums[1]
        assert sums[2] - before >= CLIENTS * TRANSACTIONS
        tellers = client.execute(
            "select (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches)"
        ).fetchone()
        assert tellers is not None
        assert tellers[0] == tellers[1]


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_a_script_whose_clients_have_each_their_own_setting(
    bank: RunningProxy, protocol: str, tmp_path: Path
) -> None:
    script = tmp_path / "bank.sql"
    script.write_text(BANK)
    with bank.connections() as connect:
        client = connect()
        client.execute("truncate seen")
        balance = one(client, "select sum(abalance) from pgbench_accounts")
        run(bank, "-M", protocol, "-f", str(script))
        assert one(client, "select count(*) from seen") == 2 * CLIENTS * TRANSACTIONS
        assert one(client, "select count(*) from seen where zone <> 'Etc/GMT+' || client") == 0
        assert one(client, "select sum(abalance) from pgbench_accounts") == balance
        links = one(client, "select max(n) from (select count(distinct link) n from seen group by client) t")
        assert (links == 1) == ("session" in bank.file.read_text())
