"""Certificates for tests: an issuer, what it has issued, and lists of what it has taken back, as files."""

from __future__ import annotations

import datetime
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, as PEM files; the key only its owner can read."""

    certificate: Path
    key: Path

    @property
    def der(self) -> bytes:
        """The certificate as it travels."""
        return self._x509.public_bytes(serialization.Encoding.DER)

    @property
    def serial(self) -> int:
        """Its number."""
        return self._x509.serial_number

    @property
    def _x509(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())

    def become(self, other: Issued) -> None:
        """Hold what `other` holds: a renewal. Each file is replaced at once, so that nobody reads half of one."""
        for mine, theirs in ((self.certificate, other.certificate), (self.key, other.key)):
            fresh = mine.with_name(f"{mine.name}.fresh")
            _write(fresh, theirs.read_bytes())
            fresh.replace(mine)


class Issuer:
    """A certificate authority that writes what it issues into `directory`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._ca = trustme.CA()
        self._numbers = itertools.count(1)
        self.file = directory / "ca.crt"
        """Its own certificate."""
        self.file.write_bytes(self._ca.cert_pem.bytes())

    def issue(self, *hosts: str, name: str | None = None, expired: bool = False) -> Issued:
        """A certificate for hosts (names or addresses), or with the common name that clients' certificates have."""
        until = LONG_AGO + datetime.timedelta(days=1) if expired else None
        leaf = self._ca.issue_cert(*hosts, common_name=name, not_before=LONG_AGO if expired else None, not_after=until)
        stem = self.directory / f"{next(self._numbers)}-{(name or hosts[0]).replace(' ', '-')}"
        issued = Issued(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        issued.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        _write(issued.key, leaf.private_key_pem.bytes())
        return issued

    def revoke(self, *issued: Issued) -> Path:
        """A list that says that these are no longer good."""
        now = datetime.datetime.now(datetime.UTC)
        own = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        builder = x509.CertificateRevocationListBuilder().issuer_name(own.subject)
        builder = builder.last_update(now - datetime.timedelta(days=1)).next_update(now + datetime.timedelta(days=1))
        for each in issued:
            entry = x509.RevokedCertificateBuilder().serial_number(each.serial)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - datetime.timedelta(hours=1)).build())
        file = self.directory / f"{next(self._numbers)}.crl"
        file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return file


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
