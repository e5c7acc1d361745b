"""`helios demo`, the whole of it, as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, run
from typing import Any

import psycopg
import pytest

from heliosproxy.demo.local import binaries
from tests.cli.support import DEADLINE, helios, started, wait_until


@dataclass(frozen=True)
class Demo:
    """A demo that is ready. `folder` is where it registers itself and puts its cluster."""

    process: Popen[bytes]
    access: dict[str, Any]
    folder: Path
    ready_file: Path

    def dsn(self) -> str:
        user, password = self.access["user"], self.access["password"]
        return f"postgresql://{user}:{password}@{self.access['proxy']}/{self.access['database']}"

    def helios(self, *arguments: str) -> str:
        """A command that must find this demo by itself."""
        done = helios(*arguments, cwd=self.folder, XDG_RUNTIME_DIR=str(self.folder))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def servers(self) -> list[int]:
        """The PostgreSQL servers' ports that somebody listens on."""
        ports = [int(node["address"].rpartition(":")[2]) for node in self.access["nodes"]]
        return [port for port in ports if listens(port)]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[Demo]:
    """Start one and wait until it is ready."""
    file = folder / "ready.json"
    log, where = folder / "log", {"XDG_RUNTIME_DIR": str(folder)}
    with started("demo", "--headless", "--ready-file", file, *arguments, log=log, **where) as process:
        wait_until(lambda: file.exists() or process.poll() is not None, "the demo to be ready")
        assert process.poll() is None, log.read_text()
        yield Demo(process, json.loads(file.read_text()), folder, file)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """With its default ports taken, by us or by somebody else already."""
    with ExitStack() as stack:
        for port in (6432, 9090):
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        ready = stack.enter_context(demo(tmp_path_factory.mktemp("demo")))
        assert not ready.access["proxy"].endswith(":6432")
        assert not ready.access["admin"].endswith(":9090")
        yield ready


def test_the_ready_file_says_how_to_get_in(running: Demo) -> None:
    access = running.access
    assert set(access) == {"proxy", "admin", "user", "password", "database", "nodes", "psql"}
    assert [(node["name"], node["role"], node["sync"]) for node in access["nodes"]] == [
        ("primary", "primary", ""),
        ("standby-sync-1", "standby", "sync"),
        ("standby-async-1", "standby", "async"),
    ]
    assert stat.S_IMODE(running.ready_file.stat().st_mode) == 0o600


def test_the_psql_line_works_as_it_is(running: Demo) -> None:
    path = f"{binaries()}:{os.environ['PATH']}"
    line = f"{running.access['psql']} -XAtc \"/*helios:route=primary*/ select current_setting('cluster_name')\""
    done = run(line, shell=True, capture_output=True, text=True, timeout=DEADLINE, env={**os.environ, "PATH": path})
    assert (done.returncode, done.stdout) == (0, "primary\n"), done.stderr


def test_hints_route_through_the_demo(running: Demo) -> None:
    where = "select current_setting('cluster_name')"
    with closing(psycopg.connect(running.dsn(), autocommit=True)) as client:
        ran = [client.execute(f"/*helios:node={node['name']}*/ {where}").fetchone() for node in running.access["nodes"]]
        assert ran == [("primary",), ("standby-sync-1",), ("standby-async-1",)]
        assert client.execute(where).fetchone() in (("standby-sync-1",), ("standby-async-1",))


def test_the_commands_find_the_demo_by_themselves(running: Demo) -> None:
    assert "standby-async-1" in running.helios("status")
    listed = json.loads(running.helios("plugins", "list", "--json"))["plugins"]
    assert {plugin["state"] for plugin in listed} == {"enabled"}
    assert "hints" in running.helios("plugins", "list")
    explained = json.loads(running.helios("route", "/*helios:route=async,lag=10s*/ select 1", "--json"))
    assert (explained["node"], explained["read_only"]) == ("standby-async-1", True)
    assert "standby-async-1: Hint: route=async" in running.helios("route", "/*helios:route=async*/ select 1")


def test_the_configuration_is_nobody_elses(running: Demo) -> None:
    (file,) = running.folder.glob("heliosproxy-*.json")
    config = Path(json.loads(file.read_text())["config"])
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert helios("check", "--config", config).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path) as ready:
        (registered,) = tmp_path.glob("heliosproxy-*.json")
        directory = Path(json.loads(registered.read_text())["config"]).parent
        assert len(ready.servers()) == 3
        ready.process.send_signal(number)
        assert ready.process.wait(DEADLINE) == 0
        assert ready.servers() == []
    assert not directory.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["log"]
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_second_signal_does_not_wait_for_what_is_in_flight(tmp_path: Path) -> None:
    with demo(tmp_path) as ready, closing(psycopg.connect(ready.dsn(), autocommit=True)) as client:
        client.pgconn.send_query(b"select pg_sleep(600)")
        client.pgconn.flush()
        wait_until(lambda: "active" in states(ready), "the statement to run")
        ready.process.terminate()
        wait_until(lambda: "finishing what is in flight" in (tmp_path / "log").read_text(), "the first signal")
        assert ready.process.poll() is None
        ready.process.terminate()
        assert ready.process.wait(5) == 1
        assert ready.servers() == []


def states(ready: Demo) -> list[str]:
    """What the demo's pools do."""
    pools = json.loads(ready.helios("status", "--json"))["pools"]
    return ["active" for pool in pools if pool["active"]]


def test_killed_it_leaves_no_server_and_is_not_found(tmp_path: Path) -> None:
    with demo(tmp_path) as ready:
        (registered,) = tmp_path.glob("heliosproxy-*.json")
        directory = Path(json.loads(registered.read_text())["config"]).parent
        ready.process.kill()
        ready.process.wait(DEADLINE)
        wait_until(lambda: not ready.servers() and not directory.exists(), "the servers to end")
        done = helios("status", cwd=tmp_path, XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, registered.exists()) == (4, False)


def test_it_ends_by_itself_after_its_duration(tmp_path: Path) -> None:
    with demo(tmp_path, "--duration", "1s") as ready:
        assert ready.process.wait(DEADLINE) == 0
        assert ready.servers() == []


def test_a_signal_while_it_starts_ends_it_too(tmp_path: Path) -> None:
    log, stale = tmp_path / "log", tmp_path / "ready.json"
    stale.write_text("of a run that was killed")
    arguments = ("demo", "--headless", "--ready-file", stale)
    with started(*arguments, log=log, XDG_RUNTIME_DIR=str(tmp_path)) as process:
        wait_until(lambda: "starting a PostgreSQL cluster" in log.read_text(), "the demo to begin")
        process.terminate()
        assert process.wait(DEADLINE) == 0
    assert "Traceback" not in log.read_text()
    assert not stale.exists()


def test_a_port_that_was_asked_for_and_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = helios("demo", "--headless", "--listen", port, XDG_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"the demo cannot run: cannot listen on 127.0.0.1:{port}")
    assert "Traceback" not in done.stderr
