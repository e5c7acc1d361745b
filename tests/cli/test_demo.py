"""The demo's parts that need no cluster. The whole: tests/cluster/test_demo.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliosproxy.demo.configuration import write_private
from heliosproxy.demo.running import Running, find, registered
from tests.cli.support import helios

DEMO = Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:2", "/some/heliosproxy.toml", demo=True)


def test_a_registered_proxy_is_found_as_long_as_the_context_lasts(tmp_path: Path) -> None:
    with registered(DEMO, tmp_path) as file:
        assert find(folder=tmp_path) == DEMO
        assert file.stat().st_mode & 0o777 == 0o600
    assert find(folder=tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_alone_is_not_believed(tmp_path: Path) -> None:
    with registered(DEMO, tmp_path) as file:
        file.chmod(0o644)
        assert find(folder=tmp_path) is None


def test_a_link_to_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with registered(DEMO, tmp_path / "a") as file:
        (tmp_path / "b" / file.name).symlink_to(file)
        assert find(folder=tmp_path / "b") is None


def test_a_file_that_makes_no_sense_is_passed_over(tmp_path: Path) -> None:
    with registered(DEMO, tmp_path) as file:
        file.write_text('{"pid": 1}')
        assert find(folder=tmp_path) is None


def test_a_proxy_that_is_no_demo_is_found_by_its_configuration_alone(tmp_path: Path) -> None:
    file = tmp_path / "heliosproxy.toml"
    with registered(Running(os.getpid(), "127.0.0.1:1", "127.0.0.1:2", str(file), demo=False), tmp_path):
        assert find(folder=tmp_path) is None
        found = find(config=file, folder=tmp_path)
        assert found is not None
        assert found.config == str(file)


def test_a_private_file_replaces_the_one_that_was_there(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["ready.json"]


@pytest.mark.parametrize("duration", ["10", "soon", "0s"])
def test_a_duration_that_is_none_is_a_usage_error(duration: str) -> None:
    done = helios("demo", "--duration", duration)
    assert done.returncode == 2
    assert "--duration" in done.stderr
