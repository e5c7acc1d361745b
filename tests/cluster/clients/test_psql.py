"""psql through the proxy says what it says to the server itself, to the letter."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from heliosproxy.demo.processes import environment
from tests.cluster.clients.crowd import OWN_LINK, Member, crowd
from tests.cluster.proxies import DEADLINE, RunningProxy

OBJECTS = """
    create schema shop;
    create type shop.size as enum ('small', 'large');
    create domain shop.code as text check (value ~ '^[A-Z]+$');
    create table shop.customer (id serial primary key, name text not null unique, size shop.size default 'small');
    create table shop.purchase (id bigint generated always as identity primary key, customer int not null
        references shop.customer on delete cascade, code shop.code, amount numeric(10, 2) check (amount > 0),
        twice numeric generated always as (amount * 2) stored, at timestamptz not null default '2024-01-01 10:00+00');
    comment on table shop.purchase is 'What was bought';
    comment on column shop.purchase.amount is 'In euros';
    create index purchase_by_time on shop.purchase (at desc) where amount > 10;
    create view shop.best as select name, sum(amount) from shop.customer c join shop.purchase p on p.customer = c.id
        group by name;
    create materialized view shop.frozen as select count(*) from shop.purchase;
    create function shop.total(who int, out amount numeric) language sql stable
        as 'select sum(amount) from shop.purchase where customer = who';
    create procedure shop.clear() language sql as 'delete from shop.purchase';
    create function shop.checked() returns trigger language plpgsql as 'begin return new; end';
    create trigger checks before insert on shop.purchase for each row execute function shop.checked();
    create policy own on shop.purchase using (customer > 0);
    create aggregate shop.product (numeric) (sfunc = numeric_mul, stype = numeric, initcond = '1');
    create table shop.part (id int, at date) partition by range (at);
    create table shop.part_24 partition of shop.part for values from ('2024-01-01') to ('2025-01-01');
    create publication everything for table shop.customer;
    create statistics shop.together on customer, code from shop.purchase;
    insert into shop.customer (name, size) select 'customer ' || i, (array['small', 'large'])[i % 2 + 1]::shop.size
        from generate_series(1, 30) i;
    insert into shop.purchase (customer, code, amount) select i % 30 + 1, 'ABC', i from generate_series(1, 90) i;
    grant select on shop.customer to public;
    create table scratch (n int, word text);
"""
FAMILY = [
    "\\d", "\\d+", "\\d *.*purchase*", "\\d+ shop.*", "\\dt shop.*", "\\dt+ shop.*", "\\di shop.*",
    "\\ds shop.*", "\\dv+ shop.*", "\\dm shop.*", "\\df shop.*", "\\df+ shop.total", "\\sf shop.total",
    "\\da shop.*", "\\dT+ shop.*", "\\dD+ shop.*", "\\dn", "\\dn+", "\\du", "\\dg+", "\\dp shop.*", "\\z shop.customer",
    "\\ddp", "\\dx", "\\dy", "\\dP+ shop.*", "\\dRp+", "\\dX shop.*", "\\db", "\\dL", "\\do = text", "\\dC",
    "\\dc latin*", "\\sv shop.best", "\\di+ shop.*", "\\drds", "\\dO", "\\dF", "\\dE", "\\dew",
    "\\dconfig work_mem", "\\l", "\\l+ template0", "\\dd", "\\d nothing",
]  # fmt: skip
SESSION = r"""
\set who 7
\set name 'customer 3'
select :'name' as name, :who + 1 as next, :"who" from (select 1) t(:"who");
select count(*) from shop.customer where id < :who \gset
\echo :count
\if :{?count}
select 'there are some' as answer;
\else
select 'there are none' as answer;
\endif
select 1 as a, 'x'::text as b, now() as c \gdesc
select $1::int + $2::int as sum \bind 3 4 \g
select upper($1) as name \bind 'é' \gx
select format('select %s as made', i) from generate_series(1, 3) i \gexec
select 1 as polled \watch c=2 i=0.01
select i % 2 as r, i % 3 as c, count(*) from generate_series(1, 12) i group by 1, 2 order by 1, 2 \crosstabview
\pset format csv
select * from shop.best order by name limit 3;
\pset format html
\pset null '(null)'
select null as nothing, '<b>' as markup;
\pset format aligned
\x on
select * from shop.customer order by id limit 2;
\x off
select 1 \; select 2 as second \; select 3;
begin;
insert into scratch values (1, 'one') returning *;
savepoint s;
select 1 / 0;
\set ON_ERROR_ROLLBACK on
rollback to s;
update scratch set word = 'two' where n = 1 returning word;
select * from nowhere;
commit;
table scratch;
truncate scratch;
\encoding LATIN1
select 'in latin1' as encoded, length('x');
\encoding UTF8
set search_path = shop, public;
\dt
select total(1);
reset search_path;
do $$ begin raise notice 'noted'; raise warning 'warned' using hint = 'a hint', detail = 'a detail'; end $$;
listen shop;
notify shop, 'psql says it';
select 'heard' as asked;
unlisten *;
\set VERBOSITY verbose
select nothing from shop.customer;
update shop.purchase set amount = -5 where id = 1;
\errverbose
\set VERBOSITY default
select * from shop.customer
where nmae = 'typo';
selct 1;
select 'ä' || 1 || from x;
\echo :SQLSTATE :LAST_ERROR_MESSAGE :ROW_COUNT
\set FETCH_COUNT 7
select id from shop.customer order by id;
\unset FETCH_COUNT
\conninfo_is_not_a_command
select :nothing_of_this_name;
"""


@pytest.fixture(scope="module")
def schema() -> str:
    return OBJECTS


def to_the_server(proxy: RunningProxy, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """psql, connected to the primary itself."""
    address = proxy.cluster.node("primary").address
    return subprocess.run(
        [str(proxy.cluster.programs / "psql"), "-h", address.host, "-p", str(address.port), "-U", proxy.cluster.user,
         *arguments, proxy.database],
        input=text, capture_output=True, text=True, timeout=DEADLINE, check=False,
        env=environment(PGPASSWORD=proxy.cluster.password),
    )  # fmt: skip


def without_process_ids(text: str) -> str:
    """Who notified is another process each time, and so is when something was watched."""
    return re.sub(r"PID \d+|\w{3} \w{3} +\d+ [\d:]+ \d{4}", "…", text)


def same(proxy: RunningProxy, *arguments: str, text: str = "") -> str:
    """What psql prints through the proxy, which is what it prints without."""
    ours, theirs = proxy.program("psql", *arguments, text=text), to_the_server(proxy, *arguments, text=text)
    assert without_process_ids(ours.stdout) == without_process_ids(theirs.stdout)
    assert without_process_ids(ours.stderr) == without_process_ids(theirs.stderr)
    assert ours.returncode == theirs.returncode
    return ours.stdout


def test_the_describing_commands(proxy: RunningProxy) -> None:
    script = "".join(f"\\echo --- {command[1:]}\n{command}\n" for command in FAMILY)
    printed = same(proxy, "-X", text=script)
    assert "numeric(10,2)" in printed
    assert "purchase_by_time" in printed
    assert "What was bought" in printed


def test_the_queries_behind_the_describing_commands(proxy: RunningProxy) -> None:
    assert "pg_catalog.pg_class" in same(proxy, "-XE", text="\\d+ shop.purchase\n")


def test_a_long_session(proxy: RunningProxy) -> None:
    printed = same(proxy, "-X", text=SESSION)
    for word in ("there are some", "é", "made", "second", "two", "heard", "(null)"):
        assert word in printed


def test_a_session_that_echoes_and_stops_at_its_first_error(proxy: RunningProxy) -> None:
    printed = same(proxy, "-Xe", "-v", "ON_ERROR_STOP=1", text=SESSION)
    assert "savepoint s;" in printed
    assert "heard" not in printed


def test_commands_that_are_given_as_arguments(proxy: RunningProxy) -> None:
    same(proxy, "-XAt", "-c", "select 1", "-c", "begin", "-c", "select 2; select 3", "-c", "commit", "-c", "\\dt *.*")
    same(proxy, "-X", "-1", "-c", "insert into scratch values (5)", "-c", "select 1 / 0")
    assert same(proxy, "-XAt", "-c", "select count(*) from scratch") == "0\n"


def test_copies_in_and_out(proxy: RunningProxy, tmp_path: Path) -> None:
    lines = "".join(f"{n}\tline {n}\n" for n in range(5_000))
    given, taken = tmp_path / "given", tmp_path / "taken"
    given.write_text(lines)
    script = f"""
        truncate scratch;
        \\copy scratch from '{given}'
        \\copy (select * from scratch order by n) to '{taken}'
        select count(*), sum(n) from scratch;
        copy scratch to stdout (format csv, header);
        copy scratch from stdin;
not a number\tx
\\.
        copy scratch (n) from stdin;
7000
7001
\\.
        \\copy nowhere from '{given}'
        select count(*) from scratch;
        truncate scratch;
    """
    printed = same(proxy, "-X", text=script)
    assert "COPY 5000" in printed
    assert "12497500" in printed
    assert taken.read_text() == lines


def test_a_crowd_keeps_its_settings_apart(proxy: RunningProxy) -> None:
    """Each is a program of its own, with its own search_path, time zone, and statements prepared in SQL."""

    def terminal(member: Member) -> None:
        member.meet()
        number = member.number
        script = f"""
            set timezone = 'Etc/GMT+{number}';
            set work_mem = '{number + 1}MB';
            prepare mine as select {number} * $1::int;
        """ + f"""
            show timezone; show work_mem; execute mine(7); {OWN_LINK};
        """ * 40
        done = proxy.program("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", text=script)
        assert (done.returncode, done.stderr) == (0, "")
        printed = done.stdout.splitlines()
        assert set(printed[0::4]) == {f"Etc/GMT+{number}"}
        assert set(printed[1::4]) == {f"{number + 1}MB"}
        assert set(printed[2::4]) == {str(number * 7)}
        assert len(printed) == 160
        member.links.update(map(int, printed[3::4]))

    with proxy.deadline():
        crowd(terminal)
