"""What is wrong from outside gives one clear line for each mistake and the right exit code, and disturbs nobody."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster.proxies import DEADLINE, Connect, RunningProxy, configuration, helios, running

PLACED = re.compile(r"(?P<file>[^:\n]+):(?P<line>\d+):(?P<column>\d+): (?P<message>.+)")
Write = Callable[..., Path]


@pytest.fixture
def write(cluster: LocalCluster, tmp_path: Path) -> Write:
    """Writes a configuration with changes to its text; `sections` as for `running`."""

    def write(*changes: tuple[str, str], sections: dict[str, dict[str, str]] | None = None) -> Path:
        text = configuration(cluster, "postgres", sections)
        for old, new in changes:
            assert text.count(old) >= 1, old
            text = text.replace(old, new, 1)
        file = tmp_path / "heliosproxy.toml"
        file.touch(0o600)
        file.write_text(text)
        return file

    return write


def placed(text: str) -> list[tuple[str, int]]:
    """The (file, line) of every mistake reported."""
    return [(found["file"], int(found["line"])) for line in text.splitlines() if (found := PLACED.fullmatch(line))]


def line_of(file: Path, text: str) -> int:
    return next(number for number, line in enumerate(file.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize("command", ["check", "run"])
def test_five_mistakes_are_five_lines(write: Write, command: str) -> None:
    file = write(
        ('listen = "127.0.0.1:0"', 'listen = "127.0.0.1"'),
        ('interval = "200ms"', 'interval = "200"'),
        ('name = "standby-sync-1"', 'name = "primary"'),
        ("[plugins]", "[plugins]\nmax_fautls = 3"),
        ('enabled = ["hints"]', 'enabled = ["hints", "no-such-plugin"]'),
    )
    done = helios(command, "--config", str(file))
    assert (done.returncode, done.stdout) == (3, "")
    mistakes = placed(done.stderr)
    assert {name for name, _ in mistakes} == {str(file)}
    assert [line for _, line in mistakes] == sorted([
        line_of(file, "listen ="), line_of(file, 'interval = "200"'), line_of(file, "max_fautls"),
        line_of(file, "no-such-plugin"), line_of(file, 'name = "primary"') + 3,
    ])  # fmt: skip
    assert "max_faults" in done.stderr
    assert "Traceback" not in done.stderr


def test_text_that_is_not_toml_is_one_line(write: Write) -> None:
    file = write(("[plugins]", "[plugins"))
    done = helios("check", "--config", str(file))
    assert done.returncode == 3
    assert placed(done.stderr) == [(str(file), line_of(file, "[plugins"))]


def test_a_node_without_an_address_is_one_line(write: Write, cluster: LocalCluster) -> None:
    file = write((f'address = "{cluster.nodes[1].address}"\n', ""))
    for command in ("check", "run"):
        done = helios(command, "--config", str(file))
        assert done.returncode == 3
        assert len(placed(done.stderr)) == 1
        assert "address" in done.stderr


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = helios("run", "--config", str(tmp_path / "nowhere.toml"))
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere.toml" in done.stderr


@pytest.mark.parametrize("key", ["listen", "admin"])
def test_a_port_that_is_taken_is_one_line(write: Write, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = helios("run", "--config", str(write(sections={"proxy": {key: f'"{address}"'}})))
    assert (done.returncode, done.stdout) == (1, "")
    [line] = [line for line in done.stderr.splitlines() if not re.match(r"\d{4}-\d\d-\d\d .* INFO ", line)]
    assert address in line
    assert "in use" in line


def test_a_plugin_that_cannot_be_read_is_one_line(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "broken.wasm").write_bytes(b"\0asm but not really")
    file = write(sections={"plugins": {"path": f'["{folder}"]'}})
    for command in ("check", "run"):
        done = helios(command, "--config", str(file))
        assert done.returncode == 3
        [mistake] = placed(done.stderr)
        assert mistake == (str(file), line_of(file, "path ="))
        assert "broken.wasm" in done.stderr


def test_a_plugin_path_that_is_not_there_is_one_line(write: Write, tmp_path: Path) -> None:
    file = write(sections={"plugins": {"path": f'["{tmp_path / "nowhere"}"]'}})
    done = helios("check", "--config", str(file))
    assert done.returncode == 3
    assert placed(done.stderr) == [(str(file), line_of(file, "path ="))]


def test_a_nodes_wrong_password_is_one_line_of_check_connect(write: Write, cluster: LocalCluster) -> None:
    file = write((f'password = "{cluster.password}"\ndatabase', 'password = "wrong"\ndatabase'))
    done = helios("check", "--connect", "--config", str(file))
    assert done.returncode == 3
    assert placed(done.stderr) == [(str(file), line_of(file, '"wrong"'))]
    assert "password authentication failed" in done.stderr


def test_a_node_that_nobody_listens_for_is_one_line_of_check_connect(write: Write, cluster: LocalCluster) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        file = write((f'address = "{cluster.nodes[2].address}"', f'address = "{address}"'))
        done = helios("check", "--connect", "--config", str(file))
    assert done.returncode == 4
    assert placed(done.stderr) == [(str(file), line_of(file, address))]


def test_commands_that_ask_a_proxy_say_that_none_runs(write: Write) -> None:
    file = write()
    for command in (["status"], ["route", "select 1"]):
        done = helios(*command, "--config", str(file))
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (4, "", 1)


def test_a_command_that_does_not_exist_is_a_usage_error() -> None:
    assert helios("no-such-command").returncode == 2
    assert helios("run", "--no-such-option").returncode == 2


# --- clients --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    sections = {"proxy": {"login_timeout": '"2s"'}}
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as started:
        yield started
        assert started.faults() == []


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Connect]:
    with proxy.connections() as connect:
        yield connect


@pytest.mark.parametrize(
    ("changes", "sqlstate"),
    [
        ({"password": "wrong"}, "28P01"),
        ({"user": "nobody"}, "28P01"),
        ({"dbname": "no_such_database"}, "3D000"),
        ({"options": "-c no_such_setting=1"}, "42704"),
        ({"options": "-c timezone=nowhere"}, "22023"),
        ({"options": "-x"}, ""),
        ({"sslmode": "require"}, ""),
    ],
)
def test_a_client_that_may_not_come_in_is_told_why(connect: Connect, changes: dict[str, str], sqlstate: str) -> None:
    bystander = connect()
    with pytest.raises(psycopg.OperationalError) as caught:
        connect(**changes)
    messages = {
        "28P01": "password authentication failed", "3D000": "does not exist", "42704": "unrecognized configuration",
        "22023": "invalid value for parameter",
    }  # fmt: skip
    assert messages.get(sqlstate, "") in str(caught.value)
    assert bystander.execute("select 1").fetchone() == (1,)


SYNC, READY = b"S" + struct.pack("!I", 4), b"Z\0\0\0\5I"
START = struct.pack("!I", 196608) + b"user\0helios\0\0"
BAD = {
    "a length of nothing": struct.pack("!I", 0),
    "a length of 2 GB": struct.pack("!I", 0x7FFFFFFF) + START,
    "a length of 10,001": struct.pack("!I", 10_001) + b"x" * 9_997,
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS greeting": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "no user": struct.pack("!II", 9, 196608) + b"\0",
    "names without an end": struct.pack("!II", 12, 196608) + b"user",
    "a protocol of 1.0": struct.pack("!II", 9, 65536) + b"\0",
    "a query before the start": b"Q" + struct.pack("!I", 13) + b"select 1\0",
    "twice asking for encryption": struct.pack("!II", 8, 80877103) * 2,
    "a password that is none": struct.pack("!I", 4 + len(START)) + START + b"p" + struct.pack("!I", 8) + b"abc\0",
    "a huge password": struct.pack("!I", 4 + len(START)) + START + b"p" + struct.pack("!I", 1 << 30),
}


@pytest.mark.parametrize("data", BAD.values(), ids=list(BAD))
def test_bad_bytes_before_authentication_end_that_connection_only(
    proxy: RunningProxy, connect: Connect, data: bytes
) -> None:
    bystander = connect()
    with socket.create_connection((proxy.host, proxy.port), DEADLINE) as client:
        client.sendall(data)
        answer = read_all(client)
    assert answer == b"" or answer.startswith((b"E", b"N", b"R"))
    if answer.startswith(b"E"):
        assert b"SFATAL\0" in answer
    assert bystander.execute("select 1").fetchone() == (1,)


def read_all(client: socket.socket) -> bytes:
    """Everything until the proxy closes; a reset counts as that."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def test_a_client_that_says_nothing_is_shown_out_in_time(proxy: RunningProxy, connect: Connect) -> None:
    with socket.create_connection((proxy.host, proxy.port), DEADLINE) as client:
        assert b"SFATAL\0" in read_all(client)
    assert connect().execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 64,
        b"Q" + struct.pack("!I", 3),
        b"Q" + struct.pack("!I", 0xFFFFFFFF),
        b"p" + struct.pack("!I", 5) + b"\0",
        b"?" + struct.pack("!I", 4),
    ],
)
def test_bad_bytes_of_a_client_that_was_let_in_end_that_session_only(connect: Connect, data: bytes) -> None:
    client, bystander = connect(), connect()
    with socket.socket(fileno=client.fileno()) as raw:
        raw.setblocking(True)
        raw.settimeout(DEADLINE)
        raw.sendall(data)
        said = read_all(raw)
        assert b"SFATAL\0" in said or (data[:1] == b"Q" and not said), "PostgreSQL says nothing to a length of nonsense"
        raw.detach()
    assert bystander.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("data", [b"P\0\0\0\6x\0", b"B\0\0\0\5x", b"D\0\0\0\5S", b"C\0\0\0\5S", b"E\0\0\0\5x"])
def test_a_malformed_message_of_the_extended_protocol_is_an_error_as_for_the_server(
    connect: Connect, data: bytes
) -> None:
    client = connect()
    with socket.socket(fileno=os.dup(client.fileno())) as raw:
        raw.setblocking(True)
        raw.settimeout(DEADLINE)
        raw.sendall(data + SYNC)
        answer = b""
        while not answer.endswith(READY):
            received = raw.recv(65536)
            assert received, f"closed after {answer!r}"
            answer += received
    assert b"SERROR\0" in answer
    assert b"C08P01\0" in answer
    os.set_blocking(client.fileno(), False)  # as libpq has it
    assert client.execute("select 1").fetchone() == (1,)


def test_bytes_that_are_no_messages_do_not_take_memory(proxy: RunningProxy, connect: Connect) -> None:
    before = proxy.memory()
    clients = [socket.create_connection((proxy.host, proxy.port), DEADLINE) for _ in range(100)]
    try:
        for client in clients:
            client.sendall(struct.pack("!I", 9_999))
        assert connect().execute("select 1").fetchone() == (1,)
        assert proxy.memory() - before < 16 << 20
    finally:
        for client in clients:
            client.close()


def test_a_configuration_that_others_can_read_is_a_warning(write: Write) -> None:
    file = write()
    file.chmod(0o644)
    done = helios("check", "--config", str(file))
    assert done.returncode == 0
    assert "warning: " in done.stderr
