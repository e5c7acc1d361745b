"""SQLAlchemy 2, its ORM over psycopg and over asyncpg: a library whose members come in crowds."""

# ruff: noqa: PT012 - what is to fail here is a transaction, and that has more than one statement

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal

import pytest
from sqlalchemy import URL, Engine, create_engine, func, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from tests.cluster.clients.crowd import CLIENTS, OWN_LINK, AsyncMember, Member, async_crowd, crowd, play_asyncio
from tests.cluster.clients.library import DUE, VALUE, WITH_ALL, Author, Base, Book, Loan, Shelf, author, worth
from tests.cluster.proxies import DEADLINE, RunningProxy

ROUNDS = 8


def url(proxy: RunningProxy, driver: str) -> URL:
    return URL.create(
        f"postgresql+{driver}", proxy.cluster.user, proxy.cluster.password, proxy.host, proxy.port, proxy.database
    )


@pytest.fixture
def engine(proxy: RunningProxy) -> Iterator[Engine]:
    """An engine over psycopg, and empty tables."""
    options = {"pool_pre_ping": True, "pool_size": CLIENTS, "connect_args": {"prepare_threshold": 1}}
    opened = create_engine(url(proxy, "psycopg"), **options)
    with proxy.deadline(60):
        Base.metadata.drop_all(opened)
        Base.metadata.create_all(opened)
        yield opened
        opened.dispose()


def test_the_tables_that_were_made_are_found_by_reflection(engine: Engine) -> None:
    found = inspect(engine)
    assert set(found.get_table_names()) == {"author", "book", "loan"}
    assert {column["name"]: str(column["type"]) for column in found.get_columns("book")} == {
        "id": "INTEGER", "title": "VARCHAR", "price": "NUMERIC(8, 2)", "shelf": "VARCHAR(7)", "tags": "ARRAY",
        "about": "JSON", "author_id": "INTEGER",
    }  # fmt: skip
    assert [key["referred_table"] for key in found.get_foreign_keys("loan")] == ["book"]
    assert [check["name"] for check in found.get_check_constraints("book")] == ["price_is_one"]
    assert found.get_enums()[0]["labels"] == ["fiction", "science"]
    Base.metadata.create_all(engine)  # finds that nothing is missing


def visit(session: Session, member: int, round_: int) -> None:
    """Donate three books, borrow one, fail to donate one of them again."""
    with session.begin():
        new = author(member, round_)
        session.add(new)
        session.flush()
        session.add(Loan(member=member, due=DUE, book=new.books[0]))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(Book(title=new.books[1].title, price=Decimal(1), shelf=Shelf.science, author_id=new.id))
            session.flush()
        session.execute(update(Book).where(Book.author_id == new.id, Book.price > 20).values(about={"dear": True}))


def check(session: Session, member: int, rounds: int) -> None:
    with session.begin():
        name, count, value = session.execute(VALUE.where(Author.name == f"Author {member}")).one()
        assert (name, (count, value)) == (f"Author {member}", worth(rounds))
        authors = session.scalars(WITH_ALL.where(Author.name == f"Author {member}")).all()
        assert len(authors) == rounds
        for n, found in enumerate(authors):
            assert [book.title for book in found.books] == [f"Title {member}-{n}-{k}" for k in range(3)]
            assert [(loan.member, loan.due) for book in found.books for loan in book.loans] == [(member, DUE)]
            assert [book.about for book in found.books] == [
                {"pages": 0, "by": member}, {"pages": 100, "by": member}, {"dear": True}
            ]  # fmt: skip


def test_a_crowd_of_members_over_psycopg(engine: Engine) -> None:
    def member_of_the_library(member: Member) -> None:
        member.meet()
        for round_ in range(ROUNDS):
            with Session(engine) as session:
                visit(session, member.number, round_)
                check(session, member.number, round_ + 1)
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                member.links.add(connection.scalar(text(OWN_LINK)))
        member.meet()

    crowd(member_of_the_library)
    with Session(engine) as session:
        assert session.scalar(select(func.count(Loan.id))) == CLIENTS * ROUNDS


async def async_visit(session: AsyncSession, member: int, round_: int) -> None:
    await session.run_sync(lambda inner: visit(inner, member, round_))
    await session.run_sync(lambda inner: check(inner, member, round_ + 1))


def test_a_crowd_of_members_over_asyncpg(engine: Engine, proxy: RunningProxy) -> None:
    options = {"pool_size": CLIENTS, "pool_pre_ping": True}
    over_asyncpg = create_async_engine(url(proxy, "asyncpg"), **options)

    async def member_of_the_library(member: AsyncMember) -> None:
        await member.meet()
        for round_ in range(ROUNDS):
            async with AsyncSession(over_asyncpg) as session:
                await async_visit(session, member.number, round_)
            async with over_asyncpg.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                member.links.add(await connection.scalar(text(OWN_LINK)))
        if await member.meet() == 0:
            await over_asyncpg.dispose()

    async_crowd(member_of_the_library)
    with Session(engine) as session:
        assert session.scalar(select(func.count(Loan.id))) == CLIENTS * ROUNDS


def test_bulk_inserts_return_their_keys_in_order(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        rows = [{"name": f"Author {n}"} for n in range(2_500)]
        authors = session.scalars(insert(Author).returning(Author, sort_by_parameter_order=True), rows).all()
        assert [found.name for found in authors] == [row["name"] for row in rows]
        session.add_all(Author(name="Later", books=[]) for _ in range(1_200))
    with Session(engine) as session:
        assert session.scalar(select(func.count(Author.id))) == 3_700


def test_a_rollback_takes_everything_back(engine: Engine) -> None:
    with Session(engine) as session:
        session.add(author(1, 1))
        session.flush()
        assert session.scalar(select(func.count(Book.id))) == 3
        session.rollback()
        assert session.scalar(select(func.count(Book.id))) == 0
        with pytest.raises(DBAPIError, match="division by zero"):
            session.scalar(text("select 1 / 0"))
        session.rollback()
        assert session.scalar(text("select 1")) == 1


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "AUTOCOMMIT"])
def test_isolation_levels(engine: Engine, level: str) -> None:
    with engine.connect() as connection:
        usual = connection.scalar(text("show transaction_isolation"))
        connection.rollback()
        connection = connection.execution_options(isolation_level=level)
        shown = connection.scalar(text("show transaction_isolation"))
        assert shown == ("read committed" if level == "AUTOCOMMIT" else level.lower())
    with engine.connect() as connection:
        assert connection.scalar(text("show transaction_isolation")) == usual


def test_results_are_streamed(engine: Engine) -> None:
    with Session(engine) as session:
        session.execute(insert(Author), [{"name": f"Author {n:05}"} for n in range(5_000)])
        session.commit()
        names = session.scalars(select(Author.name).order_by(Author.name).execution_options(yield_per=300))
        assert list(names) == [f"Author {n:05}" for n in range(5_000)]


def test_results_are_streamed_over_asyncpg(engine: Engine, proxy: RunningProxy) -> None:
    async def scene() -> list[str]:
        over_asyncpg = create_async_engine(url(proxy, "asyncpg"), poolclass=NullPool)
        async with asyncio.timeout(DEADLINE), AsyncSession(over_asyncpg) as session:
            session.add_all(Author(name=f"Author {n:05}") for n in range(1_000))
            await session.commit()
            names = await session.stream_scalars(select(Author.name).order_by(Author.name))
            return [name async for name in names]

    assert play_asyncio(scene()) == [f"Author {n:05}" for n in range(1_000)]


def test_pool_pre_ping_replaces_a_connection_that_was_closed(engine: Engine, proxy: RunningProxy) -> None:
    """The proxy ends a session whose pinned link dies; what is left in SQLAlchemy's pool must be noticed as dead."""
    with engine.connect() as connection:
        connection.execute(text("create temp table mine (n int)"))
        connection.commit()
        pid = connection.scalar(text(OWN_LINK))
        connection.commit()
    proxy.cluster.psql(f"select pg_terminate_backend({pid}, 10000)")
    with engine.connect() as connection:
        assert connection.scalar(text("select to_regclass('mine')")) is None
        assert connection.scalar(text(OWN_LINK)) != pid
