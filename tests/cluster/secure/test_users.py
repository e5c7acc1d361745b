"""Users whom the configuration does not name: those of a file, and those whom a node knows (auth_query)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.cluster.proxies import RunningProxy, wait_for
from tests.cluster.secure.clients import Login, Refused, Says, asyncpg_says, psql_says, psycopg_says
from tests.cluster.secure.proxies import entry, running, section
from tests.cluster.secure.server import SecureServer

QUERY = "select usename, passwd from pg_shadow where usename = $1"
FAILED = "password authentication failed"


@dataclass(frozen=True, slots=True)
class Place:
    """A proxy, and how people come to it."""

    server: SecureServer
    proxy: RunningProxy

    def login(self, user: str, password: str | None = None) -> Login:
        """With the password that the user has on the server, if no other is given."""
        known = self.server.passwords.get(user, "") if password is None else password
        return Login(self.proxy.host, self.proxy.port, user, known, sslmode="verify-full", ca=self.server.issuer.file)

    def comes_in(self, login: Login) -> bool:
        """Whether the login succeeds."""
        try:
            return psycopg_says(login)[0] == login.user
        except Refused as refused:
            if FAILED in str(refused):
                return False
            raise


def tls(server: SecureServer) -> str:
    """On both sides."""
    own, ca = server.issuer.issue("localhost", "127.0.0.1"), server.issuer.file
    return section("client_tls", own=own) + section("server_tls", sslmode="verify-full", ca_file=ca)


@pytest.fixture(scope="module")
def listed(server: SecureServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A file in the format of PgBouncer: a password, a SCRAM secret, an MD5 secret, and a name with a quote."""
    directory = tmp_path_factory.mktemp("listed")
    file = directory / "users"
    file.touch(0o600)
    odd = 'file "odd" \'user\''
    server.role("file_plain")
    server.role("file_scram")
    server.role("file_md5", md5=True)
    server.role(odd)
    lines = [
        ("file_plain", server.passwords["file_plain"]),
        ("file_scram", server.secret("file_scram")),
        ("file_md5", server.secret("file_md5")),
        (odd.replace('"', '""'), server.passwords[odd]),
    ]
    file.write_text("; who may come in\n" + "".join(f'"{name}" "{secret}"\n' for name, secret in lines))
    text = section("auth", users_file=file) + entry("auth.rules", method="md5") + tls(server)
    with running(server, directory, text) as proxy, proxy.deadline(60):
        yield Place(server, proxy)
        assert proxy.faults() == []


@pytest.fixture(scope="module")
def asked(server: SecureServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Nobody is listed; the node is asked. What it says is remembered for longer than the test takes."""
    auth = section("auth", auth_query=QUERY, auth_cache="10min", auth_negative_cache="200ms", method="md5")
    text = auth + tls(server)
    server.roles("known_there")
    server.roles("known_there_md5", md5=True)
    with running(server, tmp_path_factory.mktemp("asked"), text) as proxy, proxy.deadline(90):
        yield Place(server, proxy)
        assert proxy.faults() == []
        said = proxy.log.read_text()
        assert [secret for secret in server.passwords.values() if secret in said] == []
        assert "SCRAM-SHA-256$" not in said


@pytest.mark.parametrize("says", [psycopg_says, psql_says, asyncpg_says])
@pytest.mark.parametrize("name", ["file_plain", "file_scram", "file_md5", 'file "odd" \'user\''])
def test_users_come_from_a_file(listed: Place, name: str, says: Says) -> None:
    assert says(listed.login(name)) == (name, "t")
    with pytest.raises(Refused, match=FAILED):
        says(listed.login(name, "wrong"))


@pytest.mark.parametrize("says", [psycopg_says, psql_says, asyncpg_says])
@pytest.mark.parametrize("name", ["known_there", "known_there_md5"])
def test_users_come_from_the_node(asked: Place, says: Says, name: str) -> None:
    """And are on it who they are, with no password stored anywhere."""
    assert says(asked.login(name)) == (name, "t")


@pytest.mark.parametrize("says", [psycopg_says, psql_says, asyncpg_says])
@pytest.mark.parametrize(
    "name", ["nobody_there", "x' or '1'='1", "known_there'--", "$1", "KNOWN_THERE", "postgres\u00e9", "*" * 63]
)
def test_nobody_else_does(asked: Place, says: Says, name: str) -> None:
    for password in ("wrong", asked.server.passwords["known_there"]):
        with pytest.raises(Refused, match=FAILED):
            says(asked.login(name, password))


def test_somebody_who_is_new_on_the_node_comes_in(asked: Place) -> None:
    assert not asked.comes_in(asked.login("newly_made", "anything"))
    asked.server.role("newly_made")
    wait_for(lambda: asked.comes_in(asked.login("newly_made")), "the new role to be known")


def test_a_password_that_was_changed_on_the_node_holds_once_the_old_one_fails(asked: Place) -> None:
    first = asked.server.role("changing")
    assert asked.comes_in(asked.login("changing"))
    parameters = asked.login("changing").parameters()
    with psycopg.connect(**parameters, password=first, autocommit=True) as connection:  # type: ignore[arg-type]
        asked.server.role("changing")
        wait_for(lambda: asked.comes_in(asked.login("changing")), "the new password to be known")
        assert not asked.comes_in(asked.login("changing", first))
        assert asked.comes_in(asked.login("changing"))
        assert connection.execute("select current_user").fetchone() == ("changing",)


def test_somebody_who_may_no_longer_log_in_does_not(asked: Place) -> None:
    asked.server.role("leaving")
    assert asked.comes_in(asked.login("leaving"))
    asked.server.cluster.psql("alter role leaving password null")
    # What is remembered lets him in until a login fails; then the node is asked.
    assert not asked.comes_in(asked.login("leaving", "wrong"))
    wait_for(lambda: not asked.comes_in(asked.login("leaving")), "the secret to be gone")


def test_an_answer_is_remembered(asked: Place) -> None:
    asked.server.role("remembered")
    count = "select count(*) from pg_stat_activity where query = $$" + QUERY + "$$"
    assert asked.comes_in(asked.login("remembered"))
    since = f"select max(query_start) from pg_stat_activity where query = $${QUERY}$$"
    before = asked.server.cluster.psql(since)
    assert (asked.server.cluster.psql(count), bool(before)) == ("1", True)
    for _ in range(3):
        assert asked.comes_in(asked.login("remembered"))
    assert asked.server.cluster.psql(since) == before


def test_a_query_that_gives_no_secret_says_so_in_the_log(server: SecureServer, tmp_path: Path) -> None:
    wrong = "select usename, usesuper from pg_shadow where usename = $1"
    text = section("auth", auth_query=wrong) + tls(server)
    with running(server, tmp_path, text) as proxy, proxy.deadline(30):
        place = Place(server, proxy)
        with pytest.raises(Refused, match="FATAL") as refused:
            psycopg_says(place.login("s_scram"))
        assert "auth_query" in proxy.log.read_text()
        assert server.passwords["s_scram"] not in str(refused.value) + proxy.log.read_text()
