"""Who may come in, through what, and how much of everything they may have: `[auth]`, `[client_tls]`, `[server_tls]`,
`[client_limits]`. A part of the schema, as `model.py`.

Keys are named as in PostgreSQL: rules as in pg_hba.conf, maps as in pg_ident.conf, TLS as in libpq.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from heliosproxy.config.kinds import Count, Password, PasswordSecret, Seconds

Method: TypeAlias = Literal[
    "scram-sha-256", "scram-sha-256-plus", "cert", "peer", "password", "md5", "trust", "reject"
]  # fmt: skip
SslMode: TypeAlias = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
TlsVersion: TypeAlias = Literal["TLSv1.2", "TLSv1.3"]
ServerMethod: TypeAlias = Literal["scram-sha-256", "md5", "password", "none"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`[[auth.rules]]`: as the lines of pg_hba.conf. The first rule that matches a connection decides; where none does,
    it is refused."""

    method: Method
    """`scram-sha-256` (with channel binding where the client can), `scram-sha-256-plus` (only with it), `cert`, `peer`,
    `password` and `md5` for old clients, `trust`, `reject`."""
    type: Literal["local", "host", "hostssl", "hostnossl"] = "host"
    """`local`: the Unix socket. `host`: TCP; `hostssl`: with TLS; `hostnossl`: without."""
    database: tuple[str, ...] = ("all",)
    """Names, `all`, `sameuser`, or a regular expression that begins with a slash."""
    user: tuple[str, ...] = ("all",)
    """Names, `all`, or a regular expression that begins with a slash."""
    address: tuple[str, ...] = ()
    """Of the client: `10.0.0.0/8`, an address, `all`, `samehost`, `samenet`. If not given: `all`, but for `trust`,
    which then holds for loopback only."""
    clientcert: Literal["verify-ca", "verify-full"] | None = None
    """Ask for a client certificate beside the method; `verify-full`: one that names the user."""
    clientname: Literal["CN", "DN"] = "CN"
    """What of the certificate names the user: its common name, or its whole subject as RFC 2253 writes it."""
    map: str | None = None
    """The entries of `[[auth.maps]]` by which the name of a certificate, or of a process, stands for users."""


@dataclass(frozen=True, slots=True)
class NameMap:
    """`[[auth.maps]]`: as the lines of pg_ident.conf. Any entry of a map that matches lets the user in."""

    map: str
    """The map that it belongs to."""
    system_user: str
    """The name in the certificate or of the process; a slash begins a regular expression."""
    database_user: str
    """The user that it may log in as, or `all`. `\\\\1` stands for what the expression's first group matched."""


@dataclass(frozen=True, slots=True)
class User:
    """`[[auth.users]]`: who may log in."""

    name: str
    """The name it logs in with."""
    password: Password | None = field(default=None, repr=False)
    """Plain text: used to check the client and to log in to the nodes."""
    secret: PasswordSecret | None = field(default=None, repr=False)
    """As in pg_authid: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, or `md5` and 32 digits. With it the
    proxy logs in to the nodes as the client has logged in to the proxy."""
    server_user: str | None = None
    """The role on the nodes; that of the pool, or the same name, if not given."""
    server_password: Password | None = field(default=None, repr=False)
    """Its password; `password` if not given."""


@dataclass(frozen=True, slots=True)
class Auth:
    """`[auth]`: how clients prove who they are."""

    method: Method = "scram-sha-256"
    """Of everyone, where there are no `[[auth.rules]]`."""
    rules: tuple[Rule, ...] = ()
    """Who may come in from where, and how."""
    maps: tuple[NameMap, ...] = ()
    """Which names of certificates and processes stand for which users."""
    users: tuple[User, ...] = ()
    """Who may log in; those of `users_file` are added to them."""
    users_file: Path | None = None
    """Further users, one a line as in PgBouncer's userlist.txt: "name" "password, SCRAM secret or MD5"."""
    auth_query: str | None = None
    """Asked of a node for users that are not listed: SQL with `$1` for the name, one row of name and secret."""
    auth_user: str | None = None
    """Who asks; `[health] user` if not given."""
    auth_password: Password | None = field(default=None, repr=False)
    """Its password; that of `[health]` if neither is given."""
    auth_dbname: str | None = None
    """Where it is asked; `[health] database` if not given."""
    auth_cache: Seconds = 60.0
    """How long an answer is remembered; a failed login ends it."""
    auth_negative_cache: Seconds = 5.0
    """How long it is remembered that there is no such user."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """`[client_tls]`: TLS with clients. They are offered it where there is a certificate."""

    sslmode: SslMode = "prefer"
    """`disable`: never. `allow`, `prefer`: as the client wishes. `require`: only with TLS. `verify-ca`: only with a
    certificate of the client's too. `verify-full`: one that names the user."""
    cert_file: Path | None = None
    """The proxy's certificate, and those that lead to its issuer, as PEM."""
    key_file: Path | None = None
    """Its private key, as PEM, in a file that only the proxy can read."""
    ca_file: Path | None = None
    """Who may have issued clients' certificates, as PEM."""
    crl_file: Path | None = None
    """Certificates that are revoked, as PEM."""
    min_protocol_version: TlsVersion = "TLSv1.2"
    """The oldest version of TLS that is spoken."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """`[server_tls]`: TLS with the nodes, the proxy's own connections included. A node may have a table `tls` of its
    own."""

    sslmode: SslMode = "prefer"
    """As in libpq. `disable`: never. `allow`: if the node insists. `prefer`: if the node can. `require`: always.
    `verify-ca`: and the node's certificate is good. `verify-full`: and it names the node's host."""
    sslnegotiation: Literal["postgres", "direct"] = "postgres"
    """`direct`: TLS from the first byte, without asking; PostgreSQL 17 and later, `require` and stricter."""
    ca_file: Path | None = None
    """Who may have issued the nodes' certificates, as PEM; those that the system trusts if not given."""
    crl_file: Path | None = None
    """Certificates that are revoked, as PEM."""
    cert_file: Path | None = None
    """The proxy's certificate for nodes that ask for one, as PEM."""
    key_file: Path | None = None
    """Its private key, as PEM, in a file that only the proxy can read."""
    min_protocol_version: TlsVersion = "TLSv1.2"
    """The oldest version of TLS that is spoken."""
    channel_binding: Literal["disable", "prefer", "require"] = "prefer"
    """Whether SCRAM is bound to the TLS connection, so that nobody in the middle can pass it on."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """`[client_limits]`: how much of everything clients may have. Time-outs of sessions are in `[pool]`."""

    max_client_connections: Count = 10_000
    """Clients that have logged in; then 53300."""
    max_user_client_connections: Count | None = None
    """The same for each user."""
    max_database_client_connections: Count | None = None
    """The same for each database."""
    max_address_client_connections: Count | None = None
    """The same for each address that clients come from (for IPv6: network of 64 bits), logins under way included."""
    max_logins: Count = 200
    """Logins under way. One more ends the oldest of the address that has the most."""
    max_prepared_statements: Count = 10_000
    """Prepared statements of a session; then 53400."""
    max_settings: Count = 200
    """`helios.*` settings of a session, and settings that keep it on its link; then 53400."""
    max_session_flows: Count = 1_000
    """Remembered verdicts of a session; its own least recently used out, nobody else's."""
