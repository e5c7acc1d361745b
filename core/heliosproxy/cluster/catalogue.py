"""A snapshot of what one database's objects do: enough to prove that a statement is harmless (`proof`).

Read from the primary in one transaction and never changed afterwards. Objects refer to each other by oid; names lead
to all the objects that bear them, in every schema, because whose name it is depends on a search_path that is not
trusted (SAFETY R1).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import TypeAlias, TypeVar

import asyncpg

from heliosproxy.cluster import catalogue_sql as sql

FIRST_USER_OID = 16_384
"""`FirstNormalObjectId`: objects below it came with initdb."""

Oid: TypeAlias = int


@dataclass(frozen=True, slots=True)
class Function:
    """A function, procedure, aggregate or window function."""

    oid: Oid
    schema: str
    name: str
    kind: str
    """`f`, `p`, `a` or `w`, as in pg_proc.prokind."""
    volatility: str
    """`i`, `s` or `v`. An aggregate's says nothing: see `parts`."""
    language: str
    types: tuple[Oid, ...]
    """Of its arguments and of its result."""
    takes_one: bool
    """It can be called with one argument."""
    first: Oid
    """The type of its first argument; 0 if it has none."""
    settings: bool
    """It has a SET clause."""
    defaults: str | None
    """Its arguments' defaults, as SQL, of user-defined functions."""
    extension: bool
    """A user-defined function that belongs to an extension."""
    parts: tuple[Oid, ...] = ()
    """Of user-defined aggregates: the functions that do the work."""

    @property
    def built_in(self) -> bool:
        """Whether it came with the server."""
        return self.oid < FIRST_USER_OID


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator: its function and, where they are user-defined, its estimators."""

    schema: str
    name: str
    types: tuple[Oid, ...]
    functions: tuple[Oid, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """A user-defined cast. `function` is 0 where the cast needs none, or goes through text."""

    source: Oid
    target: Oid
    function: Oid
    implicit: bool


@dataclass(frozen=True, slots=True)
class Type:
    """A type and what using a value of it may call."""

    oid: Oid
    schema: str
    name: str
    kind: str
    """`b`ase, `c`omposite, `d`omain, `e`num, `p`seudo, `r`ange, `m`ultirange."""
    relation: Oid
    """Of a composite type."""
    inner: tuple[Oid, ...]
    """Element, base type, subtype."""
    functions: tuple[Oid, ...] = ()
    """Input, output and the like, of user-defined types."""
    checks: tuple[str, ...] = ()
    """A domain's constraints, as SQL."""
    default: str | None = None
    """A domain's default, as SQL."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """An enabled trigger. `events` are pg_trigger.tgtype's bits."""

    function: Oid
    events: int
    conditional: bool
    """It has a WHEN clause."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation, or a composite type's columns."""

    oid: Oid
    schema: str
    name: str
    kind: str
    """As in pg_class.relkind: `r`, `p`, `v`, `m`, `f`, `S`, `c`."""
    persistence: str
    """`p`, `u`nlogged or `t`emporary."""
    row_security: bool
    types: tuple[Oid, ...]
    """Of its columns, each once, and of its rows."""
    rules: bool
    """It has rules other than a view's own."""
    definition: str | None
    """A view's query."""
    partition_key: str | None
    identity: bool
    """It has an identity column."""


@dataclass(frozen=True, slots=True)
class Cascade:
    """A foreign key that changes rows of `relation` when the rows it refers to are deleted or updated."""

    relation: Oid
    on_delete: bool
    on_update: bool


K = TypeVar("K")
V = TypeVar("V")
Lists: TypeAlias = Mapping[K, Sequence[V]]


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """One database, as it was at one moment. Compared by identity. About 4 MB for a fresh database."""

    functions: Mapping[Oid, Function]
    functions_by_name: Lists[str, Function]
    operators_by_name: Lists[str, Operator]
    types: Mapping[Oid, Type]
    types_by_name: Lists[str, Type]
    casts_from: Lists[Oid, Cast]
    casts_to: Lists[Oid, Cast]
    type_support: Lists[Oid, Oid]
    """User-defined functions in operator families, by the types they compare or hash."""
    relations: Mapping[Oid, Relation]
    relations_by_name: Lists[str, Relation]
    children: Lists[Oid, Oid]
    """Partitions and inheriting tables."""
    expressions: Lists[tuple[Oid, str], str]
    """SQL by relation and use: `policy`, `check`, `index`, `default`, `virtual` (a virtual generated column)."""
    triggers: Lists[Oid, Trigger]
    cascades: Lists[Oid, Cascade]
    memo: dict[object, object] = field(default_factory=dict, repr=False)
    """`proof`'s results for this snapshot. They follow from it, so that they cannot get stale."""


async def catalogue_fingerprint(connection: asyncpg.Connection) -> str:
    """A text that changes when anything in the snapshot's catalogues does. Takes some 10 ms of the server's time."""
    return str(await connection.fetchval(sql.FINGERPRINT_SQL))


async def read_catalogue(connection: asyncpg.Connection) -> Catalogue:
    """Read the database that the connection is to.

    Raises what asyncpg raises. The server raises where a definition's object is dropped meanwhile, and where one is
    locked by an ALTER TABLE for longer than a second: reading again later helps. The caller bounds the whole time.
    Leaves no transaction open and no setting behind.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute("set local search_path = pg_catalog; set local lock_timeout = '1s'")
        rows = {name: await connection.fetch(text) for name, text in _QUERIES.items()}
    return await _build(rows)


_QUERIES: Mapping[str, str] = {
    "functions": sql.FUNCTIONS,
    "aggregates": sql.AGGREGATES,
    "operators": sql.OPERATORS,
    "casts": sql.CASTS,
    "types": sql.TYPES,
    "families": sql.FAMILIES,
    "relations": sql.RELATIONS,
    "inheritance": sql.INHERITANCE,
    "expressions": sql.EXPRESSIONS,
    "triggers": sql.TRIGGERS,
    "cascades": sql.CASCADES,
}

Rows: TypeAlias = Sequence[asyncpg.Record]


CHUNK = 256
"""Rows that are turned into objects in one go, under a millisecond, before others get their turn."""


async def _made(rows: Rows, make: Callable[[asyncpg.Record], V]) -> list[V]:
    made: list[V] = []
    for start in range(0, len(rows), CHUNK):
        made += map(make, rows[start : start + CHUNK])
        await asyncio.sleep(0)
    return made


async def _build(rows: Mapping[str, Rows]) -> Catalogue:
    aggregates = {row["oid"]: row for row in rows["aggregates"]}
    made = await _made(rows["functions"], lambda row: _function(row, aggregates.get(row["oid"])))
    functions = {function.oid: function for function in made}
    types = {type_.oid: type_ for type_ in await _made(rows["types"], _type)}
    relations = {relation.oid: relation for relation in await _made(rows["relations"], _relation)}
    operators = await _made(rows["operators"], _operator)
    casts = [Cast(*row) for row in rows["casts"]]
    return Catalogue(
        functions,
        _grouped((item.name, item) for item in functions.values()),
        _grouped((item.name, item) for item in operators),
        types,
        _grouped((item.name, item) for item in types.values()),
        _grouped((cast.source, cast) for cast in casts),
        _grouped((cast.target, cast) for cast in casts),
        _grouped((row["type"], row["function"]) for row in rows["families"]),
        relations,
        _grouped((item.name, item) for item in relations.values()),
        _grouped((row["inhparent"], row["inhrelid"]) for row in rows["inheritance"]),
        _grouped(((row["relation"], row["use"]), row["text"]) for row in rows["expressions"] if row["text"]),
        _grouped((row["tgrelid"], Trigger(*row[1:])) for row in rows["triggers"]),
        _grouped((row["confrelid"], Cascade(*row[1:])) for row in rows["cascades"]),
    )


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, tuple[V, ...]]:
    groups: defaultdict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return {key: tuple(values) for key, values in groups.items()}


def _oids(values: Iterable[Oid] | None) -> tuple[Oid, ...]:
    return tuple(dict.fromkeys(value for value in values or () if value))


def _function(row: asyncpg.Record, aggregate: asyncpg.Record | None) -> Function:
    needed = row["pronargs"] - row["pronargdefaults"] - row["variadic"]
    return Function(
        row["oid"], intern(row["nspname"]), intern(row["proname"]), intern(row["prokind"]),
        intern(row["provolatile"]), intern(row["lanname"]),
        _oids([*row["types"], *(aggregate["types"] if aggregate else ())]),
        row["pronargs"] > 0 and needed <= 1, row["first"] or 0, row["settings"], row["defaults"], row["extension"],
        _oids(aggregate["parts"]) if aggregate else (),
    )  # fmt: skip


def _operator(row: asyncpg.Record) -> Operator:
    code, *estimators = row["functions"]
    users = (oid for oid in estimators if oid >= FIRST_USER_OID)
    return Operator(intern(row["nspname"]), intern(row["oprname"]), _oids(row["types"]), _oids((code, *users)))


def _type(row: asyncpg.Record) -> Type:
    return Type(
        row["oid"], intern(row["nspname"]), intern(row["typname"]), intern(row["typtype"]), row["typrelid"],
        _oids((row["typelem"], row["typbasetype"], row["inner_type"])),
        tuple(oid for oid in _oids(row["functions"]) if oid >= FIRST_USER_OID),
        tuple(row["checks"] or ()), row["default"],
    )  # fmt: skip


def _relation(row: asyncpg.Record) -> Relation:
    return Relation(
        row["oid"], intern(row["nspname"]), intern(row["relname"]), intern(row["relkind"]),
        intern(row["relpersistence"]), row["relrowsecurity"], _oids(row["types"]), row["rules"], row["definition"],
        row["partition_key"], row["identity"],
    )  # fmt: skip
