"""MD5 passwords, for old clients and old servers. Source: protocol chapter, "Start-up", AuthenticationMD5Password.

A stored secret is as good as the password here: whoever has it can log in. That is why SCRAM is the default.
"""

from __future__ import annotations

import hashlib
import hmac
import re

SALT_SIZE = 4
_SECRET = re.compile(r"md5[0-9a-f]{32}")


def is_md5(secret: str) -> bool:
    """Whether this is a secret as pg_authid keeps it: `md5` and 32 digits."""
    return _SECRET.fullmatch(secret) is not None


def md5_secret(user: str, password: str | bytes) -> str:
    """What PostgreSQL keeps of a password with password_encryption = md5: `md5` and the digest of password and name."""
    if isinstance(password, str):
        password = password.encode("utf-8", "surrogateescape")
    return "md5" + _digest(password + user.encode("utf-8", "surrogateescape"))


def md5_response(secret: str, salt: bytes) -> bytes:
    """What answers AuthenticationMD5Password: the text of a PasswordMessage. `secret` as of `md5_secret`."""
    return b"md5" + _digest(secret.removeprefix("md5").encode() + salt).encode()


def check_md5(secret: str, salt: bytes, response: bytes) -> bool:
    """Whether the response is the one to this salt. Takes as long whatever the response is."""
    return hmac.compare_digest(md5_response(secret, salt), response)


def _digest(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
