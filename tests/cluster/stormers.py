"""The storm's clients: each does things at random, and after each asks for everything that it should see of its own,
and for everything that it could see of others.

A client keeps a model of its state (`Expected`); what the server says must be equal to it. Every answer carries a token
that nobody else uses, so that another client's answer is recognised.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

from tests.cluster import raw

SCHEMAS, ROLES = 5, 3
SCHEMA = (
    "create table rows (owner int, value text); grant all on rows to public; create sequence numbers;"
    "grant all on sequence numbers to public; grant create on schema public to public;"
    "create table public.whose as select 'public'::text as name; grant all on whose to public;"
    + "".join(
        f"create schema storm_{n}; grant all on schema storm_{n} to public;"
        f"create table storm_{n}.whose as select 'storm_{n}'::text as name; grant all on storm_{n}.whose to public;"
        for n in range(SCHEMAS)
    )
)
"""What the storm needs in its database."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "TimeZone": ("UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York"),
    "DateStyle": ("ISO, MDY", "German, DMY", "SQL, DMY"),
    "IntervalStyle": ("postgres", "iso_8601", "sql_standard"),
    "extra_float_digits": ("1", "0", "3"),
    "search_path": ('"$user", public', *(f"storm_{n}, public" for n in range(SCHEMAS))),
    "work_mem": ("4MB", "5MB", "6MB"),
}
"""Settings and their values, the default first."""
DATES = {"ISO, MDY": "2020-02-01", "German, DMY": "01.02.2020", "SQL, DMY": "01/02/2020"}
REPORTED = ("TimeZone", "DateStyle", "IntervalStyle")
"""Settings whose changes the server reports."""
FOLLOWED = (*REPORTED, "search_path", "work_mem")
"""Settings that follow a client from link to link, as role and `storm.followed` do; others keep it on its link."""
CANCELED, DIVISION, DUPLICATE, ABORTED = "57014", "22012", "23505", "25P02"
CHECK = """select '{token}', current_setting('TimeZone'), current_setting('DateStyle'), (date '2020-02-01')::text,
current_setting('IntervalStyle'), current_setting('extra_float_digits'), current_setting('search_path'), name,
current_setting('work_mem'), coalesce(current_setting('storm.followed', true), ''),
current_setting('application_name'), current_user::text, coalesce(current_setting('storm.own', true), ''),
coalesce(to_regclass('pg_temp.own')::text, ''),
(select coalesce(string_agg(c, ' ' order by c), '') from pg_listening_channels() c),
(select coalesce(string_agg(objid::text, ' ' order by objid), '') from pg_locks
 where locktype = 'advisory' and pid = pg_backend_pid()),
(select coalesce(string_agg(c.name, ' ' order by c.name), '') from pg_cursors c where is_holdable)
from whose"""
"""All but prepared statements: a link keeps those of several clients, and EXECUTE tells whose a name means."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a client must see: values of settings, and names of what it has."""

    settings: Mapping[str, str]
    role: str
    name: str
    followed: str = ""
    custom: str = ""
    temporary: str = ""
    channels: frozenset[str] = frozenset()
    locks: frozenset[int] = frozenset()
    cursors: frozenset[str] = frozenset()

    def row(self, token: str) -> tuple[str, ...]:
        """CHECK's answer."""
        s = self.settings
        path = s["search_path"]
        whose = path.partition(",")[0] if path.startswith("storm_") else "public"
        locks = " ".join(str(lock) for lock in sorted(self.locks))
        return (
            token, s["TimeZone"], s["DateStyle"], DATES[s["DateStyle"]], s["IntervalStyle"], s["extra_float_digits"],
            path, whose, s["work_mem"], self.followed, self.name, self.role, self.custom, self.temporary,
            " ".join(sorted(self.channels)), locks, " ".join(sorted(self.cursors)),
        )  # fmt: skip

    def with_setting(self, name: str, value: str) -> Expected:
        """The same with one setting changed."""
        return replace(self, settings={**self.settings, name: value})


@dataclass(slots=True)
class Surroundings:
    """What all clients share."""

    address: tuple[str, int]
    user: str
    password: str
    database: str
    seed: int
    pins: threading.Semaphore
    """Clients that may have state which keeps their link; were there no bound, they would take all links."""
    over: threading.Event
    done: Counter[str] = field(default_factory=Counter)
    """Deeds by name."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Stormer:
    """A client. `live` runs until the storm is over; an AssertionError says what it should not have seen."""

    def __init__(self, number: int, around: Surroundings) -> None:
        self.number = number
        self.around = around
        self.random = Random(f"{around.seed}/{number}")
        self.names = count(1)
        self.committed = 0
        self.history: list[str] = []
        self.pinned = False
        self.deeds: dict[str, int] = {}
        self.connect()

    # --- its life -------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Log in as somebody new, with settings of the start-up packet or without."""
        name = f"storm {self.number}"
        parameters = {"user": self.around.user, "database": self.around.database, "application_name": name}
        options = "-c helios.route=primary"
        settings = {key: values[0] for key, values in CHOICES.items()}
        if self.number % 3 == 0:
            options += " -c DateStyle=German"
            settings["DateStyle"] = "German, DMY"
        if self.number % 3 == 1:
            parameters["extra_float_digits"] = "3"
            settings["extra_float_digits"] = "3"
        parameters["options"] = options
        self.client = raw.Client(
            self.around.address, parameters, self.around.password, minor=self.number % 2 * 2
        )
        self.fresh = Expected(settings, self.around.user, name)
        self.state = self.fresh
        self.prepared: dict[str, str] = {}
        self.by_sql: dict[str, str] = {}
        self.temporary_rows: list[str] = []

    def live(self) -> None:
        """Do things at random until it is over."""
        deeds = self.all_deeds()
        try:
            while not self.around.over.is_set():
                deed = self.random.choice(deeds)
                self.do(deed)
                self.check()
        except BaseException as error:
            error.add_note(f"client {self.number}, seed {self.around.seed}; it did: {' '.join(self.history[-20:])}")
            raise
        finally:
            self.unpin()
            self.client.close()

    def do(self, deed: Callable[[], object]) -> None:
        """One thing, and count it."""
        name = deed.__name__
        self.history.append(name)
        deed()
        with self.around.lock:
            self.around.done[name] += 1

    def check(self) -> None:
        """Everything that is its own is there, and nothing else."""
        token = self.token()
        sql = self.everything(token)
        found = self.extended(sql) if self.random.random() < 0.3 else self.client.query(sql)
        assert not found.errors, found.errors
        assert found.rows == [self.state.row(token)], (found.rows, self.state.row(token))
        assert found.status == "I"
        if not self.state.channels:
            assert self.client.notifications == [], self.client.notifications

    @staticmethod
    def everything(token: str) -> str:
        """The statement whose answer is `Expected.row`."""
        return CHECK.format(token=token)

    def all_deeds(self) -> list[Callable[[], object]]:
        """What it may do next, the common more often than the rare. See the other modules' classes for more."""
        raise NotImplementedError

    # --- what deeds are made of -----------------------------------------------------------------------------------

    def token(self) -> str:
        """What nobody else ever says."""
        return f"t{self.number}x{next(self.names)}"

    def pin(self) -> bool:
        """Whether it may have state that keeps its link."""
        if not self.pinned:
            self.pinned = self.around.pins.acquire(blocking=False)
        return self.pinned

    def unpin(self) -> None:
        """It has none any more."""
        if self.pinned:
            self.pinned = False
            self.around.pins.release()

    def ok(self, sql: str, *rows: tuple[str | None, ...]) -> raw.Answer:
        """Run it; it must succeed and give these rows."""
        found = self.client.query(sql)
        assert not found.errors, (sql, found.errors)
        assert found.rows == list(rows), (sql, found.rows)
        return found

    def fails(self, sql: str, sqlstate: str) -> None:
        """Run it; it must fail so."""
        found = self.client.query(sql)
        assert found.sqlstate == sqlstate, (sql, found)

    def extended(self, sql: str, *values: str) -> raw.Answer:
        """The same by an unnamed statement."""
        self.client.send(raw.parse("", sql) + raw.bind("", *values) + raw.execute() + raw.SYNC)
        return self.client.answer()
