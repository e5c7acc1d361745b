"""`helios status`, and how the commands find the proxy to ask."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from heliosproxy.cli.status import duration
from heliosproxy.demo.running import Running, registered
from tests.cli.support import free_port, helios


def test_status_shows_a_node_that_is_down_with_its_reason(served: Path) -> None:
    done = helios("status", "--config", served)
    assert done.returncode == 0, done.stderr
    assert "down: connection refused" in done.stdout
    assert "hints" in done.stdout
    assert "\x1b" not in done.stdout


def test_status_as_json_is_the_admin_apis_answer(served: Path) -> None:
    status = json.loads(helios("status", "--json", "--config", served).stdout)
    assert status["nodes"][0]["name"] == "away"
    assert status["nodes"][0]["healthy"] is False
    assert [plugin["name"] for plugin in status["plugins"]] == ["hints"]
    assert "s3cret" not in json.dumps(status)


def test_the_environment_and_the_working_directory_name_the_configuration(served: Path, tmp_path: Path) -> None:
    assert helios("status", HELIOS_CONFIG=str(served), cwd=tmp_path).returncode == 0
    assert helios("status", cwd=served.parent).returncode == 0


def test_without_configuration_and_demo_the_exit_code_is_4(tmp_path: Path) -> None:
    done = helios("status", cwd=tmp_path, XDG_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 4
    assert done.stderr == "there is no ./heliosproxy.toml and no demo is running; name one with --config\n"
    assert done.stdout == ""


def test_a_proxy_that_does_not_answer_is_one_line_with_its_address(tmp_path: Path) -> None:
    file, port = tmp_path / "h.toml", free_port()
    file.write_text(f'[proxy]\nadmin = "127.0.0.1:{port}"\n[[nodes]]\nname = "a"\naddress = "127.0.0.1:1"\n')
    done = helios("status", "--config", file)
    assert done.returncode == 4
    assert f"no proxy answers at http://127.0.0.1:{port}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_configuration_that_hides_the_address_is_exit_code_3(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text('[proxy]\nadmin = "0.0.0.0:1"\n')
    done = helios("status", "--config", file)
    assert done.returncode == 3
    assert f"{file}:2:9: 0.0.0.0 is not a loopback address" in done.stderr


def test_the_demo_that_runs_is_found_and_one_that_is_gone_is_not(tmp_path: Path) -> None:
    running = Running(os.getpid(), f"127.0.0.1:{free_port()}", "127.0.0.1:1", "/nowhere", demo=True)
    with registered(running, tmp_path) as file:
        left_behind = file.with_name(file.name.replace(str(os.getpid()), "1"))
        left_behind.write_text(file.read_text().replace(running.admin, "127.0.0.1:1"))
        left_behind.chmod(0o600)
        os.utime(left_behind, (2**32, 2**32))
        done = helios("status", cwd=tmp_path, XDG_RUNTIME_DIR=str(tmp_path))
        assert not left_behind.exists()
    assert f"http://{running.admin} (the demo, process {os.getpid()})" in done.stderr
    assert done.returncode == 4


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (61, "1 min 1 s"), (7200, "2 h"), (90061, "1 d 1 h")])
def test_durations_are_said_in_their_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said
