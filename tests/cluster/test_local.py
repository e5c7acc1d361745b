from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import psycopg
import pytest

from heliosproxy.demo import binaries as programs
from heliosproxy.demo.binaries import ClusterError, unprivileged
from heliosproxy.demo.local import LocalCluster, binaries, start_cluster

Connect: TypeAlias = Callable[..., psycopg.Connection]

HOLDER = """
import sys
from heliosproxy.demo.local import start_cluster
cluster = start_cluster(standbys=())
pid = cluster.node("primary").data.joinpath("postmaster.pid").read_text().split()[0]
print(cluster.directory, pid, flush=True)
sys.stdin.read()
"""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        os.sched_yield()


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_standbys_stream_in_their_sync_modes(cluster: LocalCluster) -> None:
    rows = cluster.psql("select application_name, sync_state, state from pg_stat_replication order by 1 desc")
    assert rows.splitlines() == ["standby-sync-1|sync|streaming", "standby-async-1|async|streaming"]
    assert [(node.name, node.role, node.sync) for node in cluster.nodes] == [
        ("primary", "primary", None),
        ("standby-sync-1", "standby", "sync"),
        ("standby-async-1", "standby", "async"),
    ]


def test_every_node_names_itself_and_keeps_synchronous_commit(cluster: LocalCluster) -> None:
    for node in cluster.nodes:
        shown = cluster.psql("select current_setting('cluster_name'), current_setting('synchronous_commit')", node.name)
        assert shown == f"{node.name}|on"


def test_every_node_accepts_300_connections_of_ordinary_users(cluster: LocalCluster) -> None:
    for node in cluster.nodes:
        room = "current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        assert int(cluster.psql(f"select {room}", node.name)) > 300
    links = [psycopg.connect(cluster.dsn("standby-async-1"), connect_timeout=20) for _ in range(300)]
    for link in links:
        link.close()


def test_a_wrong_password_is_refused(cluster: LocalCluster) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(cluster.dsn().replace(cluster.password, "wrong"))


def test_what_the_primary_commits_reaches_the_standbys(cluster: LocalCluster, connect: Connect) -> None:
    connect().execute("create table carried (n int); insert into carried values (7)")
    for name in ("standby-sync-1", "standby-async-1"):
        cluster.wait_replayed(name)
        assert connect(name).execute("select n from carried").fetchall() == [(7,)]


def test_a_paused_standby_keeps_the_past_until_it_resumes(cluster: LocalCluster, connect: Connect) -> None:
    connect().execute("create table past (n int)")
    cluster.wait_replayed("standby-async-1")
    cluster.pause_replay("standby-async-1")
    try:
        connect().execute("insert into past values (1)")
        assert connect("standby-async-1").execute("select count(*) from past").fetchall() == [(0,)]
    finally:
        cluster.resume_replay("standby-async-1")
    cluster.wait_replayed("standby-async-1")
    assert connect("standby-async-1").execute("select count(*) from past").fetchall() == [(1,)]


def test_a_stopped_a_killed_and_a_frozen_node_come_back_at_their_address(cluster: LocalCluster) -> None:
    name = "standby-async-1"
    for end in (cluster.stop_node, lambda n: cluster.stop_node(n, "immediate"), cluster.kill_node):
        end(name)
        assert not cluster.running(name)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(cluster.node(name).address, 5)
        cluster.start_node(name)
        assert cluster.psql("show cluster_name", name) == name
    cluster.freeze_node(name)
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(cluster.dsn(name), connect_timeout=2)
    cluster.thaw_node(name)
    assert cluster.psql("show cluster_name", name) == name


def test_a_promoted_standby_is_a_primary_and_the_directory_is_gone_afterwards() -> None:
    with start_cluster(standbys=(("other", "async"),), version=18) as own:
        assert own.psql("show server_version").startswith("18")
        own.kill_node("primary")
        own.promote("other")
        assert own.psql("create table t (); select pg_is_in_recovery()", "other") == "f"
    assert not own.directory.exists()


def test_kill_9_of_the_owner_leaves_no_server_and_no_directory() -> None:
    owner = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        directory, pid = owner.stdout.readline().rsplit(maxsplit=1)
        assert alive(int(pid))
        owner.send_signal(signal.SIGKILL)
        wait_until(lambda: not alive(int(pid)), "the server to end")
        wait_until(lambda: not Path(directory).exists(), "the directory to go")


def test_a_server_does_not_survive_its_guard() -> None:
    with start_cluster(standbys=()) as own:
        server = int((own.node("primary").data / "postmaster.pid").read_text().split()[0])
        own._guards["primary"].kill()
        wait_until(lambda: not alive(server), "the server to end")


def test_ctrl_c_for_the_terminal_does_not_reach_the_servers(cluster: LocalCluster) -> None:
    pid = int((cluster.node("primary").data / "postmaster.pid").read_text().split()[0])
    assert os.getpgid(pid) != os.getpgid(0)


def test_a_directory_that_is_not_empty_is_named() -> None:
    with start_cluster(standbys=()) as own, pytest.raises(ClusterError, match="must exist and be empty"):
        start_cluster(own.directory, standbys=())


def test_a_server_that_ends_while_starting_shows_its_log(cluster: LocalCluster) -> None:
    node = cluster.node("standby-async-1")
    settings = node.data / "postgresql.conf"
    good = settings.read_text()
    cluster.stop_node(node.name)
    settings.write_text(good + "no_such_setting = 1\n")
    try:
        with pytest.raises(ClusterError, match="no_such_setting"):
            cluster.start_node(node.name)
    finally:
        settings.write_text(good)
        cluster.start_node(node.name)


def test_the_programs_include_psql_and_pgbench() -> None:
    for version in (16, 18):
        assert {"psql", "pgbench", "postgres"} <= {path.name for path in binaries(version).iterdir()}
    with pytest.raises(ClusterError, match="17"):
        binaries(17)


def test_programs_that_the_account_cannot_read_are_copied_once(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    for parent in (cache, *list(cache.parents)[:2]):
        parent.chmod(0o755)
    monkeypatch.setattr(programs, "CACHE", cache)
    installed = binaries(16).parent
    runs = programs._runs
    monkeypatch.setattr(
        programs, "_runs", lambda path, account: not path.is_relative_to(installed) and runs(path, account)
    )
    copied = binaries(16)
    assert copied.is_relative_to(cache)
    inode = copied.stat().st_ino
    assert binaries(16).stat().st_ino == inode
    assert [path.name for path in cache.iterdir() if path.name.startswith(".")] == []
    assert runs(copied, unprivileged())


def test_a_cache_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(programs, "CACHE", tmp_path)
    with pytest.raises(ClusterError, match="written by others"):
        programs._copy(16)
