"""auth_query against the real cluster: what is asked, what comes back, and what becomes of it when servers fail."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
import trio
import trio.testing

from heliosproxy.auth.known import Known
from heliosproxy.auth.secrets import ScramSecret
from heliosproxy.auth.users import Users
from heliosproxy.cluster import auth_query
from heliosproxy.cluster.auth_query import AuthQuery, AuthQueryError
from heliosproxy.cluster.node import Node
from heliosproxy.cluster.registry import Cluster
from heliosproxy.config.access import Auth
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Health, NodeConfig
from heliosproxy.demo.local import LocalCluster
from heliosproxy.wire.errors import PeerError

DEADLINE = 20.0
SQL = "select rolname, rolpassword from pg_authid where rolname = $1 and rolcanlogin"


def health(local: LocalCluster, **changes: object) -> Health:
    keys: dict[str, object] = {"user": local.superuser, "password": local.password, "timeout": 5.0, **changes}
    return Health(**keys)  # type: ignore[arg-type]


def nodes_of(local: LocalCluster, *, primary: str | None = "primary", healthy: bool = True) -> Cluster:
    """The cluster as monitors would have found it."""
    seen = Cluster([NodeConfig(node.name, node.address) for node in local.nodes])
    for node in seen.nodes:
        node.healthy = healthy and (primary is not None or node.name != "primary")
    seen.primary = seen.by_name[primary] if primary is not None else None
    return seen


@asynccontextmanager
async def asking(seen: Cluster, settings: Health, sql: str = SQL, **keys: str) -> AsyncIterator[AuthQuery]:
    query = AuthQuery(seen, Auth(auth_query=sql, **keys), settings)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(query.run)
        with trio.fail_after(DEADLINE):
            yield query
        nursery.cancel_scope.cancel()


def links_of(local: LocalCluster) -> list[str]:
    """The processes that serve the question's connections."""
    return local.psql("select pid from pg_stat_activity where application_name = 'heliosproxy'").split()


async def test_it_gives_what_the_node_keeps_and_nothing_for_others(cluster: LocalCluster) -> None:
    kept = cluster.psql(f"select rolpassword from pg_authid where rolname = '{cluster.user}'").strip()
    async with asking(nodes_of(cluster), health(cluster)) as query:
        assert await query(cluster.user) == kept
        assert await query("nobody") is None
        assert await query("pg_monitor") is None, "it cannot log in"


@pytest.mark.parametrize(
    "name", ["' or true --", "$1", "a\\'; drop table x; --", "", "x" * 64, "x" * 5000, "\udcff", "p%", "ü"],
)  # fmt: skip
async def test_a_name_is_a_value_and_never_sql(cluster: LocalCluster, name: str) -> None:
    async with asking(nodes_of(cluster), health(cluster)) as query:
        assert await query(name) is None
        assert await query(cluster.user) is not None


async def test_the_connection_is_kept_and_opened_again_when_it_was_cut(cluster: LocalCluster) -> None:
    async with asking(nodes_of(cluster), health(cluster)) as query:
        for _ in range(3):
            assert await query(cluster.user) is not None
        (first,) = await trio.to_thread.run_sync(links_of, cluster)
        await trio.to_thread.run_sync(cluster.psql, f"select pg_terminate_backend({first}, 5000)")
        assert await query(cluster.user) is not None
        (second,) = await trio.to_thread.run_sync(links_of, cluster)
        assert second != first


async def test_a_question_that_is_given_up_costs_the_others_nothing(cluster: LocalCluster) -> None:
    async with asking(nodes_of(cluster), health(cluster)) as query:
        assert await query(cluster.user) is not None
        before = await trio.to_thread.run_sync(links_of, cluster)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(query, cluster.user)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert await query(cluster.user) is not None
        assert await trio.to_thread.run_sync(links_of, cluster) == before


async def test_any_healthy_node_is_asked_while_there_is_no_primary(cluster: LocalCluster) -> None:
    async with asking(nodes_of(cluster, primary=None), health(cluster)) as query:
        assert await query(cluster.user) is not None
        where = await trio.to_thread.run_sync(links_of, cluster)
        assert where == [], "not the primary"
    async with asking(nodes_of(cluster, primary=None, healthy=False), health(cluster)) as query:
        with pytest.raises(AuthQueryError, match="no healthy node to ask"):
            await query(cluster.user)


async def test_it_moves_to_a_new_primary(cluster: LocalCluster) -> None:
    seen = nodes_of(cluster, primary="standby-sync-1")
    async with asking(seen, health(cluster)) as query:
        assert await query(cluster.user) is not None
        assert await trio.to_thread.run_sync(links_of, cluster) == []
        seen.primary = seen.by_name["primary"]
        assert await query(cluster.user) is not None
        assert len(await trio.to_thread.run_sync(links_of, cluster)) == 1


async def test_a_role_and_a_database_of_its_own_ask(
    cluster: LocalCluster, database: str, connect: Callable[..., psycopg.Connection]
) -> None:
    """The least privilege that does: a role that may call one function, which may read what it needs."""
    connect(user=cluster.superuser).execute(
        f"""create role asker login password 'asks';
        create function public.look_up(name text) returns table (usename name, secret text) language sql
            security definer set search_path = pg_catalog, pg_temp
            as $$ select rolname, rolpassword from pg_authid where rolname = $1 and rolname <> 'asker' $$;
        revoke all on function public.look_up from public; grant execute on function public.look_up to asker;
        grant connect on database {database} to asker"""
    )
    keys = {"auth_user": "asker", "auth_password": "asks", "auth_dbname": database}
    try:
        async with asking(nodes_of(cluster), health(cluster), "select * from public.look_up($1)", **keys) as query:
            assert await query(cluster.user) is not None
            assert await query("asker") is None
            query.configure(Auth(auth_query=SQL, **keys), health(cluster))
            with pytest.raises(AuthQueryError, match=r"^42501 \(InsufficientPrivilegeError\)$"):
                await query(cluster.user)
    finally:
        connect(user=cluster.superuser).execute("drop function public.look_up; drop owned by asker; drop role asker")


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        pytest.param("select 'x'::text", "0 parameters and 1 columns", id="no parameter"),
        pytest.param("select $1::text, 'x'::text, 1", "1 parameters and 3 columns", id="too many columns"),
        pytest.param("select $1::text, 5", "of type int, not text", id="no text"),
        pytest.param("select $1::text, 'x' union all select $1, 'y'", "gives 2 rows", id="two rows"),
        pytest.param("selec $1", "42601", id="no SQL"),
        pytest.param("select $1::text, 'x' from nowhere", "42P01", id="no such table"),
        pytest.param("select $1::text, (1 / (length($1) - 5))::text from pg_sleep(10)", "57014|no answer", id="slow"),
    ],
)
async def test_a_query_that_cannot_serve_is_an_error_that_says_so(cluster: LocalCluster, sql: str, reason: str) -> None:
    async with asking(nodes_of(cluster), health(cluster, timeout=1.0), sql) as query:
        with pytest.raises(AuthQueryError, match=reason):
            await query("bob")


async def test_what_the_server_says_to_a_question_is_not_told(cluster: LocalCluster) -> None:
    """A function that asks for secrets may raise one; here it is one that cannot be the name of a table."""
    sql = "select ('the secret of ' || $1::text)::regclass::text"
    async with asking(nodes_of(cluster), health(cluster), sql) as query:
        for _ in range(2):
            with pytest.raises(AuthQueryError) as caught:
                await query("bob")
            assert str(caught.value) == "42602 (InvalidNameError)"


async def test_one_column_is_the_secret_and_null_is_none(cluster: LocalCluster) -> None:
    sql = "select case $1::text when 'bob' then 'secret of bob' end"
    async with asking(nodes_of(cluster), health(cluster), sql) as query:
        assert await query("bob") == "secret of bob"
        assert await query("alice") is None


async def test_the_secret_of_somebody_else_is_nobodys(cluster: LocalCluster, caplog: pytest.LogCaptureFixture) -> None:
    """Where the query compares without regard to case, BOB must not be checked against what bob has."""
    async with asking(nodes_of(cluster), health(cluster), "select lower($1::text), 'secret'::text") as query:
        assert await query("bob") == "secret"
        assert await query("BOB") is None
        assert await query("Bob") is None
    assert len([r for r in caplog.records if "another name than it was asked for" in r.message]) == 1


async def test_a_name_that_the_query_cannot_take_is_unknown_and_costs_nothing(cluster: LocalCluster) -> None:
    async with asking(nodes_of(cluster), health(cluster), "select $1::text, (1000 / length($1))::text") as query:
        assert await query("bob") == "333"
        before = await trio.to_thread.run_sync(links_of, cluster)
        assert await query("") is None
        assert await query("alice") == "200"
        assert await trio.to_thread.run_sync(links_of, cluster) == before


async def test_after_no_answer_the_next_are_refused_at_once(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Cluster([NodeConfig("gone", Address("127.0.0.1", 1))])
    seen.nodes[0].healthy, seen.primary = True, seen.nodes[0]
    tried: list[Node] = []
    async with asking(seen, health(cluster)) as query:
        connect = query._connect

        async def counted(node: Node) -> None:
            tried.append(node)
            await connect(node)

        monkeypatch.setattr(query, "_connect", counted)
        for _ in range(5):
            with pytest.raises(AuthQueryError, match="connection refused"):
                await query("bob")
        assert len(tried) < 5


async def test_who_asks_while_nobody_answers_is_told(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_query, "PATIENCE", 0.01)
    query = AuthQuery(nodes_of(cluster), Auth(auth_query=SQL), health(cluster))
    with pytest.raises(AuthQueryError, match="nobody answers"):
        await query("bob")


async def test_users_log_in_with_the_secrets_of_the_node_and_with_new_ones_at_once(
    cluster: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    change = "create role changer login password '{}'"
    await trio.to_thread.run_sync(cluster.psql, change.format("first"))
    try:
        async with asking(nodes_of(cluster), health(cluster)) as query:
            users = Users(Auth(auth_query=SQL, auth_cache=0.000001), query)
            assert fits(await users.find("changer"), "first")
            await trio.to_thread.run_sync(cluster.psql, "alter role changer password 'second'")
            assert fits(await users.find("changer"), "second")
            await trio.to_thread.run_sync(cluster.psql, "alter role changer password null")
            assert await users.find("changer") is None
    finally:
        await trio.to_thread.run_sync(cluster.psql, "drop role changer")
    assert "SCRAM-SHA-256$" not in caplog.text


async def test_without_any_node_users_cannot_be_checked(cluster: LocalCluster) -> None:
    async with asking(nodes_of(cluster, primary=None, healthy=False), health(cluster)) as query:
        users = Users(Auth(auth_query=SQL), query)
        with pytest.raises(PeerError, match="cannot be checked now") as caught:
            await users.find("bob")
    assert caught.value.sqlstate == "58000"
    assert "node" not in caught.value.message


def fits(known: Known | None, password: str) -> bool:
    assert known is not None
    assert known.scram is not None
    return ScramSecret.from_password(password, known.scram.iterations, known.scram.salt) == known.scram
