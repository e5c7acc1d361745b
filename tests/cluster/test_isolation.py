"""Clients that share a link see nothing of each other (L1): one link, two clients, everything on the primary."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.processes import environment
from tests.cluster.proxies import DEADLINE, Connect, RunningProxy, running, wait_for

SCHEMA = """
create table t (n int primary key, word text);
create sequence s;
create table audited (n int);
create function sets() returns int language plpgsql as $$
begin perform set_config('work_mem', '111kB', false); return 1; end $$;
create function listens() returns int language plpgsql as $$ begin listen gossip; return 1; end $$;
create function locks() returns int language plpgsql as $$ begin perform pg_advisory_lock(77); return 1; end $$;
create function makes_temporary() returns int language plpgsql as $$
begin create temp table if not exists secret (n int); return 1; end $$;
create function prepares() returns int language plpgsql as $$
begin execute 'prepare stolen as select 1'; return 1; end $$;
create function everything() returns trigger language plpgsql as $$
begin
  perform sets(), listens(), locks(), makes_temporary();
  return new;
end $$;
create function sets_declared_stable() returns int language plpgsql stable as $$
begin perform set_config('work_mem', '110kB', false); return 1; end $$;
create function locks_declared_immutable(int) returns int language plpgsql immutable as $$
begin perform pg_advisory_lock(76); return 1; end $$;
create view view_that_sets as select sets_declared_stable() as n;
create table with_default (n int default sets());
create trigger everything before insert on audited for each row execute function everything();
create procedure sets_in_procedure() language plpgsql as $$
begin set work_mem = '112kB'; commit; set work_mem = '113kB'; end $$;
"""
QUERIES = {
    "settings": "select name from pg_settings where source = 'session' and name not like 'helios.%'"
    " and name <> 'application_name' and setting is distinct from reset_val",
    "temporary tables": "select relname from pg_class where relpersistence = 't'",
    "advisory locks": "select objid::text from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    "channels": "select * from pg_listening_channels()",
    "prepared statements": "select name from pg_prepared_statements where from_sql",
    "cursors": "select name from pg_cursors where is_holdable",
}


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    cluster.psql(f"set role {cluster.user}; {SCHEMA}", database=database)
    sections = {"pool": {"size": "1", "wait_timeout": '"10s"'}}
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as started:
        yield started
        assert started.faults() == []


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Connect]:
    with proxy.connections() as connect:
        yield lambda **changes: connect("route=primary", **changes)


def first(client: psycopg.Connection, sql: str, *parameters: object) -> object:
    row = client.execute(sql.encode(), parameters or None).fetchone()
    assert row is not None
    return row[0]


def left_behind(client: psycopg.Connection) -> dict[str, list[str]]:
    """Everything in this session's server process that somebody else must have left there."""
    found = {what: [str(row[0]) for row in client.execute(sql.encode())] for what, sql in QUERIES.items()}
    return {what: rows for what, rows in found.items() if rows}


def leave(client: psycopg.Connection) -> None:
    """Disconnect; a pinned link is given back then."""
    client.close()


def test_L1_two_clients_share_the_one_link(connect: Connect) -> None:
    assert first(connect(), "select pg_backend_pid()") == first(connect(), "select pg_backend_pid()")


STATEMENTS = (
    "select sets()",
    "select * from sets()",
    "select sets_declared_stable()",
    "select locks_declared_immutable(1)",
    "select n from view_that_sets",
    "select makes_temporary()",
    "select locks()",
    "select listens()",
    "select prepares()",
    "select setseed(0.5)",
    "explain analyze select sets()",
    "create table made as select sets() as n",
    "insert into audited values (1)",
    "insert into with_default default values",
    "with x as (insert into audited values (1) returning n) select n from x",
    "call sets_in_procedure()",
    "do $$ begin perform set_config('work_mem', '114kB', false); end $$",
    "select set_config('work_mem', '115kB', false)",
    "set work_mem = '116kB'",
    "set session authorization helios",
    "set helios_demo.custom = 'x'",
    "set role helios",
    "set session characteristics as transaction isolation level serializable",
    "select pg_advisory_lock(78)",
    "create temp table secret (n int)",
    "create temp view secret as select 1 as n",
    "create temp sequence secret",
    "create function pg_temp.secret() returns int language sql as 'select 1'",
    "create table pg_temp.secret (n int)",
    "select 1 as n into temp secret",
    "listen gossip",
    "prepare stolen as select 1",
    "declare c cursor with hold for select 1",
)
SEVERAL = (
    "begin; set work_mem = '117kB'; commit",
    "begin; create temp table secret (n int) on commit preserve rows; commit",
    "select 1; set work_mem = '118kB'; select 2",
)
CASES = [(text, False) for text in STATEMENTS + SEVERAL] + [(text, True) for text in STATEMENTS]


@pytest.mark.parametrize(("statement", "prepare"), CASES)
def test_L1_nothing_of_a_statement_is_seen_by_the_next_client(connect: Connect, statement: str, prepare: bool) -> None:
    client, other = connect(), connect()
    client.execute(statement.encode(), prepare=prepare)
    leave(client)
    assert left_behind(other) == {}
    assert first(other, "show work_mem") == "4MB"
    assert first(other, "show default_transaction_isolation") == "read committed"
    assert first(other, "select session_user || ' ' || current_user") == "helios helios"
    other.execute("drop table if exists made")


@pytest.mark.parametrize("statement", ["select sets()", "insert into audited values (1)", "call sets_in_procedure()"])
def test_L1_what_functions_do_is_gone_even_while_their_client_stays(connect: Connect, statement: str) -> None:
    client, other = connect(), connect()
    client.execute(statement.encode())
    assert left_behind(other) == {}


def test_L1_the_seed_of_one_client_is_not_the_others(connect: Connect) -> None:
    drawn = []
    for _ in range(2):
        client, other = connect(), connect()
        client.execute("select setseed(0.5)")
        leave(client)
        drawn.append(first(other, "select random()"))
    assert drawn[0] != drawn[1]


def test_tracked_settings_follow_their_client_and_nobody_else(connect: Connect) -> None:
    client, other = connect(), connect()
    client.execute("set timezone = 'Asia/Tokyo'")
    client.execute("set datestyle = 'German'")
    client.execute("set application_name = 'first'")
    for _ in range(2):
        assert first(other, "show timezone") == "UTC"
        assert first(other, "select to_char(timestamptz '2026-01-01 00:00+00', 'HH24')") == "00"
        assert first(client, "show timezone") == "Asia/Tokyo"
        assert first(client, "select to_char(timestamptz '2026-01-01 00:00+00', 'HH24')") == "09"
        assert first(client, "select date '2026-11-20'::text") == "20.11.2026"
        assert first(client, "show application_name") == "first"
        assert first(other, "select date '2026-11-20'::text") == "2026-11-20"
    client.execute("reset timezone")
    assert first(client, "show timezone") == "UTC"


def test_L8_a_rollback_reverts_tracked_settings(connect: Connect) -> None:
    client, other = connect(autocommit=False), connect()
    client.execute("set timezone = 'Asia/Tokyo'")
    client.rollback()
    assert first(other, "show timezone") == "UTC"
    assert first(client, "show timezone") == "UTC"
    client.execute("savepoint a")
    client.execute("set timezone = 'Asia/Tokyo'")
    client.execute("rollback to a")
    client.commit()
    assert first(client, "show timezone") == "UTC"


def test_settings_of_the_start_up_packet_hold_for_one_client_only(connect: Connect) -> None:
    options = "-c helios.route=primary -c work_mem=2MB -c search_path=pg_catalog -c TimeZone=Asia/Tokyo"
    client, other = connect(options=options), connect()
    for _ in range(2):
        assert [first(client, f"show {name}") for name in ("work_mem", "search_path", "timezone")] == [
            "2MB", "pg_catalog", "Asia/Tokyo"]  # fmt: skip
        assert [first(other, f"show {name}") for name in ("work_mem", "search_path", "timezone")] == [
            "4MB", '"$user", public', "UTC"]  # fmt: skip


def test_a_client_with_session_state_keeps_its_link_and_others_wait(connect: Connect) -> None:
    client, other = connect(), connect()
    client.execute("create temp table secret (n int)")
    client.execute("insert into secret values (1)")
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(left_behind(other)))
    waiting.start()
    assert first(client, "select n from secret") == 1
    client.execute("discard all")
    waiting.join(DEADLINE)
    assert answers == [{}]
    with pytest.raises(psycopg.errors.UndefinedTable):
        client.execute("select n from secret")


def test_L1_sequence_values_do_not_leak(connect: Connect) -> None:
    client, other = connect(), connect()
    assert isinstance(first(client, "select nextval('s')"), int)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        first(other, "select lastval()")
    leave(other)
    third = connect()
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        first(third, "select currval('s')")


def test_currval_works_for_its_own_client_within_a_transaction(connect: Connect) -> None:
    client = connect()
    with client.transaction():
        value = first(client, "select nextval('s')")
        assert first(client, "select currval('s')") == value
        assert first(client, "select lastval()") == value


def test_prepared_statements_of_one_name_do_not_collide(connect: Connect) -> None:
    clients = [connect() for _ in range(3)]
    for round_ in range(3):
        for number, client in enumerate(clients):
            # psycopg names its statements _pg3_0, _pg3_1, … in every client.
            assert first_prepared(client, f"select {number}, %s::int", round_) == (number, round_)
            assert first_prepared(client, f"select 'x{number}', %s::text", str(round_)) == (f"x{number}", str(round_))


def first_prepared(client: psycopg.Connection, sql: str, value: object) -> tuple[object, ...] | None:
    return client.execute(sql.encode(), (value,), prepare=True).fetchone()


def test_L7_one_prepared_text_means_what_each_clients_settings_say(connect: Connect) -> None:
    german, iso = connect(options="-c helios.route=primary -c datestyle=German"), connect()
    for _ in range(2):
        assert first_prepared(german, "select date '01.02.2026' + %s", 0) == first_prepared(
            iso, "select date '2026-02-01' + %s", 0
        )
        asked = "select (date '2026-02-01' + %s)::text"
        assert first_prepared(german, asked, 0) == ("01.02.2026",)
        assert first_prepared(iso, asked, 0) == ("2026-02-01",)


def test_a_transaction_of_one_client_is_not_the_others(connect: Connect) -> None:
    client, other = connect(autocommit=False), connect()
    client.execute("insert into t values (1, 'uncommitted')")
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(first(other, "select count(*) from t")))
    waiting.start()
    client.rollback()
    waiting.join(DEADLINE)
    assert answers == [0]


def test_a_failed_transaction_left_by_a_client_does_not_fail_the_next(connect: Connect) -> None:
    client, other = connect(autocommit=False), connect()
    with pytest.raises(psycopg.errors.DivisionByZero):
        client.execute("select 1 / 0")
    leave(client)
    assert first(other, "select 1") == 1


def test_a_cancel_never_hits_the_client_that_has_the_link_next(connect: Connect) -> None:
    client, other = connect(), connect()
    for _ in range(30):
        first(client, "select 1")
        canceller = threading.Thread(target=lambda: client.cancel_safe(timeout=10))
        canceller.start()
        assert first(other, "select count(*) from generate_series(1, 20000)") == 20_000
        canceller.join(DEADLINE)


def test_L3_a_cancel_that_comes_while_another_client_runs_is_dropped(connect: Connect) -> None:
    client, other = connect(), connect()
    first(client, "select 1")
    answers: list[object] = []
    busy = threading.Thread(target=lambda: answers.append(first(other, "select pg_sleep(0.5)")))
    busy.start()
    while busy.is_alive():
        client.cancel_safe(timeout=10)
    busy.join(DEADLINE)
    assert answers == [""]


def test_a_client_that_waits_for_a_link_can_be_cancelled(connect: Connect) -> None:
    holder, waiting = connect(autocommit=False), connect()
    first(holder, "select 1")
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            first(waiting, "select 1")
        except psycopg.Error as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while asking.is_alive():
        waiting.cancel_safe(timeout=10)
        asking.join(0.02)
    assert [type(error) for error in errors] == [psycopg.errors.QueryCanceled]
    holder.rollback()
    assert first(waiting, "select 2") == 2


KILLED = """
import psycopg, sys
client = psycopg.connect(sys.argv[1])
client.execute("insert into t values (1, 'half')")
client.execute("lock table audited in access exclusive mode")
client.execute("select pg_advisory_lock(79)")
print("locked", flush=True)
client.execute("select pg_sleep(63)")
"""


@pytest.mark.parametrize("busy", [True, False])
def test_a_client_that_is_killed_in_a_transaction_leaves_no_locks(
    proxy: RunningProxy, connect: Connect, busy: bool
) -> None:
    script = KILLED if busy else KILLED.replace('client.execute("select pg_sleep(63)")', "sys.stdin.read()")
    dsn = psycopg.conninfo.make_conninfo(**proxy.parameters())  # type: ignore[arg-type]
    with subprocess.Popen(
        [sys.executable, "-c", script, dsn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"locked\n"
        client.send_signal(signal.SIGKILL)
        client.wait(DEADLINE)
    locks = "select count(*) from pg_locks where locktype = 'advisory' or relation = 'audited'::regclass"
    wait_for(lambda: proxy.cluster.psql(locks, database=proxy.database) == "0", "the locks to be gone", 10)
    assert first(connect(), "select count(*) from t") == 0
