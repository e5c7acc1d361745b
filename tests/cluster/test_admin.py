"""The admin API and the commands that use it, in front of real servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.running import find
from tests.cli.support import fetch, helios, wait_until
from tests.cluster.proxies import RunningProxy, running

WHERE = "select current_setting('cluster_name')"


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    with running(cluster, database, tmp_path_factory.mktemp("proxy")) as started:
        wait_until(lambda: find(config=started.file) is not None, "the proxy to register")
        yield started


@pytest.fixture(scope="module")
def admin(proxy: RunningProxy) -> str:
    """Its address: the configuration leaves the port open, so that the proxy registers it."""
    found = find(config=proxy.file)
    assert found is not None
    return found.admin


@pytest.fixture
def client(proxy: RunningProxy) -> Iterator[psycopg.Connection]:
    with proxy.connections() as connect:
        yield connect()


@pytest.fixture
def get(admin: str) -> Callable[[str], Any]:
    return lambda path: fetch(admin, path)[1]


def explained(proxy: RunningProxy, sql: str, *arguments: str) -> Any:
    done = helios("route", sql, "--json", "--config", proxy.file, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_ready_with_healthy_nodes(admin: str) -> None:
    assert fetch(admin, "/readyz") == (200, {"ready": True, "reasons": []})


def test_status_shows_the_cluster_as_it_is(get: Callable[[str], Any]) -> None:
    nodes = {node["name"]: node for node in get("/status")["nodes"]}
    assert {name: (node["role"], node["sync"], node["healthy"]) for name, node in nodes.items()} == {
        "primary": ("primary", "", True),
        "standby-sync-1": ("standby", "sync", True),
        "standby-async-1": ("standby", "async", True),
    }


def test_decisions_come_newest_first_with_hints_and_node(client: psycopg.Connection, get: Callable[[str], Any]) -> None:
    for name in ("primary", "standby-async-1"):
        found = client.execute(f"/*helios:node={name}*/ {WHERE} -- 'private'").fetchone()
        assert found == (name,)
    newest, before = get("/routing/decisions?limit=2")["decisions"]
    assert (newest["target_node"], newest["hints_parsed"]) == ("standby-async-1", [{"node": "standby-async-1"}])
    assert before["target_node"] == "primary"
    assert newest["query_hash"] != before["query_hash"]
    assert "private" not in json.dumps([newest, before])


def test_a_statement_that_ran_is_remembered_and_counted(
    client: psycopg.Connection, proxy: RunningProxy, get: Callable[[str], Any]
) -> None:
    statement = "select 17 + 4"
    before = get("/status")["flows"]
    for _ in range(20):
        client.execute(statement)
    assert explained(proxy, statement)["remembered"]
    after = get("/status")["flows"]
    assert after["hits"] - before["hits"] >= 19
    (hints,) = get("/plugins")["plugins"]
    assert 0 < hints["remembered"] < 1


def test_explaining_is_no_statement(client: psycopg.Connection, proxy: RunningProxy, get: Callable[[str], Any]) -> None:
    client.execute("select 5")
    before = get("/status")
    explained(proxy, "select 5")
    explained(proxy, "select 'never sent'")
    after = get("/status")
    assert after["flows"] == before["flows"]
    assert after["proxy"]["statements"] == before["proxy"]["statements"]


def test_what_is_explained_is_what_happens(client: psycopg.Connection, proxy: RunningProxy) -> None:
    for hint in ("route=primary", "node=standby-sync-1", "route=async,lag=1min"):
        statement = f"/*helios:{hint}*/ select current_setting('cluster_name')"
        assert client.execute(statement).fetchone() == (explained(proxy, statement)["node"],)


def test_an_explanation_reads_the_catalogue_of_a_database_nobody_used_yet(
    proxy: RunningProxy, new_database: Callable[[], str], cluster: LocalCluster
) -> None:
    name = new_database()
    cluster.psql("create table things (x int); grant select on things to public", database=name)
    found = explained(proxy, "select x from things", "--database", name)
    assert (found["read_only"], found["note"]) == (True, "")
    unknown = explained(proxy, "select x from things", "--database", "there_is_none")
    assert not unknown["read_only"]
    assert "does not exist" in unknown["note"]


def test_a_node_that_goes_shows_in_status_and_explanations(
    proxy: RunningProxy, cluster: LocalCluster, get: Callable[[str], Any]
) -> None:
    def healthy() -> bool:
        return all(node["healthy"] for node in get("/status")["nodes"])

    cluster.stop_node("standby-async-1", "immediate")
    try:
        wait_until(lambda: not healthy(), "the node to be seen down")
        found = explained(proxy, "/*helios:node=standby-async-1*/ select 1")
        assert "standby-async-1 is down" in found["fallback"]
        assert found["node"] != "standby-async-1"
        assert get("/readyz")["ready"]
    finally:
        cluster.start_node("standby-async-1")
    wait_until(healthy, "the node to be seen up")


def test_no_secret_is_in_log_or_answers(proxy: RunningProxy, cluster: LocalCluster, get: Callable[[str], Any]) -> None:
    for path in ("/status", "/plugins", "/routing/decisions?limit=1000"):
        assert cluster.password not in json.dumps(get(path))
    assert cluster.password not in proxy.log.read_text()
