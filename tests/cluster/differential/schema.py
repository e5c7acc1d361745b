"""The objects that conversations speak about, and the query that shows all that a session could have kept."""

from __future__ import annotations

SCHEMA = """
create role friend;
grant friend to helios;
create table t (n int primary key, s text);
insert into t values (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four'), (5, 'five');
create table w (n int primary key check (n >= 0), s text);
create table log (id int generated always as identity, s text not null);
create table bytes (n int primary key, b bytea);
insert into bytes values (1, '\\x00ff10'), (2, null);
create sequence seq;
create type mood as enum ('sad', 'happy');
create type pair as (a int, b text);
create domain positive as int check (value > 0);
create view v as select n, upper(s) as s from t;
create function note(text) returns text language plpgsql as
    $$ begin raise notice 'noted %', $1 using hint = 'a hint'; return $1; end $$;
create function fails(text) returns int language plpgsql as
    $$ begin raise exception 'failed %', $1 using errcode = 'HX001', detail = 'a detail', table = 'w'; end $$;
create function sets(text, text) returns text language sql as $$ select set_config($1, $2, false) $$;
create function adds(int, int) returns int language sql immutable strict as $$ select $1 + $2 $$;
create procedure steps(int) language plpgsql as
    $$ begin insert into w values ($1, 'first'); commit; insert into w values ($1 + 1, 'second'); rollback;
       insert into w values ($1 + 2, 'third'); end $$;
create procedure fails_after_commit(int) language plpgsql as
    $$ begin insert into w values ($1, 'kept'); commit; raise exception 'after the commit'; end $$;
create procedure gives(inout n int, out s text) language sql as $$ select n + 1, 'given' $$;
create function on_log() returns trigger language plpgsql as
    $$ begin perform set_config('work_mem', '123kB', false); return new; end $$;
create trigger log_sets before insert on log for each row execute function on_log();

create schema decoy;
create table decoy.t (n int primary key, s text);
insert into decoy.t values (1, 'a neighbour''s'), (2, 'a neighbour''s too');
create table decoy.w (n int primary key, s text);
create table decoy.log (id int, s text);
create sequence decoy.seq start 1000;
create view decoy.v as select 0 as n, 'a neighbour''s' as s;
grant usage on schema decoy to public;
grant all on all tables in schema public, decoy to helios, friend;
grant all on all sequences in schema public, decoy to helios, friend;

create schema stage;
create procedure stage.restore() language plpgsql as $$
declare made record;
begin
    if exists (select from w) or exists (select from log) then truncate w, log; end if;
    if (select is_called from seq) then perform setval('seq', 1, false); end if;
    if (select is_called from log_id_seq) then perform setval('log_id_seq', 1, false); end if;
    for made in
        select case relkind when 'v' then 'view' else 'table' end as kind, oid::regclass as name
        from pg_class where relowner = 'helios'::regrole and relkind in ('r', 'v') and relpersistence <> 't'
    loop
        execute format('drop %s if exists %s cascade', made.kind, made.name);
    end loop;
    for made in select oid::regprocedure as name from pg_proc where proowner = 'helios'::regrole loop
        execute format('drop function if exists %s cascade', made.name);
    end loop;
end $$;
"""

CENSUS = """
select 'setting', name, setting from pg_settings
    where context in ('user', 'superuser') and name not like 'plpgsql.%'
union all select 'custom', name, current_setting(name, true) from (values ('app.x'), ('app.y')) as known (name)
union all select 'user', current_user, session_user
union all select 'listens', channel, '' from pg_listening_channels() as channel
union all select 'cursor', name, statement from pg_cursors where statement not like '%pg_cursors%'
union all select 'temporary', relname, relkind::text from pg_class where relnamespace = pg_my_temp_schema()
union all select 'lock', classid || ' ' || objid, mode from pg_locks
    where locktype = 'advisory' and pid = pg_backend_pid()
order by 1, 2, 3
"""
"""What a session has, but for plpgsql's settings, which are there once a process has loaded plpgsql.

It ends every conversation, so that whatever a neighbour has left behind is seen.
"""
