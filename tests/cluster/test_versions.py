"""Servers of PostgreSQL 16 and 18: what differs between them is the server's, never the proxy's, to show.

18 speaks protocol 3.2, whose cancel keys are long, and reports search_path.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest
import trio

from benchmarks._servers import pgbouncer, pgbouncer_program, pgbouncer_version
from heliosproxy.auth.users import ServerLogin
from heliosproxy.cluster.node import Node
from heliosproxy.config.access import ServerTls
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import NodeConfig
from heliosproxy.demo.local import LocalCluster, start_cluster
from heliosproxy.switch.opening import open_link, send_cancel
from heliosproxy.wire.errors import error_response
from tests.cluster import raw
from tests.cluster.proxies import PRIMARY, WHERE, RunningProxy, running, wait_for

STANDBY = "standby-1"


@dataclass(frozen=True, slots=True)
class Version:
    """A cluster, a proxy in front of it, and what its servers have."""

    number: int
    cluster: LocalCluster
    proxy: RunningProxy
    standby: str
    key_length: int

    @property
    def address(self) -> tuple[str, int]:
        return self.proxy.host, self.proxy.port

    @property
    def node(self) -> Node:
        return Node(NodeConfig("primary", self.cluster.node("primary").address))

    @property
    def login(self) -> ServerLogin:
        return ServerLogin(self.cluster.user, self.cluster.password)

    def client(self, minor: int) -> raw.Client:
        parameters = {"user": self.cluster.user, "database": self.proxy.database}
        return raw.Client(self.address, parameters, self.cluster.password, minor=minor)

    def asleep(self) -> int:
        """Statements that wait in pg_sleep on the primary, asked behind the proxy's back."""
        found = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and usename = 'helios'"
        return int(self.cluster.psql(found))


@pytest.fixture(scope="module")
def newest() -> Iterator[LocalCluster]:
    with start_cluster(version=18, standbys=((STANDBY, "async"),)) as running_18:
        yield running_18


@pytest.fixture(scope="module", params=[16, 18])
def version(
    request: pytest.FixtureRequest, cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Version]:
    newest = request.param == 18
    if newest:
        cluster = request.getfixturevalue("newest")
        database = cluster.database
    sections = {"pool": {"size": "2", "wait_timeout": '"10s"'}}
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as proxy:
        standby = STANDBY if newest else "standby-async-1"
        yield Version(request.param, cluster, proxy, standby, 32 if newest else 4)
        assert proxy.faults() == []


# --- towards servers ------------------------------------------------------------------------------------------------


async def test_a_server_is_spoken_to_in_the_newest_version_that_it_knows(version: Version) -> None:
    node = version.node
    opened = await open_link(node, version.proxy.database, version.login, 10)
    with opened.socket:
        assert len(opened.key[1]) == version.key_length
        assert ("search_path" in opened.parameters) == (version.number >= 18)
        assert node.protocol_minor == 2, "a server that negotiates has refused nothing"


async def test_the_key_of_a_link_cancels_what_the_link_runs(version: Version) -> None:
    opened = await open_link(version.node, version.proxy.database, version.login, 10)
    with trio.fail_after(raw.DEADLINE), trio.socket.from_stdlib_socket(opened.socket) as link:
        opened.socket.setblocking(False)
        await link.send(raw.query("select pg_sleep(60)"))
        while not await trio.to_thread.run_sync(version.asleep):
            await trio.lowlevel.checkpoint()
        pid, key = opened.key
        assert await send_cancel(version.node, (pid, bytes(len(key))), 10), "somebody else's guess"
        assert await send_cancel(version.node, opened.key, 10)
        answer = b""
        while not answer.endswith(b"Z\0\0\0\5I"):
            answer += await link.recv(4096)
    assert b"C57014\0" in answer


# --- through the proxy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minor", "length"), [(0, 4), (1, 4), (2, 32)])
def test_a_client_gets_the_key_that_its_version_has_whatever_the_servers(
    version: Version, minor: int, length: int
) -> None:
    with version.client(minor) as client:
        assert client.negotiated is None
        assert len(client.key[1]) == length
        assert client.value("select 'in'") == "in"


@pytest.mark.parametrize("minor", [0, 2])
def test_a_cancel_through_the_proxy_ends_the_statement(version: Version, minor: int) -> None:
    with version.client(minor) as client, version.client(minor) as other:
        client.send(raw.query("select pg_sleep(60)"))
        wait_for(version.asleep, "the statement to run")
        pid, key = client.key
        raw.cancel(version.address, (pid, bytes(len(key))))
        raw.cancel(version.address, other.key)
        assert version.asleep() == 1
        client.cancel()
        assert client.answer().sqlstate == "57014"
        assert client.value("select 'still here'") == "still here"


@pytest.mark.parametrize("newest", ["3.0", "3.2"])
def test_libpq_logs_in_and_cancels_in_either_version(version: Version, newest: str) -> None:
    with version.proxy.connections() as connect:
        client = connect(max_protocol_version=newest)
        assert client.pgconn.full_protocol_version == {"3.0": 30000, "3.2": 30002}[newest]
        with client.cursor() as cursor:
            canceller = threading.Thread(target=cancel_once_asleep, args=(version, client))
            canceller.start()
            with pytest.raises(psycopg.errors.QueryCanceled):
                cursor.execute("select pg_sleep(60)")
            canceller.join()
        assert client.execute("select 1").fetchone() == (1,)


def cancel_once_asleep(version: Version, client: psycopg.Connection) -> None:
    wait_for(version.asleep, "the statement to run")
    client.cancel_safe(timeout=10)


def test_libpq_that_insists_on_3_2_is_let_in(version: Version) -> None:
    with version.proxy.connections() as connect:
        client = connect(min_protocol_version="3.2", max_protocol_version="3.2")
        assert client.execute("select 1").fetchone() == (1,)


def test_statements_are_routed(version: Version) -> None:
    with version.proxy.connections() as connect:
        client = connect()
        assert client.execute(f"/*helios:node={version.standby}*/ {WHERE}").fetchone() == (version.standby,)
        assert client.execute(f"/*helios:route=primary*/ {WHERE}").fetchone() == (PRIMARY,)
        client.execute("create table if not exists written (n int)")
        assert client.execute("insert into written values (1) returning n").fetchone() == (1,)


def test_statements_that_several_clients_prepared_run_on_any_link(version: Version) -> None:
    with version.proxy.connections() as connect:
        clients = [connect("route=primary") for _ in range(6)]  # three times the pool
        for turn in range(4):
            for number, client in enumerate(clients):
                found = client.execute("select %s::int + %s::int", (number, turn), prepare=True).fetchone()
                assert found == (number + turn,)
        assert all(client.execute("select count(*) from pg_prepared_statements").fetchone() for client in clients)


def test_search_path_is_each_clients_own(version: Version) -> None:
    """18 reports it and 16 does not: a client sees no difference but the report."""
    schemas = [f"schema_{number}" for number in range(3)]
    for schema in schemas:
        made = f"create schema {schema}; create table {schema}.whose as select '{schema}' as name"
        version.cluster.psql(f"set role {version.cluster.user}; {made}", database=version.proxy.database)
    clients = [version.client(0) for _ in schemas]
    try:
        for client, schema in zip(clients, schemas, strict=True):
            seen = "search_path" in client.parameters
            assert seen == (version.number >= 18)
            assert client.query(f"set search_path to {schema}, public").commands == ["SET"]
            assert client.value("select name from whose") == schema
            if seen:
                assert client.parameters["search_path"] == f"{schema}, public"
            assert client.query("set search_path to default").commands == ["SET"]
        for turn in range(3):
            for client, schema in zip(clients, schemas, strict=True):
                in_transaction = client.query(f"begin; set local search_path to {schema}; select name from whose; end")
                assert in_transaction.rows == [(schema,)], turn
                assert client.value("select to_regclass('whose')") is None
    finally:
        for client in clients:
            client.close()


def test_search_path_follows_its_client_from_link_to_link(version: Version) -> None:
    clients = [version.client(2) for _ in range(5)]
    try:
        for number, client in enumerate(clients):
            assert client.query(f"set search_path to path_{number}").commands == ["SET"]
        for turn in range(3):  # with two links, a client that kept one would leave none to the others
            for number, client in enumerate(clients):
                assert client.value("show search_path") == f"path_{number}", turn
    finally:
        for client in clients:
            client.close()


# --- something in between that does not know 3.2 --------------------------------------------------------------------


@contextmanager
def gate(target: Address, refusal: bytes) -> Iterator[tuple[Address, list[int]]]:
    """In front of a server: passes on connections that begin in 3.0, tells any other one the refusal and closes it.

    Also gives the minor versions that were asked for.
    """
    asked: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_guard, args=(listener, target, refusal, asked))
        thread.start()
        try:
            yield Address(*listener.getsockname()), asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _guard(listener: socket.socket, target: Address, refusal: bytes, asked: list[int]) -> None:
    pipes: list[threading.Thread] = []
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            break
        client.settimeout(raw.DEADLINE)
        packet = client.recv(65536)
        asked.append(int.from_bytes(packet[6:8], "big"))
        if packet[4:8] == b"\0\3\0\2":
            client.sendall(refusal)
            client.close()
            continue
        server = raw.connected(target)
        server.sendall(packet)
        pipes += [threading.Thread(target=_pass, args=ends) for ends in ((client, server), (server, client))]
        for pipe in pipes[-2:]:
            pipe.start()
    for pipe in pipes:
        pipe.join()


def _pass(source: socket.socket, to: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        to.close()


@pytest.mark.parametrize("refusal", [b"", error_response("FATAL", "0A000", "no")], ids=["closes", "refuses"])
async def test_what_is_in_between_and_refuses_3_2_is_asked_for_3_0_from_then_on(
    version: Version, refusal: bytes
) -> None:
    with gate(version.cluster.node("primary").address, refusal) as (address, asked):
        node = Node(NodeConfig("behind the gate", address, tls=ServerTls("disable")))
        for _ in range(2):
            opened = await open_link(node, version.proxy.database, version.login, 10)
            assert len(opened.key[1]) == 4
            opened.socket.close()
    assert asked == [2, 0, 0]


@pytest.mark.skipif(pgbouncer_program() is None, reason="PgBouncer is not installed")
async def test_pgbouncer_in_between_is_spoken_to_in_what_it_knows(version: Version) -> None:
    with pgbouncer(version.cluster, print) as between:
        node = Node(NodeConfig("bouncer", between.address))
        opened = await open_link(node, version.cluster.database, version.login, 10)
        opened.socket.close()
    assert node.protocol_minor == (0 if pgbouncer_version() < (1, 24) else 2)
    assert len(opened.key[1]) == 4
