"""The server of these tests is what they take it for: each role is asked as its line says, through TLS and without."""

from __future__ import annotations

import psycopg
import pytest

from tests.cluster.secure.server import LINK_NAME, ROLES, SecureServer
from tests.cluster.secure.tls import shown

WITH_TLS = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"


def encrypted(server: SecureServer, role: str, **parameters: object) -> object:
    """Whether a login as the role, which succeeds, is encrypted."""
    where = {"host": "127.0.0.1", "port": server.node.address.port, "user": role, "dbname": "helios"}
    more = {"password": server.passwords.get(role), "sslrootcert": server.issuer.file, **parameters}
    with psycopg.connect(**where, **more) as connection:  # type: ignore[arg-type]
        return connection.execute(WITH_TLS).fetchone()[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("role", "asks"),
    [
        ("s_scram", "scram-sha-256"),
        ("s_ssl", "scram-sha-256"),
        ("s_plain", "scram-sha-256"),
        ("s_md5", "md5"),
        ("s_password", "password"),
        ("s_trust", "none"),
        ("s_cert", "none"),
        ("s_both", "scram-sha-256"),
    ],
)
def test_a_role_is_asked_as_its_line_says(server: SecureServer, role: str, asks: str) -> None:
    proxy = server.issuer.issue(name=LINK_NAME)
    identity = {"sslcert": proxy.certificate, "sslkey": proxy.key} if role in ("s_cert", "s_both") else {}
    more: dict[str, object] = {**identity, "password": ""} if role == "s_cert" else {**identity}
    mode = "disable" if role == "s_plain" else "verify-full"
    assert encrypted(server, role, require_auth=asks, sslmode=mode, **more) is (mode != "disable")
    assert role in ROLES


def test_lines_for_tls_hold_with_tls_only(server: SecureServer) -> None:
    assert encrypted(server, "s_scram", sslmode="disable") is False
    for role, mode in (("s_ssl", "disable"), ("s_cert", "disable"), ("s_plain", "require")):
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            encrypted(server, role, sslmode=mode, sslcert="", sslkey="")


def test_scram_is_bound_to_the_channel_where_the_client_wants_that(server: SecureServer) -> None:
    assert encrypted(server, "s_ssl", channel_binding="require", sslmode="require") is True


def test_a_role_is_made_and_changed(server: SecureServer) -> None:
    first = server.role("changed_once")
    assert encrypted(server, "changed_once") is True
    assert server.role("changed_once") != first
    assert encrypted(server, "changed_once") is True
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        encrypted(server, "changed_once", password=first)


def test_the_server_shows_another_certificate_for_a_while(server: SecureServer) -> None:
    elsewhere = server.issuer.issue("elsewhere.test")
    with server.certified(elsewhere):
        assert shown(server.node.address) == elsewhere.der
        with pytest.raises(psycopg.OperationalError, match="does not match host name"):
            encrypted(server, "s_trust", sslmode="verify-full")
    with server.certified(server.issuer.issue("127.0.0.1", expired=True)):
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            encrypted(server, "s_trust", sslmode="verify-ca")
        assert encrypted(server, "s_trust", sslmode="require", sslrootcert="") is True
    assert shown(server.node.address) == server.certificate.der
