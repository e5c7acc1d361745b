"""SCRAM is bound to the TLS connection on both sides: whoever sits in the middle with another certificate gets nothing.

Nobody here verifies certificates, so that nothing but the binding is in his way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.certificates import Issued
from tests.cluster.proxies import RunningProxy
from tests.cluster.secure.clients import Login, Refused, Says, asyncpg_says, psql_says, psycopg_says
from tests.cluster.secure.middle import in_the_middle
from tests.cluster.secure.proxies import entry, keys, running, section
from tests.cluster.secure.server import SecureServer

BOUND, UNBOUND, IF_OFFERED = ({"channel_binding": how} for how in ("require", "disable", "prefer"))


@pytest.fixture(scope="module")
def own(server: SecureServer) -> Issued:
    """The proxy's certificate."""
    return server.issuer.issue("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def middleman(server: SecureServer) -> Issued:
    """His."""
    return server.stranger.issue("localhost", "127.0.0.1")


def configuration(server: SecureServer, own: Issued, **nodes: object) -> str:
    """s_ssl and s_scram with SCRAM, s_md5 with nothing but bound SCRAM towards the proxy."""
    rules = entry("auth.rules", type="hostssl", user=["s_md5"], method="scram-sha-256-plus")
    rules += entry("auth.rules", method="scram-sha-256", user=["s_ssl", "s_scram", "s_password"])
    users = "".join(
        entry("auth.users", name=role, password=server.passwords[role])
        for role in ("s_ssl", "s_scram", "s_md5", "s_password")
    )
    return section("client_tls", own=own) + section("server_tls", sslmode="require", **nodes) + rules + users


@pytest.fixture(scope="module")
def proxy(server: SecureServer, own: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    text = configuration(server, own)
    with running(server, tmp_path_factory.mktemp("proxy"), text) as proxy, proxy.deadline(60):
        yield proxy
        assert proxy.faults() == []


def login(server: SecureServer, proxy: RunningProxy, user: str = "s_ssl", **more: str) -> Login:
    """Through TLS that is not verified."""
    return Login(proxy.host, proxy.port, user, server.passwords[user], sslmode="require", more=more)


# --- between client and proxy


@pytest.mark.parametrize("says", [psycopg_says, psql_says])
@pytest.mark.parametrize("how", ["disable", "prefer", "require"])
def test_a_client_may_bind_or_not(server: SecureServer, proxy: RunningProxy, says: Says, how: str) -> None:
    assert says(login(server, proxy, channel_binding=how)) == ("s_ssl", "t")


@pytest.mark.parametrize("says", [psycopg_says, psql_says])
def test_where_only_bound_scram_will_do_there_is_no_other(
    server: SecureServer, proxy: RunningProxy, says: Says
) -> None:
    assert says(login(server, proxy, "s_md5")) == ("s_md5", "t")
    with pytest.raises(Refused, match="none of the server's SASL authentication mechanisms are supported"):
        says(login(server, proxy, "s_md5", **UNBOUND))
    with pytest.raises(Refused, match="SCRAM-SHA-256-PLUS"):
        asyncpg_says(login(server, proxy, "s_md5"))


def test_where_there_is_no_tls_nothing_can_be_bound(server: SecureServer, proxy: RunningProxy) -> None:
    plain = replace(login(server, proxy), sslmode="disable")
    assert psycopg_says(plain) == ("s_ssl", "t")
    with pytest.raises(Refused, match="channel binding"):
        psycopg_says(replace(plain, more=BOUND))
    with pytest.raises(Refused, match=r"no rule of \[\[auth\.rules\]\]"):
        psycopg_says(replace(login(server, proxy, "s_md5"), sslmode="disable"))


@pytest.mark.parametrize("says", [psycopg_says, psql_says])
def test_a_login_through_somebody_elses_tls_fails(
    server: SecureServer, proxy: RunningProxy, middleman: Issued, says: Says
) -> None:
    with in_the_middle((proxy.host, proxy.port), middleman) as middle:
        through = replace(login(server, proxy), port=middle.port)
        assert says(replace(through, more=UNBOUND)) == ("s_ssl", "t")
        for how in (BOUND, IF_OFFERED):
            with pytest.raises(Refused, match="SCRAM channel binding check failed"):
                says(replace(through, more=how))


@pytest.mark.parametrize("says", [psycopg_says, psql_says])
def test_somebody_who_hides_that_binding_is_offered_is_found_out(
    server: SecureServer, proxy: RunningProxy, middleman: Issued, says: Says
) -> None:
    with in_the_middle((proxy.host, proxy.port), middleman) as middle:
        middle.hides = True
        through = replace(login(server, proxy), port=middle.port)
        assert says(replace(through, more=UNBOUND)) == ("s_ssl", "t")
        with pytest.raises(Refused, match="SCRAM channel binding negotiation error"):
            says(replace(through, more=IF_OFFERED))
        with pytest.raises(Refused, match="channel binding"):
            says(replace(through, more=BOUND))


# --- between proxy and server


@pytest.mark.parametrize("binding", ["prefer", "require"])
def test_links_are_bound_to_the_servers_certificate(
    server: SecureServer, own: Issued, middleman: Issued, tmp_path: Path, binding: str
) -> None:
    with in_the_middle(server.node.address, middleman) as middle:
        text = configuration(server, own, channel_binding=binding)
        # The proxy's own connections cannot be bound, so that they need a role that is not asked for anything.
        health, node = keys(user="s_trust"), keys(address=f"{middle.host}:{middle.port}")
        with running(server, tmp_path, text, node=node, health=health) as proxy, proxy.deadline(40):
            trying = login(server, proxy)
            with pytest.raises(Refused, match="SCRAM channel binding check failed"):
                psycopg_says(trying)
            middle.hides = True
            found_out = "SCRAM channel binding negotiation error" if binding == "prefer" else "channel_binding"
            with pytest.raises(Refused, match=found_out):
                psycopg_says(login(server, proxy, "s_scram"))  # a refusal of the same user is remembered for a moment
            assert proxy.faults() == []


def test_where_links_must_be_bound_no_other_login_will_do(server: SecureServer, own: Issued, tmp_path: Path) -> None:
    text = configuration(server, own, channel_binding="require")
    with running(server, tmp_path, text, health=keys(user="s_trust")) as proxy, proxy.deadline(40):
        assert psycopg_says(login(server, proxy)) == ("s_ssl", "t")
        for role in ("s_md5", "s_password"):
            with pytest.raises(Refused, match=r"password.*, and channel_binding is require"):
                psycopg_says(login(server, proxy, role))
        assert proxy.faults() == []
