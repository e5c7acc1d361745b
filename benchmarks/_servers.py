"""What is measured: a PostgreSQL of our own, this proxy and PgBouncer in front of it, each ended with its block."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helios_sdk.build import BuildError, build

from benchmarks._client import Login, connect
from benchmarks._harness import BenchError, Say, first_line
from heliosproxy.config.kinds import Address
from heliosproxy.config.load import load
from heliosproxy.config.model import Config
from heliosproxy.demo import guard
from heliosproxy.demo.binaries import unprivileged
from heliosproxy.demo.local import ClusterError, LocalCluster, start_cluster
from heliosproxy.demo.processes import children, free_port, tail, until
from heliosproxy.sandbox import BUNDLED, Sandbox
from heliosproxy.wire.errors import PeerError

HOST = "127.0.0.1"
POOL = 20
"""Links to the server, of either proxy."""
READY = 60.0
"""Seconds that a proxy may take until it answers; the first start compiles the plugins."""
ROOT = Path(__file__).resolve().parent.parent

HELIOS, PGBOUNCER, DIRECT = "this proxy", "PgBouncer", "no proxy"

PROXY = """\
[proxy]
listen = "{listen}"
admin = "{admin}"
{nodes}
[pool]
mode = "transaction"
size = {pool}

[[auth.users]]
name = {user}
password = {password}

[health]
user = {superuser}
password = {password}

[plugins]
enabled = {enabled}
path = {path}
{more}"""
NODE = """
[[nodes]]
name = {name}
address = {address}
"""
ONE_NODE_ROUTING = """
[routing]
default_read_target = "any"    # there is one server: no standby to prefer
"""
BOUNCER = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = {listen.host}
listen_port = {listen.port}
unix_socket_dir =
auth_file = {users}
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
{access}"""
PREPARED_STATEMENTS = "max_prepared_statements = 200\n"


@dataclass(frozen=True, slots=True)
class Peer:
    """Something that answers PostgreSQL's protocol. `without_prepared`: why -M prepared cannot be run, if it cannot.

    `pid`: the process between client and server; 0 where there is none.
    """

    name: str
    address: Address
    without_prepared: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Access:
    """How clients log in: who does, and what either proxy's configuration says of it beyond the usual."""

    login: Login
    proxy: str = ""
    """Sections for the end of heliosproxy.toml."""
    bouncer: str = "auth_type = scram-sha-256\n"
    """Lines for pgbouncer.ini."""
    secret: str | None = None
    """What PgBouncer's user list has for the user; its password if not given."""


@dataclass(frozen=True, slots=True)
class PluginSource:
    """Every bundled plugin, and where its component is searched (nowhere: where it was installed)."""

    names: tuple[str, ...]
    path: tuple[Path, ...]


@contextmanager
def postgres(say: Say, *, standbys: bool = False) -> Iterator[LocalCluster]:
    """A primary, with the demo's standbys if asked for. Raises BenchError."""
    say("starting PostgreSQL")
    try:
        cluster = start_cluster() if standbys else start_cluster(standbys=())
    except ClusterError as error:
        raise BenchError(str(error)) from None
    with cluster:
        yield cluster


def login(cluster: LocalCluster) -> Login:
    """What every client of a benchmark logs in with."""
    return Login(cluster.user, cluster.password, cluster.database)


def direct(cluster: LocalCluster) -> Peer:
    """The primary itself."""
    return Peer(DIRECT, cluster.node("primary").address)


def bundled_plugins(cluster: LocalCluster, say: Say) -> PluginSource:
    """All bundled plugins; built where an installed package would have them built already. Raises BenchError."""
    path: tuple[Path, ...] = ()
    if not BUNDLED.is_file():
        say("building the bundled plugins")
        path = (folder(cluster, "plugins"),)
        try:
            build(sorted(file.parent for file in (ROOT / "plugins").glob("*/plugin.py")), path[0] / "plugins.wasm")
        except BuildError as error:
            raise BenchError(f"the bundled plugins cannot be built: {error}") from None
    file = write(folder(cluster, "look") / "heliosproxy.toml", _proxy_text(cluster, PluginSource((), path)))
    with Sandbox() as sandbox:
        found = sandbox.installed(load(file, {}).config)
    return PluginSource(tuple(one.name for one in found if not one.problems), path)


def proxy_config(cluster: LocalCluster, plugins: PluginSource) -> Config:
    """A configuration of this proxy for the cluster as it is, as `helios_proxy` starts it."""
    return load(_proxy_file(cluster, plugins), {}).config


@contextmanager
def helios_proxy(
    cluster: LocalCluster, plugins: PluginSource, say: Say, access: Access | None = None
) -> Iterator[Peer]:
    """This proxy in a process of its own, all bundled plugins on, in front of the cluster. Raises BenchError."""
    say("starting this proxy")
    access = access or Access(login(cluster))
    file = _proxy_file(cluster, plugins, access.proxy)
    listen = load(file, {}).config.proxy.listen
    command = [sys.executable, "-m", "heliosproxy", "run", "--config", str(file)]
    with _running(command, file.parent / "log", access.login, listen, own=True) as pid:
        yield Peer(HELIOS, listen, pid=pid)


def pgbouncer_program() -> str | None:
    """PgBouncer, where it is installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def pgbouncer_version() -> tuple[int, ...]:
    """(1, 18, 0); () where it is not installed or does not say."""
    program = pgbouncer_program()
    found = re.search(r"PgBouncer (\d+)\.(\d+)", first_line([program, "--version"])) if program else None
    return tuple(map(int, found.groups())) if found else ()


@contextmanager
def pgbouncer(cluster: LocalCluster, say: Say, access: Access | None = None) -> Iterator[Peer]:
    """PgBouncer in front of the primary: transaction pooling, the same pool and logins. Raises BenchError."""
    program = pgbouncer_program()
    if program is None:
        raise BenchError("PgBouncer is not installed")
    say("starting PgBouncer")
    access = access or Access(login(cluster))
    directory = folder(cluster, "pgbouncer")
    listen = Address(HOST, free_port(HOST))
    primary = cluster.node("primary").address
    secret = access.login.password if access.secret is None else access.secret
    users = write(directory / "users", f'"{access.login.user}" "{secret}"\n')
    text = BOUNCER.format(
        host=primary.host, port=primary.port, listen=listen, users=users, pool=POOL, access=access.bouncer
    )
    prepares = pgbouncer_version() >= (1, 21)
    file = write(directory / "pgbouncer.ini", text + (PREPARED_STATEMENTS if prepares else ""))
    why = "" if prepares else "PgBouncer before 1.21 has no prepared statements in transaction mode"
    with _running([program, str(file)], directory / "log", access.login, listen, own=False) as pid:
        yield Peer(PGBOUNCER, listen, why, pid)


def _proxy_file(cluster: LocalCluster, plugins: PluginSource, more: str = "") -> Path:
    routing = ONE_NODE_ROUTING if len(cluster.nodes) == 1 and "hints" in plugins.names else ""
    return write(folder(cluster, "proxy") / "heliosproxy.toml", _proxy_text(cluster, plugins, routing + more))


def _proxy_text(cluster: LocalCluster, plugins: PluginSource, more: str = "") -> str:
    # JSON's strings and lists of strings are TOML's too.
    nodes = (NODE.format(name=json.dumps(n.name), address=json.dumps(str(n.address))) for n in cluster.nodes)
    return PROXY.format(
        listen=Address(HOST, free_port(HOST)),
        admin=Address(HOST, free_port(HOST)),
        nodes="".join(nodes),
        pool=POOL,
        user=json.dumps(cluster.user),
        superuser=json.dumps(cluster.superuser),
        password=json.dumps(cluster.password),
        enabled=json.dumps(list(plugins.names)),
        path=json.dumps([str(directory) for directory in plugins.path]),
        more=more,
    )


def folder(cluster: LocalCluster, name: str) -> Path:
    """A folder that the cluster deletes with its own."""
    found = cluster.directory / name
    if not found.is_dir():
        found.mkdir(mode=0o700)
        unprivileged().own(found)
    return found


def write(file: Path, text: str) -> Path:
    """A file that the servers' user can read, and nobody else but us; the file."""
    file.touch(mode=0o600)
    file.write_text(text)
    unprivileged().own(file)
    return file


@contextmanager
def _running(command: Sequence[str], log: Path, login: Login, listen: Address, *, own: bool) -> Iterator[int]:
    """The program while it answers at `listen`, as ourselves or the unprivileged user; its process id.

    It dies with us (guard.py).
    """
    account = unprivileged()
    identity = ["-1", "-1"] if own else [str(account.uid), str(account.gid)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, *identity, "", *command],
            stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
    with process:  # which closes its standard input and waits: that ends it
        _wait_answering(process, log, login, listen, Path(command[0]).name if not own else "this proxy")
        yield children(process.pid)[0]


def _wait_answering(process: subprocess.Popen[bytes], log: Path, login: Login, listen: Address, name: str) -> None:
    reason = ""
    for _ in until(READY):
        if process.poll() is not None:
            raise BenchError(f"{name} ended while starting; the end of its log:\n{tail(log, 10)}")
        try:
            with connect(listen, login) as connection:
                connection.query(b"select 1")
            return
        except (OSError, PeerError) as error:
            reason = str(error)
    raise BenchError(f"{name} did not answer within {READY:.0f} s ({reason}); the end of its log:\n{tail(log, 10)}")
