"""The workload that HINTS.md's targets are measured on: 1,000 shapes, Zipf-distributed, hints on half of them.

Drawn from a seed, so that every run and every machine measures the same statements. They run against pgbench's tables,
each by a key, so that the server has little to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from random import Random

from heliosproxy.sql.shape import shape

SHAPES = 1_000
WRITES = 0.2
"""Share of the shapes that write."""
HINTED = 0.5
SEED = 20_26

ONE_NODE_HINTS = (
    "route=primary", "route=any", "lag=10s", "consistency=strong", "timeout=5s", "tool=search,workflow=report",
    "route=any,timeout=2s,tool=agent",
)  # fmt: skip
"""Hints that a cluster of one node obeys."""
CLUSTER_HINTS = (
    *ONE_NODE_HINTS, "route=standby", "route=async", "route=sync", "route=async,lag=10s", "consistency=bounded",
    "node=standby-sync-1", "route=standby,timeout=2s,tool=search,workflow=report,agent=planner",
)  # fmt: skip
"""Hints that the demo's cluster obeys: a primary, a synchronous and an asynchronous standby."""
WRITE_HINTS = ("route=primary", "timeout=5s", "tool=ingest,workflow=nightly")

_TABLES = (
    ("pgbench_accounts", "aid", ("aid", "bid", "abalance", "filler")),
    ("pgbench_tellers", "tid", ("tid", "bid", "tbalance", "filler")),
    ("pgbench_branches", "bid", ("bid", "bbalance", "filler")),
)
_CONDITIONS = ("{0} = %d", "{0} in (%d, %d)", "{0} in (%d, %d, %d)", "{0} = %d and filler <> 'none %d'")
_TAILS = ("", " order by {0}", " order by {0} desc", " order by 1 limit 5")


@dataclass(frozen=True, slots=True)
class Template:
    """A statement with `%d` for its numbers; each of its texts has the same shape."""

    text: str
    hinted: bool = False

    def draw(self, random: Random) -> bytes:
        """One of its texts."""
        numbers = tuple(random.randint(1, 99_999) for _ in range(self.text.count("%d")))
        return (self.text % numbers).encode()


@dataclass(frozen=True, slots=True)
class Drawn:
    """A statement of the workload and its shape."""

    text: bytes
    shape: bytes
    hinted: bool


class Workload:
    """`templates` in the order of their frequency: the n-th comes 1/n as often as the first."""

    def __init__(self, read_hints: Sequence[str], *, writes: float = WRITES, shapes: int = SHAPES) -> None:
        self._random = Random(SEED)
        wanted = round(shapes * writes)
        reads = self._random.sample(_reads(), shapes - wanted)
        chosen = [(text, read_hints) for text in reads]
        chosen += [(text, WRITE_HINTS) for text in self._random.sample(_writes(), wanted)]
        self._random.shuffle(chosen)
        self.templates = tuple(self._template(index, text, hints) for index, (text, hints) in enumerate(chosen))
        self._weights = [1 / rank for rank in range(1, shapes + 1)]

    def draw(self, count: int) -> list[Drawn]:
        """So many statements, as clients would send them."""
        return [self._drawn(one) for one in self._random.choices(self.templates, self._weights, k=count)]

    def each(self) -> list[Drawn]:
        """A statement of each shape, the most frequent first."""
        return [self._drawn(one) for one in self.templates]

    def _template(self, index: int, text: str, hints: Sequence[str]) -> Template:
        if index % round(1 / HINTED):
            return Template(text)
        comment = f"/*helios:{self._random.choice(hints)}*/"
        return Template(f"{comment} {text}" if self._random.random() < 0.7 else f"{text} {comment}", hinted=True)

    def _drawn(self, template: Template) -> Drawn:
        text = template.draw(self._random)
        return Drawn(text, shape(text), template.hinted)


def _reads() -> list[str]:
    """Every read there is to choose from."""
    return [
        f"select {', '.join(columns)} from {table} where {condition.format(key)}{tail.format(key)}"
        for table, key, names in _TABLES
        for columns, condition, tail in product(_subsets(names), _CONDITIONS, _TAILS)
    ] + [
        f"select {', '.join(columns)} from pgbench_accounts a join pgbench_branches b using (bid)"
        f" where {condition}{tail}"
        for columns in _subsets(("a.aid", "bid", "a.abalance", "b.bbalance", "a.filler"))
        for condition in ("a.aid = %d", "a.aid in (%d, %d)", "a.aid = %d and b.bbalance < %d", "a.aid in (%d, %d, %d)")
        for tail in ("", " order by a.aid", " order by b.bbalance desc", " limit 5")
    ]


def _writes() -> list[str]:
    """Every write there is to choose from; they are decided on and not run."""
    return [
        f"update {table} set {', '.join(f'{name} = %d' for name in columns)} where {condition.format(key)}{returning}"
        for table, key, names in _TABLES
        for columns in _subsets(names[1:-1])
        for condition in ("{0} = %d", "{0} in (%d, %d)", "{0} = %d and bid > %d")
        for returning in ("", f" returning {key}", " returning *", f" returning {key} + %d")
    ] + [
        f"insert into {table} ({', '.join(columns)}) values ({', '.join('%d' for _ in columns)}){conflict}"
        for table, key, names in _TABLES
        for columns in _subsets(names[:-1])
        for conflict in ("", " on conflict do nothing", f" returning {key}", " returning *", " returning filler")
    ] + [
        f"delete from {table} where {condition.format(key)}{returning}"
        for table, key, _ in _TABLES
        for condition in ("{0} = %d", "{0} in (%d, %d)", "{0} = %d and bid > %d", "{0} between %d and %d")
        for returning in ("", f" returning {key}", " returning *", f" returning {key} + %d")
    ]


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [chosen for size in range(1, len(names) + 1) for chosen in combinations(names, size)]
