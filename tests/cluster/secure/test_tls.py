"""What goes through TLS: first bytes (H1), cancel requests, large copies and results; and what gets no further."""

from __future__ import annotations

import hashlib
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from heliosproxy.wire.startup import StartupMessage
from tests.certificates import Issued
from tests.cluster import raw
from tests.cluster.proxies import RunningProxy, wait_for
from tests.cluster.secure.clients import Login, Refused, psql_says, psycopg_says
from tests.cluster.secure.proxies import entry, keys, running, section
from tests.cluster.secure.server import SecureServer
from tests.cluster.secure.tls import ALPN, SSL_REQUEST, asked, context, secured, shown

SLEEPING = "select count(*) from pg_stat_activity where query like 'select pg_sleep(30)%' and state = 'active'"


@dataclass(frozen=True, slots=True)
class Both:
    """The proxy with TLS on both sides, and who comes in without a password."""

    server: SecureServer
    proxy: RunningProxy
    own: Issued
    revoked: Issued

    @property
    def address(self) -> tuple[str, int]:
        return self.proxy.host, self.proxy.port

    def login(self, **changes: object) -> Login:
        """As s_scram, by trust."""
        known = {"sslmode": "verify-full", "ca": self.server.issuer.file, **changes}
        return Login(*self.address, "s_scram", **known)  # type: ignore[arg-type]

    def connect(self, **changes: object) -> psycopg.Connection:
        """A connection through TLS, in autocommit."""
        return psycopg.connect(**self.login(**changes).parameters(), autocommit=True)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def both(server: SecureServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    own = server.issuer.issue("localhost", "127.0.0.1")
    revoked = server.issuer.issue(name="revoked")
    text = (
        section("client_tls", own=own, ca_file=server.issuer.file, crl_file=server.issuer.revoke(revoked))
        + section("server_tls", sslmode="verify-full", ca_file=server.issuer.file)
        + section("pool", size=4)
        + entry("auth.rules", type="hostssl", method="cert", user=["revoked", "s_ssl"])
        + entry("auth.rules", method="trust", user=["s_scram"])
        + "".join(
            entry("auth.users", name=role, password=server.passwords[role]) for role in ("s_scram", "s_ssl")
        )
    )
    with running(server, tmp_path_factory.mktemp("proxy"), text) as proxy, proxy.deadline(120):
        yield Both(server, proxy, own, revoked)
        assert proxy.faults() == []


STARTUP = StartupMessage({"user": "s_scram", "database": "helios"}).encode()


def answered(connection: ssl.SSLSocket) -> raw.Answer:
    """What comes up to the end of the first unit, the greeting left out."""
    client = _Ready(connection)
    assert client.answer().status == "I"  # the greeting
    return client.answer()


class _Ready(raw.Client):
    """A client on a connection on which the start-up has been sent already."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.socket = connection
        self.parameters, self.notifications = {}, []
        self._kept, self._at, self.status = bytearray(), 0, ""


# --- H1: bytes travel with sessions


@pytest.mark.parametrize("direct", [False, True])
def test_H1_a_start_up_and_a_query_may_share_a_record(both: Both, direct: bool) -> None:
    with secured(both.address, direct=direct) as connection:
        connection.sendall(STARTUP + raw.query("select 'at once'") + raw.query("select 'and again'"))
        client = _Ready(connection)
        assert client.answer().status == "I"
        assert client.answer().rows == [("at once",)]
        assert client.answer().rows == [("and again",)]


@pytest.mark.parametrize("cut", [1, 4, 7, len(STARTUP) - 1, len(STARTUP), len(STARTUP) + 3])
def test_H1_records_may_end_anywhere(both: Both, cut: int) -> None:
    data = STARTUP + raw.query("select 'in two'")
    with secured(both.address) as connection:
        connection.sendall(data[:cut])
        connection.sendall(data[cut:])
        assert answered(connection).rows == [("in two",)]


def test_H1_bytes_behind_the_request_for_tls_are_refused(both: Both) -> None:
    for behind in (STARTUP, b"x", STARTUP + raw.query("select 1"), SSL_REQUEST):
        with raw.connected(both.address) as connection:
            connection.sendall(SSL_REQUEST + behind)
            assert connection.recv(1) == b"S"  # as PostgreSQL, which looks for them after it has answered
            client = _Ready(connection)  # type: ignore[arg-type]
            with pytest.raises(raw.Gone) as ended:
                client.answer()
            assert ended.value.fields["C"] == "08P01"
            assert ended.value.fields["M"] == "received unencrypted data after SSL request"
            with pytest.raises(raw.Gone):
                client.message()


def test_H1_what_was_sent_in_the_clear_never_reaches_the_session(both: Both) -> None:
    """Somebody in the middle puts a statement in front of a handshake that is not his: it ends there."""
    with raw.connected(both.address) as connection:
        connection.sendall(SSL_REQUEST + raw.query("create table injected ()"))
        assert connection.recv(1) == b"S"
        with pytest.raises((OSError, ssl.SSLError)):
            context().wrap_socket(connection, server_hostname="127.0.0.1")
    assert psycopg_says(both.login()) == ("s_scram", "t")


# --- how TLS begins


def test_direct_tls_must_name_the_protocol(both: Both) -> None:
    with secured(both.address, direct=True) as named:
        assert named.selected_alpn_protocol() == ALPN
    for offer in ((), ("http/1.1",)):
        with pytest.raises(OSError) as refused:  # noqa: PT011 - an alert, or an error within TLS
            _begin(both, context(alpn=offer))
        if isinstance(refused.value, raw.Gone):
            assert "ALPN" in refused.value.fields["M"]


def _begin(both: Both, through: ssl.SSLContext) -> None:
    with secured(both.address, through, direct=True) as connection:
        connection.sendall(STARTUP)
        _Ready(connection).answer()


def test_tls_that_was_asked_for_needs_no_name_of_a_protocol(both: Both) -> None:
    for offer, chosen in (((), None), ((ALPN,), ALPN)):
        with secured(both.address, context(alpn=offer)) as connection:
            assert connection.selected_alpn_protocol() == chosen


def test_tls_is_not_begun_within_tls(both: Both) -> None:
    with secured(both.address) as connection:
        connection.sendall(SSL_REQUEST)
        with pytest.raises(raw.Gone) as ended:
            _Ready(connection).answer()
        assert ended.value.fields["C"] == "08P01"


def test_what_is_no_handshake_ends_the_connection(both: Both) -> None:
    for garbage in (b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" + bytes(300), b"GET / HTTP/1.1\r\n\r\n"):
        with asked(both.address) as connection:
            connection.sendall(garbage)
            while connection.recv(4096):  # an alert, perhaps
                pass


def test_the_oldest_versions_are_not_spoken(both: Both) -> None:
    old = context()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        secured(both.address, old)
    newer = context()
    newer.maximum_version = ssl.TLSVersion.TLSv1_2
    with secured(both.address, newer) as connection:
        assert connection.version() == "TLSv1.2"
        connection.sendall(STARTUP + raw.query("select 'old enough'"))
        assert answered(connection).rows == [("old enough",)]


def test_the_certificate_that_is_configured_is_shown(both: Both) -> None:
    assert shown(both.address) == both.own.der


def test_a_certificate_that_is_revoked_ends_the_handshake_even_where_none_is_needed(both: Both) -> None:
    with pytest.raises(Refused, match="certificate revoked"):
        psql_says(both.login(certificate=both.revoked))


def test_a_certificate_that_is_not_revoked_is_good(both: Both) -> None:
    good = both.server.issuer.issue(name="s_ssl")
    login = Login(*both.address, "s_ssl", sslmode="require", certificate=good)
    assert psycopg_says(login) == ("s_ssl", "t")


# --- cancel requests


@pytest.mark.parametrize("way", ["encrypted", "clear", "by hand"])
def test_cancel_requests_work_beside_tls(both: Both, way: str) -> None:
    """libpq 17 and later cancel through TLS, older ones in the clear; towards the server it is as the link is."""
    with both.connect() as connection:
        failure: list[BaseException] = []

        def sleep() -> None:
            try:
                connection.execute("select pg_sleep(30)")
            except psycopg.Error as error:
                failure.append(error)

        sleeping = threading.Thread(target=sleep)
        sleeping.start()
        wait_for(lambda: both.server.cluster.psql(SLEEPING) == "1", "the statement to run")
        _cancel(both, connection, way)
        sleeping.join(raw.DEADLINE)
        assert [getattr(error, "sqlstate", None) for error in failure] == ["57014"]
        assert connection.execute("select 1").fetchone() == (1,)


def _cancel(both: Both, connection: psycopg.Connection, way: str) -> None:
    if way == "encrypted":
        connection.cancel_safe(timeout=10)
    elif way == "clear":
        connection.pgconn.get_cancel().cancel()
    else:
        key = connection.pgconn.backend_pid  # the secret half is not to be had, so that this one fits nobody
        with secured(both.address) as asking:
            asking.sendall(struct.pack("!iii", 16, 80877102, key) + bytes(4))
            assert asking.recv(1) == b""
        connection.cancel_safe(timeout=10)


# --- large things


ROWS, WIDTH = 50, 1_000_000


def test_a_copy_of_fifty_megabytes_goes_in_and_out_in_flat_memory(both: Both) -> None:
    lines = [(bytes([ord("a") + number % 26]) * (WIDTH - 1) + b"\n") for number in range(ROWS)]
    with both.connect() as connection:
        connection.execute("create temp table copied (line text)")
        with connection.cursor().copy("copy copied from stdin") as copy:
            copy.write(lines[0])
            before = both.proxy.memory()
            most = before
            for line in lines[1:]:
                copy.write(line)
                most = max(most, both.proxy.memory())
        assert connection.execute("select count(*), sum(length(line)) from copied").fetchone() == (
            ROWS,
            ROWS * (WIDTH - 1),
        )
        read = hashlib.sha256()
        with connection.cursor().copy("copy copied to stdout") as copy:
            for data in copy:
                read.update(data)
                most = max(most, both.proxy.memory())
    assert read.digest() == hashlib.sha256(b"".join(lines)).digest()
    assert most - before < 24_000_000


def test_a_large_result_is_what_the_server_says(both: Both) -> None:
    sql = "select md5(i::text) from generate_series(1, 200000) i order by i"
    expected = both.server.cluster.psql(f"select md5(string_agg(m, '')) from ({sql}) s(m)", database="helios")
    with both.connect() as connection:
        found = hashlib.md5(usedforsecurity=False)
        with connection.cursor() as cursor:
            for (value,) in cursor.stream(sql):
                found.update(value.encode())
    assert found.hexdigest() == expected


def test_a_reader_who_stops_holds_up_the_server_and_not_the_proxys_memory(both: Both) -> None:
    with secured(both.address) as slow, both.connect() as other:
        slow.sendall(STARTUP + raw.query(f"select repeat('x', 10000) from generate_series(1, {ROWS * 100}) -- much"))
        stuck = "select count(*) from pg_stat_activity where query like '%-- much' and wait_event = 'ClientWrite'"
        wait_for(lambda: other.execute(stuck).fetchone() == (1,), "the server to wait for the reader")
        assert both.proxy.memory() < 250_000_000
        client = _Ready(slow)
        assert client.answer().status == "I"
        assert len(client.answer().rows) == ROWS * 100


def test_many_small_statements_in_one_go_come_back_in_order(both: Both) -> None:
    with secured(both.address) as connection:
        connection.sendall(STARTUP + b"".join(raw.query(f"select {number}") for number in range(500)))
        client = _Ready(connection)
        assert client.answer().status == "I"
        assert [client.answer().rows for _ in range(500)] == [[(str(number),)] for number in range(500)]


def test_a_client_that_vanishes_within_tls_is_gone(both: Both) -> None:
    connection = secured(both.address)
    connection.sendall(STARTUP + raw.query("begin; set local application_name = 'vanishing'"))
    client = _Ready(connection)
    assert client.answer().status == "I"
    assert client.answer().status == "T"
    client.reset()
    left = "select count(*) from pg_stat_activity where application_name = 'vanishing' and state like 'idle in%'"
    wait_for(lambda: both.server.cluster.psql(left) == "0", "its transaction to end")


def test_the_end_is_said_before_the_connection_closes(both: Both) -> None:
    """A close_notify, without which a client could not tell an end from a cut."""
    plain = asked(both.address)
    with context().wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as connection:
        connection.sendall(STARTUP + raw.TERMINATE)
        while connection.recv(65536):
            pass


# --- one proxy behind another


def test_a_proxy_is_a_node_of_another_one_with_tls_from_the_first_byte(both: Both, tmp_path: Path) -> None:
    text = (
        section("client_tls", own=both.own)
        + section("server_tls", sslmode="verify-full", sslnegotiation="direct", ca_file=both.server.issuer.file)
        + entry("auth.rules", method="trust")
        + entry("auth.users", name="s_scram", password=both.server.passwords["s_scram"])
    )
    node, health = keys(address=f"localhost:{both.proxy.port}"), keys(user="s_scram")
    with running(both.server, tmp_path, text, node=node, health=health) as outer, outer.deadline(30):
        login = Login(outer.host, outer.port, "s_scram", sslmode="verify-full", ca=both.server.issuer.file)
        assert psycopg_says(login) == ("s_scram", "t")
        assert outer.faults() == []
