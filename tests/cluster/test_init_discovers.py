"""`helios init` against a real cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heliosproxy.cli.init import run_init
from heliosproxy.config.load import load
from heliosproxy.demo.local import LocalCluster


def url(cluster: LocalCluster, node: str = "primary") -> str:
    return cluster.dsn(node, user=cluster.superuser, database="postgres")


def nodes_of(file: Path) -> list[tuple[str, str]]:
    config = load(file, {"HELIOS_HEALTH_PASSWORD": "x"}).config
    return [(node.name, str(node.address)) for node in config.nodes]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "heliosproxy.toml"


@pytest.mark.parametrize("start", ["primary", "standby-async-1"])
def test_the_whole_cluster_is_found_from_any_of_its_servers(cluster: LocalCluster, file: Path, start: str) -> None:
    addresses = [str(node.address) for node in cluster.nodes[1:]]
    assert run_init(url(cluster, start), file, {}, standbys=addresses) == 0
    assert nodes_of(file) == [(node.name, str(node.address)) for node in cluster.nodes]
    assert cluster.password not in file.read_text()


def test_a_standby_whose_port_nobody_knows_is_left_to_the_user(
    cluster: LocalCluster, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_init(url(cluster), file, {}) == 0
    assert [name for name, _ in nodes_of(file)] == ["primary"]
    assert '# name = "standby-sync-1"  # now a standby, sync' in file.read_text().splitlines()
    assert "--standby HOST:PORT" in capsys.readouterr().out


def test_an_address_where_no_server_is_becomes_a_note(
    cluster: LocalCluster, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_init(url(cluster), file, {}, standbys=["127.0.0.1:1"]) == 0
    assert capsys.readouterr().err == "note: cannot connect to 127.0.0.1:1: connection refused\n"


def test_what_was_found_can_be_had_as_json(
    cluster: LocalCluster, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = str(cluster.node("standby-sync-1").address)
    assert run_init(url(cluster), file, {}, standbys=[address], json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(file)
    assert [(node["name"], node["mode"]) for node in found["nodes"]] == [
        ("primary", "primary"), ("standby-sync-1", "sync"), ("standby-async-1", "async"),
    ]  # fmt: skip


def test_a_wrong_password_is_one_line_and_nothing_is_written(
    cluster: LocalCluster, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_init(url(cluster).replace(cluster.password, "wrong"), file, {}) == 1
    err = capsys.readouterr().err
    assert err.endswith('refused postgres: password authentication failed for user "postgres"\n')
    assert err.count("\n") == 1
    assert not file.exists()
