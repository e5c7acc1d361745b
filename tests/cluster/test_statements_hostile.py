"""S5: statements that would crash, swell or stall whoever reads them as a tree get PostgreSQL's own answer, and nobody
else waits for that.

The neighbour's longest wait is that of the best of several rounds, and what it waits for without a proxy comes off it:
on a busy machine the worst one is the machine's. Each round's text is new to the proxy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from time import monotonic
from types import MappingProxyType

import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster import raw
from tests.cluster.proxies import RunningProxy, running

WAIT = 0.1
"""Seconds that the neighbour may wait because of the proxy."""
ROUNDS = 5
ROWS = 2 * (1 << 20) // 20
"""As many as fill two megabytes of VALUES."""

Make = Callable[[str], str]
"""A statement; the name that it is given tells it from every other."""
STATEMENTS: Mapping[str, Make] = MappingProxyType({
    "30,000 nested operators": lambda new: "select " + "+".join(["1"] * 30_001) + " as " + new,
    "30,000 operators nested to the right": lambda new: "select " + "- " * 30_000 + "1 as " + new,
    "20,000 UNION ALLs": lambda new: f"select 1 as {new}" + " union all select 1" * 20_000,
    "2 MB of INSERT": lambda new: (
        f"insert into hostile as {new} values " + ",".join(f"({n},'{n:010}')" for n in range(ROWS))
    ),
    "100,000 nested parentheses": lambda new: "select " + "(" * 100_000 + "1" + ")" * 100_000 + " as " + new,
    "100,000 parentheses that do not end": lambda new: f"select 1 as {new}, " + "(" * 100_000,
    "10,000 nested sub-selects": lambda new: "select (" * 10_000 + "1" + ")" * 10_000 + " as " + new,
    "30,000 nested NOTs": lambda new: "select " + "not " * 30_000 + "true as " + new,
    "50,000 nested CASEs": lambda new: (
        "select " + "case when " * 50_000 + "true" + " then 1 end" * 50_000 + " as " + new
    ),
    "4,000 nested comments": lambda new: "select " + "/*" * 4_000 + "*/" * 4_000 + "1 as " + new,
    "10,000 statements": lambda new: f"select 1 as {new};" + "select 1;" * 10_000,
    "16 KB of brackets": lambda new: "select " + "(" * 8_000 + "1" + ")" * 8_000 + " as " + new,
    "16 KB of columns": lambda new: f"select {new}," + ",".join(["a.b"] * 4_000) + " from a",
    "16 KB of operators": lambda new: f"select {new}," + ",".join(["1+1"] * 4_000),
    "16 KB of calls": lambda new: f"select {new}," + ",".join(f"a{n}(1)" for n in range(1_700)),
    "16 KB of parameters": lambda new: f"select {new}," + ",".join(f"${n}" for n in range(1, 2_700)),
    "16 KB of strings": lambda new: f"select {new}," + ",".join(["''"] * 5_400),
})  # fmt: skip


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    cluster.psql(f"set role {cluster.user}; create table hostile (n int, s text)", database=database)
    sections = {"routing": {"default_read_target": '"primary"'}, "pool": {"size": "4"}}
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as started:
        started.replayed()
        yield started
        assert started.faults() == []


@contextmanager
def client(proxy: RunningProxy, *, direct: bool = False) -> Iterator[raw.Client]:
    """A client of the proxy, or of the primary itself."""
    address = proxy.cluster.node("primary").address if direct else (proxy.host, proxy.port)
    parameters = {"user": proxy.cluster.user, "database": proxy.database}
    with raw.Client(address, parameters, proxy.cluster.password) as found:
        yield found


def answer(one: raw.Client, statement: str, how: str) -> tuple[object, ...]:
    """What it is answered, as far as it must be equal: an error's place in PostgreSQL's source is not."""
    if how == "simple":
        one.send(raw.query(statement))
    else:
        one.send(raw.parse("", statement) + raw.bind("") + raw.describe("") + raw.execute() + raw.SYNC)
    found = one.answer()
    errors = [{name: text for name, text in fields.items() if name not in "FLR"} for fields in found.errors]
    return found.tags, found.rows, found.commands, errors, found.status


class Neighbour:
    """Asks in a tight loop, and notes the longest wait."""

    def __init__(self, one: raw.Client) -> None:
        self.longest = 0.0
        self.asked = 0
        self._client = one
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            since = monotonic()
            self._client.query("select 1")
            self.longest = max(self.longest, monotonic() - since)
            self.asked += 1


def longest_waits(hostile: raw.Client, other: raw.Client, make: Make, how: str, enough: float) -> Iterator[float]:
    """The neighbour's longest waits, a round each, until one is short enough."""
    for number in range(ROUNDS):
        statement = make(f"{how}_{number}_{next(NEW)}")
        with Neighbour(other) as neighbour:
            answer(hostile, statement, how)
        yield neighbour.longest
        if neighbour.longest < enough:
            return


NEW = count()


@pytest.mark.parametrize("how", ["simple", "extended"])
@pytest.mark.parametrize("name", list(STATEMENTS))
def test_S5_a_hostile_statement_gets_postgresqls_answer_and_nobody_else_waits(
    proxy: RunningProxy, name: str, how: str
) -> None:
    make = STATEMENTS[name]
    with client(proxy, direct=True) as direct, client(proxy) as hostile, client(proxy) as other:
        assert answer(hostile, make("one"), how) == answer(direct, make("one"), how)
        waits = list(longest_waits(hostile, other, make, how, WAIT))
        noise: list[float] = []
        if min(waits) >= WAIT:
            with client(proxy, direct=True) as bystander:
                noise = list(longest_waits(direct, bystander, make, how, 0.0))
        print(f"{name}, {how}: waits of {waits} s; without a proxy {noise} s")
        assert min(waits) < WAIT + min(noise, default=0.0)
        assert other.value("select 'lives'") == "lives"
        assert hostile.value("select 'too'") == "too"
