"""`helios run`, as a process, and the command itself."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import DEADLINE, answers, fetch, free_port, helios, started, wait_until

CONFIG = """\
[proxy]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
[[nodes]]
name = "away"
address = "127.0.0.1:{node}"
[auth]
method = "trust"
[plugins]
enabled = []
"""


def write(file: Path, *, listen: int = 0, admin: int) -> Path:
    file.write_text(CONFIG.format(listen=listen, admin=admin, node=free_port()))
    return file


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    admin = free_port()
    with started("run", "--config", write(tmp_path / "h.toml", admin=admin), log=tmp_path / "log") as process:
        wait_until(lambda: answers(f"127.0.0.1:{admin}", "/livez"), "the admin API")
        process.send_signal(number)
        assert process.wait(DEADLINE) == 0
    log = (tmp_path / "log").read_text()
    assert "away" in log
    assert "Traceback" not in log


def test_without_a_healthy_node_it_runs_and_is_not_ready(tmp_path: Path) -> None:
    admin = free_port()
    with started("run", "--config", write(tmp_path / "h.toml", admin=admin), log=tmp_path / "log"):
        wait_until(lambda: answers(f"127.0.0.1:{admin}", "/livez"), "the admin API")
        code, said = fetch(f"127.0.0.1:{admin}", "/readyz")
    assert code == 503
    assert said == {"ready": False, "reasons": ["away is down: connection refused"]}


@pytest.mark.parametrize("key", ["listen", "admin"])
def test_a_taken_port_is_one_line_and_exit_code_1(tmp_path: Path, key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        ports = {"listen": 0, "admin": free_port(), key: port}
        done = helios("run", "--config", write(tmp_path / "h.toml", **ports))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"cannot listen on 127.0.0.1:{port} ([proxy] {key}): Address already in use"
    assert "Traceback" not in done.stderr


def test_every_mistake_of_the_configuration_is_told_and_the_exit_code_is_3(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text('[proxy]\nlisten = 5\nadmin = "127.0.0.1:1"\ncolour = "red"\n[plugins]\nenabled = ["hintz"]\n')
    done = helios("run", "--config", file)
    assert done.returncode == 3
    assert f"{file}:2:10:" in done.stderr
    assert f"{file}:4:1:" in done.stderr
    assert f"{file}:6:12:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_component_that_is_none_is_told_with_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "junk.wasm").write_text("this is no component")
    file = write(tmp_path / "h.toml", admin=free_port())
    file.write_text(file.read_text().replace("enabled = []", 'enabled = ["hints"]\npath = ["."]'))
    done = helios("run", "--config", file)
    assert done.returncode == 3
    assert "junk.wasm: is no WebAssembly component" in done.stderr


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    done = helios("run", "--config", tmp_path / "none.toml")
    assert done.returncode == 3
    assert done.stderr == f"{tmp_path}/none.toml: cannot read it: No such file or directory\n"


def test_with_port_0_it_can_be_found_by_its_configuration(tmp_path: Path) -> None:
    file = write(tmp_path / "h.toml", admin=0)
    where = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with started("run", "--config", file, log=tmp_path / "log", **where) as process:
        wait_until(lambda: helios("status", "--config", file, **where).returncode == 0, "the proxy")
        assert helios("status", **where, cwd=Path("/")).returncode == 4  # it is no demo
        process.terminate()
        assert process.wait(DEADLINE) == 0
    assert not list(tmp_path.glob("heliosproxy-*"))


def test_that_it_cannot_be_registered_is_only_a_warning(tmp_path: Path) -> None:
    file = write(tmp_path / "h.toml", admin=0)
    nowhere = {"XDG_RUNTIME_DIR": "/proc"}
    with started("run", "--config", file, log=tmp_path / "log", **nowhere) as process:
        wait_until(lambda: "will not find this proxy" in (tmp_path / "log").read_text(), "the warning")
        process.terminate()
        assert process.wait(DEADLINE) == 0


def test_the_version_is_told() -> None:
    from heliosproxy import __version__

    assert helios("--version").stdout == f"HeliosProxy {__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    assert helios("walk").returncode == 2


def test_help_needs_none_of_the_heavy_libraries() -> None:
    code = """
import sys
from heliosproxy.cli.main import app
try:
    app(["--help"])
except SystemExit as left:
    assert not left.code
assert not {"trio", "wasmtime", "pglast", "starlette", "asyncpg"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=DEADLINE)
