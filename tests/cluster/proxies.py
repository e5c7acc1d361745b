"""Real proxies, as `helios run` starts them, in front of the tests' cluster; and clients that never wait for ever."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.processes import environment, tail, until

DEADLINE = 30.0
"""Seconds that a start, a stop, a command or all of a test's statements may take."""
WHERE = "select current_setting('cluster_name')"
PRIMARY, SYNC, ASYNC = "primary", "standby-sync-1", "standby-async-1"
STANDBYS = {SYNC, ASYNC}

_LISTENING = re.compile(r"clients connect to (\S+):(\d+), the admin API")

Keys = Mapping[str, str]
Connect = Callable[..., psycopg.Connection]


def wait_for(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Wait until the condition holds; AssertionError after so many seconds."""
    assert any(condition() for _ in until(seconds)), f"waited {seconds:g} s for {what}"


def configuration(cluster: LocalCluster, database: str, sections: Mapping[str, Keys] | None = None) -> str:
    """A heliosproxy.toml for the cluster; `sections` adds or replaces keys, their values written as in TOML."""
    users = "".join(
        f'[[auth.users]]\nname = "{name}"\npassword = "{cluster.password}"\n'
        for name in (cluster.user, cluster.superuser)
    )
    nodes = "".join(f'[[nodes]]\nname = "{node.name}"\naddress = "{node.address}"\n' for node in cluster.nodes)
    tables: dict[str, dict[str, str]] = {
        "proxy": {"listen": '"127.0.0.1:0"', "admin": '"127.0.0.1:0"', "shutdown_timeout": '"2s"'},
        "health": {
            "user": f'"{cluster.superuser}"',
            "password": f'"{cluster.password}"',
            "database": f'"{database}"',
            "interval": '"200ms"',
            "lag_interval": '"100ms"',
        },
        "plugins": {"enabled": '["hints"]'},
    }
    for name, keys in (sections or {}).items():
        tables.setdefault(name, {}).update(keys)
    written = "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) for name, keys in tables.items()
    )
    return written + nodes + users


def helios(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command `helios`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "heliosproxy", *arguments],
        capture_output=True, text=True, timeout=DEADLINE, env=environment(**variables), check=False,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A `helios run` and how to reach it."""

    process: subprocess.Popen[bytes]
    cluster: LocalCluster
    database: str
    host: str
    port: int
    file: Path
    log: Path

    def parameters(self, hints: str = "", **changes: object) -> dict[str, object]:
        """Connection parameters as libpq names them. `hints`: of the session, as "route=primary lag=1s"."""
        options = {"options": " ".join(f"-c helios.{hint}" for hint in hints.split())} if hints else {}
        return {
            "host": self.host, "port": self.port, "user": self.cluster.user, "password": self.cluster.password,
            "dbname": self.database, "connect_timeout": 10, **options, **changes,
        }  # fmt: skip

    @contextmanager
    def deadline(self, seconds: float = DEADLINE) -> Iterator[None]:
        """Kill the proxy after so many seconds, so that whoever waits for it is told."""
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    @contextmanager
    def connections(self, seconds: float = DEADLINE) -> Iterator[Connect]:
        """Opens psycopg connections in autocommit, closed at the end, when all must be done within `seconds`."""
        with self.deadline(seconds), ExitStack() as stack:

            def connect(hints: str = "", **changes: object) -> psycopg.Connection:
                parameters = {"autocommit": True, **self.parameters(hints, **changes)}
                return stack.enter_context(psycopg.connect(**parameters))  # type: ignore[arg-type]

            yield connect

    def program(self, name: str, *arguments: str, text: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """One of PostgreSQL's own programs, connected to the proxy, to its end."""
        where = ["-h", self.host, "-p", str(self.port), "-U", self.cluster.user]
        return subprocess.run(
            [str(self.cluster.programs / name), *where, *arguments, self.database],
            input=text, capture_output=True, text=True, timeout=DEADLINE, check=False,
            env=environment(PGPASSWORD=self.cluster.password, **variables),
        )  # fmt: skip

    def memory(self) -> int:
        """Its resident bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def faults(self) -> list[str]:
        """Lines of its log that only a bug of ours writes."""
        ours = [line for line in self.log.read_text().splitlines() if " heliosproxy.plugin." not in line]
        return [line for line in ours if "Traceback" in line or " ERROR " in line]

    def replayed(self) -> None:
        """Wait until both standbys have all that was written."""
        for node in (SYNC, ASYNC):
            self.cluster.wait_replayed(node)


@contextmanager
def running(
    cluster: LocalCluster, database: str, directory: Path, sections: Mapping[str, Keys] | None = None
) -> Iterator[RunningProxy]:
    """A proxy with this configuration, as `started`."""
    with started(cluster, database, directory, configuration(cluster, database, sections)) as proxy:
        yield proxy


@contextmanager
def started(cluster: LocalCluster, database: str, directory: Path, text: str) -> Iterator[RunningProxy]:
    """A proxy with this heliosproxy.toml. It must end well when it is told to."""
    file, log = directory / "heliosproxy.toml", directory / "proxy.log"
    file.touch(0o600)
    file.write_text(text)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "heliosproxy", "run", "--config", str(file)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment(),
        )  # fmt: skip
    try:
        host, port = _address(process, log)
        yield RunningProxy(process, cluster, database, host, port, file, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0, f"the proxy ended with {process.returncode}:\n{tail(log, 40)}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(DEADLINE)


def _address(process: subprocess.Popen[bytes], log: Path) -> tuple[str, int]:
    for _ in until(DEADLINE):
        if found := _LISTENING.search(log.read_text()):
            return found[1], int(found[2])
        assert process.poll() is None, f"the proxy did not start:\n{tail(log, 40)}"
    raise AssertionError(f"the proxy does not listen:\n{tail(log, 40)}")
