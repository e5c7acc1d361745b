"""Passwords, rules and certificates are renewed without a restart: SIGHUP, and what was connected stays connected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest

from tests.certificates import Issued, Issuer
from tests.cluster.proxies import RunningProxy, helios
from tests.cluster.secure.clients import Login, Refused, psql_says, psycopg_says
from tests.cluster.secure.proxies import entry, reloaded, running, section, written
from tests.cluster.secure.server import LINK_NAME, SecureServer
from tests.cluster.secure.tls import shown

FAILED = "password authentication failed"


@dataclass(slots=True)
class Rotating:
    """A proxy, and what its file says. Tests change the fields, and have it read again."""

    server: SecureServer
    own: Issued
    link: Issued
    clients_ca: Path
    nodes_ca: Path
    users_file: Path
    passwords: dict[str, str] = field(default_factory=dict)
    server_passwords: dict[str, str] = field(default_factory=dict)
    rules: str = ""
    crl: Path | None = None
    more: str = ""
    proxy: RunningProxy | None = None

    def text(self) -> str:
        """All but what every proxy has."""
        sides = section("client_tls", own=self.own, ca_file=self.clients_ca, crl_file=self.crl)
        sides += section("server_tls", sslmode="verify-full", ca_file=self.nodes_ca, link=self.link)
        last = entry("auth.rules", type="hostssl", method="scram-sha-256")
        auth = section("auth", users_file=self.users_file) + self.rules + last
        return sides + auth + "".join(map(self._user, self.passwords)) + self.more

    def _user(self, name: str) -> str:
        """The role r_<name> with its password of its own, or s_both."""
        own = self.server_passwords.get(name)
        role = "s_both" if own is None else f"r_{name}"
        known = self.server.passwords["s_both"] if own is None else own
        return entry("auth.users", name=name, password=self.passwords[name], server_user=role, server_password=known)

    def reload(self) -> str:
        """Have it read again, as it is now; what the proxy has said to that."""
        return reloaded(self.running, written(self.server, self.text()))

    @property
    def running(self) -> RunningProxy:
        assert self.proxy is not None
        return self.proxy

    def login(self, user: str, password: str | None = None, **changes: object) -> Login:
        """With the password that the file says, if no other is given."""
        known = self.passwords.get(user, "") if password is None else password
        return replace(
            Login(self.running.host, self.running.port, user, known, sslmode="verify-full", ca=self.server.issuer.file),
            **changes,  # type: ignore[arg-type]
        )

    def connect(self, user: str) -> psycopg.Connection:
        """A connection that stays."""
        login = self.login(user)
        return psycopg.connect(**login.parameters(), password=login.password, autocommit=True)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def started(server: SecureServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotating]:
    directory = tmp_path_factory.mktemp("rotating")
    users_file = directory / "users"
    users_file.touch(0o600)
    own, ca = server.issuer.issue("localhost", "127.0.0.1"), server.issuer.file
    link = server.issuer.issue(name=LINK_NAME)
    it = Rotating(server, own, link, ca, ca, users_file, passwords={"steady": "steadily-the-same"})
    with running(server, directory, it.text()) as proxy, proxy.deadline(120):
        it.proxy = proxy
        yield it
        mistakes = [line for line in proxy.faults() if "nothing was changed" not in line]
        assert mistakes == []


@pytest.fixture
def rotating(started: Rotating) -> Iterator[Rotating]:
    """As it was in the beginning, and beside it a client that notices nothing of all this."""
    started.rules = started.more = ""
    started.crl = None
    started.clients_ca = started.nodes_ca = started.server.issuer.file
    started.passwords = {"steady": started.passwords["steady"]}
    started.server_passwords.clear()
    started.users_file.write_text("")
    started.users_file.chmod(0o600)
    started.reload()
    with started.connect("steady") as steady:
        backend = steady.info.backend_pid
        yield started
        assert steady.execute("select current_user").fetchone() == ("s_both",)
        assert steady.info.backend_pid == backend


def test_a_password_of_the_file(rotating: Rotating) -> None:
    rotating.passwords["changing"] = "the-first-one"
    assert "changed: [auth]" in rotating.reload()
    with rotating.connect("changing") as connection:
        rotating.passwords["changing"] = "the-second-one"
        rotating.reload()
        assert psycopg_says(rotating.login("changing")) == ("s_both", "t")
        with pytest.raises(Refused, match=FAILED):
            psycopg_says(rotating.login("changing", "the-first-one"))
        assert connection.execute("select 1").fetchone() == (1,)
        del rotating.passwords["changing"]
        rotating.reload()
        with pytest.raises(Refused, match=FAILED):
            psycopg_says(rotating.login("changing", "the-second-one"))


@pytest.mark.parametrize("still_there", [False, True])
def test_somebody_who_would_become_another_role_is_sent_away(rotating: Rotating, still_there: bool) -> None:
    """A user with a role of another name, whose own name is a role, too, with the same secret; but the file never said
    that he may be it. Then it forgets him, or says that he is it from now on."""
    password = rotating.server.role("r_named")
    known = {"name": "r_named", "secret": rotating.server.secret("r_named")}
    as_both = {"server_user": "s_both", "server_password": rotating.server.passwords["s_both"]}
    rotating.more = entry("auth.users", **known, **as_both)
    rotating.reload()
    parameters = rotating.login("r_named", password).parameters()
    with psycopg.connect(**parameters, password=password, autocommit=True) as connection:  # type: ignore[arg-type]
        assert connection.execute("select current_user").fetchone() == ("s_both",)
        rotating.more = entry("auth.users", **known) if still_there else ""
        rotating.reload()
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("select current_user")
        assert connection.closed
    if still_there:
        assert psycopg_says(rotating.login("r_named", password)) == ("r_named", "t")
    else:
        with pytest.raises(Refused, match=FAILED):
            psycopg_says(rotating.login("r_named", password))


def test_a_password_of_the_users_file(rotating: Rotating) -> None:
    first, second = rotating.server.role("r_filed"), "another-one-in-the-file"
    rotating.users_file.write_text(f'"r_filed" "{first}"\n')
    rotating.reload()
    with psycopg.connect(
        **rotating.login("r_filed").parameters(), password=first, autocommit=True  # type: ignore[arg-type]
    ) as connection:
        rotating.server.role("r_filed", second)
        rotating.users_file.write_text(f'"r_filed" "{second}"\n')
        rotating.reload()
        assert psycopg_says(rotating.login("r_filed", second)) == ("r_filed", "t")
        with pytest.raises(Refused, match=FAILED):
            psycopg_says(rotating.login("r_filed", first))
        assert connection.execute("select current_user").fetchone() == ("r_filed",)


def test_a_stored_secret_by_which_clients_are_passed_on(rotating: Rotating) -> None:
    for _ in range(2):
        password = rotating.server.role("r_stored")
        rotating.users_file.write_text(f'"r_stored" "{rotating.server.secret("r_stored")}"\n')
        rotating.reload()
        assert psycopg_says(rotating.login("r_stored", password)) == ("r_stored", "t")


def test_a_password_towards_the_server(rotating: Rotating) -> None:
    rotating.passwords["outgoing"] = "always-the-same"
    rotating.server_passwords["outgoing"] = rotating.server.role("r_outgoing")
    rotating.reload()
    with rotating.connect("outgoing") as connection:
        assert connection.execute("select current_user").fetchone() == ("r_outgoing",)
        rotating.server_passwords["outgoing"] = rotating.server.role("r_outgoing")
        rotating.reload()
        ended = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where usename = 'r_outgoing'"
        assert int(rotating.server.cluster.psql(ended)) >= 1  # every link is to be opened anew
        assert psycopg_says(rotating.login("outgoing")) == ("r_outgoing", "t")
        assert connection.execute("select current_user").fetchone() == ("r_outgoing",)


def test_rules(rotating: Rotating) -> None:
    rotating.passwords["barred"] = "for-a-while-only"
    rotating.reload()
    with rotating.connect("barred") as connection:
        rotating.rules = entry("auth.rules", method="reject", user=["barred"])
        rotating.reload()
        with pytest.raises(Refused, match=r"a rule of \[\[auth\.rules\]\] rejects connection"):
            psycopg_says(rotating.login("barred"))
        assert connection.execute("select 1").fetchone() == (1,)
    rotating.rules = ""
    rotating.reload()
    assert psycopg_says(rotating.login("barred")) == ("s_both", "t")


def test_the_proxys_certificate(rotating: Rotating) -> None:
    """Renewed in place, as by a cron job; SCRAM binds to the new one from then on."""
    address = rotating.running.host, rotating.running.port
    before = rotating.own.der
    assert shown(address) == before
    rotating.own.become(rotating.server.issuer.issue("localhost", "127.0.0.1"))
    assert shown(address) == before
    with rotating.connect("steady") as connection:
        reloaded(rotating.running)
        assert shown(address) == rotating.own.der != before
        bound = rotating.login("steady", more={"channel_binding": "require"})
        assert psycopg_says(bound) == ("s_both", "t")
        assert psql_says(bound) == ("s_both", "t")
        assert connection.execute("select 1").fetchone() == (1,)


def test_who_may_have_issued_clients_certificates(rotating: Rotating, tmp_path: Path) -> None:
    other = Issuer(tmp_path / "other")
    rotating.rules = entry("auth.rules", type="hostssl", method="cert", user=["certain"])
    rotating.passwords["certain"] = "not-needed"
    rotating.reload()
    old, new = (issuer.issue(name="certain") for issuer in (rotating.server.issuer, other))
    assert psycopg_says(rotating.login("certain", certificate=old)) == ("s_both", "t")
    rotating.clients_ca = other.file
    assert "[client_tls]" in rotating.reload()
    assert psycopg_says(rotating.login("certain", certificate=new)) == ("s_both", "t")
    with pytest.raises(Refused, match="unknown ca"):
        psql_says(rotating.login("certain", certificate=old))


def test_clients_certificates_that_are_revoked(rotating: Rotating) -> None:
    rotating.rules = entry("auth.rules", type="hostssl", method="cert", user=["revoked"])
    rotating.passwords["revoked"] = "not-needed"
    rotating.reload()
    gone, kept = (rotating.server.issuer.issue(name="revoked") for _ in range(2))
    assert psycopg_says(rotating.login("revoked", certificate=gone)) == ("s_both", "t")
    rotating.crl = rotating.server.issuer.revoke(gone)
    rotating.reload()
    assert psycopg_says(rotating.login("revoked", certificate=kept)) == ("s_both", "t")
    with pytest.raises(Refused, match="certificate revoked"):
        psql_says(rotating.login("revoked", certificate=gone))


def test_the_servers_certificate_and_its_issuer(rotating: Rotating, tmp_path: Path) -> None:
    other = Issuer(tmp_path / "other")
    rotating.passwords["issuer"], rotating.server_passwords["issuer"] = "the-same", rotating.server.role("r_issuer")
    with rotating.server.certified(other.issue("127.0.0.1")):
        rotating.nodes_ca = other.file
        assert "[server_tls]" in rotating.reload()
        assert psycopg_says(rotating.login("issuer")) == ("r_issuer", "t")
    rotating.nodes_ca = rotating.server.issuer.file
    rotating.reload()


def test_a_file_with_a_mistake_changes_nothing_and_shows_no_secret(rotating: Rotating) -> None:
    rotating.passwords["kept"] = "kept-all-the-time"
    rotating.reload()
    secret = "never-to-be-shown"
    for broken in (
        f'[[auth.users]]\nname = "x"\npassword = "{secret}\n',
        f'[[auth.users]]\nname = "x"\npasword = "{secret}"\n',
        f'[[auth.users]]\nname = "x"\npassword = "{secret}"\nserver_user = 5\n',
    ):
        rotating.more = broken
        assert "nothing was changed" in rotating.reload()
        assert psycopg_says(rotating.login("kept")) == ("s_both", "t")
    rotating.more = ""
    rotating.users_file.write_text(f'"y" "{secret}" and more\n')
    assert "nothing was changed" in rotating.reload()
    rotating.users_file.chmod(0o644)
    assert "can read" in rotating.reload()
    assert psycopg_says(rotating.login("kept")) == ("s_both", "t")
    assert secret not in rotating.running.log.read_text()


def test_a_key_that_everyone_can_read_is_not_taken(rotating: Rotating) -> None:
    rotating.own.key.chmod(0o644)
    try:
        said = rotating.reload()
    finally:
        rotating.own.key.chmod(0o600)
    assert "everyone on this machine can read" in said
    assert "PRIVATE KEY" not in rotating.running.log.read_text()
    assert psycopg_says(rotating.login("steady")) == ("s_both", "t")


def test_the_command_does_the_same_as_the_signal(rotating: Rotating) -> None:
    rotating.passwords["by_command"] = "as-good-as-the-signal"
    rotating.running.file.write_text(written(rotating.server, rotating.text()))
    done = helios("reload", "--config", str(rotating.running.file))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert psycopg_says(rotating.login("by_command")) == ("s_both", "t")
