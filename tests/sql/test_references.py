"""What a statement names."""

from __future__ import annotations

import pytest

from heliosproxy.sql.references import References, Written, expression
from heliosproxy.sql.tree import parse


def of(text: str) -> References:
    found = expression(parse(text))
    assert found is not None
    return found


def names(found: tuple[tuple[str, str], ...]) -> set[str]:
    return {f"{schema}.{name}" if schema else name for schema, name in found}


@pytest.mark.parametrize(("text", "expected"), [
    ("select * from a, b.c join only d using (x)", {"a", "b.c", "d"}),
    ('select * from "A B", Aa', {"A B", "aa"}),
    ("select * from db.s.t", {"s.t"}),
    ("select (select 1 from a), b in (select 1 from c) where exists (select 1 from d)", {"a", "c", "d"}),
    ("with x as (select * from a) select * from x, y", {"a", "y"}),
    ("with x as (select * from a), y as (select * from x) select * from y", {"a"}),
    ("with x as (select * from y), y as (select 1) select * from x", {"y"}),
    ("with recursive x as (select * from y), y as (select 1) select * from x", set()),
    ("with x as (select * from x) select * from x", {"x"}),
    ("with recursive x as (select 1 union all select * from x) select * from x", set()),
    ("with x as (select 1) select * from public.x", {"public.x"}),
    ("select * from (with x as (select 1) select * from x) y, x", {"x"}),
    ("select * from (select * from x) y union (with x as (select 1) select * from x)", {"x"}),
    ("with x as (select 1) select * from (select * from (select * from x) y) z", set()),
    ("with x as (select 1) select 1 union select * from x", set()),
    ("with x as (insert into x values (1) returning *) select * from x", {"x"}),
    ("with a as (select 1) insert into a select * from a", {"a"}),
    ("with a as (select 1) delete from b using a where exists (select 1 from c)", {"b", "c"}),
    ("merge into a using b on a.x = b.x when matched then update set y = (select 1 from c)", {"a", "b", "c"}),
    ("select * from a tablesample system (10)", {"a"}),
    ("select * from f(1), lateral (select * from a) b", {"a"}),
    ("table a", {"a"}),
    ("values ((select 1 from a))", {"a"}),
    ("select 1 order by (select 1 from a) limit (select 1 from b)", {"a", "b"}),
    ("select sum(x) over (partition by (select 1 from a)) from b window w as (order by (select 1 from c))", {"a", "b",
    "c"}),
])  # fmt: skip
def test_R1_relations_are_found_wherever_they_stand_and_CTEs_are_none(text: str, expected: set[str]) -> None:
    assert names(of(text).relations) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("select F(1), s.g(h(2))", {"f", "s.g", "h"}),
    ("select extract(year from a), a at time zone 'x'", {"pg_catalog.extract", "pg_catalog.timezone"}),
    ("select a similar to 'x', a like 'b' escape 'c'", {"pg_catalog.similar_to_escape", "pg_catalog.like_escape"}),
    ("select count(*) filter (where f(1)) over (order by g(2) rows h(3) preceding)", {"count", "f", "g", "h"}),
    ("select * from rows from (f(1), g(2)) as x(a, b)", {"f", "g"}),
    ("select 1 limit f(1) offset g(1)", {"f", "g"}),
    ("select f(x => h(2), variadic y => array[g(1)])", {"f", "g", "h"}),
    ("select * from xmltable('/a' passing f(1) columns a int default g(1))", {"f", "g"}),
    ("select * from json_table(f(1), '$' columns (a int default g(1) on empty))", {"f", "g"}),
    ("select json_object('a': f(1)), json_arrayagg(g(1)), xmlelement(name a, h(1))", {"f", "g", "h"}),
    ("insert into a values (f(1)) on conflict (b) where g(1) do update set c = h(1) where i(1) returning j(1)",
     {"f", "g", "h", "i", "j"}),
    ("select a[f(1):g(2)], case f(1) when g(1) then h(1) else i(1) end", {"f", "g", "h", "i"}),
    ("select set_config('a', 'b', true)", {"pg_catalog.set_config(local)"}),
    ("select set_config('a', 'b', x), s.set_config('a', 'b', true)", {"set_config", "s.set_config"}),
])  # fmt: skip
def test_R1_calls_are_found_wherever_they_stand(text: str, expected: set[str]) -> None:
    assert names(of(text).functions) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("select 1 + 2 operator(s.<%) 3", {"+", "s.<%"}),
    ("select a in (1), b in (select 1), c not in (select 1)", {"=", "<>"} - {"<>"}),
    ("select a not in (1)", {"<>"}),
    ("select a between 1 and 2", {"<", ">", "<=", ">="}),
    ("select a like 'x', b ilike 'y', c ~* 'z'", {"~~", "~~*", "~*"}),
    ("select a is distinct from b, nullif(a, b)", {"="}),
    ("select case a when 1 then 2 end", {"="}),
    ("select * from a join b using (c)", {"="}),
    ("select * from a natural join b", {"="}),
    ("select a <@ all (select 1), b @> any (array[1])", {"<@", "@>"}),
    ("select 1 order by a using <<", {"<<"}),
    ("select - 1, @ a", {"-", "@"} - {"-"}),
])  # fmt: skip
def test_R1_operators_are_found_also_those_implied(text: str, expected: set[str]) -> None:
    assert names(of(text).operators) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("select 'x'::a, cast(1 as s.b[]), int '1'", {"a", "s.b", "pg_catalog.int4"}),
    ("select * from f() as (a x, b y.z)", {"x", "y.z"}),
    ("select * from xmltable('/a' passing b columns c d)", {"d"}),
    ("select * from json_table(a, '$' columns (b c path '$', nested '$' columns (d e)))", {"c", "e"}),
    ("select json_value(a, '$' returning b)", {"b"}),
    ("select xmlserialize(document a as b)", {"b"}),
])  # fmt: skip
def test_R1_types_are_found(text: str, expected: set[str]) -> None:
    assert names(of(text).types) == expected


def test_R1_names_after_a_dot_may_be_calls() -> None:
    assert set(of("select a, t.b, s.t.c, (t).d, (t).e.f, (g(1)).h, t.* from t").attributes) == {
        "b", "t", "c", "d", "e", "f", "h",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "written"), [
    ("insert into a values (1)", {Written(("", "a"), "insert")}),
    ("insert into a values (1) on conflict do nothing", {Written(("", "a"), "insert"), Written(("", "a"), "update")}),
    ("with x as (delete from s.a returning *) update b set c = 1 from x",
     {Written(("s", "a"), "delete"), Written(("", "b"), "update")}),
    ("select * from a for share", set()),
    ("select * from (select * from a for key share) b", set()),
])  # fmt: skip
def test_R1_writes_are_found(text: str, written: set[Written]) -> None:
    found = of(text)
    assert found.writes
    assert set(found.written) == written
    assert found.locks_rows is (not written)


@pytest.mark.parametrize("text", ["select 1 into x", "create table a as select 1", "call f(1)"])
def test_R1_what_is_not_understood_is_not_proven(text: str) -> None:
    assert expression(parse(text)) is None
