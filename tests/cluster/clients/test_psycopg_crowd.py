"""psycopg 3, synchronous, in crowds: clerks of one shop, readers of one table, pipelines side by side."""

# ruff: noqa: PT012 - what is to fail here is a transaction, and that has more than one statement

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.cluster.clients.crowd import CLIENTS, OWN_LINK, Member, crowd
from tests.cluster.clients.support import NUMBERS, one
from tests.cluster.proxies import PRIMARY, STANDBYS, Connect, RunningProxy

PRODUCTS = 20
STOCK = 100_000
ROUNDS = 12
ZONES = ["UTC", "Asia/Tokyo", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Pacific/Apia"]

Client = psycopg.Connection


@pytest.fixture(scope="module")
def schema() -> str:
    return f"""
        create table product (id int primary key, name text not null, price numeric(10, 2) not null,
            stock int not null check (stock >= 0));
        create table orders (id serial primary key, clerk int not null, placed timestamptz not null, note jsonb);
        create table line (orders int not null references orders, product int not null references product,
            quantity int not null, primary key (orders, product));
        insert into product select i, 'product ' || i, i * 1.25, {STOCK} from generate_series(1, {PRODUCTS}) i;
        {NUMBERS}
    """


def basket(clerk: int, round_: int) -> dict[int, int]:
    """What is sold: product to quantity, in the order in which rows are locked."""
    products = sorted({(clerk * 7 + round_ * step) % PRODUCTS + 1 for step in (1, 2, 5)})
    return {product: 1 + (clerk + product) % 3 for product in products}


def place_order(client: Client, clerk: int, round_: int) -> int:
    """An order with its lines and what it takes from the stock, or nothing of it."""
    sold = basket(clerk, round_)
    with client.transaction(), client.cursor() as cursor:
        cursor.execute(
            "insert into orders (clerk, placed, note) values (%s, %s, %s) returning id",
            (clerk, "2024-03-01 12:00:00+00", Jsonb({"round": round_, "gift": round_ % 2 == 0})),
        )
        row = cursor.fetchone()
        assert row is not None
        cursor.executemany("insert into line values (%s, %s, %s)", [(row[0], *item) for item in sold.items()])
        for product, quantity in sold.items():
            cursor.execute("update product set stock = stock - %s where id = %s", (quantity, product))
        with pytest.raises(psycopg.errors.CheckViolation), client.transaction():
            cursor.execute("update product set stock = stock - %s where id = %s", (STOCK + 1, next(iter(sold))))
        cursor.execute("select sum(quantity) from line where orders = %s", (row[0],))
        assert cursor.fetchone() == (sum(sold.values()),)
    return int(row[0])


def abandon_order(client: Client, clerk: int) -> None:
    with pytest.raises(ZeroDivisionError), client.transaction():
        client.execute("insert into orders (clerk, placed) values (%s, now())", (clerk,))
        client.execute("update product set stock = 0 where id = %s", (PRODUCTS,))
        raise ZeroDivisionError


REPORTS = [
    "select count(*) from orders where clerk = %s",
    "select coalesce(sum(quantity), 0) from orders join line on line.orders = orders.id where clerk = %s",
    "select count(distinct product) from orders join line on line.orders = orders.id where clerk = %s",
    "select coalesce(sum(quantity * price), 0) from orders join line on orders = orders.id"
    " join product on product.id = product where clerk = %s",
]


def expected(clerk: int, rounds: int) -> dict[str, object]:
    lines = [item for round_ in range(rounds) for item in basket(clerk, round_).items()]
    price = {product: Decimal(product * 125) / 100 for product in range(1, PRODUCTS + 1)}
    answers: list[object] = [
        rounds, sum(quantity for _, quantity in lines), len({product for product, _ in lines}),
        sum(quantity * price[product] for product, quantity in lines),
    ]  # fmt: skip
    return dict(zip(REPORTS, answers, strict=True))


def test_a_crowd_of_clerks_sells_each_its_own_and_the_stock_agrees(proxy: RunningProxy, connect: Connect) -> None:
    def clerk(member: Member) -> None:
        parameters = proxy.parameters(application_name=f"clerk {member.number}")
        with psycopg.connect(**parameters, autocommit=True, prepare_threshold=1) as client:  # type: ignore[arg-type]
            client.execute(sql.SQL("set timezone = {}").format(sql.Literal(ZONES[member.number])))
            member.meet()
            for round_ in range(ROUNDS):
                order = place_order(client, member.number, round_)
                abandon_order(client, member.number)
                for report in member.order(REPORTS):
                    assert one(client, report, member.number) == expected(member.number, round_ + 1)[report]
                shown = one(client, "select to_char(placed, 'HH24:MI TZH:TZM') from orders where id = %s", order)
                assert shown == one(client, "select to_char(timestamptz '2024-03-01 12:00:00+00', 'HH24:MI TZH:TZM')")
                assert client.info.parameter_status("TimeZone") == ZONES[member.number]
                assert one(client, "show timezone") == ZONES[member.number]
                assert one(client, "show application_name") == f"clerk {member.number}"
                member.links.add(int(str(one(client, OWN_LINK))))
            member.meet()

    with proxy.deadline(60):
        crowd(clerk)
    client = connect()
    sold = client.execute("select product, sum(quantity) from line group by 1").fetchall()
    assert one(client, "select count(*) from orders") == CLIENTS * ROUNDS
    left = dict(client.execute("select id, stock from product").fetchall())
    assert left == {product: STOCK - dict(sold).get(product, 0) for product in range(1, PRODUCTS + 1)}


def test_prepared_statements_with_equal_names_and_different_texts_do_not_meet(proxy: RunningProxy) -> None:
    """psycopg numbers its statements, so `_pg3_0` is something else for each of these."""

    def reader(member: Member) -> None:
        with psycopg.connect(**proxy.parameters(), autocommit=True, prepare_threshold=0) as client:  # type: ignore[arg-type]
            client.prepared_max = 3
            member.meet()
            for round_ in range(1, 26):
                for factor in range(4):
                    query = f"select n * {member.number + 10 * factor}, pg_backend_pid() from numbers where n = %s"
                    row = client.execute(query, (round_,)).fetchone()
                    assert row is not None
                    assert row[0] == round_ * (member.number + 10 * factor)
                    member.links.add(row[1])
            member.meet()

    with proxy.deadline():
        crowd(reader)


def test_reads_of_a_crowd_are_prepared_on_every_node_that_answers_them(proxy: RunningProxy) -> None:
    proxy.replayed()
    nodes: set[str] = set()

    def reader(member: Member) -> None:
        options = proxy.parameters("route=any")
        with psycopg.connect(**options, autocommit=True, prepare_threshold=0) as client:  # type: ignore[arg-type]
            member.meet()
            for n in range(1, 61):
                row = client.execute("select word, current_setting('cluster_name') from numbers where n = %s", (n,))
                word, node = row.fetchone() or ("", "")
                assert word == f"word {n}"
                nodes.add(node)
                member.links.add(int(str(one(client, f"/*helios:route=primary*/ {OWN_LINK}"))))
            member.meet()

    with proxy.deadline():
        crowd(reader)
    assert nodes == {PRIMARY, *STANDBYS}


def test_a_crowd_of_pipelines_keeps_each_ones_answers_apart(proxy: RunningProxy) -> None:
    def piper(member: Member) -> None:
        with psycopg.connect(**proxy.parameters(), autocommit=True, prepare_threshold=1) as client:  # type: ignore[arg-type]
            member.meet()
            for round_ in range(10):
                with client.pipeline() as pipeline:
                    cursors = []
                    for n in range(20):
                        query = "select %s::int, %s::int, pg_backend_pid()"
                        cursors.append(client.execute(query, (member.number, round_ * 100 + n)))
                        if n % 5 == member.number % 5:
                            pipeline.sync()
                rows = [cursor.fetchone() or () for cursor in cursors]
                assert [row[:2] for row in rows] == [(member.number, round_ * 100 + n) for n in range(20)]
                member.links.update(row[2] for row in rows)
            member.meet()

    with proxy.deadline():
        crowd(piper)
