"""What a server says of itself, asked once over a connection of our own: for `check --connect` and `init`.

asyncpg under trio-asyncio: call `survey` inside `trio_asyncio.open_loop()`.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypedDict, cast

import asyncpg
import trio
from trio_asyncio import aio_as_trio

from heliosproxy.cluster import connect
from heliosproxy.cluster.connect import describe
from heliosproxy.config.access import ServerTls
from heliosproxy.config.kinds import Address
from heliosproxy.config.tls import Contexts

TLS = ServerTls()
"""As servers are asked that no configuration speaks of: TLS if they can."""

_SERVER = """
select jsonb_build_object(
    'version', current_setting('server_version'),
    'in_recovery', pg_is_in_recovery(),
    'system', (select system_identifier::text from pg_control_system()),
    'cluster_name', current_setting('cluster_name'),
    'max_connections', current_setting('max_connections')::int,
    'reserved', current_setting('superuser_reserved_connections')::int
        + coalesce(nullif(current_setting('reserved_connections', true), '')::int, 0),
    -- of pg_stat_activity an ordinary role may not see which are clients
    'in_use', (select sum(numbackends)::int - 1 from pg_stat_database),
    'synchronous_commit', current_setting('synchronous_commit'),
    'synchronous_standby_names', current_setting('synchronous_standby_names'),
    'standbys', coalesce((
        select jsonb_agg(jsonb_build_object(
            'name', application_name, 'host', host(client_addr), 'state', state, 'sync_state', sync_state
        ) order by application_name, client_addr, client_port)
        from pg_stat_replication r
        -- backups, archivers and subscribers stream too
        where coalesce(state, '') <> 'backup' and application_name not in ('pg_basebackup', 'pg_receivewal')
            and not exists (select from pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical')
    ), '[]'),
    'upstream', (
        select jsonb_build_object('status', status, 'host', sender_host, 'port', sender_port, 'conninfo', conninfo)
        from pg_stat_wal_receiver limit 1)
)::text
"""


class Standby(TypedDict):
    """A row of pg_stat_replication. Without the role pg_monitor everything but the name is None."""

    name: str
    host: str | None
    state: str | None
    sync_state: str | None


class Upstream(TypedDict):
    """The row of pg_stat_wal_receiver. Without the role pg_monitor everything is None."""

    status: str | None
    host: str | None
    port: int | None
    conninfo: str | None


class Server(TypedDict):
    """A server's answer. `system` is the identifier that all servers of a cluster share."""

    version: str
    in_recovery: bool
    system: str
    cluster_name: str
    max_connections: int
    reserved: int
    in_use: int
    synchronous_commit: str
    synchronous_standby_names: str
    standbys: list[Standby]
    upstream: Upstream | None


@dataclass(frozen=True, slots=True)
class Login:
    """As whom to ask. `timeout`: seconds for the whole survey of one server."""

    user: str
    password: str | None = field(repr=False)
    database: str
    timeout: float


Kind: TypeAlias = Literal["unreachable", "refused", "failed"]


class SurveyError(Exception):
    """A server that did not answer. The message is one line, names the server and holds no secret.

    `kind`: it could not be reached, it refused the login, or the questions failed. `reason`: its own words, if any.
    """

    def __init__(self, kind: Kind, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = reason


async def survey(address: Address, login: Login, tls: ServerTls = TLS) -> Server:
    """Ask one server, through TLS as `tls` has it. Raises SurveyError; never takes longer than the login's time-out."""
    try:
        with trio.fail_after(login.timeout):
            await _resolve(address)
            return await _ask(address, login, tls)
    except trio.TooSlowError:
        raise SurveyError("unreachable", f"no answer from {address} within {login.timeout:g} s") from None
    except ssl.SSLError as error:
        raise SurveyError("unreachable", f"no TLS with {address}: {describe(error)}") from None
    except OSError as error:
        raise SurveyError("unreachable", f"cannot connect to {address}: {_reason(error)}") from None
    except asyncpg.PostgresError as error:
        reason = _one_line(error)
        raise SurveyError(_kind(error), f"{address} refused {login.user}: {reason}", reason) from None
    except asyncpg.InterfaceError as error:
        raise SurveyError("failed", f"{address}: {_one_line(error)}") from None


async def _resolve(address: Address) -> None:
    """Ahead of asyncpg, whose error would not say that it is the name."""
    if address.host.startswith("/"):
        return
    try:
        await trio.socket.getaddrinfo(address.host, address.port)
    except trio.socket.gaierror as error:
        raise SurveyError("unreachable", f"cannot resolve {address.host}: {error.strerror}") from None


async def _ask(address: Address, login: Login, tls: ServerTls) -> Server:
    as_whom = connect.Login(login.user, login.password, login.database, {"application_name": "heliosproxy check"})
    link = await connect.dial(address, as_whom, tls, Contexts())
    try:
        return cast(Server, json.loads(await aio_as_trio(link.fetchval)(_SERVER)))
    finally:
        link.terminate()  # at once: nothing is left to be said, and a stuck server must not hold us


def _kind(error: asyncpg.PostgresError) -> Kind:
    state = error.sqlstate or ""
    if state.startswith("28") or state == "3D000":  # login refused; no such database
        return "refused"
    return "unreachable" if state.startswith(("57P", "53")) else "failed"  # starting up, shutting down, full


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionError) and not error.errno:
        return describe(error)
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    # asyncio names the call where the system has a better word, and lists several addresses' errors in one.
    return error.strerror if error.strerror and "Connect call" not in error.strerror else _one_line(error)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
