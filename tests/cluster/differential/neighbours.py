"""Other clients, who take the link that a conversation has just left, do something to it, and give it back.

A lone client always gets its old link back, which would hide whatever of its state is lost on the way, or left behind.
In transaction mode one neighbour has a turn before everything that a conversation sends while no client of it is in a
transaction or waits for an answer, in statement mode before every second time; in session mode, where nobody takes a
link away, before each login.

The pool has four links: a conversation of two clients may pin two of them, one neighbour may keep one from its turn to
the next one's, and that one still finds one. So nobody waits for a link. A pool packs its links (the one released last
is taken first), so the neighbour gets the conversation's link unless the conversation is pinned to it.
A suite whose neighbours go elsewhere would have lost its teeth: where they are `measured`, `Neighbours.turns` counts
how often they got it, and a test asks for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

from tests.cluster.differential.talking import Place, Talker
from tests.cluster.differential.vocabulary import FLUSH, SYNC, bind, close, data, execute, parse, query, run, startup

FREED = """
select pid from pg_stat_activity where usename = '{user}' and datname = '{database}' and pid <> pg_backend_pid()
order by state_change desc limit 1
"""
"""The link that was used last."""


@dataclass(frozen=True, slots=True)
class Dirt:
    """What a neighbour does to its link; it is handed its connection, logged in."""

    name: str
    make: Callable[[Talker], None]
    keeps: bool = False
    """Whether it may pin who does it to the link."""


def sql(*statements: str) -> Callable[[Talker], None]:
    """Queries."""
    return lambda neighbour: [neighbour.ask(statement) for statement in statements] and None


def _named_alike(neighbour: Talker) -> None:
    for name in ("", "s", "s1", "s2", "p"):
        neighbour.send(parse("select 'a neighbour''s', $1::text", name) + SYNC)
        neighbour.until("Z")
    neighbour.send(run("select 'a neighbour''s unnamed one'", portal="c") + SYNC)
    neighbour.until("Z")


def _copy(neighbour: Talker) -> None:
    neighbour.send(query("copy w from stdin") + data("7\tnot to be seen\n"))
    neighbour.until("G")


def _pipeline(neighbour: Talker) -> None:
    neighbour.send(parse("insert into w values (8, 'not to be seen')") + bind() + execute() + parse("nonsense") + FLUSH)
    neighbour.until("E")


def _stream(neighbour: Talker) -> None:
    neighbour.send(query("select n, repeat('x', 100) from generate_series(1, 20000) as n"))
    neighbour.until("D")


def _own_statement(neighbour: Talker) -> None:
    neighbour.send(close("s") + parse("select 'a neighbour''s'", "s") + SYNC)
    neighbour.until("Z")
    neighbour.send(bind(name="s") + execute() + SYNC)
    neighbour.until("Z")


LEAVING = (
    Dirt("settings that nobody reports", sql(
        "set work_mem = '77kB'", "set bytea_output = 'escape'", "set app.x = 'a neighbour''s'", "set role friend",
        "set session characteristics as transaction isolation level serializable", "set statement_timeout = '29s'")),
    Dirt("settings that are reported", sql(
        "set search_path = decoy", "set datestyle = 'German, DMY'", "set timezone = 'Asia/Tokyo'",
        "set client_encoding = 'LATIN1'", "set default_transaction_read_only = on")),
    Dirt("statements and portals of the same names", _named_alike),
    Dirt("statements prepared in SQL", sql("prepare p as select 'a neighbour''s'", "prepare s as select 1")),
    Dirt("temporary objects", sql(
        "create temp table t (n text, s text)", "create temp table w (n int)", "create temp view v as select 1 as one",
        "create temp sequence seq start 500", "select nextval('seq')")),
    Dirt("advisory locks", sql("select pg_advisory_lock(1), pg_advisory_lock(2, 2), pg_advisory_lock_shared(3)")),
    Dirt("listening", sql("listen news", "listen ch", "set app.y = 'a neighbour''s'")),
    Dirt("a failed transaction",
      lambda neighbour: neighbour.send(query("begin; set local work_mem = '66kB'; select 1/0"))),
    Dirt("an open transaction", sql("begin; insert into w values (9, 'not to be seen'); set work_mem = '66kB'")),
    Dirt("a cursor that is held", sql("declare c cursor with hold for select 'a neighbour''s'")),
    Dirt("COPY half done", _copy),
    Dirt("an error and no Sync", _pipeline),
    Dirt("a result half read", _stream),
    Dirt("a function that sets", sql("select sets('work_mem', '88kB')", "insert into log (s) values ('x'); rollback")),
)  # fmt: skip
"""By neighbours who come for that and then leave, half of them without a word."""

STAYING = (
    Dirt("its own settings", sql(
        "set search_path = decoy; set datestyle = 'SQL, DMY'; set intervalstyle = 'iso_8601';"
        " set timezone = 'Asia/Tokyo'", "select s from t where n = 1"), keeps=True),
    Dirt("its own statement", _own_statement),
    Dirt("values of sequences", sql("select nextval('decoy.seq')")),
    Dirt("a function that sets", sql("select sets('app.x', 'a neighbour''s')"), keeps=True),
    Dirt("discarding", sql("discard all")),
    Dirt("deallocating", sql("deallocate all", "reset all")),
    Dirt("a seed", sql("select setseed(0.25)"), keeps=True),
    Dirt("a setting and back", sql("set work_mem = '99kB'", "reset work_mem"), keeps=True),
)  # fmt: skip
"""By two who come again and again. What might keep a link is discarded when the next neighbour has its turn: until then
that link is away from the conversation."""


@dataclass(slots=True)
class Turns:
    """How the neighbours' turns went."""

    taken: int = 0
    on_the_same_link: int = 0
    away: int = 0
    """Times that the conversation's next step found its last link held by a neighbour."""


@dataclass(slots=True)
class Neighbours:
    """The neighbours at one proxy. `watch` is a connection to the server itself."""

    place: Place
    watch: Talker
    hold: str
    """The statement by which a neighbour keeps its link over a step of the conversation, and its end."""
    let_go: str
    turns: Turns = field(default_factory=Turns)
    measured: bool = False
    """Whether `turns` is kept, which costs two questions a turn."""
    _residents: list[Talker] = field(default_factory=list)
    _keeper: Talker | None = None
    """Who may still have the link of its last turn."""
    _leaves: str = ""
    """The statement by which it gives that back."""

    def turn(self, seed: str, number: int) -> None:
        """One neighbour does one thing; which one follows from the conversation's name and the step's number."""
        freed = self._freed() if self.measured else b""
        chosen = crc32(seed.encode()) + number
        kind = chosen % (len(LEAVING) + 2 * len(STAYING) + 8)
        if kind < len(LEAVING):
            link = self._come_and_go(LEAVING[kind], silently=chosen // len(LEAVING) % 2 == 0)
        elif kind < len(LEAVING) + 2 * len(STAYING):
            dirt = STAYING[kind % len(STAYING)]
            link = self._stay(dirt.make, "discard all" if dirt.keeps else "")
        else:
            link = self._stay(sql(self.hold), self.let_go)
            self.turns.away += link == freed and self.measured
        self.turns.taken += 1
        self.turns.on_the_same_link += link == freed and self.measured

    def visit(self, seed: str) -> None:
        """One that leaves again at once: for session mode, where others would keep their links."""
        self._come_and_go(LEAVING[crc32(seed.encode()) % len(LEAVING)], silently=len(seed) % 2 == 0)

    def release(self) -> None:
        """Who has kept a link gives it back."""
        if self._keeper is not None:
            self._keeper.ask(self._leaves)
            self._keeper = None

    def leave(self) -> None:
        """The end."""
        for neighbour in self._residents:
            neighbour.leave()

    def _freed(self) -> bytes:
        rows = self.watch.ask(FREED.format(user=self.place.user, database=self.place.database))
        return rows[0][0] or b"" if rows else b""

    def _take(self, neighbour: Talker) -> bytes:
        """The link that is on top of the pool's, and the conversation's; it is there again when this returns.

        A link that is given back lies on top of it. So it is held meanwhile.
        """
        if self._keeper is None:
            return self._pid(neighbour)
        neighbour.ask(self.hold)
        link = self._pid(neighbour)
        self.release()
        neighbour.ask(self.let_go)
        return link

    def _stay(self, make: Callable[[Talker], None], leaves: str) -> bytes:
        neighbour = self._at_home()
        link = self._take(neighbour)
        if leaves:
            self._keeper, self._leaves = neighbour, leaves
        make(neighbour)
        return link

    def _come_and_go(self, dirt: Dirt, *, silently: bool) -> bytes:
        neighbour = self._new()
        link = self._take(neighbour)
        dirt.make(neighbour)
        if silently or not neighbour.status:
            neighbour.close()
        else:
            neighbour.leave()
        return link

    def _at_home(self) -> Talker:
        """One of the two who come again and again, and not the one who has kept a link."""
        while len(self._residents) < 2:
            self._residents.append(self._new())
        neighbour = next(each for each in self._residents if each is not self._keeper)
        neighbour.heard.clear()
        return neighbour

    def _pid(self, neighbour: Talker) -> bytes:
        if not self.measured:
            return b""
        rows = neighbour.ask("select pg_backend_pid()")
        assert rows, f"a neighbour gets no answer: {neighbour.heard[-3:]}"
        return rows[0][0] or b""

    def _new(self) -> Talker:
        neighbour = Talker(self.place)
        assert neighbour.log_in(startup()), neighbour.heard
        return neighbour
