"""Small things that several of the clients' tests need."""

from __future__ import annotations

import psycopg

NUMBERS = """
    create table numbers (n int primary key, word text);
    insert into numbers select i, 'word ' || i from generate_series(1, 1000) i;
    create table scratch (n int, word text);
"""
"""A table to read, and an empty one to write."""


def one(client: psycopg.Connection, query: str, *parameters: object) -> object:
    """The one value that the query gives."""
    row = client.execute(query, parameters or None).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return row[0]
