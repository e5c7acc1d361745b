"""Who may not come in: what he is told, word for word, and that the connection ends with it."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from heliosproxy.auth.secrets import ScramSecret
from tests.certificates import Issued
from tests.cluster import raw
from tests.cluster.proxies import RunningProxy
from tests.cluster.secure.clients import Login, Refused, Says, asyncpg_says, psql_says, psycopg_says
from tests.cluster.secure.proxies import entry, running, section
from tests.cluster.secure.server import SecureServer
from tests.cluster.secure.tls import context, secured

RULES = (
    entry("auth.rules", type="local", method="peer", user=["local_mine", "local_theirs"], map="processes"),
    entry("auth.rules", type="local", method="scram-sha-256", user=["local_scram"]),
    entry("auth.rules", method="reject", user=["rejected"]),
    entry("auth.rules", method="trust", user=["elsewhere"], address=["192.0.2.0/24"]),
    entry("auth.rules", method="trust", user=["elsewhere_db"], database=["other"]),
    entry("auth.rules", type="hostssl", method="scram-sha-256", user=["inside"]),
    entry("auth.rules", type="hostnossl", method="scram-sha-256", user=["outside"]),
    entry("auth.rules", type="hostssl", method="cert", user=["certain", "nobody_certain"]),
    entry("auth.rules", type="hostssl", method="cert", user=["/^mapped_"], map="people"),
    entry("auth.rules", type="hostssl", method="cert", user=["whole"], map="subjects", clientname="DN"),
    entry("auth.rules", type="hostssl", method="scram-sha-256", user=["both"], clientcert="verify-full"),
    entry("auth.rules", type="hostssl", method="scram-sha-256", user=["any_cert"], clientcert="verify-ca"),
    entry("auth.rules", type="hostssl", method="scram-sha-256-plus", user=["/^bound"]),
    entry("auth.rules", type="hostssl", method="password", user=["/^clear"]),
    entry("auth.rules", method="md5", user=["/^old"]),
    entry("auth.rules", method="scram-sha-256", user=["/^known", "/^unknown", "only_md5", "/^out_"]),
    entry("auth.rules", method="trust", user=["/^trusted_"]),
)
MAPS = (
    entry("auth.maps", map="processes", system_user=getpass.getuser(), database_user="local_mine"),
    entry("auth.maps", map="people", system_user="/^(.*)@corp$", database_user="mapped_\\1"),
    entry("auth.maps", map="subjects", system_user="/(^|,)CN=Jane Roe(,|$)", database_user="whole"),
)
LISTED = (
    "inside", "outside", "both", "any_cert", "bound", "clear", "old", "known", "rejected", "local_scram", "local_mine",
    "local_theirs", "certain", "mapped_jane", "mapped_joe", "whole", "elsewhere", "elsewhere_db",
)  # fmt: skip
TLS, PLAIN = "SSL encryption", "no encryption"


class _Ending(raw.Client):
    """One whose connection must end with the refusal."""

    def _log_in(self, proof: object, who: tuple[str, str]) -> None:
        try:
            super()._log_in(proof, who)  # type: ignore[arg-type]
        except raw.Refused:
            with pytest.raises(raw.Gone) as ended:
                self.message()
            assert ended.value.fields == {}
            raise


@dataclass(frozen=True, slots=True)
class Door:
    """The proxy, and who knocks."""

    server: SecureServer
    proxy: RunningProxy
    passwords: dict[str, str]
    sockets: Path

    def login(self, user: str, password: str | None = None, certificate: Issued | None = None) -> Login:
        """With the right password and through TLS, if nothing else is said."""
        known = self.passwords.get(user, "") if password is None else password
        ca = self.server.issuer.file
        return Login(self.proxy.host, self.proxy.port, user, known, sslmode="require", ca=ca, certificate=certificate)

    def refusal(
        self, user: str, password: str | None = None, certificate: Issued | None = None, *, how: str = "tls"
    ) -> tuple[str, str]:
        """SQLSTATE and words, where the login fails. AssertionError where it does not. `how`: tls, plain or local."""
        known = self.passwords.get(user, "") if password is None else password
        address = self.proxy.host, self.proxy.port
        over = self._local() if how == "local" else None
        if how == "tls":
            over = secured(address, context(self.server.issuer.file, certificate))
        with pytest.raises(raw.Refused) as refused:
            _Ending(address, {"user": user, "database": "helios"}, known, over=over).close()
        fields = refused.value.fields
        assert (fields["S"], fields["V"]) == ("FATAL", "FATAL")
        return fields["C"], fields["M"]

    def _local(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX)
        found.settimeout(raw.DEADLINE)
        found.connect(str(self.sockets / f".s.PGSQL.{self.proxy.port}"))
        return found


@pytest.fixture(scope="module")
def door(server: SecureServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    server.roles(*LISTED)
    server.roles("only_md5", md5=True)
    passwords = {name: server.passwords[name] for name in (*LISTED, "only_md5")}
    listed = "".join(entry("auth.users", name=name, password=passwords[name]) for name in LISTED)
    listed += entry("auth.users", name="only_md5", secret=server.secret("only_md5"))
    listed += outgoing(server, passwords)
    own, sockets = server.issuer.issue("localhost", "127.0.0.1"), tmp_path_factory.mktemp("s")
    text = section("client_tls", own=own, ca_file=server.issuer.file) + "".join((*RULES, *MAPS)) + listed
    socket = f'unix_socket_directory = "{sockets}"'
    with running(server, tmp_path_factory.mktemp("proxy"), text, proxy=socket) as proxy, proxy.deadline(90):
        yield Door(server, proxy, passwords, sockets)
        assert proxy.faults() == []
        said = proxy.log.read_text()
        assert [secret for secret in [*passwords.values(), WRONG, server.cluster.password] if secret in said] == []


def outgoing(server: SecureServer, passwords: dict[str, str]) -> str:
    """Users who come in well, and whom the server then does not let in."""
    server.roles("out_other", "trusted_stored")
    passwords |= {"out_wrong": "for-the-proxy", "out_none": "for-the-proxy-too", "out_other": "that-is-not-the-servers"}
    elsewhere = ScramSecret.from_password(passwords["out_other"]).format()
    return (
        entry("auth.users", name="out_wrong", password=passwords["out_wrong"], server_user="s_scram",
              server_password=WRONG)
        + entry("auth.users", name="out_none", password=passwords["out_none"], server_user="nobody_there")
        + entry("auth.users", name="out_other", secret=elsewhere)
        + entry("auth.users", name="trusted_stored", secret=server.secret("trusted_stored"))
    )  # fmt: skip


WRONG = "certainly-not-the-password"


def no_rule(user: str, encryption: str = TLS, host: str = "127.0.0.1") -> tuple[str, str]:
    """What nobody is let in with."""
    who = f'host "{host}", user "{user}", database "helios", {encryption}'
    return "28000", f"no rule of [[auth.rules]] for {who}"


def failed(user: str) -> tuple[str, str]:
    """What a wrong password is answered with."""
    return "28P01", f'password authentication failed for user "{user}"'


def foreign(user: str) -> tuple[str, str]:
    """What a certificate is answered with that names somebody else."""
    return "28000", f'certificate authentication failed for user "{user}"'


NO_CERTIFICATE = ("28000", "connection requires a valid client certificate")


# --- passwords


@pytest.mark.parametrize("user", ["inside", "clear", "old", "known", "any_cert", "both"])
@pytest.mark.parametrize("password", [WRONG, "", "*" * 900])
def test_a_wrong_password(door: Door, user: str, password: str) -> None:
    certificate = door.server.issuer.issue(name=user) if user in ("any_cert", "both") else None
    expected = failed(user)
    if (user, password) == ("clear", ""):
        expected = ("28P01", "empty password returned by client")
    assert door.refusal(user, password, certificate) == expected
    assert psycopg_says(door.login(user, certificate=certificate)) == (user, "t")


@pytest.mark.parametrize("user", ["unknown", "unknown_too", "old_unknown", "clear_unknown"])
def test_an_unknown_user_is_answered_as_a_wrong_password_is(door: Door, user: str) -> None:
    assert door.refusal(user, WRONG) == failed(user)
    assert door.refusal(user, door.passwords["known"]) == failed(user)


@pytest.mark.parametrize("says", [psycopg_says, psql_says])
@pytest.mark.parametrize("user", ["bound", "bound_unknown", "inside", "clear", "old", "unknown"])
def test_libraries_say_so(door: Door, user: str, says: Says) -> None:
    with pytest.raises(Refused, match=f'FATAL:  password authentication failed for user "{user}"'):
        says(door.login(user, WRONG))


@pytest.mark.parametrize("user", ["inside", "clear", "old", "unknown"])
def test_asyncpg_says_so(door: Door, user: str) -> None:
    with pytest.raises(Refused, match="password authentication failed") as refused:
        asyncpg_says(door.login(user, WRONG))
    assert refused.value.sqlstate == "28P01"


def test_scram_is_not_for_somebody_of_whom_only_an_md5_is_known(door: Door) -> None:
    assert door.refusal("only_md5") == failed("only_md5")


def test_with_bound_scram_only_the_other_is_no_choice(door: Door) -> None:
    assert door.refusal("bound") == ("08P01", "client selected an invalid SASL authentication mechanism")


# --- rules


@pytest.mark.parametrize(
    ("user", "how", "expected"),
    [
        ("inside", "plain", no_rule("inside", PLAIN)),
        ("outside", "tls", no_rule("outside", TLS)),
        ("certain", "plain", no_rule("certain", PLAIN)),
        ("clear", "plain", no_rule("clear", PLAIN)),
        ("elsewhere", "tls", no_rule("elsewhere", TLS)),
        ("elsewhere", "plain", no_rule("elsewhere", PLAIN)),
        ("elsewhere_db", "tls", no_rule("elsewhere_db", TLS)),
        ("nobody", "tls", no_rule("nobody", TLS)),
        ("known", "local", no_rule("known", PLAIN, "[local]")),
        ("local_scram", "tls", no_rule("local_scram", TLS)),
    ],
)
def test_nobody_comes_in_without_a_rule(door: Door, user: str, how: str, expected: tuple[str, str]) -> None:
    assert door.refusal(user, how=how) == expected


@pytest.mark.parametrize(("how", "encryption"), [("tls", TLS), ("plain", PLAIN)])
def test_a_rule_may_reject(door: Door, how: str, encryption: str) -> None:
    who = f'host "127.0.0.1", user "rejected", database "helios", {encryption}'
    assert door.refusal("rejected", how=how) == ("28000", f"a rule of [[auth.rules]] rejects connection for {who}")


# --- certificates


@pytest.mark.parametrize("user", ["certain", "both", "any_cert", "mapped_jane", "whole", "nobody_certain"])
def test_no_certificate_where_one_is_wanted(door: Door, user: str) -> None:
    assert door.refusal(user) == NO_CERTIFICATE


@pytest.mark.parametrize("user", ["certain", "both", "mapped_jane", "whole", "nobody_certain"])
def test_a_certificate_of_somebody_else(door: Door, user: str) -> None:
    for name in ("known", f"{user}x", user.upper(), f"{user},CN=x"):
        assert door.refusal(user, certificate=door.server.issuer.issue(name=name)) == foreign(user)


def test_the_names_in_certificates_stand_for_users(door: Door) -> None:
    jane, roe = door.server.issuer.issue(name="jane@corp"), door.server.issuer.issue(name="Jane Roe")
    assert psycopg_says(door.login("mapped_jane", certificate=jane)) == ("mapped_jane", "t")
    assert psycopg_says(door.login("whole", certificate=roe)) == ("whole", "t")
    assert door.refusal("mapped_joe", certificate=jane) == foreign("mapped_joe")
    assert door.refusal("mapped_jane", certificate=roe) == foreign("mapped_jane")
    assert door.refusal("whole", certificate=jane) == foreign("whole")


def test_a_certificate_does_not_replace_the_password_that_is_asked_for_beside_it(door: Door) -> None:
    certificate = door.server.issuer.issue(name="both")
    assert door.refusal("both", WRONG, certificate) == failed("both")
    assert door.refusal("any_cert", WRONG, certificate) == failed("any_cert")
    assert psycopg_says(door.login("any_cert", certificate=certificate)) == ("any_cert", "t")


def test_a_certificate_of_another_issuer_ends_the_handshake(door: Door) -> None:
    for user in ("certain", "known"):  # also where none is asked for
        with pytest.raises(Refused, match="unknown ca"):
            psql_says(door.login(user, certificate=door.server.stranger.issue(name=user)))


# --- the server's side of it


HERE = 'host "127.0.0.1"'
ANOTHER_SECRET = "the node keeps another SCRAM secret of this user than the one that its login was checked with"

@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("out_wrong", ("28P01", 'password authentication failed for user "s_scram"')),
        ("out_none", ("28000", f'no pg_hba.conf entry for {HERE}, user "nobody_there", database "helios", {TLS}')),
        ("out_other", ("28P01", f"primary: {ANOTHER_SECRET}")),
        ("trusted_stored", ("28P01", 'primary asks for a password for user "trusted_stored" and none is configured')),
    ],
)
def test_the_server_may_refuse_as_well(door: Door, user: str, expected: tuple[str, str]) -> None:
    assert door.refusal(user) == expected


# --- processes


def test_a_process_is_who_its_user_is(door: Door) -> None:
    mine = Login(str(door.sockets), door.proxy.port, "local_mine")
    assert psycopg_says(mine) == ("local_mine", "t")
    assert psql_says(mine) == ("local_mine", "t")
    assert door.refusal("local_theirs", how="local") == ("28000", 'Peer authentication failed for user "local_theirs"')


def test_the_unix_socket_has_no_tls(door: Door) -> None:
    with door._local() as connection:
        connection.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
        assert connection.recv(1) == b"N"
    assert door.refusal("local_scram", WRONG, how="local") == failed("local_scram")
    assert psycopg_says(Login(str(door.sockets), door.proxy.port, "local_scram", door.passwords["local_scram"])) == (
        "local_scram",
        "t",
    )
