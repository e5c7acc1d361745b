"""Every TLS mode towards clients and every one towards the server: what is encrypted, and who is sent away.

Mode by mode there is one proxy with that mode on both sides; neither side knows of the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from tests.certificates import Issued
from tests.cluster.proxies import RunningProxy
from tests.cluster.secure.clients import Login, Refused, Says, asyncpg_says, psql_says, psycopg_says
from tests.cluster.secure.proxies import entry, running, section
from tests.cluster.secure.server import LINK_NAME, ROLES, SecureServer
from tests.cluster.secure.ways import UNASKED

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
FRESH = ("z_name", "z_issuer", "z_date", "z_plain")
"""Further users, whose first logins come later."""
QUICK = 'login_timeout = "2s"'
"""So that it does not wait long for a node that may be up soon."""
USER = "s_scram"
"""Who comes in, if nothing is said about the server's side: the roles are the users, each with its own password."""

Get = Callable[[str], RunningProxy]


@pytest.fixture(scope="module")
def link(server: SecureServer) -> Issued:
    """What the proxies show to the server."""
    return server.issuer.issue(name=LINK_NAME)


@pytest.fixture(scope="module")
def mode(server: SecureServer, link: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Get]:
    """The proxy of a mode; started when it is first asked for."""
    running_already: dict[str, RunningProxy] = {}
    own = server.issuer.issue("localhost", "127.0.0.1")
    server.roles(*FRESH)
    with ExitStack() as stack:

        def get(mode: str) -> RunningProxy:
            if mode not in running_already:
                directory = tmp_path_factory.mktemp(mode)
                text = configuration(server, mode, own, link)
                it = stack.enter_context(running(server, directory, text, proxy=QUICK))
                stack.enter_context(_well(it))
                running_already[mode] = it
            return running_already[mode]

        yield get


@contextmanager
def _well(proxy: RunningProxy) -> Iterator[None]:
    """The proxy ends in time, and has not complained of itself."""
    with proxy.deadline(120):
        yield
        assert proxy.faults() == []


def configuration(server: SecureServer, mode: str, own: Issued, link: Issued) -> str:
    """The roles are the users; `require` does not look at the server's certificate, since no issuer is named."""
    ca = server.issuer.file
    clients = section("client_tls", sslmode=mode, own=own, ca_file=ca if mode in ("verify-ca", "verify-full") else None)
    nodes = section("server_tls", sslmode=mode, link=link, ca_file=ca if mode in ("verify-ca", "verify-full") else None)
    users = "".join(entry("auth.users", name=role, password=server.passwords[role]) for role in (*ROLES, *FRESH))
    return clients + nodes + users


def login(server: SecureServer, proxy: RunningProxy, user: str = USER, **changes: object) -> Login:
    """One that is right but for `changes`; with a certificate where the proxy wants one."""
    password = server.passwords.get(user, "")
    return Login(proxy.host, proxy.port, user, password, **{"ca": server.issuer.file, **changes})  # type: ignore[arg-type]


def encrypted(login: Login) -> bool:
    """Whether the client's own connection is, after a login that succeeds."""
    with psycopg.connect(**login.parameters(), password=login.password) as connection:  # type: ignore[arg-type]
        assert connection.execute("select 1").fetchone() == (1,)
        return bool(connection.pgconn.ssl_in_use)


# --- clients --------------------------------------------------------------------------------------------------------


NO_TLS = "does not support SSL, but SSL was required"
TLS_ONLY = "this proxy takes connections with TLS only"
WITHOUT = "connection requires a valid client certificate"
DIRECT = {"sslnegotiation": "direct"}


@pytest.mark.parametrize(
    ("proxy_mode", "client_mode", "expected"),
    [
        *(("disable", asks, False) for asks in ("disable", "allow", "prefer")),
        *(("disable", asks, NO_TLS) for asks in ("require", "verify-ca", "verify-full")),
        *((offers, "disable", False) for offers in ("allow", "prefer")),
        *((offers, "allow", False) for offers in ("allow", "prefer")),
        *(
            (offers, asks, True)
            for offers in ("allow", "prefer", "require")
            for asks in ("prefer", "require", "verify-ca", "verify-full")
        ),
        ("require", "disable", TLS_ONLY),
        ("require", "allow", True),
        ("verify-ca", "disable", TLS_ONLY),
        ("verify-full", "disable", TLS_ONLY),
    ],
)
def test_a_client_gets_tls_as_both_wish(
    server: SecureServer, mode: Get, proxy_mode: str, client_mode: str, expected: bool | str
) -> None:
    trying = login(server, mode(proxy_mode), sslmode=client_mode)
    if isinstance(expected, bool):
        assert encrypted(trying) is expected
    else:
        with pytest.raises(psycopg.OperationalError, match=expected):
            encrypted(trying)


@pytest.mark.parametrize("proxy_mode", ["allow", "prefer", "require"])
def test_tls_may_begin_without_asking(server: SecureServer, mode: Get, proxy_mode: str) -> None:
    trying = login(server, mode(proxy_mode), sslmode="verify-full", more=DIRECT)
    assert encrypted(trying) is True
    assert asyncpg_says(trying)[0] == USER


def test_tls_that_begins_without_asking_is_refused_where_there_is_none(server: SecureServer, mode: Get) -> None:
    with pytest.raises(Refused, match="SSL"):
        psycopg_says(login(server, mode("disable"), sslmode="require", more=DIRECT))


@pytest.mark.parametrize("says", [psql_says, asyncpg_says])
@pytest.mark.parametrize("proxy_mode", ["disable", "prefer", "require"])
def test_other_libraries_get_it_as_well(
    server: SecureServer, mode: Get, says: Says, proxy_mode: str
) -> None:
    proxy = mode(proxy_mode)
    trying = login(server, proxy, sslmode="disable" if proxy_mode == "disable" else "verify-full")
    expected = "f" if proxy_mode == "disable" else "t"
    assert says(trying) == (USER, expected)


@pytest.mark.parametrize("proxy_mode", ["verify-ca", "verify-full"])
def test_a_client_must_have_a_certificate_where_the_proxy_verifies(
    server: SecureServer, mode: Get, proxy_mode: str
) -> None:
    proxy = mode(proxy_mode)
    right = server.issuer.issue(name=USER)
    assert encrypted(login(server, proxy, sslmode="verify-full", certificate=right)) is True
    assert encrypted(login(server, proxy, sslmode="verify-full", certificate=right, more=DIRECT)) is True
    with pytest.raises(psycopg.OperationalError, match=WITHOUT):
        encrypted(login(server, proxy, sslmode="require"))


@pytest.mark.parametrize("says", [psycopg_says, psql_says, asyncpg_says])
def test_the_certificate_must_name_the_user_where_the_proxy_verifies_in_full(
    server: SecureServer, mode: Get, says: Says
) -> None:
    others = server.issuer.issue(name="somebody_else")
    assert says(login(server, mode("verify-ca"), sslmode="require", certificate=others)) == (USER, "t")
    with pytest.raises(Refused, match=f'certificate authentication failed for user "{USER}"'):
        says(login(server, mode("verify-full"), sslmode="require", certificate=others))


@pytest.mark.parametrize("proxy_mode", ["verify-ca", "verify-full"])
def test_a_certificate_that_is_no_good_ends_the_handshake(server: SecureServer, mode: Get, proxy_mode: str) -> None:
    for wrong, words in (
        (server.stranger.issue(name=USER), "unknown ca"),
        (server.issuer.issue(name=USER, expired=True), "certificate expired"),
    ):
        trying = login(server, mode(proxy_mode), sslmode="require", certificate=wrong)
        for says in (psycopg_says, psql_says):
            with pytest.raises(Refused, match=words):
                says(trying)
        with pytest.raises(Refused):  # asyncpg does not pass the alert on
            asyncpg_says(trying)


# --- the server -----------------------------------------------------------------------------------------------------


BARRED = "no pg_hba.conf entry"
SERVER_SIDE = [
    *(("disable", role, "f") for role in ("s_scram", "s_plain", "s_md5", "s_password", "s_trust")),
    *(("disable", role, BARRED) for role in ("s_ssl", "s_cert", "s_both")),
    *(("allow", role, "f") for role in ("s_scram", "s_plain", "s_md5", "s_password", "s_trust")),
    *(("allow", role, "t") for role in ("s_ssl", "s_cert", "s_both")),
    *(("prefer", role, "t") for role in ROLES if role != "s_plain"),
    ("prefer", "s_plain", "f"),
    *(
        (strict, role, BARRED if role == "s_plain" else "t")
        for strict in ("require", "verify-ca", "verify-full")
        for role in ROLES
    ),
]


@pytest.mark.parametrize(("proxy_mode", "role", "expected"), SERVER_SIDE)
def test_a_link_gets_tls_as_the_mode_and_the_server_wish(
    server: SecureServer, mode: Get, proxy_mode: str, role: str, expected: str
) -> None:
    proxy = mode(proxy_mode)
    certificate = server.issuer.issue(name=role) if proxy_mode.startswith("verify") else None
    trying = login(server, proxy, role, sslmode="prefer", certificate=certificate)
    if expected in ("t", "f"):
        assert psycopg_says(trying) == (role, expected)
    else:
        with pytest.raises(Refused, match=expected):
            psycopg_says(trying)


def test_every_mode_meets_every_role() -> None:
    assert sorted((mode, role) for mode, role, _ in SERVER_SIDE) == sorted((m, role) for m in MODES for role in ROLES)
    assert set(UNASKED) < set(ROLES)


@pytest.mark.parametrize(("wrong", "taken_until"), [("name", "verify-ca"), ("issuer", "require"), ("date", "require")])
def test_a_server_is_taken_for_what_the_mode_verifies(
    server: SecureServer, mode: Get, wrong: str, taken_until: str
) -> None:
    """Its certificate is of another host, of another issuer, or of the past. One test for all modes: to change it takes
    a while."""
    certificate = {
        "name": server.issuer.issue("elsewhere.test"),
        "issuer": server.stranger.issue("localhost", "127.0.0.1"),
        "date": server.issuer.issue("localhost", "127.0.0.1", expired=True),
    }[wrong]
    proxies = [mode(each) for each in MODES]
    with server.certified(certificate):
        for proxy, each in zip(proxies, MODES, strict=True):
            trying = fresh(server, proxy, each, f"z_{wrong}")
            if MODES.index(each) <= MODES.index(taken_until):
                assert psycopg_says(trying)[0] == trying.user
            else:
                with pytest.raises(Refused, match=r"no node is up \(primary: .*certificate verify failed"):
                    psycopg_says(trying)


def test_a_server_may_have_no_tls(server: SecureServer, mode: Get) -> None:
    proxies = [mode(each) for each in MODES]
    with server.without_tls():
        for proxy, each in zip(proxies, MODES, strict=True):
            trying = fresh(server, proxy, each, "z_plain")
            if each in ("disable", "allow", "prefer"):
                assert psycopg_says(trying) == ("z_plain", "f")
            else:
                with pytest.raises(Refused, match=r"no node is up \(primary: .*TLS"):
                    psycopg_says(trying)


def fresh(server: SecureServer, proxy: RunningProxy, proxy_mode: str, user: str) -> Login:
    """Of somebody who has not come before, so that a link must be opened."""
    identity = server.issuer.issue(name=user) if proxy_mode.startswith("verify") else None
    return login(server, proxy, user, sslmode="prefer", certificate=identity)
