"""pg_dump, psql and pg_restore through session mode: a database with objects of many kinds arrives as it was."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.processes import environment
from tests.cluster.clients.test_psql import OBJECTS
from tests.cluster.proxies import DEADLINE, RunningProxy, running

MORE = """
    create sequence counted start 100 increment 7 cache 3 cycle maxvalue 1000;
    select nextval('counted'), nextval('counted');
    create table typed (id uuid primary key default gen_random_uuid(), raw bytea, doc jsonb, path text[],
        span int4range, at interval, here point, bits bit(5), xml_or_not text collate "C", big numeric,
        net inet, look tsvector);
    insert into typed (id, raw, doc, path, span, at, here, bits, xml_or_not, big, net, look)
        select md5(i::text)::uuid, decode(md5(i::text), 'hex'), jsonb_build_object('i', i, 'null', null),
        array['a,b', 'c"d', null, E'e\\\\f\\n'], int4range(i, i + 5), i * interval '1 day 3 min', point(i, -i),
        (i % 32)::bit(5), E'tab\\tline\\nend\\\\.', i / 7.0, '10.0.0.0/8', to_tsvector('simple', 'word ' || i)
        from generate_series(1, 500) i;
    create unlogged table fleeting as select 1 as n;
    create table parent (id int, name text) with (fillfactor = 70);
    create table child (extra text default 'x') inherits (parent);
    insert into child values (1, 'one'), (2, null);
    create table circle_a (id int primary key, b int);
    create table circle_b (id int primary key, a int references circle_a deferrable initially deferred);
    alter table circle_a add constraint a_to_b foreign key (b) references circle_b deferrable initially deferred;
    begin; insert into circle_a values (1, 1); insert into circle_b values (1, 1); commit;
    create rule never as on delete to parent do instead nothing;
    create operator === (leftarg = int, rightarg = int, function = int4eq, commutator = ===);
    create collation nothing_special from "C";
    create type pair as (a int, b text);
    create function mean(variadic numeric[]) returns numeric language sql immutable strict
        as $$ select avg(v) from unnest($1) v $$;
    create table guarded (owner text, v int);
    alter table guarded enable row level security;
    create policy mine on guarded as restrictive for update using (owner = current_user) with check (v > 0);
    create index by_word on typed using gin (look);
    create index on typed (lower(xml_or_not), (doc ->> 'i')) include (big) where big > 3;
    alter table typed cluster on typed_pkey, alter column raw set storage external, alter column doc set statistics 99;
    create view recursive_one as with recursive t(n) as (values (1) union all select n + 1 from t where n < 9)
        select n from t;
    select lo_from_bytea(424242, 'a large object'), lo_from_bytea(424243, decode(repeat('00ff', 3000), 'hex'));
    alter default privileges in schema shop grant select on tables to public;
    grant update (name) on shop.customer to public;
    refresh materialized view shop.frozen;
"""


@pytest.fixture(scope="module")
def proxy(
    cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningProxy]:
    """In session mode; pg_dump and pg_restore set what they like in their sessions."""
    cluster.psql(f"set role {cluster.user}; {OBJECTS} {MORE}", database=database)
    sections = {"pool": {"mode": '"session"', "size": "4"}, "routing": {"default_read_target": '"primary"'}}
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as started:
        yield started
        assert started.faults() == []


def program(proxy: RunningProxy, name: str, *arguments: str, text: str = "", direct: bool = False) -> str:
    """One of PostgreSQL's programs as the application's role, to its end, which must be a good one: its output."""
    node = proxy.cluster.node("primary").address
    where = (node.host, node.port) if direct else (proxy.host, proxy.port)
    done = subprocess.run(
        [str(proxy.cluster.programs / name), "-h", where[0], "-p", str(where[1]), "-U", proxy.cluster.user, *arguments],
        input=text, capture_output=True, text=True, timeout=2 * DEADLINE, check=False,
        env=environment(PGPASSWORD=proxy.cluster.password),
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "wal_level" not in line]  # what publications always get here
    assert (done.returncode, said) == (0, [])
    return done.stdout


def without_tokens(dump: str) -> str:
    """Newer releases write a \\restrict with a random token, which is another one in each dump."""
    return "\n".join(line for line in dump.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))


def test_pg_dump_through_the_proxy_is_pg_dump_without(proxy: RunningProxy) -> None:
    ours = without_tokens(program(proxy, "pg_dump", proxy.database))
    assert ours == without_tokens(program(proxy, "pg_dump", proxy.database, direct=True))
    for made in ("CREATE POLICY mine", "CREATE RULE never", "lo_create('424242')", "CREATE AGGREGATE shop.product"):
        assert made in ours


def test_a_dump_that_psql_restores_is_equal_when_it_is_dumped_again(
    proxy: RunningProxy, new_database: Callable[[], str]
) -> None:
    dumped, copy = program(proxy, "pg_dump", proxy.database), new_database()
    program(proxy, "psql", "-Xq", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", copy, text=dumped)
    assert without_tokens(program(proxy, "pg_dump", copy)) == without_tokens(dumped)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_pg_restore_of_the_custom_format(
    proxy: RunningProxy, new_database: Callable[[], str], tmp_path: Path, jobs: str
) -> None:
    archive, copy = tmp_path / "archive", new_database()
    program(proxy, "pg_dump", "-Fc", "-f", str(archive), proxy.database)
    program(proxy, "pg_restore", "-e", "-j", jobs, "-d", copy, str(archive))
    assert without_tokens(program(proxy, "pg_dump", copy)) == without_tokens(program(proxy, "pg_dump", proxy.database))


def test_a_parallel_dump_into_a_directory_with_inserts(
    proxy: RunningProxy, new_database: Callable[[], str], tmp_path: Path
) -> None:
    archive, copy = tmp_path / "archive", new_database()
    program(proxy, "pg_dump", "-Fd", "-j", "2", "--rows-per-insert=50", "-f", str(archive), proxy.database)
    program(proxy, "pg_restore", "-e", "-1", "-d", copy, str(archive))
    assert without_tokens(program(proxy, "pg_dump", copy)) == without_tokens(program(proxy, "pg_dump", proxy.database))
