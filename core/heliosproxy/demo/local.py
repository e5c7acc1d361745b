"""A real PostgreSQL cluster on this machine: a primary and its streaming standbys, from PyPI's binaries, in about 2 s.

For `helios demo` and the tests. Everything here is synchronous and may take seconds: call it from a thread
(`trio.to_thread.run_sync`); a LocalCluster's methods may be called from any thread, one at a time.

The servers listen on 127.0.0.1 only, ask for a password (SCRAM-SHA-256) on every connection, and die with the process
that started them, however it ends (guard.py). `fsync` is off: the data survives a killed server, not a killed machine.
`synchronous_commit` is on. Each cluster has a fresh directory, so an earlier run that was killed does not matter.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeAlias

from heliosproxy.config.kinds import Address
from heliosproxy.demo import guard
from heliosproxy.demo.binaries import Account, ClusterError, binaries, unprivileged
from heliosproxy.demo.processes import (
    environment,
    free_port,
    signal_tree,
    tail,
    temporary_directory,
    traversable,
    until,
)

__all__ = ["STANDBYS", "ClusterError", "LocalCluster", "LocalNode", "binaries", "start_cluster"]

Sync: TypeAlias = Literal["sync", "async"]

STANDBYS: tuple[tuple[str, Sync], ...] = (("standby-sync-1", "sync"), ("standby-async-1", "async"))
SUPERUSER = "postgres"
USER = DATABASE = "helios"
HOST = "127.0.0.1"
SOCKET_PATH_LIMIT = 107
DEADLINE = 30.0
"""Seconds that a start, a stop or a promotion may take."""

SETTINGS = """\
cluster_name = '{name}'
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{sockets}'
max_connections = 320        # 300 for users, the rest for us and superusers; standbys need the primary's
superuser_reserved_connections = 5
max_wal_senders = 10
shared_buffers = 64MB
password_encryption = 'scram-sha-256'
wal_level = replica
hot_standby = on
wal_keep_size = 128MB
max_wal_size = 512MB
synchronous_commit = on
fsync = off                  # demo and test data: survives a killed server, not a killed machine
log_line_prefix = '%m [%p] %q%u@%d %a: '
timezone = 'UTC'
log_timezone = 'UTC'
"""
ACCESS = """\
local all         all              scram-sha-256
host  all         all 127.0.0.1/32 scram-sha-256
host  replication all 127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """A server as it was started: a later `promote` does not change `role`. `data` is its data directory."""

    name: str
    address: Address
    role: Literal["primary", "standby"]
    sync: Sync | None
    data: Path

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data.parent / "server.log"


class LocalCluster:
    """The running servers. A context manager: leaving it stops them and deletes what was made.

    `user` owns the database `database`; the superuser `postgres` has the same generated `password`.
    Methods that name a node raise KeyError for an unknown one and ClusterError where PostgreSQL does not comply.
    """

    user = USER
    database = DATABASE
    superuser = SUPERUSER

    def __init__(self, directory: Path, *, temporary: bool, account: Account, programs: Path) -> None:
        self.directory = directory
        self.password = secrets.token_urlsafe(18)
        self.programs = programs
        self._temporary = temporary
        self._account = account
        self._nodes: dict[str, LocalNode] = {}
        self._guards: dict[str, subprocess.Popen[bytes]] = {}
        self._stale: dict[str, int] = {}

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def nodes(self) -> tuple[LocalNode, ...]:
        """The primary first."""
        return tuple(self._nodes.values())

    def node(self, name: str) -> LocalNode:
        """The node of that name."""
        return self._nodes[name]

    def dsn(self, name: str = "primary", *, user: str | None = None, database: str | None = None) -> str:
        """A connection URI for the node, password included."""
        address = self.node(name).address
        return f"postgresql://{user or self.user}:{self.password}@{address}/{database or self.database}"

    def psql(self, sql: str, name: str = "primary", *, database: str = "postgres") -> str:
        """Run `sql` as superuser with psql; its unaligned output, stripped. Raises ClusterError with psql's message."""
        address = self.node(name).address
        arguments = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p", str(address.port), "-U", SUPERUSER]
        # On standard input, since arguments can be seen by every user of the machine.
        return self._program("psql", *arguments, "-d", database, text=sql).strip()

    def running(self, name: str) -> bool:
        """Whether the node's server process is there."""
        server = self._guards.get(name)
        return server is not None and server.poll() is None

    def stop_node(self, name: str, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Shut the node down and wait for its end. Does nothing where it is down."""
        self._end(name, lambda pid: os.kill(pid, signal.SIGINT if mode == "fast" else signal.SIGQUIT))

    def kill_node(self, name: str) -> None:
        """SIGKILL for the server and every process of it."""
        self._end(name, lambda pid: signal_tree(pid, signal.SIGKILL))

    def freeze_node(self, name: str) -> None:
        """Stop the node's processes where they are: connections stay open and nobody answers."""
        signal_tree(self._postmaster(name), signal.SIGSTOP)

    def thaw_node(self, name: str) -> None:
        """Undo `freeze_node`."""
        signal_tree(self._postmaster(name), signal.SIGCONT)

    def start_node(self, name: str) -> None:
        """Start a stopped or killed node at its old address and wait until it accepts connections."""
        if not self.running(name):
            self._launch(self.node(name))
            self._wait_ready(self.node(name))

    def promote(self, name: str) -> None:
        """Make a standby a primary and wait until it is one. The others keep following the old primary."""
        if self.psql(f"select pg_promote(true, {DEADLINE:.0f})", name) != "t":
            raise ClusterError(f"{name} was not promoted within {DEADLINE:.0f} s; see {self.node(name).log}")

    def pause_replay(self, name: str) -> None:
        """Keep a standby from applying what it receives; returns once it has stopped doing so."""
        self.psql("select pg_wal_replay_pause()", name)
        self._wait(lambda: self.psql("select pg_get_wal_replay_pause_state()", name) == "paused", f"{name} to pause")

    def resume_replay(self, name: str) -> None:
        """Undo `pause_replay`."""
        self.psql("select pg_wal_replay_resume()", name)

    def wait_replayed(self, name: str) -> None:
        """Wait until the standby has applied everything that the primary has written so far."""
        lsn = self.psql("select pg_current_wal_lsn()")
        reached = f"select pg_last_wal_replay_lsn() >= '{lsn}'"
        self._wait(lambda: self.psql(reached, name) == "t", f"{name} to reach {lsn}")

    def close(self) -> None:
        """End every server at once and delete the directory if it was ours to make. May be called again."""
        for server in self._guards.values():
            with contextlib.suppress(OSError):
                server.stdin.close()  # type: ignore[union-attr]
        for server in self._guards.values():
            server.wait(DEADLINE)
        self._guards.clear()
        for path in [self.directory] if self._temporary else [node.data.parent for node in self.nodes]:
            shutil.rmtree(path, ignore_errors=True)

    # Building. `start_cluster` calls these.

    def add_primary(self) -> None:
        """Create and start the primary, with role and database."""
        node = self._place("primary", "primary", None)
        secret = node.data.parent / "password"
        secret.write_text(self.password)
        secret.chmod(0o600)
        self._account.own(secret)
        self._program(
            "initdb", "--no-sync", "--no-instructions", "-D", str(node.data), "-U", SUPERUSER, f"--pwfile={secret}",
            "--auth=scram-sha-256", "--locale=C", "--encoding=UTF8",
        )  # fmt: skip
        secret.unlink()
        self._write(node.data / "pg_hba.conf", ACCESS)
        self._start_anywhere(node)
        self.psql(f"create role {USER} login password '{self.password}'; create database {DATABASE} owner {USER}")

    def add_standbys(self, standbys: tuple[tuple[str, Sync], ...]) -> None:
        """Copy the primary to all standbys at once, start them, and then make commits wait for the sync ones."""
        nodes = [self._place(name, "standby", sync) for name, sync in standbys]
        primary = str(self.node("primary").address.port)
        arguments = ["-h", HOST, "-p", primary, "-U", SUPERUSER, "-X", "stream", "-c", "fast", "--no-sync"]
        copies = [self._spawn("pg_basebackup", *arguments, "-D", str(node.data)) for node in nodes]
        for copy in copies:
            self._finish(copy)
        for node in nodes:
            (node.data / "standby.signal").touch()
            self._account.own(node.data / "standby.signal")
            self._start_anywhere(node, wait=False)
        for node in nodes:
            self._wait_ready(node)
        self._require_sync([node.name for node in nodes if node.sync == "sync"])
        streaming = f"select count(*) = {len(nodes)} from pg_stat_replication where state = 'streaming'"
        self._wait(lambda: self.psql(streaming) == "t", "the standbys to stream")

    def _require_sync(self, names: list[str]) -> None:
        if not names:
            return
        primary, listed = self.node("primary"), ", ".join(f'"{name}"' for name in names)
        setting = f"synchronous_standby_names = '{len(names)} ({listed})'\n"
        self._write(primary.data / "postgresql.conf", self._settings(primary) + setting)
        self.psql("select pg_reload_conf()")
        count = f"select count(*) = {len(names)} from pg_stat_replication where sync_state = 'sync'"
        self._wait(lambda: self.psql(count) == "t", "the synchronous standbys")

    def _place(self, name: str, role: Literal["primary", "standby"], sync: Sync | None) -> LocalNode:
        directory = self.directory / name
        try:
            directory.mkdir(mode=0o700)
        except OSError as error:
            raise ClusterError(f"the cluster's directory must exist and be empty: {error}") from None
        self._account.own(directory)
        node = LocalNode(name, Address(HOST, free_port(HOST)), role, sync, directory / "data")
        self._nodes[name] = node
        return node

    def _start_anywhere(self, node: LocalNode, wait: bool = True) -> None:
        """Start `node` for the first time, at another port if its own was taken in the meantime."""
        for _ in range(5):
            self._write(node.data / "postgresql.conf", self._settings(node))
            self._launch(node)
            try:
                self._wait_bound(node)
            except ClusterError:
                if "could not bind" not in node.log.read_text():
                    raise
                node = LocalNode(node.name, Address(HOST, free_port(HOST)), node.role, node.sync, node.data)
                self._nodes[node.name] = node
                node.log.unlink()
                continue
            return self._wait_ready(node) if wait else None
        raise ClusterError(f"no free port for {node.name}")

    def _settings(self, node: LocalNode) -> str:
        sockets = str(node.data.parent)
        if len(os.fsencode(f"{sockets}/.s.PGSQL.{node.address.port}")) > SOCKET_PATH_LIMIT:
            sockets = ""
        text = SETTINGS.format(name=node.name, port=node.address.port, sockets=sockets)
        if node.role == "primary":
            return text
        primary = self.node("primary").address
        return text + (
            f"primary_conninfo = 'host={primary.host} port={primary.port} user={SUPERUSER} password={self.password} "
            f"application_name={node.name}'\n"
        )

    def _launch(self, node: LocalNode) -> None:
        remove = str(self.directory) if self._temporary else ""
        identity = [str(self._account.uid), str(self._account.gid)]
        self._stale[node.name] = next((int(line) for line in self._pid_file(node)[:1]), 0)
        command = [sys.executable, "-I", "-S", guard.__file__, *identity, remove]
        with node.log.open("ab") as log:
            # Its own session: Ctrl-C at the terminal is for the demo, which then closes the cluster in its order.
            self._guards[node.name] = subprocess.Popen(
                [*command, str(self.programs / "postgres"), "-D", str(node.data)],
                stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/", env=environment(), start_new_session=True,
            )  # fmt: skip

    def _wait_bound(self, node: LocalNode) -> None:
        # The fifth line on, the file names the address, which is written once the port is ours.
        self._wait(lambda: len(self._pid_file(node)) > 5, f"{node.name} to bind {node.address}", node)

    def _wait_ready(self, node: LocalNode) -> None:
        self._wait(lambda: self._pid_file(node)[7:8] == ["ready"], f"{node.name} to accept connections", node)

    def _pid_file(self, node: LocalNode) -> list[str]:
        """The lines of postmaster.pid (pid, data, start, port, socket directory, address, memory, status).

        Empty where there is none, or one that a killed server left behind.
        """
        try:
            lines = [line.strip() for line in (node.data / "postmaster.pid").read_text().splitlines()]
        except OSError:
            return []
        return lines if lines and int(lines[0]) != self._stale.get(node.name) else []

    def _postmaster(self, name: str) -> int:
        lines = self._pid_file(self.node(name))
        if not self.running(name) or not lines:
            raise ClusterError(f"{name} is not running")
        return int(lines[0])

    def _end(self, name: str, how: Callable[[int], None]) -> None:
        if not self.running(name):
            return
        how(self._postmaster(name))
        with self._guards[name] as server:  # closes its standard input
            server.wait(DEADLINE)

    def _wait(self, condition: Callable[[], bool], what: str, node: LocalNode | None = None) -> None:
        """Wait until `condition()`; ClusterError when `node`'s server ends meanwhile, or after DEADLINE."""
        for _ in until(DEADLINE):
            if condition():
                return
            if node is not None and not self.running(node.name):
                raise ClusterError(f"{node.name} ended while starting; the end of its log:\n{tail(node.log)}")
        raise ClusterError(f"waited {DEADLINE:.0f} s for {what}")

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)
        self._account.own(path)

    def _program(self, program: str, *arguments: str, text: str = "") -> str:
        return self._finish(self._spawn(program, *arguments), text)

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = subprocess.Popen(
            [str(self.programs / program), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, cwd="/", env=environment(PGPASSWORD=self.password),
            **self._account.popen(),  # type: ignore[call-overload]
        )  # fmt: skip
        return process

    def _finish(self, process: subprocess.Popen[str], text: str = "") -> str:
        """The program's output once it has ended; ClusterError with its error output unless it ended well."""
        try:
            output, errors = process.communicate(text, timeout=2 * DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise ClusterError(f"{process.args!r} took longer than {2 * DEADLINE:.0f} s") from None
        if process.returncode:
            raise ClusterError(errors.strip() or f"{process.args!r}: exit code {process.returncode}")
        return output


def start_cluster(
    directory: Path | None = None, *, standbys: tuple[tuple[str, Sync], ...] = STANDBYS, version: int = 16
) -> LocalCluster:
    """Start a primary named `primary` and the standbys (name, sync mode), all streaming when this returns.

    `directory` must be empty and is kept (what the cluster put into it is deleted at its end); without one a temporary
    one is made. `version`: 16 or 18. Raises ClusterError with one clear message; nothing is left running then.
    """
    account = unprivileged()
    programs = binaries(version, account)
    cluster = LocalCluster(
        directory or Path(tempfile.mkdtemp(prefix="helios-", dir=temporary_directory(account))),
        temporary=directory is None, account=account, programs=programs,
    )  # fmt: skip
    if directory is None:
        account.own(cluster.directory)
    try:
        if not traversable(cluster.directory, account):
            raise ClusterError(f"uid {account.uid}, which runs the servers, cannot enter {cluster.directory}")
        cluster.add_primary()
        cluster.add_standbys(standbys)
    except BaseException:
        cluster.close()
        raise
    return cluster
