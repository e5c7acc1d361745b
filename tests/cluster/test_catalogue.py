"""What the catalogue of a real server proves. Each case stands beside its twin that differs in volatility alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import psycopg
import pytest
from trio_asyncio import aio_as_trio

from heliosproxy.cluster import builtins
from heliosproxy.cluster.catalogue import Catalogue, catalogue_fingerprint, read_catalogue
from heliosproxy.cluster.proof import Proof, prove, prove_types
from heliosproxy.demo.local import LocalCluster
from heliosproxy.sql import facts

TWINS = """
create function {v}_int() returns int language plpgsql {volatility} as 'begin return 1; end';
create function {v}_is(int) returns bool language plpgsql {volatility} as 'begin return true; end';
create view {v}_view as select {v}_int() as n;
create view {v}_view_over as select n from {v}_view;
create materialized view {v}_stored as select 1 as n;

create table {v}_guarded(id int);
alter table {v}_guarded enable row level security;
create policy p on {v}_guarded using ({v}_is(id));
create table {v}_unguarded(id int);
create policy p on {v}_unguarded using ({v}_is(id));

create function {v}_join(int, int) returns bool language plpgsql {volatility} as 'begin return true; end';
create operator <{op}> (leftarg = int, rightarg = int, function = {v}_join);

create type {v}_pair as (a int, b int);
create function {v}_pair_text({v}_pair) returns text language plpgsql {volatility} as 'begin return 1; end';
create cast ({v}_pair as text) with function {v}_pair_text({v}_pair) as implicit;
create table {v}_pairs(p {v}_pair);
create type {v}_made as (a int);
create function {v}_make(int) returns {v}_made language plpgsql {volatility} as 'begin return null; end';
create cast (int as {v}_made) with function {v}_make(int);

create domain {v}_positive as int check ({v}_is(value));
create type {v}_holder as (d {v}_positive);

create function {v}_step(int, int) returns int language plpgsql {volatility} as 'begin return 1; end';
create aggregate {v}_total(int) (sfunc = {v}_step, stype = int);

create type {v}_base;
create function {v}_base_in(cstring) returns {v}_base language internal {volatility} strict as 'textin';
create function {v}_base_out({v}_base) returns cstring language internal immutable strict as 'textout';
create type {v}_base (input = {v}_base_in, output = {v}_base_out, like = text);
create table {v}_bases(b {v}_base);

create table {v}_row(a int);
create function {v}_full({v}_row) returns text language plpgsql {volatility} as 'begin return 1; end';
create function {v}_any(record) returns text language plpgsql {volatility} as 'begin return 1; end';

create function {v}_over(int) returns int language plpgsql stable as 'begin return 1; end';
create function {v}_over(text) returns int language plpgsql {volatility} as 'begin return 1; end';
create schema {v}_elsewhere;
create function {v}_there() returns int language plpgsql stable as 'begin return 1; end';
create function {v}_elsewhere.{v}_there() returns int language plpgsql {volatility} as 'begin return 1; end';
create function {v}_filled(a int default {v}_int()) returns int language plpgsql stable as 'begin return 1; end';

create type {v}_keyed as (k int);
create function {v}_same({v}_keyed, {v}_keyed) returns bool language plpgsql stable as 'begin return true; end';
create operator ={op}= (leftarg = {v}_keyed, rightarg = {v}_keyed, function = {v}_same);
create function {v}_hash({v}_keyed) returns int language plpgsql {volatility} as 'begin return 1; end';
create operator class {v}_keyed_ops default for type {v}_keyed using hash
    as operator 1 ={op}= ({v}_keyed, {v}_keyed), function 1 {v}_hash({v}_keyed);
create table {v}_keys(k {v}_keyed);
"""

CASES = {
    "function": "select {v}_int()",
    "view": "select * from {v}_view",
    "view over a view": "select * from public.{v}_view_over",
    "view in a CTE of another name": "with x as (select * from {v}_view) select * from x",
    "view behind a CTE of its own name elsewhere": (
        "select * from (with {v}_view as (select 1) select * from {v}_view) x, {v}_view"
    ),
    "CTE that reads the view of its own name": "with {v}_view as (select * from {v}_view) select * from {v}_view",
    "row security": "select * from {v}_guarded",
    "operator": "select 1 <{op}> 2",
    "operator by schema": "select 1 operator(public.<{op}>) 2",
    "operator with ANY": "select 1 <{op}> any (select 2)",
    "cast": "select row(1, 2)::{v}_pair::text",
    "implicit cast": "select md5(p) from {v}_pairs",
    "cast from a built-in type": "select 1::{v}_made",
    "cast in the form of a call": "select {v}_base('x')",
    "cast of an array": "select array[1]::{v}_made[]",
    "domain": "select 1::{v}_positive",
    "domain in a composite type": "select null::{v}_holder",
    "domain of a record's column": "select * from json_to_record('{{}}') as x(a {v}_positive)",
    "aggregate": "select {v}_total(1)",
    "aggregate as a window function": "select {v}_total(1) over ()",
    "type's input": "select 'x'::{v}_base",
    "column's type": "select * from {v}_bases",
    "call in column style": "select r.{v}_full from {v}_row r",
    "call in column style on a row": "select (r).{v}_full from {v}_row r",
    "call in column style on a record": "select r.{v}_any from {v}_row r",
    "overload": "select {v}_over(1)",
    "function of the same name elsewhere": "select {v}_there()",
    "default of an argument": "select {v}_filled()",
    "operator class": "select distinct k from {v}_keys",
    "explain": "explain select {v}_int()",
    "copy": "copy (select {v}_int()) to stdout",
    "default of XMLTABLE": "select * from xmltable('/a' passing null columns a int default {v}_int())",
    "filter of an aggregate": "select count(*) filter (where {v}_is(1))",
    "limit": "select 1 limit {v}_int()",
}

L1 = """
create table plain(id int primary key, v text, d date default current_date);
create table noted(id int);
create function note() returns trigger language plpgsql as 'begin return new; end';
create trigger note before insert on noted for each row execute function note();
create table numbered(id serial);
create table identified(id int generated always as identity);
create table parent(id int primary key);
create table child(id int references parent on delete cascade);
create table noted_child(id int references parent on update cascade, n int default nextval('numbered_id_seq'));
create table ruled(id int);
create rule r as on insert to ruled do also notify x;
create view through as select * from plain;
create table parts(id int) partition by range (id);
create table part partition of parts for values from (0) to (10);
create trigger note before insert on part for each row execute function note();
create function two(int) returns int language sql immutable as 'select 2';
create table computed(id int check (two(id) = 2));
create table indexed(id int);
create index on indexed (two(id));
create domain counted as int default nextval('numbered_id_seq');
create table counting(n counted);
create extension vector;
create table vectors(id int, v vector(3));
create table random_id(id uuid default gen_random_uuid());
"""


def name(text: str, volatile: bool) -> str:
    return text.format(v="vol", op="~~~") if volatile else text.format(v="sta", op="+++")


@pytest.fixture(scope="module")
def catalogue(cluster: LocalCluster, database: str) -> Catalogue:
    async def read() -> Catalogue:
        connection = await asyncpg.connect(cluster.dsn(user=cluster.superuser, database=database), timeout=10)
        try:
            for volatile in (True, False):
                twin = name(TWINS.replace("{volatility}", "volatile" if volatile else "stable"), volatile)
                await connection.execute(twin)
            await connection.execute(L1)
            return await read_catalogue(connection)
        finally:
            await connection.close()

    return asyncio.run(asyncio.wait_for(read(), 30))


@pytest.fixture
def proven(catalogue: Catalogue) -> Callable[[str], Proof]:
    return lambda text: prove(facts.of(text), catalogue)


@pytest.mark.parametrize("case", CASES)
def test_R1_what_runs_a_volatile_function_is_not_read_only(proven: Callable[[str], Proof], case: str) -> None:
    found = proven(name(CASES[case], volatile=True))
    assert not found.read_only
    assert "is volatile" in found.reason
    assert found.leaves == "anything"


@pytest.mark.parametrize("case", CASES)
def test_R1_its_twin_that_runs_a_stable_function_is(proven: Callable[[str], Proof], case: str) -> None:
    assert proven(name(CASES[case], volatile=False)).read_only


@pytest.mark.parametrize("case", [case for case in CASES if case != "copy"])
def test_R1_every_case_is_sql_that_the_server_accepts(
    cluster: LocalCluster, connect: Callable[..., psycopg.Connection], catalogue: Catalogue, case: str
) -> None:
    text = name(CASES[case], volatile=True).removeprefix("explain ")
    connect(user=cluster.superuser).execute(f"explain {text}".encode())


@pytest.mark.parametrize("text", [
    "select * from vol_unguarded",  # its policy is not in force
    "select * from vol_stored",
    "select id from vol_unguarded u order by u.id",
])  # fmt: skip
def test_R1_what_is_declared_but_does_not_run_is_no_obstacle(proven: Callable[[str], Proof], text: str) -> None:
    assert proven(text) == Proof(True, "nothing")


@pytest.mark.parametrize("text", [
    "select * from nowhere", "select nothing(1)", "select 1 <%%%> 2", "select 1::nothing",
    "select * from nowhere.plain",
    "select pg_catalog.vol_int()", "select * from plain tablesample nothing(1)", "select * from pg_temp.plain",
    "select public.lower('x')", "select 1 operator(information_schema.=) 1", "select * from pg_catalog.plain",
])  # fmt: skip
def test_R1_what_is_not_known_is_not_read_only(proven: Callable[[str], Proof], text: str) -> None:
    found = proven(text)
    assert not found.read_only
    assert "is not" in found.reason
    assert found.leaves == "anything"


def test_R1_no_volatile_built_in_passes_but_those_that_only_observe(
    proven: Callable[[str], Proof], catalogue: Catalogue
) -> None:
    volatile = {f.name for f in catalogue.functions.values() if f.built_in and f.volatility == "v"}
    assert len(volatile) > 200
    passing = {name for name in volatile if proven(f'select pg_catalog."{name}"()').read_only}
    assert passing == volatile & builtins.OBSERVES


def test_R1_built_ins_on_the_deny_list_do_not_pass(proven: Callable[[str], Proof], catalogue: Catalogue) -> None:
    present = {name for name in builtins.NOT_HARMLESS if name in catalogue.functions_by_name}
    assert {"txid_current", "table_to_xml", "array_in", "pg_input_is_valid"} <= present
    assert not [name for name in present if proven(f"select {name}(null)").read_only]


def test_R1_the_deny_list_is_needed(catalogue: Catalogue) -> None:
    declared = {f.name: f.volatility for f in catalogue.functions.values() if f.built_in}
    assert declared["txid_current"] == declared["pg_current_xact_id"] == declared["table_to_xml"] == "s"


@pytest.mark.parametrize("text", [
    "select 1", "select now()", "select current_setting('cluster_name')", "select version()",
    "select pg_is_in_recovery()",
    "select current_user, current_date, localtimestamp", "select inet_client_addr()", "show server_version",
    "select id, v from plain where id = $1", "select count(*), max(v) from plain group by d having count(*) > 1",
    "with recursive t(n) as (select 1 union all select n + 1 from t where n < 9) select sum(n) from t",
    "select row_number() over (partition by v order by id) from plain",
    "select '{}'::jsonb -> 'a' ->> 'b', '{}'::jsonb @> '{}' from plain",
    "select to_tsvector('english', v) @@ plainto_tsquery('x') from plain",
    "select array[1, 2] || 3, (array[1])[1], 1 = any(array[1])",
    "select * from generate_series(1, 3) g, unnest(array[1]) u",
    "select * from parent p join child c using (id) where c.id in (select id from plain)",
    "select * from through t where t.id between 1 and 2", "select * from plain tablesample system (10)",
    "select percentile_cont(0.5) within group (order by id) from plain", "select p from plain p order by p",
    "select * from information_schema.columns", "select * from pg_catalog.pg_tables", "select * from pg_settings",
    "select * from parts", "select * from identified", "select last_value from numbered_id_seq",
    "select case v when 'a' then 1 end, nullif(v, ''), v like 'a%' escape 'x', v similar to 'a' from plain",
    "select relname from pg_catalog.pg_class where relname operator(pg_catalog.~) '^(x)$' collate pg_catalog.default",
    "select id from vectors where v = '[1,2,3]' order by v <-> '[3,1,2]' limit 5",
    "select v::real[], avg(v) from vectors group by v",
])  # fmt: skip
def test_R1_ordinary_reads_are_proven_and_leave_nothing(proven: Callable[[str], Proof], text: str) -> None:
    assert proven(text) == Proof(True, "nothing")


@pytest.mark.parametrize(("text", "leaves"), [
    ("insert into plain values (1, 'a') on conflict (id) do update set v = excluded.v", "nothing"),
    ("update plain set v = upper(v) where id = 1 returning *", "nothing"),
    ("delete from plain", "nothing"),
    ("with x as (delete from plain returning id) select * from x", "nothing"),
    ("merge into plain p using parent q on p.id = q.id when matched then delete", "nothing"),
    ("copy plain from stdin", "nothing"),
    ("insert into random_id default values", "nothing"),
    ("insert into vectors values (1, '[1,2,3]')", "nothing"),
    ("insert into child values (1)", "nothing"),
    ("select * from plain for update", "nothing"),
    ("select pg_notify('a', 'b')", "nothing"),
    ("insert into numbered default values", "sequences"),
    ("insert into identified default values", "sequences"),
    ("insert into counting default values", "sequences"),
    ("select nextval('numbered_id_seq')", "sequences"),
    ("update parent set id = 2", "sequences"),  # cascades to a table with a sequence
    ("delete from parent", "nothing"),
    ("insert into noted values (1)", "anything"),
    ("insert into ruled values (1)", "anything"),
    ("insert into through values (1)", "anything"),
    ("insert into parts values (1)", "anything"),  # its partition has a trigger
    ("insert into computed values (1)", "anything"),
    ("insert into indexed values (1)", "anything"),
    ("insert into plain values (vol_int())", "anything"),
    ("select sta_int()", "anything"),
    ("select pg_advisory_lock(1)", "anything"),
    ("select set_config('a.b', 'c', false)", "anything"),
    ("select set_config('a.b', 'c', true)", "nothing"),
    ("create table x()", "anything"),
    ("select 1 into temp x", "anything"),
    ("do 'begin end'", "anything"),
    ("call p()", "anything"),
    ("truncate plain", "anything"),
    ("begin", "nothing"), ("commit", "nothing"), ("savepoint a", "nothing"), ("set local work_mem = '1MB'", "nothing"),
    ("set work_mem = '1MB'", "anything"), ("listen x", "anything"),
    ("begin; insert into plain values (2); commit", "nothing"),
    ("begin; insert into noted values (2); commit", "anything"),
    ("explain analyze insert into noted values (1)", "anything"),
])  # fmt: skip
def test_L1_what_a_statement_leaves(proven: Callable[[str], Proof], text: str, leaves: str) -> None:
    assert proven(text).leaves == leaves


def test_R1_a_parameters_type_is_proven_like_a_cast(catalogue: Catalogue) -> None:
    [volatile] = catalogue.types_by_name["vol_positive"]
    [stable] = catalogue.types_by_name["sta_positive"]
    assert prove_types([0, 23, 25], catalogue) == Proof(True, "nothing")
    assert prove_types([23, stable.oid], catalogue).read_only
    assert not prove_types([23, volatile.oid], catalogue).read_only
    assert not prove_types([4_000_000_000], catalogue).read_only


@pytest.mark.parametrize("change", [
    "create table fresh(a int)", "alter table fresh add b int",
    "create function fresh() returns int language sql return 1",
    "alter function fresh() stable", "create view seen as select 1", "create or replace view seen as select 2",
    "alter table fresh enable row level security", "create policy p on fresh", "drop policy p on fresh",
    "alter table fresh alter a set default 1", "create index on fresh(a)", "drop table fresh", "create schema fresh",
    "create domain fresh as int", "create type fresh2 as enum ('a')",
])  # fmt: skip
async def test_R1_the_fingerprint_notices_ddl(connection: asyncpg.Connection, change: str) -> None:
    before = await aio_as_trio(catalogue_fingerprint)(connection)
    assert await aio_as_trio(catalogue_fingerprint)(connection) == before
    await aio_as_trio(connection.execute)(change)
    assert await aio_as_trio(catalogue_fingerprint)(connection) != before


async def test_the_fingerprint_does_not_move_with_data_and_temporary_tables(connection: asyncpg.Connection) -> None:
    execute = aio_as_trio(connection.execute)
    await execute("create table if not exists still(a int primary key)")
    before = await aio_as_trio(catalogue_fingerprint)(connection)
    await execute("insert into still select generate_series(1, 1000)")
    await execute("create temp table passing(a serial primary key, b int check (b > 0))")
    await execute("analyze still")
    assert await aio_as_trio(catalogue_fingerprint)(connection) == before


async def test_reading_leaves_the_connection_as_it_was(connection: asyncpg.Connection) -> None:
    before = await aio_as_trio(connection.fetchval)("show search_path")
    found = await aio_as_trio(read_catalogue)(connection)
    assert found.relations_by_name["pg_class"]
    assert await aio_as_trio(connection.fetchval)("show search_path") == before
    assert not connection.is_in_transaction()


async def test_R1_temporary_tables_are_not_read_elsewhere(connection: asyncpg.Connection) -> None:
    await aio_as_trio(connection.execute)("create temp table only_here(a int)")
    found = await aio_as_trio(read_catalogue)(connection)
    assert prove(facts.of("select * from only_here"), found).reason == "only_here is a temporary table"
