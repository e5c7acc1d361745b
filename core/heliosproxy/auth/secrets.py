"""What a server keeps of a password: SCRAM secrets, as in pg_authid.rolpassword.

Sources: RFC 5802 (SCRAM), RFC 7677 (SHA-256), RFC 4013 (SASLprep); PostgreSQL's deviations from the latter, so that a
secret made here is the one PostgreSQL would make.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from base64 import b64encode
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Self

KEY_SIZE = 32
"""Bytes of a SHA-256 key."""
SALT_SIZE = 16
"""Bytes of a salt made here; PostgreSQL's default."""
DEFAULT_ITERATIONS = 4096
MAX_ITERATIONS = 10_000_000
"""More is refused: a few seconds of computing, that somebody else would have us do."""

_SECRET = re.compile(r"SCRAM-SHA-256\$([1-9][0-9]{0,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """Enough to verify a password, and to prove that one knows it, without knowing it."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, secret: str) -> Self:
        """Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.

        Raises ValueError, whose text does not hold the secret.
        """
        match = _SECRET.fullmatch(secret)
        if match is None:
            raise ValueError("not a SCRAM secret: SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey> expected")
        if int(match[1]) > MAX_ITERATIONS:
            raise ValueError(f"not a usable SCRAM secret: more than {MAX_ITERATIONS} iterations")
        try:
            salt, stored, server = (decode_base64(part.encode()) for part in match.groups()[1:])
        except ValueError as error:
            raise ValueError("not a SCRAM secret: its salt and keys must be base64") from error
        if len(stored) != KEY_SIZE or len(server) != KEY_SIZE:
            raise ValueError(f"not a SCRAM secret: its keys must have {KEY_SIZE} bytes")
        return cls(int(match[1]), salt, stored, server)

    @classmethod
    def from_password(
        cls, password: str | bytes, iterations: int = DEFAULT_ITERATIONS, salt: bytes | None = None
    ) -> Self:
        """Computes it, in about 2 ms for 4,096 iterations; without a salt, a random one."""
        salt = token_bytes(SALT_SIZE) if salt is None else salt
        salted = salted_password(prepare(password), salt, iterations)
        return cls(iterations, salt, stored_key(client_key(salted)), server_key(salted))

    @classmethod
    def mock(cls, username: str, key: bytes, iterations: int = DEFAULT_ITERATIONS) -> Self:
        """A secret for a user that does not exist, that no password fits.

        It is the same each time for one user and `key` (random, secret, as long-lived as the process or longer), so
        that asking twice does not tell the user from one that exists. Its keys are HMACs, not zeros: whatever a client
        proves is checked, and fails, as for a wrong password.
        """
        name = username.encode("utf-8", "surrogateescape")
        salt, stored, server = (_hmac(key, purpose + name) for purpose in (b"salt:", b"stored:", b"server:"))
        return cls(iterations, salt[:SALT_SIZE], stored, server)

    def format(self) -> str:
        """The inverse of `parse`."""
        salt, stored, server = (b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key))
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"


def salted_password(prepared: bytes, salt: bytes, iterations: int) -> bytes:
    """RFC 5802's SaltedPassword: `prepared` is a password after `prepare`. About 0.5 µs an iteration."""
    return hashlib.pbkdf2_hmac("sha256", prepared, salt, iterations)


def client_key(salted: bytes) -> bytes:
    """RFC 5802's ClientKey: what proves that one knows the password."""
    return _hmac(salted, b"Client Key")


def stored_key(client: bytes) -> bytes:
    """RFC 5802's StoredKey of a ClientKey."""
    return hashlib.sha256(client).digest()


def server_key(salted: bytes) -> bytes:
    """RFC 5802's ServerKey: what proves that the server knows the secret."""
    return _hmac(salted, b"Server Key")


def prepare(password: str | bytes) -> bytes:
    """The password as PBKDF2 takes it: SASLprep, or as it is where SASLprep refuses it.

    As PostgreSQL does: ASCII is left alone, control characters and all; what is not UTF-8, or holds a prohibited
    character, is used raw, because a password that was set once must go on working.
    """
    raw = password.encode("utf-8", "surrogateescape") if isinstance(password, str) else password
    if raw.isascii():
        return raw
    try:
        prepared = _saslprep(raw.decode())
    except ValueError:
        return raw
    return prepared.encode()


def decode_base64(data: bytes) -> bytes:
    """Base64 without blanks, line ends or missing padding. Raises ValueError."""
    return binascii.a2b_base64(data, strict_mode=True)


def _saslprep(text: str) -> str:
    """RFC 4013, with PostgreSQL's deviations; raises ValueError.

    The checks are made before normalising, not after, and it is today's Unicode that normalises, not 3.2's: either
    makes another key of some passwords (U+0340, U+FB34, U+FAB4).
    """
    spaced = ("\x20" if stringprep.in_table_c12(c) else c for c in text)
    mapped = "".join(c for c in spaced if not stringprep.in_table_b1(c))
    if not mapped or any(map(_prohibited, mapped)):
        raise ValueError("prohibited character")
    if any(map(stringprep.in_table_d1, mapped)):
        _check_bidirectional(mapped)
    return unicodedata.normalize("NFKC", mapped)


def _prohibited(c: str) -> bool:
    return (
        stringprep.in_table_a1(c)
        or stringprep.in_table_c12(c)
        or stringprep.in_table_c21_c22(c)
        or stringprep.in_table_c3(c)
        or stringprep.in_table_c4(c)
        or stringprep.in_table_c5(c)
        or stringprep.in_table_c6(c)
        or stringprep.in_table_c7(c)
        or stringprep.in_table_c8(c)
        or stringprep.in_table_c9(c)
    )


def _check_bidirectional(text: str) -> None:
    """RFC 3454, section 6: right-to-left text holds nothing left-to-right, and starts and ends right-to-left."""
    if any(map(stringprep.in_table_d2, text)):
        raise ValueError("mixed directions")
    if not (stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])):
        raise ValueError("right-to-left text must start and end so")


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
