"""What heliosproxy.toml says, as frozen dataclasses. Durations are seconds, sizes bytes, addresses (host, port).

The dataclasses are the schema: a field is a key, its type is what the key takes, its default is the default, and the
docstring under it is the documentation. `load.py` reads a file into them; `tests/config` compares the shipped
heliosproxy.toml with them, so that no key is undocumented. Who may come in, and how much of everything they may have,
is in `access.py`; the types of keys are in `kinds.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from heliosproxy.config.access import Auth, ClientLimits, ClientTls, ServerMethod, ServerTls
from heliosproxy.config.kinds import (
    Address,
    Bytes,
    Count,
    Json,
    Natural,
    NodeName,
    Password,
    Seconds,
    ServerAddress,
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """`[proxy]`: the process itself."""

    listen: Address = Address("127.0.0.1", 6432)  # noqa: RUF009 - a tuple, as frozen as the class
    """Where clients connect."""
    admin: Address = Address("127.0.0.1", 9090)  # noqa: RUF009
    """Where the admin API answers; loopback only. Port 0: any free one."""
    region: str = ""
    """What `route=local` compares with a node's label `region`."""
    login_timeout: Seconds = 15.0
    """From connection to the end of authentication."""
    shutdown_timeout: Seconds = 10.0
    """How long SIGTERM and SIGINT wait for what is in flight."""
    max_message: Bytes = 256 * 1024 * 1024
    """Longest message taken from a client that has logged in; of one that has not, 10,000 bytes are taken."""
    unix_socket_directory: Path | None = None
    """Where there is a Unix socket too, named as PostgreSQL's and as `psql -h DIRECTORY -p PORT` finds it."""
    unix_socket_permissions: Literal["0777", "0770", "0700"] = "0777"
    """Who may connect to it: everyone, the proxy's group, the proxy's user."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """`[[nodes]]`: one configured server."""

    name: NodeName
    """What hints, routes and metrics call it; and the standby's application_name, so that its sync mode is seen."""
    address: ServerAddress
    """"host:port", "[::1]:5432", or "/directory/of/the/socket:5432"."""
    role: Literal["auto", "primary", "standby"] = "auto"
    """`auto`: what pg_is_in_recovery() says. Otherwise a server that says differently is left out, with a warning."""
    sync: Literal["auto", "sync", "semisync", "async"] = "auto"
    """`auto`: what the primary's pg_stat_replication.sync_state says."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Whatever routes are to choose by, as { region = "eu" }."""
    weight: Natural = 1
    """Share of the statements that several nodes qualify for. 0: only where it is named."""
    max_connections: Count | None = None
    """Links to it at most, those of all databases and users together. The proxy's own checks come on top."""
    tls: ServerTls = ServerTls()
    """Any keys of `[server_tls]`, as { sslmode = "disable" }; the rest is as there."""
    require_auth: tuple[ServerMethod, ...] = ()
    """How it may ask who the proxy is; `none`: not at all, or by certificate. If not given: anyhow, but `password` only
    through TLS or a Unix socket, or on this machine."""


@dataclass(frozen=True, slots=True)
class Pool:
    """`[pool]`: links, per node, database and user."""

    mode: Literal["session", "transaction", "statement"] = "transaction"
    """How long a client keeps a link: until it leaves, until its transaction ends, or for one statement."""
    size: Count = 20
    """Links at most, per node, database and user."""
    min_size: Natural = 0
    """Links kept open and opened ahead, as long as the pool was used within `max_lifetime`."""
    reserve: Natural = 0
    """Further links, beyond `size`, for those who have waited longer than `reserve_after`."""
    reserve_after: Seconds = 1.0
    """How long a statement waits before a link of the reserve is opened for it."""
    max_database_connections: Count | None = None
    """Links at most, per node and database, those of all users together."""
    wait_timeout: Seconds = 30.0
    """How long a statement waits for a link; then 53300."""
    priority_ageing: Seconds = 5.0
    """Waiting this long is worth one level of priority (low, normal, high, critical), so that no level starves."""
    connect_timeout: Seconds = 5.0
    """How long opening a link may take, login included."""
    idle_timeout: Seconds = 300.0
    """After which an unused link is closed."""
    max_lifetime: Seconds = 3600.0
    """Age at which a link is closed once it is idle; up to a tenth less, so that not all are closed at once."""
    prepared_statements: Count = 500
    """Named statements kept on a link; least recently used out."""
    sequence_values: Literal["reset", "pin"] = "reset"
    """What nextval leaves for a later currval or lastval outside the transaction: reset with the link, or it keeps the
    client on its link, and so every client that inserts into a serial column."""
    tracked_settings: tuple[str, ...] = (
        "bytea_output", "client_min_messages", "default_transaction_deferrable", "default_transaction_isolation",
        "extra_float_digits", "idle_in_transaction_session_timeout", "jit", "lock_timeout", "row_security",
        "statement_timeout", "synchronous_commit", "work_mem",
    )  # fmt: skip
    """Settings that follow a client from link to link, beside search_path, role and those that PostgreSQL reports. A
    SET of any other keeps the client on its link."""
    idle_session_timeout: Seconds | None = None
    """How long a client may do nothing outside a transaction; then 57P05."""
    idle_in_transaction_session_timeout: Seconds | None = None
    """How long it may do nothing within one; then 25P03."""
    statement_timeout: Seconds | None = None
    """How long a statement may take, waiting for a node or a link included; then 57014."""
    transaction_timeout: Seconds | None = None
    """How long a transaction may take; then 25P04."""
    server_user: str | None = None
    """The role on the nodes of all that use the pool, but for users with a `server_user` of their own."""
    server_password: Password | None = field(default=None, repr=False)
    """Its password."""


@dataclass(frozen=True, slots=True)
class PoolFor(Pool):
    """`[[pools]]`: any keys of `[pool]` for the database, the user or both that it names; what it leaves out is as in
    `[pool]`. The first entry that matches counts."""

    database: str | None = None
    """The database; any if not given."""
    user: str | None = None
    """The user that the client logs in as; any if not given."""


@dataclass(frozen=True, slots=True)
class Health:
    """`[health]`: the proxy's own connections to the nodes."""

    user: str = "postgres"
    """Best one with the role pg_read_all_stats, which pg_monitor includes; docs/security.md has the SQL."""
    password: Password | None = field(default=None, repr=False)
    """The user's password."""
    database: str = "postgres"
    """Where it connects to."""
    interval: Seconds = 1.0
    """Between checks of a node."""
    timeout: Seconds = 3.0
    """A check that takes longer has failed."""
    failures: Count = 2
    """Failed checks in a row after which a node is down. A refused connection counts at once."""
    lag_interval: Seconds = 0.5
    """Between samples of replication positions."""
    catalogue_interval: Seconds = 60.0
    """Between readings of the primary's catalogue, beside those that DDL through the proxy causes."""


@dataclass(frozen=True, slots=True)
class Plugins:
    """`[plugins]`: which plugins decide, in the order of their stages and, within one, of this list."""

    enabled: tuple[str, ...] = ("hints",)
    """Names of the plugins to load."""
    path: tuple[Path, ...] = ()
    """Directories whose `*.wasm` files are components; they come before the bundled ones."""
    memory: Bytes = 64 * 1024 * 1024
    """Largest memory of an instance."""
    deadline: Seconds = 0.010
    """Longest run of a hook."""
    max_faults: Count = 5
    """Faults within a minute after which a plugin is disabled."""
    flows: Count = 10_000
    """Remembered verdicts; least recently used out."""


@dataclass(frozen=True, slots=True)
class Config:
    """A whole heliosproxy.toml. `tables` holds what plugins own, unread: table name to plain values."""

    file: Path
    nodes: tuple[NodeConfig, ...]
    proxy: Proxy = Proxy()
    pool: Pool = Pool()
    pools: tuple[PoolFor, ...] = ()
    """Each with the keys that it leaves out taken from `pool`."""
    auth: Auth = Auth()
    client_tls: ClientTls = ClientTls()
    server_tls: ServerTls = ServerTls()
    client_limits: ClientLimits = ClientLimits()
    health: Health = Health()
    plugins: Plugins = Plugins()
    tables: Mapping[str, Json] = field(default_factory=dict)
    """Top-level tables that no section above names (`routing`), and `plugins.<name>` under that dotted key."""

    def table(self, name: str) -> Json:
        """A plugin's table by its dotted name: `routing`, `limits.tenants`, `plugins.hints`; None if it is absent."""
        if name in self.tables:
            return self.tables[name]
        first, *rest = name.split(".")
        value = self.tables.get(first)
        for part in rest:
            value = value.get(part) if isinstance(value, dict) else None
        return value
