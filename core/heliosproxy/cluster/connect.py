"""The proxy's own connections to nodes, by asyncpg; to be used inside `trio_asyncio.open_loop()`."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg
from trio_asyncio import aio_as_trio

from heliosproxy.cluster.node import Node
from heliosproxy.config.access import ServerTls
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Health
from heliosproxy.config.tls import Contexts, ways

ANYTHING = (Exception, asyncio.CancelledError)
"""What a call into asyncpg may raise, beside trio's own: asyncio counts its cancellation as no Exception."""


NO_RULE = "28000"
"""What a server says, instead of asking for authentication, whose pg_hba.conf does not provide for us."""


@dataclass(frozen=True, slots=True)
class Login:
    """As whom and to which database, with which settings."""

    user: str
    password: str | None = field(repr=False)
    database: str
    settings: Mapping[str, str]


async def connect(
    node: Node,
    health: Health,
    contexts: Contexts,
    *,
    database: str,
    statement_timeout: float,
    at: Address | None = None,
) -> asyncpg.Connection:
    """A new connection as `[health]` and the node's `tls` have it, with `statement_timeout` seconds for a statement.

    `at` is one of the node's addresses; the first if not given. The caller sets a deadline around it. Raises BadTls,
    and what asyncpg raises: `ANYTHING`.
    """
    settings = {
        "application_name": "heliosproxy",
        "search_path": "pg_catalog",
        "statement_timeout": str(round(statement_timeout * 1000)),
    }
    login = Login(health.user, health.password, database, settings)
    address = at or (node.addresses[0] if node.addresses else node.config.address)
    return await dial(address, login, node.config.tls, contexts, host=node.config.address.host)


async def dial(
    address: Address, login: Login, tls: ServerTls, contexts: Contexts, *, host: str | None = None
) -> asyncpg.Connection:
    """A new connection, through TLS as `tls` has it. `host` is what the server's certificate must name; that of the
    address if not given. Raises as `connect`.

    Unlike the links that clients' statements use, asyncpg binds no SCRAM to TLS, and answers whatever a server asks, a
    password in the clear included: neither `channel_binding` nor `require_auth` holds here. What keeps the password
    from somebody in the middle is `verify-full`.
    """
    first: Exception | None = None
    for encrypted in ways(tls, address):
        try:
            context = contexts.named(tls, host or address.host) if encrypted else None
            return await _dial(address, login, context, direct=encrypted and tls.sslnegotiation == "direct")
        except (ssl.SSLError, ConnectionError, asyncpg.InvalidAuthorizationSpecificationError) as error:
            if not _may_go_the_other_way(error):
                raise
            first = first or error
    assert first is not None
    raise first


async def _dial(address: Address, login: Login, context: ssl.SSLContext | None, *, direct: bool) -> asyncpg.Connection:
    link: asyncpg.Connection = await aio_as_trio(asyncpg.connect)(
        host=address.host,
        port=address.port,
        user=login.user,
        password=login.password,
        database=login.database,
        server_settings=dict(login.settings),
        ssl=context if context is not None else False,
        direct_tls=direct,
    )
    return link


def _may_go_the_other_way(error: Exception) -> bool:
    """Whether it is about TLS, or its absence. A server that is not there or refuses a password is left alone."""
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate == NO_RULE
    return not isinstance(error, ConnectionRefusedError)


def drop(link: asyncpg.Connection | None) -> None:
    """Close it at once, whatever state it is in."""
    if link is not None:
        with contextlib.suppress(*ANYTHING):
            link.terminate()


def describe(error: BaseException) -> str:
    """The error in one line for logs and status pages."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message.rstrip('.')}"
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return "it does not speak TLS"
    if isinstance(error, asyncpg.PostgresError):
        return f"{error.sqlstate}: {error}"
    return f"{type(error).__name__}: {error}".rstrip(": ").replace("\n", " ")
