"""The monitors against the real cluster: what they find, and what they make of nodes that stop, hang, are promoted."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import psycopg
import pytest
import trio
import trio_asyncio
from helios_sdk.contract import Route, Selector

from heliosproxy.cluster.catalogue import Catalogue, catalogue_fingerprint, read_catalogue
from heliosproxy.cluster.keeper import Keeper
from heliosproxy.cluster.monitor import Monitors
from heliosproxy.cluster.registry import Cluster
from heliosproxy.cluster.select import qualify
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Health, NodeConfig
from heliosproxy.demo.local import LocalCluster, start_cluster

STANDBY, SECOND = "standby-async-1", "standby-sync-1"
DEADLINE = 20.0


def health(local: LocalCluster, *, timeout: float = 2.0, catalogue_interval: float = 60.0) -> Health:
    return Health(
        user=local.superuser, password=local.password, interval=0.1, timeout=timeout, failures=2, lag_interval=0.1,
        catalogue_interval=catalogue_interval,
    )  # fmt: skip


@asynccontextmanager
async def watching(
    local: LocalCluster, settings: Health, keeper: Callable[[Cluster], Keeper] = Keeper
) -> AsyncIterator[Cluster]:
    configs = [NodeConfig(node.name, node.address) for node in local.nodes]
    cluster = Cluster(configs, health=settings)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(DEADLINE):
            await nursery.start(Monitors(cluster, keeper(cluster)).run)
        yield cluster
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool], what: str) -> None:
    end = trio.current_time() + DEADLINE
    while not condition():
        assert trio.current_time() < end, f"waited {DEADLINE} s for {what}"
        await trio.sleep(0.005)


async def test_the_first_round_knows_every_node(cluster: LocalCluster) -> None:
    async with watching(cluster, health(cluster)) as seen:
        assert [(n.name, n.healthy, n.role) for n in seen.nodes] == [
            ("primary", True, "primary"),
            (SECOND, True, "standby"),
            (STANDBY, True, "standby"),
        ]
        assert [n.addresses[0] for n in seen.nodes] == [n.address for n in cluster.nodes]
        assert {n.timeline for n in seen.nodes} == {1}
        assert all(n.server_version.startswith("16.") for n in seen.nodes)
        await until(lambda: [n.sync_mode for n in seen.nodes] == [None, "sync", "async"], "the sync modes")


async def test_an_idle_cluster_has_no_lag_and_a_switched_segment_makes_none(cluster: LocalCluster) -> None:
    async with watching(cluster, health(cluster)) as seen:
        before = seen.write_lsn
        write = "select pg_logical_emit_message(false, 'test', 'anything'); select pg_switch_wal()"
        await trio.to_thread.run_sync(cluster.psql, write)
        # Well before the server would of itself write something that takes the positions past the new page's header.
        with trio.fail_after(5):
            await until(lambda: seen.write_lsn > before, "a new write position")
            await until(lambda: all(seen.meets(node, 0) for node in seen.nodes), "everyone to have replayed it")


async def test_a_paused_standby_lags_and_no_longer_qualifies(
    cluster: LocalCluster, connect: Callable[..., psycopg.Connection]
) -> None:
    connect().execute("create table paused (n int)")
    async with watching(cluster, health(cluster)) as seen:
        node = seen.by_name[STANDBY]
        route = (Route((Selector("node", STANDBY),), max_lag_ms=200),)
        await until(lambda: qualify(seen, route).nodes == (node,), "the standby to qualify")
        await trio.to_thread.run_sync(cluster.pause_replay, STANDBY)
        try:
            connect().execute("insert into paused values (1)")
            version = seen.version
            await until(lambda: qualify(seen, route).nodes == (seen.primary,), "the standby to lag")
            assert seen.version > version
            assert (node.lag_ms or 0) > 200
            assert (node.lag_bytes or 0) > 0
            assert not seen.meets(node, 0)
            assert seen.meets(seen.by_name[SECOND], 10_000)
        finally:
            await trio.to_thread.run_sync(cluster.resume_replay, STANDBY)
        await until(lambda: qualify(seen, route).nodes == (node,), "the standby to catch up")


async def test_a_reported_link_has_a_stopped_node_down_at_once_and_up_again(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heliosproxy.cluster")
    rarely = Health(user="postgres", password=cluster.password, interval=60, lag_interval=60)
    async with watching(cluster, rarely) as seen:
        node = seen.by_name[STANDBY]
        await trio.to_thread.run_sync(cluster.kill_node, STANDBY)
        try:
            seen.reported(node, ConnectionResetError())
            with trio.fail_after(1):
                await until(lambda: not node.healthy, "the node to be down")
            assert node.reason == "connection refused"
        finally:
            await trio.to_thread.run_sync(cluster.start_node, STANDBY)
        seen.reported(node, ConnectionResetError())
        await until(lambda: node.healthy, "the node to be up")
    messages = [record.getMessage() for record in caplog.records if STANDBY in record.getMessage()]
    assert f"{STANDBY} is down: connection refused" in messages
    assert not any(cluster.password in message for message in messages)


async def test_a_frozen_node_is_down_after_its_time_outs_and_recovers(cluster: LocalCluster) -> None:
    async with watching(cluster, health(cluster, timeout=0.3)) as seen:
        node = seen.by_name[STANDBY]
        await trio.to_thread.run_sync(cluster.freeze_node, STANDBY)
        try:
            await until(lambda: not node.healthy, "the node to be down")
            assert node.reason == "no answer within 0.3 s"
            assert node.failures >= 2
            assert seen.by_name[SECOND].healthy
        finally:
            await trio.to_thread.run_sync(cluster.thaw_node, STANDBY)
        await until(lambda: node.healthy, "the node to be up")


async def test_a_wrong_password_leaves_every_node_down_with_a_reason(cluster: LocalCluster) -> None:
    settings = Health(user="postgres", password="wrong", interval=0.1, timeout=2.0)
    async with watching(cluster, settings) as seen:
        assert not any(node.healthy for node in seen.nodes)
        assert all(node.reason.startswith("28P01: password authentication failed") for node in seen.nodes)


async def test_a_node_that_never_answers_does_not_hold_up_the_start(cluster: LocalCluster) -> None:
    with trio.socket.socket() as silent:
        await silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        mute = NodeConfig("mute", Address(*silent.getsockname()[:2]))
        seen = Cluster([NodeConfig("primary", cluster.nodes[0].address), mute], health=health(cluster, timeout=0.5))
        async with trio.open_nursery() as nursery:
            with trio.fail_after(DEADLINE):
                await nursery.start(Monitors(seen).run)
            assert [node.healthy for node in seen.nodes] == [True, False]
            assert seen.nodes[1].reason == "no answer within 0.5 s"
            nursery.cancel_scope.cancel()


async def test_the_monitors_connection_can_be_terminated(
    cluster: LocalCluster, connect: Callable[..., psycopg.Connection]
) -> None:
    terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'heliosproxy'"
    async with watching(cluster, health(cluster)) as seen:
        before = seen.primary
        killed = await trio.to_thread.run_sync(cluster.psql, terminate)
        assert int(killed) >= 1
        count = "select count(*) from pg_stat_activity where application_name = 'heliosproxy'"
        await until(lambda: cluster.psql(count) == "1", "a new connection")
        assert seen.primary is before


async def test_F2_a_promotion_is_followed_and_the_old_primary_fenced_off() -> None:
    local = await trio.to_thread.run_sync(lambda: start_cluster(standbys=(("other", "async"),)))
    try:
        async with watching(local, health(local)) as seen:
            primary, other = seen.nodes
            await trio.to_thread.run_sync(local.kill_node, "primary")
            await until(lambda: seen.primary is None, "the primary to be gone")
            assert not seen.meets(other, 0)
            await trio.to_thread.run_sync(local.promote, "other")
            await until(lambda: seen.primary is other, "the new primary")
            assert other.timeline == 2
            assert [fact.role for fact in seen.facts()] == ["primary", "primary"]
            await trio.to_thread.run_sync(local.start_node, "primary")
            await until(lambda: primary.reason.startswith("an old primary"), "the old primary to be seen")
            assert (seen.primary, primary.healthy) == (other, False)
    finally:
        await trio.to_thread.run_sync(local.close)


async def test_R1_the_catalogue_is_read_when_asked_for_and_again_after_ddl(
    cluster: LocalCluster, database: str, connect: Callable[..., psycopg.Connection]
) -> None:
    async with watching(cluster, health(cluster)) as seen:
        assert seen.catalogue(database) is None
        seen.request_catalogue(database)
        await until(lambda: seen.catalogue(database) is not None, "the catalogue")
        first, version = seen.catalogue(database), seen.catalogue_version
        seen.ddl_happened(database)
        assert seen.catalogue(database) is None
        connect().execute("create table made_later ()")
        seen.ddl_happened(database)
        await until(lambda: seen.catalogue(database) is not None, "the catalogue again")
        assert seen.catalogue(database) is not first
        assert seen.catalogue_version > version
        # DDL that was rolled back: looked at, and found to be as it was.
        second = seen.catalogue(database)
        seen.ddl_happened(database)
        await until(lambda: seen.catalogue(database) is not None, "the catalogue to count again")
        assert seen.catalogue(database) is second


async def test_R1_ddl_elsewhere_is_noticed_by_the_slow_poll(
    cluster: LocalCluster, database: str, connect: Callable[..., psycopg.Connection]
) -> None:
    async with watching(cluster, health(cluster, catalogue_interval=0.2)) as seen:
        seen.request_catalogue(database)
        await until(lambda: seen.catalogue(database) is not None, "the catalogue")
        first = seen.catalogue(database)
        connect().execute("create table made_elsewhere ()")
        await until(lambda: seen.catalogue(database) not in (None, first), "the new catalogue")


async def test_R1_ddl_during_a_reading_makes_it_read_again(cluster: LocalCluster, database: str) -> None:
    began, go_on, readings = trio.Event(), trio.Event(), []

    async def slow_read(link: asyncpg.Connection) -> Catalogue:
        result = await read_catalogue(link)
        readings.append(result)
        began.set()
        await trio_asyncio.trio_as_aio(go_on.wait)()
        return result

    async with watching(cluster, health(cluster), lambda c: Keeper(c, slow_read, catalogue_fingerprint)) as seen:
        seen.request_catalogue(database)
        with trio.fail_after(DEADLINE):
            await began.wait()
        seen.ddl_happened(database)
        go_on.set()
        await until(lambda: seen.catalogue(database) is not None, "the catalogue")
        assert len(readings) == 2
        assert seen.catalogue(database) is readings[1]


async def test_a_database_that_does_not_exist_is_logged_once(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(cluster, health(cluster, catalogue_interval=0.05)) as seen:
        seen.request_catalogue("no_such_database")
        await until(lambda: bool(seen.statistics().catalogues[0].error), "the failure")
        assert seen.catalogue("no_such_database") is None
        assert seen.statistics().catalogues[0].error == '3D000: database "no_such_database" does not exist'
    assert sum("no_such_database" in record.getMessage() for record in caplog.records) == 1


class Resolver(trio.abc.HostnameResolver):
    """Everything has the addresses in `hosts`."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    async def getaddrinfo(  # type: ignore[no-untyped-def]
        self, host, port, family=0, type=0, proto=0, flags=0
    ):
        return [(2, 1, 6, "", (host, port)) for host in self.hosts]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        raise NotImplementedError


async def test_a_node_is_followed_to_the_addresses_that_its_name_has_now(cluster: LocalCluster) -> None:
    resolver = Resolver()
    trio.socket.set_custom_hostname_resolver(resolver)
    port = cluster.node("primary").address.port
    seen = Cluster([NodeConfig("moving", Address("db.test", port))], health=health(cluster))
    node = seen.nodes[0]
    resolver.hosts = ["127.0.0.2", "127.0.0.1"]  # nobody listens at the first
    async with trio.open_nursery() as nursery:
        with trio.fail_after(DEADLINE):
            await nursery.start(Monitors(seen).run)
        assert node.healthy
        assert [address.host for address in node.addresses] == ["127.0.0.1", "127.0.0.2"]
        version = seen.version
        resolver.hosts = ["127.0.0.3"]
        terminate = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'heliosproxy'"
        await trio.to_thread.run_sync(cluster.psql, terminate)
        await until(lambda: not node.healthy, "the node to be down")
        assert [address.host for address in node.addresses] == ["127.0.0.3"]
        assert seen.version > version
        resolver.hosts = ["127.0.0.1"]
        await until(lambda: node.healthy, "the node to be up")
        nursery.cancel_scope.cancel()
