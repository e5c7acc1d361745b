"""The roles of docs/security.md, made by the SQL that stands there: they can do what the proxy needs, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.processes import until
from heliosproxy.demo.running import find
from tests.cli.support import fetch
from tests.cluster.proxies import PRIMARY, STANDBYS, SYNC, WHERE, Connect, RunningProxy, helios, running, wait_for

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
BLOCKS = dict(re.findall(r"<!-- sql: ([\w -]+) -->\n```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
HEALTH, ASKING, OWNER = "helios_health", "helios_auth", "helios_secrets"
BLIND = "helios_blind"
"""A role like `HEALTH`, with nothing granted."""
QUERY = "select name, secret from helios.login(%s)"

Open = Callable[[str], psycopg.Connection]


@pytest.fixture(scope="module")
def database(cluster: LocalCluster, new_database: Callable[[], str]) -> Iterator[str]:
    """A fresh one in which the page's SQL was run; its roles are gone afterwards."""
    name = new_database()
    cluster.psql(BLOCKS["health role"], database=name)
    cluster.psql(BLOCKS["auth_query"], database=name)
    cluster.psql(f"create role {BLIND} login; create table kept (n int); insert into kept values (7)", database=name)
    cluster.psql(f"alter table kept owner to {cluster.user}", database=name)
    for role in (HEALTH, ASKING, BLIND):
        cluster.psql(f"alter role {role} password '{cluster.password}'")
    yield name
    everyone = ", ".join((HEALTH, ASKING, OWNER, BLIND))
    cluster.psql("drop schema helios cascade", database=name)
    cluster.psql(f"drop owned by {everyone}; drop role {everyone}", database=name)


@pytest.fixture
def as_role(cluster: LocalCluster, database: str) -> Iterator[Open]:
    """Opens connections to the primary, closed after the test."""
    opened: list[psycopg.Connection] = []

    def connect(role: str) -> psycopg.Connection:
        dsn = cluster.dsn(user=role, database=database)
        opened.append(psycopg.connect(dsn, autocommit=True, connect_timeout=10))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def test_the_page_shows_the_sql_that_is_tested_here() -> None:
    assert set(BLOCKS) == {"health role", "auth_query", "shut out"}
    assert PAGE.count("```sql") == len(BLOCKS), "a block of SQL is not marked, and so not run"


# --- the role for [health] --------------------------------------------------------------------------------------------


def watched_by(role: str) -> dict[str, dict[str, str]]:
    return {"health": {"user": f'"{role}"'}}


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    """One whose own connections are the role's."""
    with running(cluster, database, tmp_path_factory.mktemp("health"), watched_by(HEALTH)) as started:
        yield started
        assert started.faults() == []


def nodes(proxy: RunningProxy) -> dict[str, dict[str, object]]:
    """What the proxy says of its nodes."""
    found = next(found for _ in until(10) if (found := find(config=proxy.file)) is not None)
    return {node["name"]: node for node in fetch(found.admin, "/status")[1]["nodes"]}


def test_nodes_their_roles_sync_modes_and_lag_are_seen(proxy: RunningProxy) -> None:
    wait_for(lambda: all(node["healthy"] for node in nodes(proxy).values()), "the nodes to be seen")
    seen = {name: (node["role"], node["sync"]) for name, node in nodes(proxy).items()}
    assert seen == {
        "primary": ("primary", ""), "standby-sync-1": ("standby", "sync"), "standby-async-1": ("standby", "async")
    }  # fmt: skip
    with proxy.connections() as connect:
        client = connect("lag=10s")
        wait_for(lambda: client.execute(WHERE).fetchone() != (PRIMARY,), "a standby that is known not to lag")


def test_the_catalogue_is_read_so_that_reads_go_to_standbys(proxy: RunningProxy) -> None:
    with proxy.connections() as connect:
        client = connect()
        wait_for(lambda: client.execute(f"{WHERE} from kept").fetchone()[0] in STANDBYS, "a proven read")  # type: ignore[index]
        client.execute("create function fickle() returns int language sql volatile as 'select 1'")
        assert client.execute(f"{WHERE}, fickle()").fetchone() == (PRIMARY, 1)


def test_a_route_to_the_synchronous_standby_finds_it(proxy: RunningProxy) -> None:
    with proxy.connections() as connect:
        client = connect("route=sync")
        wait_for(lambda: client.execute(WHERE).fetchone() == (SYNC,), "the sync mode to be known")


def test_check_has_nothing_to_say_against_it(proxy: RunningProxy) -> None:
    done = helios("check", "--connect", "--config", str(proxy.file))
    assert (done.returncode, done.stderr) == (0, "")


def test_without_the_grant_no_sync_mode_is_known(
    cluster: LocalCluster, database: str, tmp_path: Path
) -> None:
    with running(cluster, database, tmp_path, watched_by(BLIND)) as proxy:
        wait_for(lambda: all(node["healthy"] for node in nodes(proxy).values()), "the nodes to be seen")
        assert {node["sync"] for node in nodes(proxy).values()} == {""}
        assert "pg_monitor" in helios("check", "--connect", "--config", str(proxy.file)).stderr


@pytest.mark.parametrize(
    "statement",
    [
        "select * from kept",
        "copy kept to stdout",
        "insert into kept values (1)",
        "create table public.mine ()",
        "select rolpassword from pg_authid",
        "select * from pg_shadow",
        "select * from helios.login('helios')",
        "select pg_read_file('PG_VERSION')",
        "create role more",
    ],
)
def test_it_can_read_no_table_and_no_secret_and_change_nothing(as_role: Open, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        as_role(HEALTH).execute(statement)  # type: ignore[arg-type]


# --- the role for auth_query ------------------------------------------------------------------------------------------


@pytest.fixture
def known(cluster: LocalCluster) -> Iterator[Callable[[str, str], str]]:
    """Makes roles, and says what the server keeps of their passwords; they are dropped after the test."""
    made: list[str] = []

    def make(name: str, options: str) -> str:
        cluster.psql(f'create role "{name}" {options}')
        made.append(name)
        return cluster.psql(f"select rolpassword from pg_authid where rolname = '{name}'")

    yield make
    for name in made:
        cluster.psql(f'drop role "{name}"')


def test_a_role_that_may_log_in_is_told_with_its_secret(as_role: Open, known: Callable[[str, str], str]) -> None:
    secret = known("Någon", "login password 'p' valid until 'infinity'")
    assert secret.startswith("SCRAM-SHA-256$")
    assert as_role(ASKING).execute(QUERY, ("Någon",)).fetchall() == [("Någon", secret)]


@pytest.mark.parametrize(
    "options",
    [
        "nologin password 'p'",
        "login password 'p' valid until '2020-01-01'",
        "login superuser password 'p'",
        "login replication password 'p'",
    ],
)
def test_nothing_is_told_of_one_that_may_not_come_in(
    as_role: Open, known: Callable[[str, str], str], options: str
) -> None:
    assert known("somebody", options) != ""
    assert as_role(ASKING).execute(QUERY, ("somebody",)).fetchall() == []


def test_no_secret_is_told_where_there_is_none(as_role: Open, known: Callable[[str, str], str]) -> None:
    assert known("somebody", "login") == ""
    assert as_role(ASKING).execute(QUERY, ("somebody",)).fetchall() == [("somebody", None)]


@pytest.mark.parametrize("name", ["nobody", "", "SOMEBODY", "somebody' or true --", "s" * 64, ASKING, None])
def test_nothing_is_told_of_other_names(
    as_role: Open, known: Callable[[str, str], str], name: str | None
) -> None:
    known("somebody", "login password 'p'")
    known("s" * 63, "login password 'p'")
    assert as_role(ASKING).execute(QUERY, (name,)).fetchall() == []


def test_nobody_else_may_ask(as_role: Open, cluster: LocalCluster) -> None:
    for role in (cluster.user, HEALTH, BLIND):
        with pytest.raises(errors.InsufficientPrivilege):
            as_role(role).execute(QUERY, ("helios",))


def test_who_asks_can_read_neither_the_secrets_themselves_nor_a_table(as_role: Open) -> None:
    asking = as_role(ASKING)
    for statement in ("select rolpassword from pg_authid", "select * from kept", f"set role {OWNER}"):
        with pytest.raises(errors.InsufficientPrivilege):
            asking.execute(statement)


def test_the_role_that_owns_the_function_cannot_log_in_and_reads_these_columns_only(
    cluster: LocalCluster, database: str
) -> None:
    flags = "select rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls"
    assert cluster.psql(f"{flags} from pg_roles where rolname = '{OWNER}'") == "f"
    readable = (
        f"select string_agg(attname, ' ' order by attname) from pg_attribute where attrelid = 'pg_authid'::regclass"
        f" and attnum > 0 and has_column_privilege('{OWNER}', 'pg_authid', attname, 'select')"
    )
    assert cluster.psql(readable, database=database) == (
        "rolcanlogin rolname rolpassword rolreplication rolsuper rolvaliduntil"
    )


def test_objects_of_whoever_asks_do_not_take_the_place_of_what_the_function_reads(
    as_role: Open, known: Callable[[str, str], str]
) -> None:
    secret = known("somebody", "login password 'p'")
    asking = as_role(ASKING)
    asking.execute("create temp table pg_authid as select 'somebody'::text rolname, 'forged'::text rolpassword")
    asking.execute("create function pg_temp.now() returns timestamptz language sql as $$ select null::timestamptz $$")
    asking.execute("set search_path = pg_temp, pg_catalog")
    assert asking.execute(QUERY, ("somebody",)).fetchall() == [("somebody", secret)]


# --- both, with a proxy in front --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asking(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    """A proxy whose users are the nodes'."""
    auth = {
        "auth_query": '"select name, secret from helios.login($1)"',
        "auth_user": f'"{ASKING}"',
        "auth_password": f'"{cluster.password}"',
        "auth_dbname": f'"{database}"',
        "auth_cache": '"100ms"',
    }
    sections = {**watched_by(HEALTH), "auth": auth}
    with running(cluster, database, tmp_path_factory.mktemp("asking"), sections) as started:
        yield started
        assert started.faults() == []


def test_a_role_of_the_node_comes_in_by_the_proxy_as_itself(
    asking: RunningProxy, known: Callable[[str, str], str]
) -> None:
    known("somebody", f"login password '{asking.cluster.password}'")
    with asking.connections() as connect:
        assert connect("route=primary", user="somebody").execute("select current_user").fetchone() == ("somebody",)


@pytest.mark.parametrize("options", ["nologin", "login valid until '2020-01-01'", "login superuser"])
def test_one_that_may_not_is_refused_by_the_proxy(
    asking: RunningProxy, known: Callable[[str, str], str], options: str
) -> None:
    known("somebody", f"{options} password '{asking.cluster.password}'")
    with asking.connections() as connect, pytest.raises(psycopg.OperationalError, match="authentication failed"):
        connect(user="somebody")


def test_who_is_shut_out_loses_its_links_gets_no_new_one_and_cannot_log_in_again(
    asking: RunningProxy, known: Callable[[str, str], str]
) -> None:
    known("eve", f"login password '{asking.cluster.password}'")

    def is_refused(connect: Connect) -> bool:
        try:
            connect(user="eve").close()
        except psycopg.OperationalError as error:
            return "authentication failed" in str(error)
        return False

    with asking.connections() as connect:
        eve = connect("route=primary", user="eve")
        eve.execute("begin")
        asking.cluster.psql(BLOCKS["shut out"])
        with pytest.raises(psycopg.Error):
            eve.execute("select 1")
        eve.execute("rollback")
        with pytest.raises(psycopg.Error, match="not permitted to log in"):
            eve.execute("select 1")
        wait_for(lambda: is_refused(connect), "what the node says now to be asked for")
