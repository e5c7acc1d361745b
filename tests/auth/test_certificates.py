"""Certificates: what channel binding takes of them, and whom they name, as OpenSSL and PostgreSQL read them."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import subprocess
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosproxy.auth.certificates import common_name, distinguished_name, leaf_of, server_end_point

CN = NameOID.COMMON_NAME
KEY = ec.generate_private_key(ec.SECP256R1())
UNKNOWN = ObjectIdentifier("1.2.3.4")
Parts = Sequence[Sequence[tuple[ObjectIdentifier, str]]]


def make(
    name: x509.Name,
    key: CertificateIssuerPrivateKeyTypes = KEY,
    algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = hashes.SHA256(),  # noqa: B008 - has no state
    rsa_padding: padding.PSS | None = None,
) -> bytes:
    """A certificate for the name, signed by itself, as DER."""
    now = datetime.datetime(2024, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now.replace(year=2040))
    return builder.sign(key, algorithm, rsa_padding=rsa_padding).public_bytes(Encoding.DER)


def named(*parts: Sequence[tuple[ObjectIdentifier, str]]) -> x509.Name:
    return x509.Name(
        [x509.RelativeDistinguishedName([x509.NameAttribute(oid, text) for oid, text in part]) for part in parts]
    )


def pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def openssl(der: bytes) -> str:
    """The subject as OpenSSL's own program writes it."""
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "RFC2253"]
    done = subprocess.run(command, input=der, capture_output=True, timeout=20, check=True)
    return done.stdout.decode().removeprefix("subject=").removesuffix("\n")


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the program openssl is not installed")
BOB = make(named([(CN, "bob")]))


# --- channel binding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "name"), [(hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384"), (hashes.SHA512(), "sha512")]
)  # fmt: skip
def test_the_binding_is_the_hash_that_the_signature_uses(algorithm: hashes.SHA256, name: str) -> None:
    for key in (KEY, rsa.generate_private_key(65537, 2048)):
        der = make(named([(CN, "db")]), key, algorithm)
        assert server_end_point(der) == hashlib.new(name, der).digest()


def test_the_binding_of_rsa_pss_is_the_hash_of_its_parameters() -> None:
    key = rsa.generate_private_key(65537, 2048)
    der = make(named([(CN, "db")]), key, hashes.SHA384(), padding.PSS(padding.MGF1(hashes.SHA384()), 48))
    assert server_end_point(der) == hashlib.sha384(der).digest()


@pytest.mark.parametrize(("weak", "algorithm"), [("md5WithRSAEncryption", b"\x04"), ("sha1WithRSAEncryption", b"\x05")])
def test_md5_and_sha1_count_as_sha256(weak: str, algorithm: bytes) -> None:
    """The names of the algorithms differ in one byte, and nobody signs with these any more."""
    der = make(named([(CN, "db")]), rsa.generate_private_key(65537, 2048))
    rsa_with = bytes.fromhex("06092a864886f70d0101")
    assert der.count(rsa_with + b"\x0b") == 2
    der = der.replace(rsa_with + b"\x0b", rsa_with + algorithm)
    assert server_end_point(der) == hashlib.sha256(der).digest(), weak


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()])
def test_a_signature_without_a_hash_of_its_own_has_no_binding(key: ed25519.Ed25519PrivateKey) -> None:
    assert server_end_point(make(named([(CN, "db")]), key, None)) is None


@given(st.binary(max_size=60))
def test_what_is_no_certificate_has_no_binding_and_names_nobody(data: bytes) -> None:
    assert (server_end_point(data), common_name(data), distinguished_name(data)) == (None, None, None)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_certificate_raises_nothing() -> None:
    """What comes here was believed by OpenSSL; still, nothing in it may end more than a login."""
    for at, byte in enumerate(BOB):
        for other in (0, 1, byte ^ 0x01, byte ^ 0x20, byte ^ 0x80, 0xFF):
            damaged = BOB[:at] + bytes((other,)) + BOB[at + 1 :]
            for read in (server_end_point, common_name, distinguished_name):
                read(damaged)


# --- PEM ------------------------------------------------------------------------------------------------------------


def test_the_first_certificate_of_a_file_is_the_one() -> None:
    other = make(named([(CN, "issuer")]))
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert leaf_of(pem(BOB) + pem(other)) == BOB
    assert leaf_of(key + b"text in between\n" + pem(BOB) + pem(other)) == BOB
    assert leaf_of(pem(BOB).replace(b"\n", b"\r\n")) == BOB


@pytest.mark.parametrize("text", [b"", b"-----BEGIN CERTIFICATE-----", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_a_file_without_a_certificate_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="no certificate"):
        leaf_of(text)


# --- names ----------------------------------------------------------------------------------------------------------


def test_the_first_common_name_is_the_user() -> None:
    assert common_name(BOB) == "bob"
    assert common_name(make(named([(CN, "bob")], [(CN, "alice")]))) == "bob"
    assert common_name(make(named([(CN, "bob ü")]))) == "bob ü"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(named([(NameOID.ORGANIZATION_NAME, "bob")]), id="none"),
        pytest.param(named(), id="no subject"),
        pytest.param(named([(CN, "bob\0.example.org")]), id="NUL inside"),
        pytest.param(named([(CN, "\0bob")]), id="NUL first"),
        pytest.param(named([(CN, "bob\0")]), id="NUL last"),
        pytest.param(named([(CN, "bob\0evil")], [(CN, "bob")]), id="NUL in the first of two"),
    ],
)
def test_a_certificate_without_a_plain_common_name_names_nobody(name: x509.Name) -> None:
    assert common_name(make(name)) is None


@pytest.mark.parametrize("name", [named(), named([(CN, "bob\0")]), named([(NameOID.DOMAIN_COMPONENT, "x\0")])])
def test_a_subject_that_is_empty_or_holds_a_nul_names_nobody(name: x509.Name) -> None:
    assert distinguished_name(make(name)) is None


NAMES = [
    ([[(CN, "bob")]], "CN=bob"),
    (
        [[(NameOID.COUNTRY_NAME, "DE")], [(NameOID.ORGANIZATION_NAME, 'A, "B" + <C>; \\')], [(CN, "bob=ü")]],
        'CN=bob=\\C3\\BC,O=A\\, \\"B\\" \\+ \\<C\\>\\; \\\\,C=DE',
    ),
    ([[(CN, "#bob")]], "CN=\\#bob"),
    ([[(CN, " bob ")]], "CN=\\ bob\\ "),
    ([[(CN, " ")]], "CN=\\ "),
    ([[(CN, "b\x01\x7f")]], "CN=b\\01\\7F"),
    ([[(NameOID.EMAIL_ADDRESS, "bob@example.org"), (CN, "bob")]], None),
    ([[(UNKNOWN, "hello")], [(CN, "bob")]], "CN=bob,1.2.3.4=#0C0568656C6C6F"),
    ([[(UNKNOWN, "x" * 200)]], None),
    ([[(NameOID.SURNAME, "a")], [(NameOID.GIVEN_NAME, "b")], [(NameOID.USER_ID, "c")]], "UID=c,GN=b,SN=a"),
    ([[(NameOID.DOMAIN_COMPONENT, "org")], [(NameOID.DOMAIN_COMPONENT, "example")]], "DC=example,DC=org"),
]


@pytest.mark.parametrize(("parts", "written"), NAMES)
def test_a_subject_is_written_as_rfc_2253_has_it(parts: Parts, written: str | None) -> None:
    found = distinguished_name(make(named(*parts)))
    assert found is not None
    assert written in (None, found)


@needs_openssl
@pytest.mark.parametrize(("parts", "written"), NAMES)
def test_a_subject_is_written_as_openssl_does(parts: Parts, written: str | None) -> None:
    der = make(named(*parts))
    assert distinguished_name(der) == openssl(der)


@needs_openssl
def test_every_part_that_has_a_short_name_has_openssls() -> None:
    every = [each for each in vars(NameOID).values() if isinstance(each, ObjectIdentifier)]
    der = make(x509.Name([_part(oid) for oid in every]))
    for ours, theirs in zip((distinguished_name(der) or "").split(","), openssl(der).split(","), strict=True):
        # Where OpenSSL's table is longer than ours, we write the number: never one part under the name of another.
        assert ours == theirs or ours[0].isdigit()


def _part(oid: ObjectIdentifier) -> x509.NameAttribute[str | bytes]:
    if oid == NameOID.X500_UNIQUE_IDENTIFIER:
        return x509.NameAttribute(oid, b"\0\x01", _ASN1Type.BitString)
    return x509.NameAttribute(oid, "DE" if oid in (NameOID.COUNTRY_NAME, NameOID.JURISDICTION_COUNTRY_NAME) else "x")


@needs_openssl
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12), min_size=1,
                max_size=3))  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_any_text_is_written_as_openssl_does(texts: list[str]) -> None:
    der = make(named(*([(CN, text)] for text in texts)))
    assert distinguished_name(der) == openssl(der)
