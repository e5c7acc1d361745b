"""Links and the proxy's own connections to a PostgreSQL with TLS: every mode, and every way of proving who we are."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import trio
import trio_asyncio
from trio_asyncio import aio_as_trio

from heliosproxy.auth.scram import ScramKeys
from heliosproxy.auth.secrets import ScramSecret, client_key, prepare, salted_password
from heliosproxy.auth.users import ServerLogin
from heliosproxy.cli.survey import Login, SurveyError, survey
from heliosproxy.cluster.connect import connect, describe, drop
from heliosproxy.cluster.monitor import Monitors
from heliosproxy.cluster.node import Node
from heliosproxy.cluster.registry import Cluster
from heliosproxy.config.access import ServerTls
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Health, NodeConfig
from heliosproxy.config.tls import Contexts
from heliosproxy.switch.opening import Opened, Unreachable, open_link, send_cancel
from heliosproxy.switch.stream import Stream
from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError, parse_fields
from heliosproxy.wire.framing import Framer
from heliosproxy.wire.messages_backend import DataRow
from tests.certificates import Issued
from tests.cluster.secure.server import LINK_NAME, SecureServer

WHO = "select current_user, ssl, coalesce(version, '') from pg_stat_ssl where pid = pg_backend_pid()"


class Link:
    """A link as the reactor would have it, asked from a task."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.stream = Stream(opened.socket)
        self.stream.tls = opened.tls

    async def ask(self, sql: str) -> list[str]:
        """The first row of the answer. Raises PeerError for an error."""
        await self.stream.send_all(builders.query(sql.encode()))
        framer, row, error = Framer(1 << 24), [], None
        while data := await self.stream.receive_some(65536):
            for tag, body in framer.feed(data):
                if tag == ord("D") and not row:
                    row = [(value or b"").decode() for value in DataRow.decode(body).values]
                elif tag == ord("E"):
                    fields = parse_fields(body)
                    error = PeerError(fields["M"], fields["C"])
                elif tag == ord("Z"):
                    if error is not None:
                        raise error
                    return row
        raise AssertionError("the server closed the connection")


@pytest.fixture(autouse=True)
async def _deadline(nursery: trio.Nursery) -> None:
    nursery.cancel_scope.deadline = trio.current_time() + 30


@pytest.fixture
def node(server: SecureServer) -> Callable[..., Node]:
    """The server as a node: `node("require", host="localhost", channel_binding="require", require_auth=("md5",))`."""

    def make(
        sslmode: str = "prefer", host: str = "127.0.0.1", require_auth: tuple[str, ...] = (), **keys: object
    ) -> Node:
        tls = replace(ServerTls(), sslmode=sslmode, **keys)  # type: ignore[arg-type]
        return Node(NodeConfig("main", Address(host, server.node.address.port), tls=tls, require_auth=require_auth))  # type: ignore[arg-type]

    return make


@pytest.fixture
def login(server: SecureServer) -> Callable[..., ServerLogin]:
    """As one of the server's roles, with the right password if no other is given."""

    def make(role: str, password: str | None = None) -> ServerLogin:
        return ServerLogin(role, password if password is not None else server.passwords[role])

    return make


async def who(node: Node, login: ServerLogin, contexts: Contexts | None = None) -> list[str]:
    """Who the server says that we are, and through what."""
    opened = await open_link(node, "postgres", login, 10, contexts=contexts)
    link = Link(opened)
    try:
        return await link.ask(WHO)
    finally:
        await link.stream.aclose()


def files(issued: Issued) -> Mapping[str, Path]:
    return {"cert_file": issued.certificate, "key_file": issued.key}


IN_THE_CLEAR, THROUGH_TLS = ["f", ""], ["t", "TLSv1.3"]


@pytest.mark.parametrize(
    ("sslmode", "role", "through"),
    [
        ("disable", "s_scram", IN_THE_CLEAR),
        ("disable", "s_plain", IN_THE_CLEAR),
        ("allow", "s_scram", IN_THE_CLEAR),
        ("allow", "s_ssl", THROUGH_TLS),
        ("prefer", "s_scram", THROUGH_TLS),
        ("prefer", "s_plain", IN_THE_CLEAR),
        ("require", "s_ssl", THROUGH_TLS),
    ],
)
async def test_a_link_goes_as_sslmode_and_the_server_have_it(
    node: Callable[..., Node], login: Callable[..., ServerLogin], sslmode: str, role: str, through: list[str]
) -> None:
    assert await who(node(sslmode), login(role)) == [role, *through]


@pytest.mark.parametrize(
    ("sslmode", "role", "words"),
    [("disable", "s_ssl", "no encryption"), ("require", "s_plain", "SSL encryption")],
)
async def test_a_server_that_will_have_it_the_other_way_is_quoted(
    node: Callable[..., Node], login: Callable[..., ServerLogin], sslmode: str, role: str, words: str
) -> None:
    with pytest.raises(PeerError, match=f"no pg_hba.conf entry for host .*{words}") as caught:
        await who(node(sslmode), login(role))
    assert caught.value.sqlstate == "28000"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
async def test_a_good_certificate_is_trusted(
    server: SecureServer, node: Callable[..., Node], login: Callable[..., ServerLogin], sslmode: str, host: str
) -> None:
    assert await who(node(sslmode, host, ca_file=server.issuer.file), login("s_ssl")) == ["s_ssl", *THROUGH_TLS]


async def test_a_certificate_is_held_against_the_configured_host_whatever_its_address(
    server: SecureServer, node: Callable[..., Node], login: Callable[..., ServerLogin]
) -> None:
    """Names stand for addresses; the monitors look them up and connect to those."""
    here = node("verify-full", "db.example.org", ca_file=server.issuer.file)
    here.addresses = (Address("127.0.0.1", server.node.address.port),)
    with pytest.raises(Unreachable, match=r"certificate verify failed: Hostname mismatch.*db.example.org"):
        await who(here, login("s_ssl"))
    with server.certified(server.issuer.issue("db.example.org")):
        assert await who(here, login("s_ssl")) == ["s_ssl", *THROUGH_TLS]
        there = node("verify-full", ca_file=server.issuer.file)
        with pytest.raises(Unreachable, match="certificate verify failed: IP address mismatch"):
            await who(there, login("s_ssl"))
        assert await who(node("verify-ca", ca_file=server.issuer.file), login("s_ssl")) == ["s_ssl", *THROUGH_TLS]


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
async def test_a_certificate_of_an_unknown_issuer_is_refused(
    server: SecureServer, node: Callable[..., Node], login: Callable[..., ServerLogin], sslmode: str
) -> None:
    """As in libpq `require` verifies too where there is a ca_file."""
    with pytest.raises(Unreachable, match=r"cannot connect to main at .*: certificate verify failed: ") as caught:
        await who(node(sslmode, ca_file=server.stranger.file), login("s_ssl"))
    assert caught.value.sqlstate == "08006"


async def test_prefer_goes_on_in_the_clear_where_tls_fails(
    server: SecureServer, node: Callable[..., Node], login: Callable[..., ServerLogin], tmp_path: Path
) -> None:
    too_new = replace(ServerTls(), min_protocol_version="TLSv1.3")
    server.cluster.psql("alter system set ssl_max_protocol_version = 'TLSv1.2'")
    server.reload()
    try:
        old = node("prefer", min_protocol_version="TLSv1.3")
        assert old.config.tls == too_new
        assert await who(old, login("s_scram")) == ["s_scram", *IN_THE_CLEAR]
        assert await who(node("require"), login("s_scram")) == ["s_scram", "t", "TLSv1.2"]
        with pytest.raises(Unreachable, match="the peer ended TLS: protocol version"):
            await who(node("require", min_protocol_version="TLSv1.3"), login("s_scram"))
    finally:
        server.cluster.psql("alter system reset ssl_max_protocol_version")
        server.reload()


async def test_a_server_without_tls(
    server: SecureServer, node: Callable[..., Node], login: Callable[..., ServerLogin]
) -> None:
    server.cluster.psql("alter system set ssl = off")
    server.reload()
    try:
        assert await who(node("prefer"), login("s_scram")) == ["s_scram", *IN_THE_CLEAR]
        with pytest.raises(Unreachable, match="main does not speak TLS, and its sslmode is require"):
            await who(node("require"), login("s_scram"))
        assert not await send_cancel(node("require"), (1, b"four"), 5, encrypted=True)
        async with trio_asyncio.open_loop():
            assert await own(server, node("prefer"), "s_scram") == ["s_scram", "f", ""]
            with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
                await own(server, node("require"), "s_scram")
    finally:
        server.cluster.psql("alter system set ssl = on")
        server.reload()


async def test_a_unix_socket_never_goes_through_tls(
    server: SecureServer, node: Callable[..., Node], login: Callable[..., ServerLogin]
) -> None:
    directory = server.cluster.psql("show unix_socket_directories")
    local = node("verify-full", directory, ca_file=server.issuer.file)
    secret = server.role("s_local")
    assert await who(local, ServerLogin("s_local", secret)) == ["s_local", *IN_THE_CLEAR]


# --- who we are -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["s_scram", "s_ssl", "s_md5", "s_password", "s_trust"])
async def test_a_password_is_enough_for_every_way_of_asking(
    node: Callable[..., Node], login: Callable[..., ServerLogin], role: str
) -> None:
    assert await who(node("require"), login(role)) == [role, *THROUGH_TLS]


@pytest.mark.parametrize("role", ["s_scram", "s_md5", "s_password"])
async def test_a_wrong_password_is_the_servers_to_refuse(
    node: Callable[..., Node], login: Callable[..., ServerLogin], role: str
) -> None:
    with pytest.raises(PeerError, match=f'password authentication failed for user "{role}"') as caught:
        await who(node("require"), login(role, "wrong"))
    assert caught.value.sqlstate == "28P01"


@pytest.mark.parametrize("role", ["s_scram", "s_md5", "s_password"])
async def test_without_anything_to_answer_with_it_is_said_what_to_do(node: Callable[..., Node], role: str) -> None:
    with pytest.raises(PeerError, match=f'main asks for .* for user "{role}" and none is configured') as caught:
        await who(node("require"), ServerLogin(role))
    assert caught.value.sqlstate == "28P01"
    assert "server_password" in (caught.value.hint or "")


async def test_a_certificate_is_enough_where_the_server_takes_it(
    server: SecureServer, node: Callable[..., Node]
) -> None:
    ours = server.issuer.issue(name=LINK_NAME)
    assert await who(node("require", **files(ours)), ServerLogin("s_cert")) == ["s_cert", *THROUGH_TLS]
    with pytest.raises(PeerError, match='certificate authentication failed for user "s_cert"'):
        await who(node("require", **files(server.issuer.issue(name="somebody"))), ServerLogin("s_cert"))
    # With TLS 1.3 our handshake is over before the server has looked: its alert may be lost with the connection.
    with pytest.raises(
        Unreachable, match=r"the peer ended TLS: unknown ca|reset by peer|closed the connection|Broken pipe"
    ):
        await who(node("require", **files(server.stranger.issue(name=LINK_NAME))), ServerLogin("s_cert"))


async def test_a_certificate_beside_a_password(
    server: SecureServer, node: Callable[..., Node], login: Callable[..., ServerLogin]
) -> None:
    ours = server.issuer.issue(name=LINK_NAME)
    assert await who(node("require", **files(ours)), login("s_both")) == ["s_both", *THROUGH_TLS]
    with pytest.raises(PeerError, match="connection requires a valid client certificate"):
        await who(node("require"), login("s_both"))


def proved(server: SecureServer, role: str) -> ScramKeys:
    """What the proxy learns when a client of this name logs in to it, and the proxy has the server's secret."""
    secret = ScramSecret.parse(server.secret(role))
    salted = salted_password(prepare(server.passwords[role]), secret.salt, secret.iterations)
    return ScramKeys(client_key(salted), secret.server_key, secret.salt, secret.iterations)


@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
async def test_what_a_client_has_proved_is_enough_for_scram(
    server: SecureServer, node: Callable[..., Node], binding: str
) -> None:
    login = ServerLogin("s_scram", keys=proved(server, "s_scram"))
    assert await who(node("require", channel_binding=binding), login) == ["s_scram", *THROUGH_TLS]


async def test_what_was_proved_of_another_secret_is_said_to_be(server: SecureServer, node: Callable[..., Node]) -> None:
    with pytest.raises(PeerError, match="main: the node keeps another SCRAM secret of this user") as caught:
        await who(node("require"), ServerLogin("s_scram", keys=proved(server, "s_ssl")))
    assert "server_password" in (caught.value.hint or "")


async def test_what_scram_proved_is_of_no_use_for_md5(server: SecureServer, node: Callable[..., Node]) -> None:
    with pytest.raises(PeerError, match="of which the proxy has only what SCRAM proved"):
        await who(node("require"), ServerLogin("s_md5", keys=proved(server, "s_scram")))


async def test_an_md5_secret_is_enough_for_md5_and_for_nothing_else(
    server: SecureServer, node: Callable[..., Node]
) -> None:
    secret = server.secret("s_md5")
    assert await who(node("require"), ServerLogin("s_md5", md5=secret)) == ["s_md5", *THROUGH_TLS]
    with pytest.raises(PeerError, match="of which the proxy has only its MD5 secret") as caught:
        await who(node("require"), ServerLogin("s_scram", md5=secret))
    assert secret not in str(caught.value)


@pytest.mark.parametrize("role", ["s_md5", "s_password", "s_trust"])
async def test_with_channel_binding_required_nothing_else_will_do(
    node: Callable[..., Node], login: Callable[..., ServerLogin], role: str
) -> None:
    assert await who(node("require", channel_binding="require"), login("s_scram")) == ["s_scram", *THROUGH_TLS]
    with pytest.raises(PeerError, match=r"main asks for .*, and channel_binding is require") as caught:
        await who(node("require", channel_binding="require"), login(role))
    assert caught.value.sqlstate == "28000"


@pytest.mark.parametrize(
    ("role", "method"),
    [("s_scram", "scram-sha-256"), ("s_md5", "md5"), ("s_password", "password"), ("s_trust", "none")],
)
async def test_a_server_asks_as_require_auth_allows(
    node: Callable[..., Node], login: Callable[..., ServerLogin], role: str, method: str
) -> None:
    others = tuple({"scram-sha-256", "md5", "password", "none"} - {method})
    assert await who(node("require", require_auth=(method,)), login(role)) == [role, *THROUGH_TLS]
    with pytest.raises(PeerError, match=r"main asks for .*, and its require_auth allows .* only") as caught:
        await who(node("require", require_auth=others), login(role))
    assert caught.value.sqlstate == "28000"


# --- cancels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_a_cancel_goes_the_way_the_link_went(
    node: Callable[..., Node], login: Callable[..., ServerLogin], sslmode: str
) -> None:
    here = node(sslmode)
    opened = await open_link(here, "postgres", login("s_scram"), 10)
    link = Link(opened)
    assert (opened.tls is not None) == (sslmode == "require")

    async def cancel() -> None:
        while not outcome:  # until the statement runs
            assert await send_cancel(here, opened.key, 10, encrypted=opened.tls is not None)

    outcome: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        with pytest.raises(PeerError) as caught:
            await link.ask("select pg_sleep(60)")
        outcome.append(caught.value.sqlstate)
    assert outcome == ["57014"]
    await link.stream.aclose()


# --- the proxy's own connections ------------------------------------------------------------------------------------


async def own(server: SecureServer, node: Node, role: str, contexts: Contexts | None = None) -> list[str]:
    """Who the server says that the proxy's own connection is. Inside a loop of trio-asyncio."""
    health = Health(role, server.passwords[role])
    link = await connect(node, health, contexts or Contexts(), database="postgres", statement_timeout=5)
    try:
        row = await aio_as_trio(link.fetchrow)(WHO)
        assert row is not None
        name, encrypted, version = row.values()
        return [name, "t" if encrypted else "f", version]
    finally:
        drop(link)


@pytest.mark.parametrize(
    ("sslmode", "role", "through"),
    [
        ("disable", "s_scram", IN_THE_CLEAR),
        ("allow", "s_scram", IN_THE_CLEAR),
        ("allow", "s_ssl", THROUGH_TLS),
        ("prefer", "s_scram", THROUGH_TLS),
        ("prefer", "s_plain", IN_THE_CLEAR),
        ("require", "s_ssl", THROUGH_TLS),
    ],
)
async def test_an_own_connection_goes_as_a_link_would(
    server: SecureServer, node: Callable[..., Node], sslmode: str, role: str, through: list[str]
) -> None:
    async with trio_asyncio.open_loop():
        assert await own(server, node(sslmode), role) == [role, *through]


async def test_an_own_connection_verifies_as_a_link_does(server: SecureServer, node: Callable[..., Node]) -> None:
    good, contexts = server.issuer.file, Contexts()
    async with trio_asyncio.open_loop():
        for host in ("127.0.0.1", "localhost"):
            assert await own(server, node("verify-full", host, ca_file=good), "s_ssl", contexts) == [
                "s_ssl",
                *THROUGH_TLS,
            ]
        elsewhere = node("verify-full", "db.example.org", ca_file=good)
        elsewhere.addresses = (Address("127.0.0.1", server.node.address.port),)
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await own(server, elsewhere, "s_ssl", contexts)
        assert describe(caught.value).startswith("certificate verify failed: Hostname mismatch")
        with server.certified(server.issuer.issue("db.example.org")):
            assert await own(server, elsewhere, "s_ssl", contexts) == ["s_ssl", *THROUGH_TLS]
        with pytest.raises(ssl.SSLCertVerificationError):
            await own(server, node("require", ca_file=server.stranger.file), "s_ssl")


async def test_an_own_connection_shows_a_certificate(server: SecureServer, node: Callable[..., Node]) -> None:
    async with trio_asyncio.open_loop():
        ours = node("require", **files(server.issuer.issue(name=LINK_NAME)))
        assert await own(server, ours, "s_cert") == ["s_cert", *THROUGH_TLS]


async def test_a_wrong_password_of_an_own_connection_is_tried_once(
    server: SecureServer, node: Callable[..., Node]
) -> None:
    async with trio_asyncio.open_loop():
        health = Health("s_scram", "wrong")
        before = server.node.log.read_text().count('failed for user "s_scram"')
        with pytest.raises(asyncpg.InvalidPasswordError):
            await connect(node("prefer"), health, Contexts(), database="postgres", statement_timeout=5)
    assert server.node.log.read_text().count('failed for user "s_scram"') == before + 1


async def test_a_survey_goes_through_tls_too(server: SecureServer) -> None:
    address = Address("127.0.0.1", server.node.address.port)
    login = Login("s_ssl", server.passwords["s_ssl"], "postgres", 10)
    async with trio_asyncio.open_loop():
        assert not (await survey(address, login))["in_recovery"]
        assert (await survey(address, login, ServerTls("verify-full", ca_file=server.issuer.file)))["version"]
        with pytest.raises(SurveyError, match=r"no TLS with .*: certificate verify failed") as caught:
            await survey(address, login, ServerTls("verify-full", ca_file=server.stranger.file))
        assert caught.value.kind == "unreachable"


async def test_a_monitor_whose_connection_is_old_sees_that_no_other_can_be_opened(server: SecureServer) -> None:
    """Links are refused for the certificate; the connection that the monitor has kept works as before."""
    tls = ServerTls("verify-full", ca_file=server.issuer.file)
    config = NodeConfig("main", Address("localhost", server.node.address.port), tls=tls)
    cluster = Cluster([config], health=Health("s_ssl", server.passwords["s_ssl"]))
    [node] = cluster.nodes

    async def until(condition: Callable[[], bool]) -> None:
        while not condition():
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(Monitors(cluster).run)
        assert node.healthy
        with server.certified(server.issuer.issue("db.example.org")):
            for _ in range(3):
                with pytest.raises(Unreachable) as caught:
                    await open_link(node, "postgres", ServerLogin("s_ssl"), 10, contexts=cluster.contexts)
                cluster.reported(node, caught.value)
            await until(lambda: not node.healthy)
            assert node.reason.startswith("certificate verify failed: Hostname mismatch")
        await until(lambda: node.healthy)
        nursery.cancel_scope.cancel()
