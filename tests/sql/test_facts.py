"""What a statement is, from its text alone."""

from __future__ import annotations

import pytest
from helios_sdk.contract import Kind

from heliosproxy.sql import facts
from heliosproxy.sql.effects import Setting, Transaction
from heliosproxy.sql.facts import MAX_STATEMENTS, FactsTable


@pytest.mark.parametrize(("text", "kind"), [
    ("select 1", "select"), ("values (1)", "select"), ("table a", "select"), ("(select 1)", "select"),
    ("with a as (insert into b values (1)) select 1", "select"),
    ("insert into a values (1)", "insert"), ("update a set b = 1", "update"), ("delete from a", "delete"),
    ("merge into a using b on true when matched then delete", "merge"),
    ("copy a to stdout", "copy"), ("call f()", "call"), ("do 'x'", "do"),
    ("begin", "begin"), ("start transaction", "begin"), ("commit", "commit"), ("end", "commit"), ("rollback",
    "rollback"),
    ("abort", "rollback"), ("savepoint a", "savepoint"), ("rollback to a", "savepoint"), ("release a", "savepoint"),
    ("prepare transaction 'a'", "prepare-transaction"), ("commit prepared 'a'", "commit-prepared"),
    ("rollback prepared 'a'", "commit-prepared"),
    ("set a = 1", "set"), ("set transaction read only", "set"), ("reset a", "reset"), ("reset all", "reset"),
    ("show a", "show"), ("discard all", "discard"), ("prepare a as select 1", "prepare"), ("execute a", "execute"),
    ("deallocate a", "deallocate"), ("declare a cursor for select 1", "declare"), ("fetch a", "fetch"), ("move a",
    "fetch"),
    ("close a", "close"), ("listen a", "listen"), ("unlisten a", "unlisten"), ("notify a", "notify"),
    ("lock a", "lock"), ("explain select 1", "explain"), ("create table a()", "ddl"), ("grant select on a to b", "ddl"),
    ("create table a as select 1", "ddl"), ("refresh materialized view a", "ddl"), ("comment on table a is 'x'", "ddl"),
    ("alter system set a = 1", "ddl"), ("vacuum a", "utility"), ("truncate a", "utility"),
    ("select 1; select 2", "multi"), ("", "empty"), (";;", "empty"), ("-- x", "empty"), ("selct", "unknown"),
])  # fmt: skip
def test_kinds(text: str, kind: Kind) -> None:
    assert facts.of(text).kind == kind


def test_names_are_as_written_after_folding() -> None:
    found = facts.of('select Lower(x), s.F(1) from "Orders" o join S.users using (id)')
    assert found.tables == ("Orders", "s.users")
    assert set(found.functions) == {"lower", "s.f"}


@pytest.mark.parametrize(("text", "tables"), [
    ("insert into a select * from b", ("a", "b")), ("copy a from stdin", ("a",)), ("truncate a, s.b", ("a", "s.b")),
    ("lock a", ("a",)), ("create table s.a(b int)", ("s.a",)), ("alter table a add b int", ("a",)),
    ("select * into a from b", ("a",)), ("explain delete from a", ("a",)), ("select 1 from a; delete from b", ("a",
    "b")),
])  # fmt: skip
def test_tables_of_other_statements(text: str, tables: tuple[str, ...]) -> None:
    assert facts.of(text).tables == tables


@pytest.mark.parametrize(("text", "expected"), [
    ("begin", Transaction("begin")),
    ("begin read only", Transaction("begin", read_only=True)),
    ("start transaction isolation level serializable, read write, not deferrable",
     Transaction("begin", False, "serializable", False)),
    ("begin isolation level repeatable read", Transaction("begin", isolation="repeatable read")),
    ("commit and chain", Transaction("commit", chain=True)),
    ("rollback and chain", Transaction("rollback", chain=True)),
    ("rollback to savepoint a", Transaction("rollback-to", name="a")),
    ("release a", Transaction("release", name="a")),
    ("commit prepared 'x'", Transaction("commit-prepared", name="x")),
    ("set transaction isolation level serializable", Transaction("set", isolation="serializable")),
    ("set local transaction_read_only = on", None),
])  # fmt: skip
def test_transactions(text: str, expected: Transaction | None) -> None:
    found = facts.of(text)
    assert found.transaction == expected
    assert found.transaction_control is (expected is not None)


def test_R2_serializable_is_recognised() -> None:
    for text, serializable in (("begin isolation level serializable", True),
        ("begin isolation level read committed", False)):
        transaction = facts.of(text).transaction
        assert transaction is not None
        assert transaction.serializable is serializable


@pytest.mark.parametrize(("text", "expected"), [
    ("set Search_Path = a, \"B c\", 'd, e'", Setting("set", "search_path", 'a, "B c", "d, e"')),
    ("set search_path to ''", Setting("set", "search_path", '""')),
    ("set DateStyle = iso, mdy", Setting("set", "datestyle", "iso, mdy")),
    ("set work_mem = 64", Setting("set", "work_mem", "64")),
    ("set x.y = -1.5", Setting("set", "x.y", "-1.5")),
    ("set enable_seqscan = off", Setting("set", "enable_seqscan", "off")),
    ("set enable_seqscan = true", Setting("set", "enable_seqscan", "true")),
    ("set names 'latin1'", Setting("set", "client_encoding", "latin1")),
    ("set time zone 'UTC'", Setting("set", "timezone", "UTC")),
    ("set time zone local", Setting("default", "timezone")),
    ("set time zone interval '1' hour", Setting("set", "timezone")),
    ("set local a.b = 'c'", Setting("set", "a.b", "c", is_local=True)),
    ("set session a.b = 'c'", Setting("set", "a.b", "c")),
    ("set a.b to default", Setting("default", "a.b")),
    ("reset A.b", Setting("reset", "a.b")), ("reset all", Setting("reset-all", "")),
    ("show Time Zone", Setting("show", "timezone")), ("show all", Setting("show", "all")),
    ("set role x", Setting("set", "role", "x")),
])  # fmt: skip
def test_settings(text: str, expected: Setting) -> None:
    assert facts.of(text).setting == expected


@pytest.mark.parametrize("text", [
    "set a.b = 1", "set session characteristics as transaction read only", "set role x",
    "listen x", "prepare p as select 1; select 1", "declare c cursor with hold for select 1", "load 'x'",
    "create temp table x()", "create temporary view x as select 1", "create temp sequence x",
    "create table pg_temp.x()",
    "create temp table x as select 1", "create function pg_temp.f() returns int language sql return 1",
    "create type pg_temp.x as (a int)", "select 1 into temp x", "select 1 into pg_temp.x",
    "select 1 into temp x union select 2", "select pg_advisory_lock(1)",
    "select pg_catalog.pg_try_advisory_lock_shared(1)",
    "select 1 from a where exists (select pg_try_advisory_lock(id))", "select set_config('a.b', 'c', false)",
    "select set_config('a.b', 'c', $1)", "select set_config('a.b', 'c', is_local => true)", "select currval('s')",
    "select lastval()", "select setseed(0.5)", "insert into a values (currval('s'))",
    "explain analyze select setseed(1)",
    "copy (select pg_advisory_lock(1)) to stdout", "create table a as select pg_advisory_lock(1)",
    "select 1; set a.b = 2", "with x as (select lastval()) update a set b = 1",
])  # fmt: skip
def test_L1_what_leaves_state_on_its_link_pins(text: str) -> None:
    assert facts.of(text).pins


@pytest.mark.parametrize("text", [
    "select 1", "insert into a values (nextval('s'))", "set local a.b = 1", "set transaction read only", "begin",
    "select set_config('a.b', 'c', true)", "select pg_advisory_xact_lock(1)", "declare c cursor for select 1",
    "create table a()", "select 1 into a", "show a", "deallocate p", "notify x", "unlisten *", "discard plans",
    "explain select setseed(1)", "selct", "set constraints all deferred", "reset a.b", "reset all",
    "set a.b to default",
    "select pg_advisory_unlock(1)", "select pg_advisory_unlock_all()",
])  # fmt: skip
def test_what_leaves_nothing_on_its_link_does_not_pin(text: str) -> None:
    assert not facts.of(text).pins


@pytest.mark.parametrize(("text", "released"), [
    ("unlisten *", ("LISTEN",)), ("unlisten a", ()), ("close all", ("cursor WITH HOLD",)), ("close c", ()),
    ("reset all", ("SET ",)), ("reset work_mem", ("SET work_mem",)), ("reset app.x", ()),
    ("set work_mem to default", ("SET work_mem",)),
    ("discard temp", ("temporary table", "temporary object")), ("select pg_advisory_unlock_all()", ("advisory lock",)),
    ("select pg_advisory_unlock(1)", ()), ("set local work_mem to default", ()),
])  # fmt: skip
def test_what_ends_all_of_a_kind_releases_what_it_pinned(text: str, released: tuple[str, ...]) -> None:
    assert facts.of(text).releases == released


def test_discard_all_unpins() -> None:
    assert facts.of("discard all").unpins
    assert not facts.of("discard temp").unpins
    assert not facts.of("set a.b = 1").unpins


@pytest.mark.parametrize("text", ["begin", "commit; select 1", "do 'x'", "call f()", "select 1; rollback", "selct"])
def test_O2_transaction_control_is_recognised(text: str) -> None:
    assert facts.of(text).transaction_control


@pytest.mark.parametrize("text", [
    "create table a()", "select 1; drop table a", "do 'x'", "call f()", "select 1 into a", "grant select on a to b",
    "create table a as select 1", "alter table a add b int", "security label on table a is 'x'", "selct",
])  # fmt: skip
def test_R1_what_may_change_the_catalogue_is_recognised(text: str) -> None:
    assert facts.of(text).ddl


@pytest.mark.parametrize("text", ["select 1", "insert into a values (1)", "begin", "set a = 1", "vacuum a",
    "truncate a"])
def test_what_does_not_change_the_catalogue(text: str) -> None:
    assert not facts.of(text).ddl


@pytest.mark.parametrize("text", [
    "select 1 for update", "select * from (select * from a for share) b",
    "with x as (select 1 for no key update) select 1",
    "select 1; select 1 for update",
])  # fmt: skip
def test_R1_row_locks_are_recognised(text: str) -> None:
    assert facts.of(text).locks_rows


def test_R1_statements_without_row_locks_have_none() -> None:
    for text in ("select 1", "select * from (select 1) a", "update a set b = 1", "lock a", "select 'for update'"):
        assert not facts.of(text).locks_rows


def test_S2_several_statements_keep_their_own_facts() -> None:
    found = facts.of("begin; insert into a values (lower('x')); commit")
    assert [part.kind for part in found.parts] == ["begin", "insert", "commit"]
    assert (found.tables, found.functions) == (("a",), ("lower",))
    assert found.references is None
    assert facts.of("select 1;" * (MAX_STATEMENTS + 1)).kind == "unknown"


def test_names_of_prepared_statements_cursors_and_channels() -> None:
    assert [facts.of(text).name for text in ("execute a", "fetch 1 from b", "listen c", "deallocate all")] == ["a",
        "b", "c", ""]


def test_the_table_forgets_the_least_recently_used() -> None:
    table = FactsTable(2)
    first = table.of(b"1", "select 1")
    table.of(b"2", "select 2")
    assert table.of(b"1", "select 1") is first
    table.of(b"3", "select 3")
    assert table.of(b"1", "select 1") is first
    assert table.statistics() == facts.FactsStatistics(size=2, limit=2, hits=2, misses=3)
    table.of(b"2", "select 2")
    assert table.statistics().misses == 4


@pytest.mark.parametrize("text", ["select set_config('a', 'b', true)", "select set_config('a', 'b', false)"])
def test_S2_a_remembered_shape_tells_true_from_false(text: str) -> None:
    from heliosproxy.sql.shape import shape

    shapes = {shape(f"select set_config('a', 'b', {flag})".encode()) for flag in ("true", "false", "'t'", "$1")}
    assert len(shapes) == 4
    assert shape(text.encode()) in shapes


@pytest.mark.parametrize(
    ("text", "of_relations"),
    [
        ("create table t (a int default random())", True),
        ("create table if not exists t (a int)", True),
        ("alter table t add b int", True),
        ("drop table t", True),
        ("drop function f(int)", True),
        ("create view v as select 1", True),
        ("create index on t (a)", True),
        ("create table t (a int); create index on t (a)", True),
        ("create function f() returns int language sql as 'select 1'", False),
        ("alter function f() volatile", False),
        ("alter function f() rename to now", False),
        ("create operator = (leftarg = int, rightarg = text, function = f)", False),
        ("create table t as select f()", False),
        ("create table t (a int); create function f() returns int language sql as 'select 1'", False),
        ("do 'begin end'", False),
        ("call f()", False),
        ("create extension vector", False),
        ("create schema s create table t (a int)", False),
    ],
)
def test_R1_ddl_that_leaves_functions_as_they_are(text: str, of_relations: bool) -> None:
    found = facts.of(text)
    assert found.ddl
    assert found.ddl_of_relations is of_relations
