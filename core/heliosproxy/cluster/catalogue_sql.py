"""The queries behind `catalogue`. PostgreSQL 12 and later. Object ids from 16384 are users', those below built in.

Definitions are deparsed under `search_path = pg_catalog`, so that an unqualified name in one means pg_catalog.
"""

from __future__ import annotations

FUNCTIONS = """
select p.oid, n.nspname, p.proname, p.prokind::text, p.provolatile::text, l.lanname,
       coalesce(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype as types,
       p.pronargs, p.pronargdefaults, p.provariadic <> 0 as variadic, p.proargtypes[0] as first,
       p.proconfig is not null as settings,
       case when p.oid >= 16384 and p.proargdefaults is not null then pg_get_expr(p.proargdefaults, 0) end as defaults,
       p.oid >= 16384 and exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid
                                  and d.deptype = 'e') as extension
from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
"""

AGGREGATES = """
select aggfnoid::oid as oid,
       array[aggtransfn::oid, aggfinalfn::oid, aggcombinefn::oid, aggserialfn::oid, aggdeserialfn::oid,
             aggmtransfn::oid, aggminvtransfn::oid, aggmfinalfn::oid, coalesce(o.oprcode::oid, 0)] as parts,
       array[aggtranstype, aggmtranstype] as types
from pg_aggregate a left join pg_operator o on o.oid = a.aggsortop where aggfnoid::oid >= 16384
"""

OPERATORS = """
select n.nspname, o.oprname, array[o.oprleft, o.oprright, o.oprresult] as types,
       array[o.oprcode::oid, o.oprrest::oid, o.oprjoin::oid] as functions
from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
"""

CASTS = """
select castsource, casttarget, castfunc, castcontext = 'i' as implicit from pg_cast where oid >= 16384
"""

TYPES = """
select t.oid, n.nspname, t.typname, t.typtype::text, t.typrelid, t.typelem, t.typbasetype,
       case when t.oid >= 16384 then array[t.typinput::oid, t.typoutput::oid, t.typreceive::oid, t.typsend::oid,
            t.typmodin::oid, t.typmodout::oid, coalesce(r.rngcanonical::oid, 0), coalesce(r.rngsubdiff::oid, 0)]
       end as functions,
       coalesce(r.rngsubtype, m.rngtypid, 0) as inner_type,
       case when t.typtype = 'd' and t.typdefaultbin is not null then pg_get_expr(t.typdefaultbin, 0) end as "default",
       case when t.typtype = 'd' then
            (select array_agg(pg_get_expr(c.conbin, 0)) from pg_constraint c
             where c.contypid = t.oid and c.contype = 'c')
       end as checks
from pg_type t join pg_namespace n on n.oid = t.typnamespace
left join pg_range r on r.rngtypid = t.oid
left join pg_range m on (to_jsonb(m)->>'rngmultitypid')::oid = t.oid
"""

FAMILIES = """
select type, p.oid as function
from (select unnest(array[amproclefttype, amprocrighttype]) as type, amproc::oid as function from pg_amproc
      union
      select unnest(array[amoplefttype, amoprighttype]), o.oprcode::oid
      from pg_amop join pg_operator o on o.oid = amopopr) s join pg_proc p on p.oid = s.function
where p.oid >= 16384 and p.prorettype <> 'internal'::regtype and not 'internal'::regtype = any (p.proargtypes)
"""
# What takes or returns internal can only be written in C, by a superuser, and is often left volatile for no reason.

RELATIONS = """
select c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relrowsecurity,
       (select array_agg(distinct a.atttypid) from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) || c.reltype as types,
       c.relhasrules and exists (select from pg_rewrite r where r.ev_class = c.oid and r.ev_type <> '1') as rules,
       case when c.relkind = 'v' then pg_get_viewdef(c.oid) end as definition,
       (select pg_get_expr(p.partexprs, c.oid) from pg_partitioned_table p where p.partrelid = c.oid) as partition_key,
       exists (select from pg_attribute a where a.attrelid = c.oid and a.attidentity <> '') as identity
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c')
"""

EXPRESSIONS = """
select polrelid as relation, 'policy' as use, pg_get_expr(polqual, polrelid) as text from pg_policy
union all select polrelid, 'policy', pg_get_expr(polwithcheck, polrelid) from pg_policy
union all select conrelid, 'check', pg_get_expr(conbin, conrelid) from pg_constraint
          where contype = 'c' and conrelid <> 0
union all select indrelid, 'index', pg_get_expr(indexprs, indrelid) from pg_index where indexprs is not null
union all select indrelid, 'index', pg_get_expr(indpred, indrelid) from pg_index where indpred is not null
union all select adrelid, case a.attgenerated when 'v' then 'virtual' else 'default' end, pg_get_expr(adbin, adrelid)
          from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
"""

TRIGGERS = """
select tgrelid, tgfoid, tgtype, tgqual is not null as conditional from pg_trigger where tgenabled <> 'D'
"""

CASCADES = """
select confrelid, conrelid, confdeltype in ('c', 'n', 'd') as on_delete, confupdtype in ('c', 'n', 'd') as on_update
from pg_constraint where contype = 'f' and (confdeltype in ('c', 'n', 'd') or confupdtype in ('c', 'n', 'd'))
"""

INHERITANCE = "select inhparent, inhrelid from pg_inherits"

_HASHED = {  # catalogues with an oid: what counts
    "pg_namespace": "oid not in (select oid from temporary)",
    "pg_proc": "true",
    "pg_operator": "true",
    "pg_cast": "true",
    "pg_type": "typnamespace not in (select oid from temporary)",
    "pg_class": "relnamespace not in (select oid from temporary)",
    "pg_rewrite": "true",
    "pg_policy": "true",
    "pg_trigger": "true",
    "pg_constraint": "connamespace not in (select oid from temporary)",
    "pg_attrdef": "adrelid not in (select oid from temporary_relations)",
}
_HASHED_WITHOUT_OID = {
    "pg_aggregate": ("aggfnoid::oid", "true"),
    "pg_attribute": ("attrelid", "attrelid not in (select oid from temporary_relations)"),
    "pg_index": ("indexrelid", "indrelid not in (select oid from temporary_relations)"),
    "pg_inherits": ("inhrelid", "true"),
    "pg_range": ("rngtypid", "true"),
    "pg_amproc": ("oid", "true"),
    "pg_amop": ("oid", "true"),
    "pg_partitioned_table": ("partrelid", "true"),
}


def _fingerprint() -> str:
    tables = [(table, "oid", condition) for table, condition in _HASHED.items()]
    tables += [(table, *rest) for table, rest in _HASHED_WITHOUT_OID.items()]
    sums = " union all ".join(
        f"select count(*) as rows, coalesce(sum(hashtextextended({oid}::text || ' ' || xmin::text, 0)), 0) as hash"
        f" from pg_catalog.{table} where {condition}"
        for table, oid, condition in tables
    )
    return (
        "with temporary as (select oid from pg_namespace where nspname ~ '^pg_(toast_)?temp_'),"
        " temporary_relations as (select oid from pg_class where relnamespace in (select oid from temporary))"
        f" select string_agg(rows || ':' || hash, ' ') from ({sums}) s"
    )


FINGERPRINT_SQL = _fingerprint()
"""One row, one text. Every row of the catalogues that the snapshot reads counts with a hash of its id and xmin, so
that an insert, an update and a delete each change the sum; the largest xmin alone would miss deletes and go wrong when
transaction ids wrap. In-place updates (relation sizes) keep xmin and do not show. Temporary objects are left out: a
session's temporary table concerns that session only, which stays on its link, and they come and go."""
