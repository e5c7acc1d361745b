"""What clients are checked against, and what they are checked against where there is nobody of that name."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Self

from heliosproxy.auth.md5 import is_md5, md5_secret
from heliosproxy.auth.scram import ScramKeys
from heliosproxy.auth.secrets import DEFAULT_ITERATIONS, ScramSecret, stored_key


@dataclass(frozen=True, slots=True)
class Known:
    """A user and what it can prove itself by; neither: not by a password."""

    name: str
    scram: ScramSecret | None = field(default=None, repr=False)
    md5: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    """The plain text, where that is known."""

    @classmethod
    def of(cls, name: str, secret: str, salt: bytes | None = None) -> Self:
        """From what stands in pg_authid.rolpassword, or a password in plain text, whose SCRAM secret is computed here
        in 2 ms, with this salt or a random one. An empty one proves nothing.

        Raises ValueError for a SCRAM secret that cannot be used.
        """
        if not secret:
            return cls(name)
        if is_md5(secret):
            return cls(name, md5=secret)
        if secret.startswith("SCRAM-SHA-256$"):
            return cls(name, ScramSecret.parse(secret))
        return cls(name, ScramSecret.from_password(secret, salt=salt), md5_secret(name, secret), secret)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a client has shown by logging in that the proxy may log in with in its place. Kept in memory only."""

    keys: ScramKeys | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    """Only where there are no keys to be had: of a user with an MD5 secret that has sent its password."""

    def fits(self, known: Known) -> bool:
        """Whether it still proves what it did: that the secret has not been changed since."""
        if self.keys is not None and known.scram is not None:
            same = (self.keys.salt, self.keys.iterations) == (known.scram.salt, known.scram.iterations)
            return same and hmac.compare_digest(stored_key(self.keys.client_key), known.scram.stored_key)
        if self.password is not None and known.md5 is not None:
            return hmac.compare_digest(md5_secret(known.name, self.password), known.md5)
        return False


class Strangers:
    """What names are checked against that nobody has: secrets that no password fits, the same each time for one name.

    They look like those of most users, so that asking for a name, once or again, does not tell whether there is such a
    user. Who has a password in plain text is given the salt of a stranger of that name: it stays what it is when the
    user comes, goes, or has another password.
    """

    def __init__(self, key: bytes | None = None) -> None:
        """`key` makes the secrets: random, and as long-lived as the process."""
        self.key = token_bytes(32) if key is None else key
        self.iterations = DEFAULT_ITERATIONS
        self.uses_md5 = False
        """Whether those whom `md5` lets in mostly have secrets that it can check."""

    def resemble(self, users: Iterable[Known]) -> None:
        """Look like most of these."""
        users = list(users)
        iterations = Counter(user.scram.iterations for user in users if user.scram is not None)
        if iterations:
            self.iterations = iterations.most_common(1)[0][0]
        kinds = Counter(user.md5 is not None for user in users if user.scram is not None or user.md5 is not None)
        if kinds:
            self.uses_md5 = kinds.most_common(1)[0][0]

    def scram(self, name: str) -> ScramSecret:
        """A SCRAM secret."""
        return ScramSecret.mock(name, self.key, self.iterations)

    def md5(self, name: str) -> str:
        """An MD5 secret."""
        return "md5" + hmac.digest(self.key, b"md5:" + name.encode("utf-8", "surrogateescape"), "sha256").hex()[:32]
