"""The same login with different clients: libpq as psycopg brings it and as Debian has it (psql), and asyncpg."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import asyncpg
import psycopg

from heliosproxy.demo.processes import environment
from tests.certificates import Issued
from tests.cluster.proxies import DEADLINE
from tests.cluster.secure.server import programs
from tests.cluster.secure.tls import ALPN, context

WHO = "select current_user, ssl from pg_stat_ssl where pid = pg_backend_pid()"
"""Who the session is on the server, and whether its link is encrypted."""


class Refused(Exception):
    """The login did not succeed. `sqlstate` is empty where the client does not tell."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


@dataclass(frozen=True, slots=True)
class Login:
    """How somebody tries to come in; as libpq names it. `host`: an address, or the directory of a Unix socket."""

    host: str
    port: int
    user: str
    password: str = field(default="", repr=False)
    dbname: str = "helios"
    sslmode: str = "prefer"
    ca: Path | None = None
    certificate: Issued | None = None
    more: Mapping[str, str] = field(default_factory=dict)
    """Further parameters, for libpq; of them asyncpg has sslnegotiation."""

    def parameters(self) -> dict[str, str]:
        """Those of libpq; nothing is left to the environment or to files in the home directory."""
        paths = {
            "sslrootcert": str(self.ca or ""),
            "sslcert": str(self.certificate.certificate if self.certificate else ""),
            "sslkey": str(self.certificate.key if self.certificate else ""),
        }
        return {
            "host": self.host, "port": str(self.port), "user": self.user, "dbname": self.dbname,
            "sslmode": self.sslmode, "gssencmode": "disable", "connect_timeout": "20", **paths, **self.more,
        }  # fmt: skip


def psycopg_says(login: Login, sql: str = WHO) -> tuple[str, ...]:
    """The first row of the answer, as text, from libpq 17 or later. Raises Refused."""
    try:
        with psycopg.connect(**login.parameters(), password=login.password) as connection:  # type: ignore[arg-type]
            found = connection.execute(sql).fetchone()
    except psycopg.Error as error:
        raise Refused(str(error), error.sqlstate or "") from None
    assert found is not None
    return tuple(_text(value) for value in found)


def psql_says(login: Login, sql: str = WHO) -> tuple[str, ...]:
    """The first row of the answer, as text, from Debian's psql. Raises Refused."""
    done = psql(login, sql)
    if done.returncode:
        raise Refused(done.stderr)
    return tuple(done.stdout.splitlines()[0].split("\t"))


def psql(login: Login, sql: str) -> subprocess.CompletedProcess[str]:
    """Debian's psql, to its end; unaligned, without anything but rows on its standard output."""
    quoted = " ".join(f"{key}={_quoted(value)}" for key, value in login.parameters().items())
    directory = programs()
    assert directory is not None, "there is no server either, so that no test can come here"
    return subprocess.run(
        [str(directory / "psql"), "-XAtqw", "-F", "\t", "-c", sql, quoted],
        capture_output=True, text=True, timeout=DEADLINE, env=environment(PGPASSWORD=login.password), check=False,
    )  # fmt: skip


def asyncpg_says(login: Login, sql: str = WHO) -> tuple[str, ...]:
    """The first row of the answer, as text, from asyncpg. Raises Refused."""
    return asyncio.run(_asyncpg(login, sql))


def _quoted(value: str) -> str:
    """As connection strings have it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


async def _asyncpg(login: Login, sql: str) -> tuple[str, ...]:
    try:
        connection = await asyncpg.connect(
            host=login.host, port=login.port, user=login.user, password=login.password, database=login.dbname,
            ssl=_context(login), direct_tls=login.more.get("sslnegotiation") == "direct", timeout=20,
        )  # fmt: skip
        try:
            found = await connection.fetchrow(sql)
        finally:
            await connection.close(timeout=20)
    except asyncpg.PostgresError as error:
        raise Refused(error.args[0], error.sqlstate) from None
    except (OSError, asyncpg.InterfaceError) as error:
        raise Refused(str(error)) from None
    assert found is not None
    return tuple(_text(value) for value in found)


def _context(login: Login) -> ssl.SSLContext | bool:
    if login.host.startswith("/") or login.sslmode == "disable":
        return False
    alpn = (ALPN,) if "sslnegotiation" in login.more else ()
    return context(login.ca if login.sslmode in ("verify-ca", "verify-full") else None, login.certificate, alpn=alpn)


def _text(value: object) -> str:
    return {True: "t", False: "f"}.get(value, str(value)) if isinstance(value, bool) else str(value)


Says = Callable[[Login], tuple[str, ...]]
CLIENTS: Mapping[str, Says] = MappingProxyType(
    {"psycopg": psycopg_says, "psql": psql_says, "asyncpg": asyncpg_says}
)
