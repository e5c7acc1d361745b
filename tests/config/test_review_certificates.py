"""What an adversarial review has found in TLS: sessions that are resumed, chains with somebody revoked in them."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from heliosproxy.config.access import Auth, ClientTls
from heliosproxy.config.tls import BadTls, for_clients
from heliosproxy.switch.access import Access
from heliosproxy.wire.tls import Tls, TlsError

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Party:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def files(self, directory: Path, *chain: Party) -> tuple[Path, Path]:
        name = f"{self.certificate.serial_number}"
        crt, key = directory / f"{name}.crt", directory / f"{name}.key"
        crt.write_bytes(b"".join(each.pem for each in (self, *chain)))
        key.touch(0o600)
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key.write_bytes(self.key.private_bytes(serialization.Encoding.PEM, *form))
        return crt, key

    def revokes(self, *others: Party) -> bytes:
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(NOW - DAY).next_update(NOW + DAY)
        for other in others:
            entry = x509.RevokedCertificateBuilder().serial_number(other.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(NOW - DAY).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def party(name: str, issuer: Party | None = None, *, issues: bool = False) -> Party:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, with_key = (subject, key) if issuer is None else (issuer.certificate.subject, issuer.key)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(by).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    builder = builder.add_extension(x509.BasicConstraints(issues, None), True)
    return Party(builder.sign(with_key, hashes.SHA256()), key)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLObject:
    """The client's side after a handshake. Raises what the server raises."""
    there, back, mine = Tls(server, server_side=True), ssl.MemoryBIO(), ssl.MemoryBIO()
    side = client.wrap_bio(back, mine, False, "localhost", session)
    while not there.done:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
        there.feed(mine.read())
        there.handshake()
        back.write(there.outgoing())
    side.do_handshake()
    there.receive(mine.read())
    back.write(there.close())  # OpenSSL forgets sessions that did not end well
    return side


def anyone(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    return context


def test_a_client_whose_issuer_is_revoked_is_not_let_in(tmp_path: Path) -> None:
    root = party("root", issues=True)
    middle = party("middle", root, issues=True)
    crt, key = party("localhost", root).files(tmp_path)
    (tmp_path / "ca").write_bytes(root.pem)
    (tmp_path / "crl").write_bytes(root.revokes(middle) + middle.revokes())
    server = for_clients(ClientTls(cert_file=crt, key_file=key, ca_file=tmp_path / "ca", crl_file=tmp_path / "crl"))
    assert server is not None
    client = anyone()
    client.load_cert_chain(*party("bob", middle).files(tmp_path, middle))
    with pytest.raises(TlsError, match="revoked"):
        handshake(server, client)


def test_sessions_of_TLS_1_2_are_forgotten_with_their_context(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("localhost")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "crt")
    (tmp_path / "key").touch(0o600)
    leaf.private_key_pem.write_to_path(tmp_path / "key")
    access = Access.of(Auth(), ClientTls(cert_file=tmp_path / "crt", key_file=tmp_path / "key"))
    client = anyone(ssl.TLSVersion.TLSv1_2)
    assert access.context is not None
    first = handshake(access.context, client)
    assert handshake(access.context, client, first.session).session_reused
    renewed = access.renewed()
    assert renewed.context is not None
    assert not handshake(renewed.context, client, first.session).session_reused
    with (tmp_path / "crt").open("ab") as file:
        file.write(b"# another one\n")
    with pytest.raises(BadTls, match="helios reload"):
        access.renewed()


def test_no_session_of_TLS_1_3_is_resumed(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("localhost")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "crt")
    (tmp_path / "key").touch(0o600)
    leaf.private_key_pem.write_to_path(tmp_path / "key")
    server = for_clients(ClientTls(cert_file=tmp_path / "crt", key_file=tmp_path / "key"))
    assert server is not None
    client = anyone()
    first = handshake(server, client)
    assert not handshake(server, client, first.session).session_reused
