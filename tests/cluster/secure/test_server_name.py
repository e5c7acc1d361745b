"""The name of the host that a client asks for when TLS begins (SNI), and how it came in, are facts for plugins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from heliosproxy.wire.errors import parse_fields
from tests.cluster import raw
from tests.cluster.proxies import RunningProxy
from tests.cluster.secure.clients import Login, psql
from tests.cluster.secure.proxies import entry, running, section
from tests.cluster.secure.server import SecureServer
from tests.cluster.secure.tls import context, secured


@pytest.fixture(scope="module")
def proxy(
    server: SecureServer, components: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningProxy]:
    own, ca = server.issuer.issue("localhost", "127.0.0.1", "one.test"), server.issuer.file
    text = (
        section("client_tls", own=own, ca_file=ca)
        + section("plugins", enabled=["doorman"], path=[components])
        + entry("auth.rules", type="hostssl", method="cert", user=["s_trust"])
        + entry("auth.rules", method="trust", user=["s_scram"])
        + entry("auth.users", name="s_scram", password=server.passwords["s_scram"])
    )
    with running(server, tmp_path_factory.mktemp("proxy"), text) as proxy, proxy.deadline(40):
        yield proxy
        assert proxy.faults() == []


class Noticing(raw.Client):
    """One that keeps what it is told while it logs in."""

    told = ""

    def message(self) -> tuple[int, bytes]:
        """The next one."""
        tag, body = super().message()
        if tag == ord("N"):
            self.told = parse_fields(body)["M"]
        return tag, body


def told(proxy: RunningProxy, name: str | None, *, direct: bool = False) -> str:
    """What the plugin knows of a client that asks for this name."""
    address = proxy.host, proxy.port
    through = context(alpn=("postgresql",))
    over = secured(address, through, name=name, direct=direct) if name is not None else None
    client = Noticing(address, {"user": "s_scram", "database": "helios"}, "", over=over)
    with client:
        return client.told


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(
    ("name", "known"),
    [("one.test", "one.test"), ("OTHER.Test", "other.test"), ("a" * 63 + ".test", "a" * 63 + ".test"),
     ("127.0.0.1", "")],
)  # fmt: skip
def test_plugins_may_read_the_name_of_the_host(proxy: RunningProxy, name: str, known: str, direct: bool) -> None:
    assert told(proxy, name, direct=direct) == f"s_scram by trust at [{known}]"


def test_without_tls_there_is_no_name(proxy: RunningProxy) -> None:
    assert told(proxy, None) == "s_scram by trust at []"


def test_plugins_may_refuse_by_it(proxy: RunningProxy) -> None:
    with pytest.raises(raw.Refused, match="nobody is served here") as refused:
        told(proxy, "barred.test")
    assert (refused.value.sqlstate, refused.value.fields["V"]) == ("28000", "FATAL")


@pytest.mark.parametrize(("sni", "known"), [("1", "localhost"), ("0", "")])
def test_libpq_says_the_name_if_it_may(server: SecureServer, proxy: RunningProxy, sni: str, known: str) -> None:
    """And a client is known by how it has proved who it is."""
    mine = server.issuer.issue(name="s_trust")
    login = Login("localhost", proxy.port, "s_trust", sslmode="verify-full", ca=server.issuer.file, certificate=mine)
    done = psql(replace(login, more={"sslsni": sni}), "select 1")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr == f"NOTICE:  s_trust by cert at [{known}]\n"
