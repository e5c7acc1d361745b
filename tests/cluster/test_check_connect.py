"""`helios check --connect` against real servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from heliosproxy.cli.check import run_check
from heliosproxy.cli.loading import InstalledPlugins
from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.processes import until
from heliosproxy.sandbox import Sandbox

Check = Callable[..., int]


@pytest.fixture
def file(cluster: LocalCluster, tmp_path: Path) -> Path:
    """A configuration for the cluster; its health password is the variable PW."""
    nodes = "".join(f'[[nodes]]\nname = "{each.name}"\naddress = "{each.address}"\n' for each in cluster.nodes)
    text = '[auth]\nmethod = "trust"\n[health]\npassword = "${PW}"\n[plugins]\nenabled = []\n'
    text += '[pool]\nconnect_timeout = "1s"\n'
    file = tmp_path / "heliosproxy.toml"
    file.write_text(nodes + text)
    return file


@pytest.fixture
def check(cluster: LocalCluster, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Check:
    monkeypatch.setenv("PW", cluster.password)

    def run(*, json: bool = False) -> int:
        with Sandbox(cache=tmp_path / "cache", bundled=tmp_path / "none.wasm") as sandbox:
            return run_check(file, connect=True, json=json, plugins=InstalledPlugins(sandbox))

    return run


def test_a_healthy_cluster_is_ok_and_shown(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    assert check() == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["primary", "standby-sync-1", "standby-async-1"]
    assert out.splitlines()[-1].endswith(": ok (3 nodes, 0 users, 0 plugins)")


def test_the_facts_of_each_node_are_in_the_json(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(json=True) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is True
    assert [(node["name"], node["role"], node["sync"]) for node in result["nodes"]] == [
        ("primary", "primary", None),
        ("standby-sync-1", "standby", "sync"),
        ("standby-async-1", "standby", "async"),
    ]
    assert all(node["max_connections"] == 320 and node["headroom"] > 20 for node in result["nodes"])


def test_a_stopped_node_is_one_line_and_exit_code_4(
    cluster: LocalCluster, check: Check, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.stop_node("standby-async-1")
    try:
        assert check() == 4
    finally:
        cluster.start_node("standby-async-1")
        assert any(cluster.psql("select count(*) from pg_stat_replication") == "2" for _ in until(10))
    address = cluster.node("standby-async-1").address
    assert capsys.readouterr().err.splitlines() == [
        f"{file}:9:11: standby-async-1: cannot connect to {address}: connection refused"
    ]


def test_a_node_that_hangs_is_given_up_at_the_deadline(
    cluster: LocalCluster, check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.freeze_node("standby-async-1")
    try:
        assert check() == 4
    finally:
        cluster.thaw_node("standby-async-1")
    assert f"no answer from {cluster.node('standby-async-1').address} within 1 s" in capsys.readouterr().err


def test_a_wrong_password_is_one_line_at_the_key_and_exit_code_3(
    check: Check, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PW", "wrong")
    assert check() == 3
    assert capsys.readouterr().err.splitlines() == [
        f'{file}:13:12: primary, standby-sync-1, standby-async-1: password authentication failed for user "postgres"'
    ]


def test_no_password_and_a_missing_database_are_one_line_each(
    check: Check, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = file.read_text()
    file.write_text(text.replace('password = "${PW}"', ""))
    assert check() == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
    file.write_text(text.replace("[health]", '[health]\ndatabase = "nowhere"'))
    assert check() == 3
    assert capsys.readouterr().err.splitlines()[0].endswith('database "nowhere" does not exist')


def test_a_role_that_is_not_the_configured_one_is_a_failure(
    check: Check, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text().replace('name = "primary"', 'name = "primary"\nrole = "standby"'))
    assert check() == 1
    assert f"{file}:3:8: primary is a primary, not a standby" in capsys.readouterr().err


def test_an_ordinary_role_is_told_what_it_may_not_see(
    cluster: LocalCluster, check: Check, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = f'[health]\nuser = "{cluster.user}"\ndatabase = "{cluster.database}"'
    file.write_text(file.read_text().replace("[health]", keys))
    assert check() == 0
    assert f'grant pg_monitor to "{cluster.user}"' in capsys.readouterr().err
