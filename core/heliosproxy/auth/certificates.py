"""What a certificate says: whom it names, and what channel binding takes of it.

Sources: RFC 5929, section 4 (tls-server-end-point); RFC 2253 (names as text) in the way of OpenSSL, since PostgreSQL
compares with that. Whether a certificate is to be believed is the business of OpenSSL and has been settled before.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from types import MappingProxyType

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

_PEM = re.compile(rb"-----BEGIN (?P<kind>(?:X509 )?CERTIFICATE)-----(?P<text>[^-]*)-----END (?P=kind)-----")
_WEAK = ("md5", "sha1")
_ESCAPED = frozenset(b',+"<>;\\')
_SHORT: Mapping[str, str] = MappingProxyType(
    {
        "2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
        "2.5.4.9": "street", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.13": "description",
        "2.5.4.15": "businessCategory", "2.5.4.16": "postalAddress", "2.5.4.17": "postalCode",
        "2.5.4.20": "telephoneNumber", "2.5.4.41": "name", "2.5.4.42": "GN", "2.5.4.43": "initials",
        "2.5.4.44": "generationQualifier", "2.5.4.45": "x500UniqueIdentifier", "2.5.4.46": "dnQualifier",
        "2.5.4.65": "pseudonym", "2.5.4.97": "organizationIdentifier",
        "0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.3": "mail", "0.9.2342.19200300.100.1.25": "DC",
        "1.2.840.113549.1.9.1": "emailAddress", "1.2.840.113549.1.9.2": "unstructuredName",
        "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL", "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
        "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
    }
)  # fmt: skip
"""What OpenSSL calls the parts of a name. Others are written by number, and their values as hexadecimal digits."""


def leaf_of(pem: bytes) -> bytes:
    """The first certificate in a PEM file, as DER: the one that OpenSSL shows to peers.

    Raises ValueError if there is none.
    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("no certificate in it")
    return base64.b64decode(found["text"])


def server_end_point(der: bytes) -> bytes | None:
    """The tls-server-end-point data of a server's certificate: its hash, by the hash function of its signature.

    MD5 and SHA-1 count as SHA-256. None where the signature has no hash function of its own (Ed25519, Ed448) or one
    that is not known: channel binding is then undefined. PostgreSQL offers it all the same and fails, on both sides, so
    that not to offer and not to choose it is the only way to log in there.
    """
    certificate = _load(der)
    try:
        function = None if certificate is None else certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        function = None
    if function is None:
        return None
    digest = hashes.Hash(hashes.SHA256() if function.name in _WEAK else function)
    digest.update(der)
    return digest.finalize()


def common_name(der: bytes) -> str | None:
    """The subject's common name; the first, where there are several, as PostgreSQL reads it.

    None if there is none, or one that nobody is to be taken for: empty, or with a NUL (CVE-2009-4034: what reads it up
    to there takes it for somebody else).
    """
    certificate = _load(der)
    names = [] if certificate is None else certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = names[0].value if names else ""
    return name if isinstance(name, str) and name and "\0" not in name else None


def distinguished_name(der: bytes) -> str | None:
    """The whole subject as RFC 2253 writes it, the last part first: `CN=bob,OU=sales,O=Example`.

    As `openssl x509 -noout -subject -nameopt RFC2253` shows it. None if the subject is empty or holds a NUL.
    """
    certificate = _load(der)
    if certificate is None:
        return None
    parts = ["+".join(map(_attribute, reversed(list(rdn)))) for rdn in reversed(certificate.subject.rdns)]
    values = [attribute.value for attribute in certificate.subject]
    return None if any(isinstance(value, str) and "\0" in value for value in values) else ",".join(parts) or None


def _load(der: bytes) -> x509.Certificate | None:
    """None for what this library cannot read although OpenSSL could, whatever it says to that."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        list(certificate.subject)  # is only read now
    except Exception:  # ValueError, TypeError, InvalidVersion, UnsupportedAlgorithm, …: it does not promise which
        return None
    return certificate


def _attribute(attribute: x509.NameAttribute[str | bytes]) -> str:
    number, value = attribute.oid.dotted_string, attribute.value
    if number not in _SHORT or not isinstance(value, str):
        return f"{_SHORT.get(number, number)}=#{_encoded(attribute).hex().upper()}"
    return f"{_SHORT[number]}={_escape(value.encode('utf-8', 'surrogatepass'))}"


def _escape(value: bytes) -> str:
    text = "".join(map(_escaped, value))
    if text[:1] in ("#", " "):
        text = "\\" + text
    if len(value) > 1 and value.endswith(b" "):
        text = text[:-1] + "\\ "
    return text


def _escaped(byte: int) -> str:
    if byte in _ESCAPED:
        return "\\" + chr(byte)
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:02X}"


def _encoded(attribute: x509.NameAttribute[str | bytes]) -> bytes:
    """The attribute's value as DER: what follows the number within a name of this attribute alone."""
    data = x509.Name([attribute]).public_bytes()
    at = 0
    for _ in range(3):  # into the sequence, the set and the sequence
        at = _content(data, at)[0]
    return data[_content(data, at)[1] :]


def _content(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins and ends."""
    length, start = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    return start, start + length
