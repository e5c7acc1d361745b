"""Every way for a client to come in, with every way for the server to ask, through TLS that is verified on both sides.

What the client gets is the role that is configured for it, on an encrypted link.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.proxies import RunningProxy, helios
from tests.cluster.secure.clients import CLIENTS, Login, psycopg_says
from tests.cluster.secure.proxies import running
from tests.cluster.secure.server import LINK_NAME, SecureServer
from tests.cluster.secure.ways import CELLS, WAYS, Users, both_sides, everything


@dataclass(frozen=True, slots=True)
class Matrix:
    """The proxy and its users."""

    proxy: RunningProxy
    users: Users
    sockets: Path

    def login(self, name: str) -> Login:
        """The right one for a user."""
        way = WAYS[name.partition("_")[0]]
        return Login(
            str(self.sockets) if way.local else self.proxy.host, self.proxy.port, name,
            self.users.passwords[name] if way.password else "",
            sslmode="prefer" if way.local else "verify-full", ca=self.users.server.issuer.file,
            certificate=self.users.certificate(name) if way.certificate else None,
            more={"channel_binding": "require"} if name.startswith("plus_") else {},
        )  # fmt: skip


@pytest.fixture(scope="module")
def matrix(server: SecureServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    users, sockets = Users(server), tmp_path_factory.mktemp("s")
    link, own = server.issuer.issue(name=LINK_NAME), server.issuer.issue("localhost", "127.0.0.1")
    text = both_sides(server, link, own) + everything(users)
    socket = f'unix_socket_directory = "{sockets}"'
    with running(server, tmp_path_factory.mktemp("proxy"), text, proxy=socket) as proxy, proxy.deadline(120):
        yield Matrix(proxy, users, sockets)
        assert proxy.faults() == []


@pytest.mark.parametrize(("way", "role"), CELLS)
def test_a_client_comes_in_and_is_its_role_on_the_server(matrix: Matrix, way: str, role: str) -> None:
    name = f"{way}_{role}"
    expected = name if role.startswith("stored") else role
    assert psycopg_says(matrix.login(name)) == (expected, "t")


OTHERS = [
    (client, way, role)
    for way, role in CELLS
    for client in ("psql", "asyncpg")
    if role in ("s_scram", "stored", "stored_md5") and (client, way) != ("asyncpg", "plus")  # which it does not know
]


@pytest.mark.parametrize(("client", "way", "role"), OTHERS)
def test_so_does_one_with_another_library(matrix: Matrix, client: str, way: str, role: str) -> None:
    name = f"{way}_{role}"
    expected = name if role.startswith("stored") else role
    assert CLIENTS[client](matrix.login(name)) == (expected, "t")


def test_nothing_that_is_shown_holds_a_secret(matrix: Matrix) -> None:
    """After somebody has come in each way: the log, what the commands print, and how the process was started."""
    for way in WAYS:
        psycopg_says(matrix.login(f"{way}_s_scram"))
    where = ("--config", str(matrix.proxy.file))
    commands = (
        helios("status", *where, "--json"), helios("plugins", "list", *where, "--json"), helios("check", *where),
        helios("route", "select 1", *where, "--json"), helios("reload", *where, "--json"),
    )  # fmt: skip
    assert [done.returncode for done in commands] == [0] * len(commands), commands
    process = Path(f"/proc/{matrix.proxy.process.pid}")
    shown = [done.stdout + done.stderr for done in commands]
    shown += [matrix.proxy.log.read_text(), (process / "cmdline").read_text(), (process / "environ").read_text()]
    server = matrix.users.server
    secrets = [*matrix.users.passwords.values(), *server.passwords.values(), server.cluster.password]
    stored = server.secrets(*server.passwords).values()
    keys = [part for secret in stored if "$" in secret for part in secret.split("$")[2].split(":")]
    assert len(keys) > 2 * len(WAYS)
    assert [secret for secret in (*secrets, *stored, *keys) for text in shown if secret in text] == []
