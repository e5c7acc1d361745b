"""What the proxy says to nodes: built once, renewed at once, and for the server that is meant."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from heliosproxy.config.access import ServerTls, SslMode
from heliosproxy.config.kinds import Address
from heliosproxy.config.tls import BadTls, Contexts, NamedContext, ways
from tests.certificates import Issuer

HERE, SOCKET = Address("db.example.org", 5432), Address("/run/postgresql", 5432)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "issuer")


def test_a_context_is_built_once(issuer: Issuer) -> None:
    contexts, tls = Contexts(), ServerTls("verify-full", ca_file=issuer.file)
    built = contexts.of(tls)
    issuer.file.unlink()
    assert built is not None
    assert contexts.of(ServerTls("verify-full", ca_file=issuer.file)) is built
    assert contexts.of(ServerTls("disable")) is None


def test_a_renewal_changes_all_or_nothing(issuer: Issuer, tmp_path: Path) -> None:
    used, tls = Contexts(), ServerTls("verify-full", ca_file=issuer.file)
    before = used.of(tls)
    fresh = Contexts()
    with pytest.raises(BadTls) as caught:
        fresh.of(replace(tls, cert_file=tmp_path / "missing.crt"))
    assert caught.value.key == "cert_file"
    assert used.of(tls) is before
    renewed = fresh.of(tls)
    assert renewed is not before
    used.replace(fresh)
    assert used.of(tls) is renewed


def test_a_named_context_says_and_verifies_its_server_whatever_the_address(issuer: Issuer) -> None:
    contexts, tls = Contexts(), ServerTls("verify-full", ca_file=issuer.file)
    named = contexts.named(tls, "db.example.org")
    assert isinstance(named, NamedContext)
    assert contexts.named(tls, "db.example.org") is named
    assert contexts.named(tls, "other.example.org") is not named
    side = named.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="192.0.2.1")
    assert side.server_hostname == "db.example.org"
    there = contexts.named(tls, "fe80::1%eth0").wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x")
    assert there.server_hostname == "fe80::1"


@pytest.mark.parametrize(
    ("sslmode", "expected"),
    [
        ("disable", (False,)),
        ("allow", (False, True)),
        ("prefer", (True, False)),
        ("require", (True,)),
        ("verify-ca", (True,)),
        ("verify-full", (True,)),
    ],
)
def test_a_node_is_tried_as_libpq_would(sslmode: SslMode, expected: tuple[bool, ...]) -> None:
    assert ways(ServerTls(sslmode), HERE) == expected
    assert ways(ServerTls(sslmode), SOCKET) == (False,)
