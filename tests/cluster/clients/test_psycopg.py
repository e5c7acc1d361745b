"""psycopg 3, synchronous: what the driver can do, one thing at a time, on links that others use as well."""

# ruff: noqa: PT012 - what is to fail here is a transaction, and that has more than one statement

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from itertools import islice

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import Jsonb

from tests.cluster.clients.support import NUMBERS, one
from tests.cluster.proxies import DEADLINE, Connect, RunningProxy, wait_for

Client = psycopg.Connection


@pytest.fixture(scope="module")
def schema() -> str:
    return NUMBERS


@pytest.fixture
def client(connect: Connect) -> Client:
    """One client, and an empty table `scratch`."""
    opened = connect()
    opened.execute("truncate scratch")
    return opened


# --- transactions and cursors ---------------------------------------------------------------------------------------


def test_transactions_commit_and_roll_back(connect: Connect) -> None:
    client = connect(autocommit=False)
    client.execute("truncate scratch")
    client.execute("insert into scratch values (1)")
    client.rollback()
    client.execute("insert into scratch values (2)")
    client.commit()
    with client.transaction():
        client.execute("insert into scratch values (4)")
        with pytest.raises(psycopg.errors.DivisionByZero), client.transaction():
            client.execute("insert into scratch values (5)")
            client.execute("select 1 / 0")
    with pytest.raises(psycopg.errors.UndefinedTable):
        client.execute("select * from nowhere")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        client.execute("select 1")
    client.rollback()
    assert one(client, "select array_agg(n order by n) from scratch where n > 1") == [2, 4]


@pytest.mark.parametrize("level", list(psycopg.IsolationLevel))
def test_transactions_are_as_isolated_as_was_asked_for(client: Client, level: psycopg.IsolationLevel) -> None:
    client.autocommit = False
    client.isolation_level = level
    client.read_only = True
    assert one(client, "show transaction_isolation") == level.name.lower().replace("_", " ")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        client.execute("insert into scratch values (1)")
    client.rollback()
    client.read_only = None
    client.isolation_level = None
    assert one(client, "show transaction_isolation") == "read committed"
    client.execute("insert into scratch values (2)")
    client.commit()
    assert one(client, "select array_agg(n) from scratch") == [2]


def test_serializable_transactions_that_conflict_fail_with_40001(connect: Connect, client: Client) -> None:
    other = connect()
    client.execute("insert into scratch values (1), (2)")
    for each in (client, other):
        each.autocommit = False
        each.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        one(each, "select sum(n) from scratch")
    client.execute("insert into scratch values (3)")
    client.commit()
    with pytest.raises(psycopg.errors.SerializationFailure):
        other.execute("insert into scratch values (4)")
        other.commit()
    other.rollback()
    assert one(client, "select count(*) from scratch") == 3


def test_server_side_cursors_fetch_in_pieces(connect: Connect) -> None:
    client = connect(autocommit=False)
    with client.cursor("named") as cursor:
        cursor.itersize = 100
        cursor.execute("select n from numbers order by n")
        assert [n for (n,) in cursor] == list(range(1, 1001))
    with client.cursor("scrolled", scrollable=True) as cursor:
        cursor.execute("select n from numbers order by n")
        cursor.scroll(500)
        assert cursor.fetchone() == (501,)
        cursor.scroll(-2)
        assert cursor.fetchone() == (500,)
    client.commit()


def test_cursors_with_hold_outlive_their_transaction_whatever_others_do(connect: Connect) -> None:
    holder, others = connect(autocommit=False), [connect() for _ in range(4)]
    with holder.cursor("held", withhold=True) as cursor:
        cursor.execute("select n from numbers order by n")
        holder.commit()
        for start in range(1, 1001, 200):
            assert [n for (n,) in cursor.fetchmany(200)] == list(range(start, start + 200))
            holder.commit()
            for other in others:
                assert one(other, "select count(*) from pg_cursors where name = 'held'") == 0
    holder.commit()


# --- pipelines and many at once -------------------------------------------------------------------------------------


def test_pipelines_answer_in_order(client: Client) -> None:
    with client.pipeline():
        cursors = [client.execute("select word from numbers where n = %s", (n,)) for n in range(1, 101)]
        client.execute("insert into scratch values (1)")
    assert [cursor.fetchone() for cursor in cursors] == [(f"word {n}",) for n in range(1, 101)]
    assert one(client, "select count(*) from scratch") == 1


def test_pipelines_skip_what_follows_an_error(client: Client) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), client.pipeline() as pipeline:
        client.execute("insert into scratch values (1)")
        client.execute("select 1 / %s", (0,))
        client.execute("insert into scratch values (2)")
        pipeline.sync()
    assert one(client, "select count(*) from scratch") == 0
    with client.pipeline():
        client.execute("insert into scratch values (3)")
    assert one(client, "select count(*) from scratch") == 1


def test_transactions_in_a_pipeline_end_each_for_itself(client: Client) -> None:
    with client.pipeline():
        for n in range(20):
            with client.transaction():
                client.execute("insert into scratch values (%s)", (n,))
                client.execute("update scratch set word = 'seen' where n = %s", (n,))
            client.execute("insert into scratch values (%s, 'outside')", (n + 100,))
    answer = client.execute("select word, count(*), sum(n) from scratch group by 1 order by 1").fetchall()
    assert answer == [("outside", 20, 2190), ("seen", 20, 190)]



def test_executemany_inserts_and_returns(client: Client) -> None:
    with client.cursor() as cursor:
        cursor.executemany("insert into scratch values (%s, %s)", [(n, "x") for n in range(500)])
        assert cursor.rowcount == 500
        cursor.executemany("select word from numbers where n = %s", [(n,) for n in (3, 5)], returning=True)
        first = cursor.fetchone()
        assert cursor.nextset()
        assert (first, cursor.fetchone()) == (("word 3",), ("word 5",))
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            cursor.executemany("insert into scratch values (%s::text::int)", [("1",), ("2",), ("x",), ("4",)])
    assert one(client, "select count(*) from scratch") == 500


def test_statements_are_prepared_after_some_uses_and_forgotten_by_deallocate(client: Client) -> None:
    client.prepare_threshold = 2
    client.prepared_max = 3
    for round_ in range(4):
        for column in ("n", "word", "n + 1", "n + 2", "n + 3"):
            for _ in range(3):
                asked = sql.SQL("select {} from numbers where n = %s").format(sql.SQL(column))
                assert len(client.execute(asked, (round_ + 1,)).fetchall()) == 1


def after_a_change(opened: Callable[[], Client]) -> list[object]:
    """What two clients see of a table whose prepared query has to return more columns than when it was prepared."""
    with opened() as client, opened() as other:
        for each in (client, other):
            each.prepare_threshold = 0
        client.execute("drop table if exists changing")
        client.execute("create table changing as select 1 as n")
        seen = [tried(each) for each in (client, other, client, other)]
        client.execute("alter table changing add more text default 'm'")
        seen += [tried(each) for each in (other, client, other, other, client)]
        other.execute("alter table changing add most int")  # upon which the driver forgets what it has prepared
        return [*seen, *(tried(each) for each in (other, other))]


def tried(client: Client) -> object:
    try:
        return client.execute("select * from changing").fetchall()
    except psycopg.Error as error:
        return error.sqlstate, str(error)


def test_prepared_statements_notice_a_change_of_their_table_as_without_a_proxy(proxy: RunningProxy) -> None:
    def direct() -> Client:
        return psycopg.connect(proxy.cluster.dsn(database=proxy.database), autocommit=True)

    def through() -> Client:
        return psycopg.connect(**proxy.parameters(), autocommit=True)  # type: ignore[arg-type]

    with proxy.deadline():
        seen = after_a_change(through)
    assert seen == after_a_change(direct)
    assert ("0A000", "cached plan must not change result type") in seen


def test_statements_that_are_not_named_never_notice_a_change_of_their_table(connect: Connect, client: Client) -> None:
    asked = "select * from scratch where n = %s"
    clients = [client, *(connect() for _ in range(3))]
    for each in clients:
        each.prepare_threshold = None
    client.execute("insert into scratch values (1, 'x')")
    for extra in range(1, 4):
        for each in clients * 2:
            row = each.execute(asked, (1,)).fetchone()
            assert row is not None
            assert row[2:] == tuple(range(1, extra))
        client.execute(sql.SQL("alter table scratch add {} int default {}").format(sql.Identifier(f"m{extra}"), extra))
    client.execute("alter table scratch drop m1, drop m2, drop m3")
    assert client.execute(asked, (1,)).fetchone() == (1, "x")


# --- COPY -----------------------------------------------------------------------------------------------------------


def test_copies_in_and_out(client: Client) -> None:
    with client.cursor() as cursor:
        with cursor.copy("copy scratch from stdin") as copy:
            for n in range(2_000):
                copy.write_row((n, f"word {n}"))
        with cursor.copy("copy (select n, word from scratch order by n) to stdout") as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows()) == [(n, f"word {n}") for n in range(2_000)]
        with pytest.raises(ZeroDivisionError), cursor.copy("copy scratch from stdin") as copy:
            copy.write_row((1, "x"))
            raise ZeroDivisionError
    assert one(client, "select count(*) from scratch") == 2_000


def test_copies_in_binary_and_stops_reading_in_the_middle(client: Client) -> None:
    with client.cursor() as cursor:
        with cursor.copy("copy scratch from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            for n in range(5_000):
                copy.write_row((n, "é" * (n % 7)))
        copy_out = "copy (select * from scratch order by n) to stdout (format binary)"
        with pytest.raises(ZeroDivisionError), cursor.copy(copy_out) as copy:
            copy.set_types(["int4", "text"])
            assert list(islice(copy.rows(), 3)) == [(0, ""), (1, "é"), (2, "éé")]
            raise ZeroDivisionError  # the driver cancels and reads to the end
        with pytest.raises(psycopg.errors.BadCopyFileFormat), cursor.copy("copy scratch from stdin") as copy:
            copy.write("1\ttoo\tmany\n" * 20_000)
    assert one(client, "select sum(length(word)) from scratch") == sum(n % 7 for n in range(5_000))


# --- types and messages ---------------------------------------------------------------------------------------------


def test_results_and_parameters_in_binary(client: Client) -> None:
    with client.cursor(binary=True, row_factory=dict_row) as cursor:
        for _ in range(8):  # more often than it takes to be prepared
            cursor.execute(
                "select %b::int as i, %b::numeric as n, %b::bytea as b, %b::int[] as a, %b::jsonb as j",
                (-5, Decimal("12.50"), bytes(range(256)), [1, None, 3], Jsonb({"k": [1, 2]})),
            )
            assert cursor.fetchone() == {
                "i": -5, "n": Decimal("12.50"), "b": bytes(range(256)), "a": [1, None, 3], "j": {"k": [1, 2]},
            }  # fmt: skip


def test_types_of_its_own_are_looked_up_and_registered(client: Client) -> None:
    client.execute("create type mood as enum ('low', 'high'); create type place as (x int, named text, felt mood)")
    mood = EnumInfo.fetch(client, "mood")
    place = CompositeInfo.fetch(client, "place")
    assert mood is not None
    assert place is not None
    register_enum(mood, client)
    register_composite(place, client)
    assert mood.enum is not None
    assert place.python_type is not None
    for binary in (False, True):
        with client.cursor(binary=binary) as cursor:
            cursor.execute("select row(1, 'here', 'high')::place, array['low', 'high']::mood[]")
            assert cursor.fetchone() == (place.python_type(1, "here", mood.enum.high), list(mood.enum))


def test_notices_and_errors_come_with_their_fields(client: Client) -> None:
    told: list[str] = []
    client.add_notice_handler(lambda diagnostic: told.append(str(diagnostic.message_primary)))
    client.execute("do $$ begin raise notice 'hello'; raise warning 'world'; end $$")
    assert told == ["hello", "world"]
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        client.execute("insert into numbers values (1, 'again')")
    assert caught.value.diag.constraint_name == "numbers_pkey"


def test_large_results_arrive_whole(client: Client) -> None:
    rows = client.execute("select i, repeat('x', 1000) from generate_series(1, 20000) i").fetchall()
    assert len(rows) == 20_000
    assert rows[-1] == (20_000, "x" * 1000)
    assert one(client, "select repeat('y', 30000000)") == "y" * 30_000_000
    assert one(client, "select length(%s)", "z" * 5_000_000) == 5_000_000


# --- LISTEN and cancel ----------------------------------------------------------------------------------------------


def test_a_listener_hears_what_others_say_and_others_do_not(connect: Connect) -> None:
    listener, speakers = connect(), [connect() for _ in range(4)]
    overheard: list[str] = []
    for speaker in speakers:
        speaker.add_notify_handler(lambda notification: overheard.append(notification.payload))
    listener.execute("listen orders")
    for n in range(20):
        with speakers[n % 4].transaction():
            speakers[n % 4].execute("select pg_notify('orders', %s)", (str(n),))
    heard = list(islice(listener.notifies(timeout=DEADLINE), 20))
    assert [(notification.channel, notification.payload) for notification in heard] == [
        ("orders", str(n)) for n in range(20)
    ]
    listener.execute("unlisten *")
    speakers[0].execute("notify orders, 'late'")
    assert list(listener.notifies(timeout=0)) == []
    for speaker in speakers:
        one(speaker, "select 1")
    assert overheard == []


def test_cancels_its_own_statement_and_nobody_elses(connect: Connect) -> None:
    client, watcher = connect(), connect()
    neighbour = connect()
    asked = "select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep(6%'"

    def cancel() -> None:
        wait_for(lambda: one(watcher, asked) == 2, "both to run")
        client.cancel_safe(timeout=10)

    def sleep() -> None:
        with pytest.raises(psycopg.errors.QueryCanceled):
            neighbour.execute("select pg_sleep(62)")

    cancelling, sleeping = threading.Thread(target=cancel), threading.Thread(target=sleep)
    cancelling.start()
    sleeping.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        client.execute("select pg_sleep(61)")
    cancelling.join(DEADLINE)
    assert one(client, "select 1") == 1
    assert one(watcher, asked) == 1
    neighbour.cancel_safe(timeout=10)
    sleeping.join(DEADLINE)
    assert not sleeping.is_alive()
