"""Statements that look alike and are not: each beside its twin, through a running proxy (S1, S2, R1)."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster.proxies import PRIMARY, STANDBYS, WHERE, Connect, RunningProxy, running, wait_for

HERE = "current_setting('cluster_name')"
SCHEMA = f"""
create table t (n int);
create table one (n int);
insert into one values (1);
create sequence s;
create function steady(int) returns text language sql stable as $$ select {HERE} $$;
create function fickle(int) returns text language sql volatile as $$ select {HERE} $$;
create function mixed(int) returns text language sql stable as $$ select {HERE} $$;
create function mixed(text) returns text language sql volatile as $$ select {HERE} $$;
create view steady_view as select steady(n) as node from one;
create view fickle_view as select fickle(n) as node from one;
create view nested_view as select node from fickle_view;

create function steady_of(one) returns text language sql stable as $$ select {HERE} $$;
create function fickle_of(one) returns text language sql volatile as $$ select {HERE} $$;

create operator <%> (leftarg = int, rightarg = int, function = int4pl);
create function fickle_sum(int, int) returns int language sql volatile as $$ select $1 + $2 $$;
create operator <#> (leftarg = int, rightarg = int, function = fickle_sum);

create type steady_type as (v int);
create type fickle_type as (v int);
create function to_steady(int) returns steady_type language sql stable as $$ select row($1)::steady_type $$;
create function to_fickle(int) returns fickle_type language sql volatile as $$ select row($1)::fickle_type $$;
create cast (int as steady_type) with function to_steady(int);
create cast (int as fickle_type) with function to_fickle(int);

create function steady_check(int) returns bool language sql stable as $$ select true $$;
create function fickle_check(int) returns bool language sql volatile as $$ select true $$;
create domain steady_domain as int check (steady_check(value));
create domain fickle_domain as int check (fickle_check(value));

create aggregate steady_total(int) (sfunc = int4pl, stype = int, initcond = '0');
create aggregate fickle_total(int) (sfunc = fickle_sum, stype = int, initcond = '0');

create table steady_rows (n int);
create table fickle_rows (n int);
insert into steady_rows values (1);
insert into fickle_rows values (1);
alter table steady_rows enable row level security;
alter table fickle_rows enable row level security;
alter table steady_rows force row level security;
alter table fickle_rows force row level security;
create policy p on steady_rows using (steady_check(n));
create policy p on fickle_rows using (fickle_check(n));
"""


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    cluster.psql(f"set role {cluster.user}; {SCHEMA}", database=database)
    sections = {"health": {"catalogue_interval": '"300ms"'}}
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as started:
        started.replayed()
        yield started
        assert started.faults() == []


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Connect]:
    with proxy.connections() as connect:
        client = connect()
        # DDL of the test before: until the catalogue was looked at nothing is proven.
        wait_for(lambda: first(client, "select steady(1)") in STANDBYS, "the proof to hold again")
        yield connect


def first(client: psycopg.Connection, sql: str) -> object:
    row = client.execute(sql.encode()).fetchone()
    assert row is not None
    return row[0]


def both_ways(client: psycopg.Connection, sql: str) -> set[object]:
    """The answers as a simple query and as a prepared statement."""
    prepared = client.execute(sql.encode(), prepare=True).fetchone()
    assert prepared is not None
    return {first(client, sql), prepared[0]}


def test_S1_an_escaped_quote_does_not_hide_a_second_statement(connect: Connect) -> None:
    client, primary = connect(), connect("route=primary")
    primary.execute("insert into t values (1)")
    assert first(client, "select E'abc'") == "abc"
    cursor = client.execute(rb"select E'\''; delete from t --'")
    assert cursor.fetchone() == ("'",)
    assert cursor.nextset()
    assert cursor.rowcount == 1
    assert first(primary, "select count(*) from t") == 0


def test_S1_without_the_escape_the_same_bytes_are_one_literal(connect: Connect) -> None:
    primary = connect("route=primary")
    primary.execute("insert into t values (1)")
    assert first(connect(), r"select $$E'\''; delete from t --$$") == r"E'\''; delete from t --"
    assert first(connect(), "select '''; delete from t --'") == "'; delete from t --"
    assert first(primary, "select count(*) from t") == 1
    primary.execute("truncate t")


def test_S1_literals_of_different_classes_do_not_share_an_answer(connect: Connect) -> None:
    client = connect()
    literals = {
        "1": "integer", "'1'": "unknown", "1.0": "numeric", "1e0": "numeric", "B'1'": "bit", "X'1'": "bit",
        "E'1'": "unknown", "$$1$$": "unknown", "99999999999": "bigint", "0x1f": "integer", "true": "boolean",
    }  # fmt: skip
    for _ in range(2):
        for literal, kind in literals.items():
            assert both_ways(client, f"select pg_typeof({literal})::text") == {kind}


def test_S1_nested_comments_and_quoted_identifiers_are_read_as_the_server_reads_them(connect: Connect) -> None:
    client = connect()
    assert first(client, "select 1 /* a /* b */ ; delete from one */") == 1
    assert client.execute(b'select 1 as "; delete from one --"').description[0].name == "; delete from one --"  # type: ignore[index]
    assert client.execute(b'select 1 as "other"').description[0].name == "other"  # type: ignore[index]
    assert first(client, "select count(*) from one") == 1


def test_S2_two_statements_in_a_string_are_not_the_one_they_begin_with(connect: Connect) -> None:
    client = connect()
    assert first(client, f"select {HERE}") in STANDBYS
    cursor = client.execute(f"select {HERE}; insert into t values (1)".encode())
    assert cursor.fetchone() == (PRIMARY,)
    assert first(connect("route=primary"), "select count(*) from t") == 1
    client.execute("truncate t")


def test_S2_what_do_and_execute_run_is_not_masked(connect: Connect) -> None:
    client, primary = connect(), connect("route=primary")
    client.execute("do $$ begin perform 1; end $$")
    client.execute("do $$ begin insert into t values (1); end $$")
    assert first(primary, "select count(*) from t") == 1
    client.execute("prepare p as select current_setting('cluster_name')")
    assert first(client, "execute p") in {PRIMARY, *STANDBYS}
    client.execute("deallocate p")
    client.execute("prepare p as insert into t values (2) returning current_setting('cluster_name')")
    assert first(client, "execute p") == PRIMARY
    client.execute("truncate t")


PAIRS = {
    "a function": ("select steady(1)", "select fickle(1)"),
    "a function in a subquery": (
        f"select {HERE} where exists (select steady(1))", f"select {HERE} where exists (select fickle(1))"),
    "an overload": ("select steady(1)", "select mixed(1)"),
    "a view": ("select node from steady_view", "select node from fickle_view"),
    "a view of a view": ("select node from steady_view", "select node from nested_view"),
    "a call in the style of a column": ("select one.steady_of from one", "select one.fickle_of from one"),
    "an operator": (f"select {HERE} where 1 <%> 1 = 2", f"select {HERE} where 1 <#> 1 = 2"),
    "a cast": (
        f"select {HERE} where (1::steady_type) is not null", f"select {HERE} where (1::fickle_type) is not null"),
    "a domain": (
        f"select {HERE} where (1::steady_domain) = 1", f"select {HERE} where (1::fickle_domain) = 1"),
    "an aggregate": (
        f"select {HERE} from (select steady_total(n) from one) as x",
        f"select {HERE} from (select fickle_total(n) from one) as x"),
    "a row security policy": (f"select {HERE} from steady_rows", f"select {HERE} from fickle_rows"),
    "a function declared stable that is not harmless": (
        f"select {HERE} where pg_is_in_recovery() is not null", f"select {HERE} where txid_current() is not null"),
    "a row lock": (f"select {HERE} from one", f"select {HERE} from one for share"),
    "into": (f"select {HERE}", f"with x as (insert into t values (1) returning 1) select {HERE} from x"),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS.values(), ids=list(PAIRS))
def test_R1_a_statement_with_something_volatile_in_it_runs_on_the_primary(
    connect: Connect, pair: tuple[str, str]
) -> None:
    harmless, volatile = pair
    client = connect()
    for _ in range(2):
        assert both_ways(client, harmless) <= STANDBYS
        assert both_ways(client, volatile) == {PRIMARY}


def test_S4_the_search_path_says_which_view_is_meant(connect: Connect) -> None:
    client = connect("route=standby")
    client.execute("create schema other create view harmless as select current_setting('cluster_name') as node")
    client.execute("create view harmless as select fickle(1) as node")
    assert first(client, "select node from harmless") == PRIMARY
    client.execute("set search_path = other, public")
    assert first(client, "show search_path") == "other, public"
    assert first(connect(), "show search_path") == '"$user", public'
    assert both_ways(client, "select node from other.harmless") <= {PRIMARY, *STANDBYS}
    client.execute("set search_path = public")
    assert both_ways(client, "select node from harmless") == {PRIMARY}
    assert first(connect(options="-c search_path=other"), "show search_path") == "other"
    assert both_ways(connect(options="-c search_path=public"), "select node from harmless") == {PRIMARY}


def test_R1_ddl_through_the_proxy_counts_for_the_next_statement(proxy: RunningProxy, connect: Connect) -> None:
    client, other = connect(), connect()
    function = "create or replace function turns() returns text language sql {} as $$ select {} $$"
    client.execute(function.format("stable", HERE).encode())
    proxy.replayed()
    wait_for(lambda: first(client, "select turns()") in STANDBYS, "the proof that the function only reads")
    client.execute(function.format("volatile", HERE).encode())
    assert first(client, "select turns()") == PRIMARY
    assert both_ways(other, "select turns()") == {PRIMARY}


def test_R1_ddl_in_a_transaction_counts_for_others_once_it_is_committed(
    proxy: RunningProxy, connect: Connect
) -> None:
    client, other = connect(), connect()
    fresh = f"select {HERE} from (select count(*) from fresh) as x"
    client.execute("create table fresh (n int)")
    proxy.replayed()
    wait_for(lambda: first(other, fresh) in STANDBYS, "the proof of the new table")
    with client.transaction():
        client.execute("alter table fresh rename to fresh_rows")
        client.execute("create view fresh as select fickle(n) as node from fresh_rows")
    assert first(other, fresh) == PRIMARY


def test_R1_ddl_that_did_not_go_through_the_proxy_is_noticed(proxy: RunningProxy, connect: Connect) -> None:
    client = connect()
    assert first(client, "select steady(1)") in STANDBYS
    proxy.cluster.psql("alter function steady(int) volatile", database=proxy.database)
    try:
        wait_for(lambda: first(client, "select steady(1)") == PRIMARY, "the slow poll to see the change", 10)
    finally:
        proxy.cluster.psql("alter function steady(int) stable", database=proxy.database)
    wait_for(lambda: first(client, "select steady(1)") in STANDBYS, "the slow poll to see the change back", 10)


def test_a_statement_that_the_parser_does_not_know_is_answered_by_the_server(connect: Connect) -> None:
    client = connect()
    with pytest.raises(psycopg.errors.SyntaxError) as caught:
        client.execute("selectt 1")
    assert caught.value.diag.statement_position == "1"
    # What cannot be read may have been DDL: reads return to the standbys once the catalogue was looked at.
    wait_for(lambda: first(client, WHERE) in STANDBYS, "the proof to hold again")


def test_S5_deep_nesting_is_for_the_server_and_harms_nobody(connect: Connect) -> None:
    client = connect()
    deep = "select " + "(" * 3_000 + "1" + ")" * 3_000
    long = "select " + "+".join(["1"] * 30_000)
    for sql in (deep, long):
        try:
            client.execute(sql.encode())
        except psycopg.errors.StatementTooComplex:
            continue
    wait_for(lambda: first(client, WHERE) in STANDBYS, "the proof to hold again")
