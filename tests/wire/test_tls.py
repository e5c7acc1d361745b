"""TLS without sockets: two sides and the bytes between them, cut in any way."""

from __future__ import annotations

import contextlib
import datetime
import resource
import ssl
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.wire.client_hello import server_name
from heliosproxy.wire.tls import Tls, TlsError

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
CA = trustme.CA()
LEAF = CA.issue_cert("db.example.org", "127.0.0.1", "::1")


def server_context(leaf: trustme.LeafCert = LEAF, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["postgresql"])
    return _only(context, version)


def client_context(ca: trustme.CA = CA, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    context.set_alpn_protocols(["postgresql"])
    return _only(context, version)


def _only(context: ssl.SSLContext, version: ssl.TLSVersion | None) -> ssl.SSLContext:
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides of a connection."""

    server: Tls
    client: Tls

    def shake(self) -> None:
        """Carry the handshake to and fro until both are done."""
        for _ in range(10):
            for one, other in ((self.client, self.server), (self.server, self.client)):
                if not one.done:
                    one.handshake()
                other.feed(one.outgoing())
            if self.client.done and self.server.done:
                return
        raise AssertionError("the handshake goes on for ever")


def pair(
    server: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None, host: str = "db.example.org"
) -> Pair:
    return Pair(
        Tls(server or server_context(), server_side=True),
        Tls(client or client_context(), server_side=False, server_hostname=host),
    )


def shaken(version: ssl.TLSVersion | None = None) -> Pair:
    both = pair(server_context(version=version), client_context(version=version))
    both.shake()
    return both


VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLSv1.2", "TLSv1.3"]
)


def pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """`data` cut into pieces of these sizes, again and again."""
    at = number = 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        yield data[at : at + size]
        at, number = at + size, number + 1


@VERSIONS
def test_what_one_side_says_the_other_hears(version: ssl.TLSVersion) -> None:
    both = shaken(version)
    assert both.server.version == both.client.version == version.name.replace("_", ".")
    assert both.server.receive(both.client.send(b"a question")) == b"a question"
    assert both.client.receive(both.server.send(b"an answer")) == b"an answer"
    assert both.server.alpn == both.client.alpn == "postgresql"
    assert not both.server.closed


@VERSIONS
@given(
    spoken=st.lists(st.binary(max_size=40_000), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=5),
)
def test_the_stream_may_be_cut_anywhere(version: ssl.TLSVersion, spoken: list[bytes], sizes: list[int]) -> None:
    both = shaken(version)
    ciphertext = b"".join(map(both.client.send, spoken))
    assert b"".join(both.server.receive(piece) for piece in pieces(ciphertext, sizes)) == b"".join(spoken)


@VERSIONS
@pytest.mark.parametrize("size", [1, 3, 700])
def test_the_handshake_may_be_cut_anywhere(version: ssl.TLSVersion, size: int) -> None:
    both = pair(server_context(version=version), client_context(version=version))
    both.client.handshake()
    for _ in range(3):
        for one, other in ((both.client, both.server), (both.server, both.client)):
            for piece in pieces(one.outgoing(), [size]):
                assert not (other.done and other is both.client) or version is ssl.TLSVersion.TLSv1_3
                other.feed(piece)
                if not other.done:
                    other.handshake()
    assert both.client.done
    assert both.server.done
    assert both.server.server_name == "db.example.org"


def test_H1_what_came_with_the_last_of_the_handshake_is_not_lost() -> None:
    both = pair()
    both.client.handshake()
    both.server.feed(both.client.outgoing())
    both.server.handshake()
    both.client.feed(both.server.outgoing())
    assert both.client.handshake()
    both.server.feed(both.client.outgoing() + both.client.send(b"startup") + both.client.send(b"query"))
    assert both.server.handshake()
    assert both.server.receive() == b"startupquery"
    assert both.server.receive() == b""


def test_nothing_decrypted_is_nothing() -> None:
    both = shaken()
    ciphertext = both.client.send(b"x" * 5000)
    assert both.server.receive(ciphertext[:-1]) == b""
    assert both.server.receive(ciphertext[-1:]) == b"x" * 5000


def test_an_empty_send_says_nothing() -> None:
    both = shaken()
    both.server.receive(both.client.send(b""))
    assert both.client.send(b"") == b""
    assert both.client.outgoing() == b""


@VERSIONS
def test_tens_of_megabytes_pass_in_bounded_memory(version: ssl.TLSVersion) -> None:
    both, piece = shaken(version), bytes(1 << 20)
    both.server.receive(both.client.send(piece))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(48):
        assert len(both.server.receive(both.client.send(piece))) == len(piece)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024, "KB"


def test_a_large_piece_is_not_kept_by_the_buffers() -> None:
    """OpenSSL's buffers never shrink: whatever goes through them at once stays for the life of a connection."""
    both = shaken()
    ciphertext = both.client.send(bytes(32 << 20))
    assert sum(len(both.server.receive(piece)) for piece in pieces(ciphertext, [1 << 20])) == 32 << 20
    assert both.client.outgoing() == b""


@VERSIONS
def test_a_peer_that_says_its_last_word_is_heard_out(version: ssl.TLSVersion) -> None:
    both = shaken(version)
    last = both.client.send(b"goodbye") + both.client.close()
    assert both.server.receive(last + b"what follows is dropped") == b"goodbye"
    assert both.server.closed
    assert both.server.receive(b"for good") == b""
    both.client.receive(both.server.close())
    assert both.client.closed


def test_an_end_without_a_last_word_is_no_last_word() -> None:
    both = shaken()
    assert both.server.receive(both.client.send(b"cut short")[:-5]) == b""
    assert not both.server.closed


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\0\0\x08\x04\xd2\x16\x2f", b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 64, b"Q\0\0\0\x0dselect 1\0",
        b"\x16\x03\x01\xff\xff",
    ],
    ids=["SSLRequest", "HTTP", "ones", "a query in the clear", "a record that is too long"],
)  # fmt: skip
def test_what_is_no_handshake_is_refused(garbage: bytes) -> None:
    server = Tls(server_context(), server_side=True)
    server.feed(garbage)
    with pytest.raises(TlsError) as caught:
        server.handshake()
    assert caught.value.sqlstate == "08P01"
    assert server.outgoing()[:1] in (b"", b"\x15"), "an alert, or nothing"


@VERSIONS
@given(at=st.integers(0, 199), to=st.integers(0, 255))
def test_a_record_that_was_changed_is_refused(version: ssl.TLSVersion, at: int, to: int) -> None:
    both = shaken(version)
    ciphertext = bytearray(both.client.send(b"x" * 200))
    if ciphertext[at] == to:
        return
    ciphertext[at] = to
    try:
        assert both.server.receive(bytes(ciphertext)) == b"", "a longer record, the rest of which is to come"
    except TlsError:
        assert both.server.outgoing()[:1] in (b"\x15", b"\x17"), "an alert, perhaps encrypted"


@given(st.binary(max_size=300))
def test_garbage_behind_a_handshake_never_gets_through(garbage: bytes) -> None:
    both = shaken()
    with contextlib.suppress(TlsError):
        assert both.server.receive(garbage) == b""


@given(cut=st.integers(0, 400), garbage=st.binary(min_size=1, max_size=100))
def test_a_handshake_that_turns_into_garbage_ends_in_one_error(cut: int, garbage: bytes) -> None:
    both = pair()
    both.client.handshake()
    both.server.feed(both.client.outgoing()[:cut] + garbage)
    with contextlib.suppress(TlsError):
        assert not both.server.handshake()


@pytest.mark.parametrize("host", ["db.example.org", "127.0.0.1", "::1"])
def test_a_server_is_known_by_its_name_or_address(host: str) -> None:
    both = pair(host=host)
    both.shake()
    assert both.server.server_name == (host if "example" in host else ""), "addresses are not sent"


def refusal(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "db.example.org") -> tuple[str, str]:
    """What the client has against the server, and what the server hears of it."""
    both = pair(server, client, host)
    with pytest.raises(TlsError) as ours:
        both.shake()
    both.server.feed(both.client.outgoing())
    with pytest.raises(TlsError) as theirs:
        both.server.handshake()
    return ours.value.message, theirs.value.message


def test_a_certificate_of_an_unknown_issuer_is_refused() -> None:
    ours, theirs = refusal(server_context(), client_context(trustme.CA()))
    assert ours == "certificate verify failed: unable to get local issuer certificate"
    assert theirs == "the peer ended TLS: unknown ca"


def test_a_certificate_that_has_expired_is_refused() -> None:
    until = LONG_AGO + datetime.timedelta(days=1)
    expired = CA.issue_cert("db.example.org", not_before=LONG_AGO, not_after=until)
    assert "certificate has expired" in refusal(server_context(expired), client_context())[0]


@pytest.mark.parametrize("host", ["other.example.org", "127.0.0.2"])
def test_a_certificate_of_another_host_is_refused(host: str) -> None:
    ours, _ = refusal(server_context(), client_context(), host)
    assert "mismatch" in ours
    assert host in ours


def test_a_client_that_shows_no_certificate_has_none() -> None:
    both = shaken()
    assert both.server.peer_certificate is None
    assert both.client.peer_certificate == ssl.PEM_cert_to_DER_cert(LEAF.cert_chain_pems[0].bytes().decode())


def test_a_server_that_nobody_verifies_shows_its_certificate_nevertheless() -> None:
    careless = client_context(trustme.CA())
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    both = pair(client=careless)
    both.shake()
    assert both.client.peer_certificate == ssl.PEM_cert_to_DER_cert(LEAF.cert_chain_pems[0].bytes().decode())


def asking(mode: ssl.VerifyMode, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A server that asks for a certificate."""
    context = server_context(version=version)
    CA.configure_trust(context)
    context.verify_mode = mode
    return context


def showing(ca: trustme.CA, version: ssl.TLSVersion | None = None) -> tuple[ssl.SSLContext, bytes]:
    """A client with a certificate, and that as DER."""
    leaf, context = ca.issue_cert(common_name="someone"), client_context(version=version)
    leaf.configure_cert(context)
    return context, ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


@VERSIONS
def test_a_client_may_show_a_certificate(version: ssl.TLSVersion) -> None:
    context, der = showing(CA, version)
    both = pair(asking(ssl.CERT_OPTIONAL, version), context)
    both.shake()
    assert both.server.peer_certificate == der


@VERSIONS
def test_a_client_with_a_certificate_of_somebody_else_is_refused(version: ssl.TLSVersion) -> None:
    context, _ = showing(trustme.CA(), version)
    both = pair(asking(ssl.CERT_OPTIONAL, version), context)
    with pytest.raises(TlsError, match="certificate verify failed"):
        both.shake()
    assert both.server.peer_certificate is None
    both.client.feed(both.server.outgoing())
    with pytest.raises(TlsError, match="the peer ended TLS: unknown ca"):
        both.client.receive() if both.client.done else both.client.handshake()


def test_a_client_without_a_certificate_learns_that_one_is_needed() -> None:
    both = pair(asking(ssl.CERT_REQUIRED))
    with pytest.raises(TlsError):
        both.shake()
    with pytest.raises(TlsError, match="the peer ended TLS: certificate required"):
        both.client.receive(both.server.outgoing())


def hello(host: str = "db.example.org") -> bytes:
    """What a client says first."""
    client = Tls(client_context(), server_side=False, server_hostname=host)
    client.handshake()
    return client.outgoing()


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"db.example.org", "db.example.org"),
        (b"DB.Example.ORG", "db.example.org"),
        (b"db.example.or.", "db.example.or"),
        (b"db.ex\xffmple.org", ""),
        (b"db ex mple.org", ""),
        (b"db\nexample.org", ""),
    ],
    ids=["as it is", "in capitals", "a dot at its end", "not ASCII", "a blank", "a line end"],
)
def test_the_name_that_a_client_asks_for(said: bytes, heard: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever it is, nothing is printed: nobody who has not logged in writes to our log."""
    changed = hello().replace(b"db.example.org", said)
    assert server_name(changed) == heard
    server = Tls(server_context(), server_side=True)
    server.feed(changed)
    with contextlib.suppress(TlsError):
        assert not server.handshake()
    assert capfd.readouterr() == ("", "")


@given(data=st.data())
def test_a_hello_that_was_changed_has_some_name_or_none(data: st.DataObject) -> None:
    changed = bytearray(hello())
    for _ in range(data.draw(st.integers(1, 5))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    name = server_name(bytes(changed[: data.draw(st.integers(0, len(changed)))]))
    assert name.isascii()
    assert name == name.strip()


def test_a_hello_in_many_records_has_its_name() -> None:
    body = hello()[5:]
    records = b"".join(b"\x16\x03\x01" + struct.pack("!H", len(part)) + part for part in pieces(body, [7]))
    assert server_name(records) == "db.example.org"
    assert server_name(records[:100]) == ""
