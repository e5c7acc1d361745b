"""A library as an application with SQLAlchemy's ORM models it: tables, relations, and a member's visit."""

from __future__ import annotations

import datetime
import enum
from decimal import Decimal

from sqlalchemy import JSON, CheckConstraint, DateTime, ForeignKey, Numeric, String, UniqueConstraint, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

DUE = datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC)


class Base(DeclarativeBase):
    """The library's tables."""

    type_annotation_map = {datetime.datetime: DateTime(timezone=True)}


class Shelf(enum.Enum):
    """Where a book stands; an enum type in the database, too."""

    fiction = "fiction"
    science = "science"


class Author(Base):
    """Who writes."""

    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), index=True)
    books: Mapped[list[Book]] = relationship(
        back_populates="author", cascade="all, delete-orphan", order_by="Book.title"
    )


class Book(Base):
    """What is lent."""

    __tablename__ = "book"
    __table_args__ = (UniqueConstraint("author_id", "title"), CheckConstraint("price >= 0", name="price_is_one"))
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    price: Mapped[Decimal] = mapped_column(Numeric(8, 2))
    shelf: Mapped[Shelf]
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), default=list)
    about: Mapped[dict[str, object]] = mapped_column(JSON, default=dict)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id", ondelete="cascade"))
    author: Mapped[Author] = relationship(back_populates="books")
    loans: Mapped[list[Loan]] = relationship(back_populates="book", cascade="all, delete-orphan")


class Loan(Base):
    """A book in somebody's hands until `due`."""

    __tablename__ = "loan"
    id: Mapped[int] = mapped_column(primary_key=True)
    member: Mapped[int]
    due: Mapped[datetime.datetime]
    book_id: Mapped[int] = mapped_column(ForeignKey("book.id", ondelete="cascade"))
    book: Mapped[Book] = relationship(back_populates="loans")


def author(member: int, round_: int) -> Author:
    """An author with three books, not yet stored."""
    titles = [f"Title {member}-{round_}-{n}" for n in range(3)]
    books = [
        Book(
            title=title, price=Decimal(n + 1) * Decimal("9.95"), shelf=list(Shelf)[n % 2], tags=["new", f"n{n}"],
            about={"pages": 100 * n, "by": member},
        )
        for n, title in enumerate(titles)
    ]  # fmt: skip
    return Author(name=f"Author {member}", books=books)


VALUE = (
    select(Author.name, func.count(Book.id), func.sum(Book.price))
    .join(Book, Book.author_id == Author.id)
    .group_by(Author.name)
)
WITH_ALL = select(Author).options(selectinload(Author.books).selectinload(Book.loans)).order_by(Author.id)


def worth(rounds: int) -> tuple[int, Decimal]:
    """The number and the price of what one member's authors have written after so many rounds."""
    return 3 * rounds, rounds * 6 * Decimal("9.95")
