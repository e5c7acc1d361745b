"""The proxy's own connections to nodes, by asyncpg; to be used inside `trio_asyncio.open_loop()`."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
from trio_asyncio import aio_as_trio

from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Health

ANYTHING = (Exception, asyncio.CancelledError)
"""What a call into asyncpg may raise, beside trio's own: asyncio counts its cancellation as no Exception."""


async def connect(address: Address, health: Health, *, database: str, statement_timeout: float) -> asyncpg.Connection:
    """A new connection as `[health]` has it; its statements end after `statement_timeout` seconds.

    The caller sets a deadline around it. Raises what asyncpg raises: `ANYTHING`.
    """
    link: asyncpg.Connection = await aio_as_trio(asyncpg.connect)(
        host=address.host,
        port=address.port,
        user=health.user,
        password=health.password,
        database=database,
        server_settings={
            "application_name": "heliosproxy",
            "search_path": "pg_catalog",
            "statement_timeout": str(round(statement_timeout * 1000)),
        },
    )
    return link


def drop(link: asyncpg.Connection | None) -> None:
    """Close it at once, whatever state it is in."""
    if link is not None:
        with contextlib.suppress(*ANYTHING):
            link.terminate()


def describe(error: BaseException) -> str:
    """The error in one line for logs and status pages."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, asyncpg.PostgresError):
        return f"{error.sqlstate}: {error}"
    return f"{type(error).__name__}: {error}".rstrip(": ").replace("\n", " ")
