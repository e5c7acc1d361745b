"""What a statement is: its kind, what it names, and what it leaves behind. Pure; nothing is looked up.

The facts hold for the text alone. Whether the statement is harmless needs a catalogue as well: `cluster.proof`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from helios_sdk.contract import Kind

from heliosproxy.sql import statements, unread
from heliosproxy.sql.effects import Setting, Transaction
from heliosproxy.sql.references import SET_LOCALLY, References, merge
from heliosproxy.sql.session import Name
from heliosproxy.sql.statements import PREPARES, Single
from heliosproxy.sql.tree import parse

MAX_STATEMENTS = 100
"""A text with more statements is not looked into."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the proxy knows of a text that a client sent.

    Where the text has no tree (`tree.parse`), `kind` is `unknown`, `references` is None, and the rest errs on the
    side of caution.
    """

    kind: Kind
    tables: tuple[str, ...] = ()
    """Relations as written, case folded: `schema.name` or `name`; no CTEs. Empty also where they are not known."""
    functions: tuple[str, ...] = ()
    references: References | None = None
    """What the catalogue must prove; None: the statement cannot be proven. Also None for most utility statements."""
    transaction: Transaction | None = None
    setting: Setting | None = None
    name: str = ""
    """Of a prepared statement, cursor or channel that the statement is about; empty also for all of them."""
    pins: tuple[str, ...] = ()
    """Why it leaves state that must stay on its link in transaction pooling: `SET work_mem`, `LISTEN`, … The caller
    exempts the settings that it tracks."""
    releases: tuple[str, ...] = ()
    """Reasons, as in `pins`, that it ends: UNLISTEN *, CLOSE ALL, RESET …; `SET ` alone stands for every setting."""
    unpins: bool = False
    """DISCARD ALL."""
    executes: tuple[str, ...] = ()
    """Prepared statements that it executes, whose facts are not among these: EXECUTE, EXPLAIN EXECUTE, CREATE TABLE …
    AS EXECUTE."""
    transaction_control: bool = False
    """It holds BEGIN, COMMIT, SAVEPOINT, SET TRANSACTION … or may do their work (DO, CALL, an unread text): never run
    again (O2)."""
    ddl: bool = False
    """It may change the catalogue."""
    ddl_of_relations: bool = False
    """It changes relations at most: functions, operators and casts stay as they are, or go."""
    locks_rows: bool = False
    """FOR UPDATE, FOR SHARE and the like."""
    parts: tuple[Facts, ...] = ()
    """Of `multi`: the facts of each statement."""

    @property
    def names_statements(self) -> bool:
        """Whether it names prepared statements: PREPARE, DEALLOCATE, or what executes one."""
        return any(part.executes or part.kind in ("prepare", "deallocate") for part in self.parts or (self,))

    @property
    def opens_transaction(self) -> bool:
        """Whether it leaves a transaction block open that it has begun."""
        is_open = False
        for part in self.parts or (self,):
            if part.kind == "begin" or (part.transaction is not None and part.transaction.chain):
                is_open = True
            elif part.kind in _ENDS_TRANSACTION:
                is_open = False
        return is_open


_ENDS_TRANSACTION = frozenset(("commit", "rollback", "prepare-transaction"))


def of(text: str) -> Facts:
    """The facts of a text. Never raises; bounded in time by `tree.parse`."""
    trees = parse(text)
    if trees is None or len(trees) > MAX_STATEMENTS:
        return _unread(text)
    if not trees:
        return Facts("empty")
    parts = tuple(_single(statements.read(tree)) for tree in trees)
    return parts[0] if len(parts) == 1 else _together(parts)


def _unread(text: str) -> Facts:
    guess = unread.guess(text)
    return Facts(
        "unknown",
        pins=guess.pins,
        transaction_control=guess.transaction_control,
        ddl=guess.ddl,
        locks_rows=True,
    )


def _single(read: Single) -> Facts:
    references = read.references
    relations = references.relations if references is not None else read.relations
    functions = references.functions if references is not None else ()
    return Facts(
        read.kind,
        _written_names(relations),
        _written_names(functions),
        references,
        read.transaction,
        read.setting,
        read.name,
        read.pins,
        read.releases,
        read.unpins,
        read.executes,
        read.transaction is not None or read.kind in ("do", "call"),
        read.ddl,
        read.ddl_of_relations,
        read.locks_rows,
    )


def _written_names(names: tuple[Name, ...]) -> tuple[str, ...]:
    unmarked = (("", "set_config") if name == SET_LOCALLY else name for name in names)
    return tuple(dict.fromkeys(f"{schema}.{name}" if schema else name for schema, name in unmarked))


def _together(parts: tuple[Facts, ...]) -> Facts:
    known = [part.references for part in parts if part.references is not None]
    return Facts(
        "multi",
        _union(part.tables for part in parts),
        _union(part.functions for part in parts),
        merge(known) if len(known) == len(parts) else None,
        pins=_union(part.pins if part.kind != "prepare" else (PREPARES,) for part in parts),
        unpins=parts[-1].unpins,
        executes=_union(part.executes for part in parts),
        transaction_control=any(part.transaction_control for part in parts),
        ddl=any(part.ddl for part in parts),
        ddl_of_relations=all(part.ddl_of_relations for part in parts if part.ddl),
        locks_rows=any(part.locks_rows for part in parts),
        parts=parts,
    )


def _union(groups: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


@dataclass(frozen=True, slots=True)
class FactsStatistics:
    """What `FactsTable.statistics` answers. Counts since the table was made."""

    size: int
    limit: int
    hits: int
    misses: int


class FactsTable:
    """Facts remembered by shape, at most `limit` of them; the least recently used leave first.

    Facts depend on the shape alone only because a shape keeps whatever decides them: utility statements and several
    statements in one text are never masked (S2). Two literals do decide something in a SELECT, the third argument of
    set_config (a keyword, kept) and nothing else.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._facts: OrderedDict[bytes, Facts] = OrderedDict()
        self._hits = 0
        self._misses = 0

    def of(self, shape: bytes, text: str) -> Facts:
        """The facts of `text`, whose shape is `shape`."""
        found = self._facts.get(shape)
        if found is not None:
            self._hits += 1
            self._facts.move_to_end(shape)
            return found
        self._misses += 1
        found = self._facts[shape] = of(text)
        if len(self._facts) > self._limit:
            self._facts.popitem(last=False)
        return found

    def statistics(self) -> FactsStatistics:
        """Size and use."""
        return FactsStatistics(len(self._facts), self._limit, self._hits, self._misses)
