"""pg8000: a crowd books seats in a theatre. It prepares every statement that has parameters, under names of its own."""

from __future__ import annotations

import contextlib
import datetime
import io
from collections.abc import Iterator
from contextlib import contextmanager

import pg8000.dbapi
import pg8000.native
import pytest

from tests.cluster.clients.crowd import CLIENTS, OWN_LINK, Member, crowd
from tests.cluster.clients.support import NUMBERS, one
from tests.cluster.proxies import DEADLINE, Connect, RunningProxy

SEATS = 60
SHOWS = 3
CONFLICTS = {"40001", "40P01"}


@pytest.fixture(scope="module")
def schema() -> str:
    return f"""
        create table seat (show int, seat int, guest int, booked timestamptz, primary key (show, seat));
        insert into seat (show, seat) select s, n from generate_series(1, {SHOWS}) s, generate_series(1, {SEATS}) n;
        create table mail (id serial primary key, guest int, body text);
        {NUMBERS}
    """


@contextmanager
def opened(proxy: RunningProxy, **more: str) -> Iterator[pg8000.native.Connection]:
    client = pg8000.native.Connection(
        proxy.cluster.user, proxy.host, proxy.database, proxy.port, proxy.cluster.password, timeout=DEADLINE, **more
    )
    with contextlib.closing(client):
        yield client


def book(client: pg8000.native.Connection, show: int, guest: int) -> int | None:
    """The first free seat of a show, in a serializable transaction; None if the show is sold out."""
    while True:
        client.run("begin isolation level serializable")
        try:
            free = client.run("select min(seat) from seat where show = :show and guest is null", show=show)[0][0]
            if free is not None:
                client.run(
                    "update seat set guest = :guest, booked = :booked where show = :show and seat = :seat",
                    guest=guest, booked=datetime.datetime(2024, 5, 1, 20, 0, tzinfo=datetime.UTC), show=show, seat=free,
                )  # fmt: skip
                client.run("insert into mail (guest, body) values (:guest, :body)", guest=guest, body=f"{show}/{free}")
            client.run("commit")
        except pg8000.native.DatabaseError as error:
            client.run("rollback")
            if error.args[0]["C"] not in CONFLICTS:
                raise
        else:
            return None if free is None else int(free)


def test_a_crowd_of_guests_books_every_seat_once(proxy: RunningProxy, connect: Connect) -> None:
    booked: dict[int, list[tuple[int, int]]] = {guest: [] for guest in range(CLIENTS)}

    def guest(member: Member) -> None:
        with opened(proxy, application_name=f"guest {member.number}") as client:
            mine = client.prepare("select show, seat from seat where guest = :guest order by show, seat")
            member.meet()
            for n in range(SEATS * SHOWS // CLIENTS):
                show = (member.number + n) % SHOWS + 1
                seat = book(client, show, member.number)
                assert seat is not None
                booked[member.number].append((show, seat))
                assert [tuple(row) for row in mine.run(guest=member.number)] == sorted(booked[member.number])
                member.links.add(client.run(OWN_LINK)[0][0])
                assert client.run("show application_name") == [[f"guest {member.number}"]]
            mine.close()
            member.meet()
            assert book(client, 1, member.number) is None

    with proxy.deadline(60):
        crowd(guest)
    everything = sorted(seat for seats in booked.values() for seat in seats)
    assert everything == [(show, seat) for show in range(1, SHOWS + 1) for seat in range(1, SEATS + 1)]
    assert one(connect(), "select count(*) from mail") == SEATS * SHOWS


def test_prepared_statements_with_parameters_of_many_types(proxy: RunningProxy) -> None:
    with proxy.deadline(), opened(proxy) as client:
        statement = client.prepare("select n from numbers where word = :word")
        assert [statement.run(word=f"word {n}") for n in (1, 2)] == [[[1]], [[2]]]
        statement.close()
        query = "select cast(:i as int), cast(:t as text), cast(:a as int[]), cast(:d as date), cast(:b as bytea)"
        values = {"i": 5, "t": "é", "a": [1, None, 3], "d": datetime.date(2024, 2, 29), "b": b"\x00\xff"}
        for _ in range(3):
            assert client.run(query, **values) == [list(values.values())]
        assert [column["name"] for column in client.columns] == ["int4", "text", "int4", "date", "bytea"]


def test_errors_leave_the_connection_usable(proxy: RunningProxy) -> None:
    with proxy.deadline(), opened(proxy) as client:
        client.run("truncate scratch")
        with pytest.raises(pg8000.native.DatabaseError) as caught:
            client.run("select cast(:x as int) / 0", x=1)
        assert caught.value.args[0]["C"] == "22012"
        client.run("start transaction")
        client.run("insert into scratch values (:n)", n=1)
        client.run("savepoint here")
        with pytest.raises(pg8000.native.DatabaseError):
            client.run("insert into nowhere values (1)")
        client.run("rollback to here")
        client.run("commit")
        assert client.run("select n from scratch") == [[1]]
        assert client.run("do $$ begin raise notice 'heard'; end $$") is None
        assert client.notices[-1][b"M"] == b"heard"


def test_copies_and_is_notified(proxy: RunningProxy) -> None:
    with proxy.deadline(), opened(proxy) as client, opened(proxy) as other:
        client.run("truncate scratch")
        lines = "".join(f"{n}\tline {n}\n" for n in range(2_000)).encode()
        client.run("copy scratch from stdin", stream=io.BytesIO(lines))
        copied = io.BytesIO()
        client.run("copy (select * from scratch order by n) to stdout", stream=copied)
        assert copied.getvalue() == lines
        client.run("listen theatre")
        for n in range(5):
            other.run("select pg_notify('theatre', :said)", said=f"curtain {n}")
        client.run("select 1")
        assert [(channel, said) for _, channel, said in client.notifications] == [
            ("theatre", f"curtain {n}") for n in range(5)
        ]
        assert list(other.notifications) == []


def test_its_dbapi_commits_and_rolls_back(proxy: RunningProxy, connect: Connect) -> None:
    client = pg8000.dbapi.connect(
        proxy.cluster.user, proxy.host, proxy.database, proxy.port, proxy.cluster.password, timeout=DEADLINE
    )
    with proxy.deadline(), contextlib.closing(client):
        cursor = client.cursor()
        cursor.execute("truncate scratch")
        client.commit()
        cursor.executemany("insert into scratch values (%s, %s)", [(n, f"row {n}") for n in range(50)])
        assert one(connect(), "select count(*) from scratch") == 0
        client.commit()
        cursor.execute("delete from scratch where n < %s returning n", (10,))
        assert sorted(n for (n,) in cursor.fetchall()) == list(range(10))
        client.rollback()
        cursor.execute("select count(*), min(word) from scratch")
        assert tuple(cursor.fetchone()) == (50, "row 0")
        client.rollback()
