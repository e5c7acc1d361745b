"""What clients are checked against, and what they are checked against where there is nobody of that name."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Self, TypeVar

from heliosproxy.auth.md5 import is_md5, md5_secret
from heliosproxy.auth.scram import ScramKeys
from heliosproxy.auth.secrets import DEFAULT_ITERATIONS, ScramSecret, stored_key

_V = TypeVar("_V", int, bool)


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


class Crowd:
    """Users counted by the secrets that they have, as they come and go: how many there are costs nothing."""

    def __init__(self, users: Iterable[Known] = ()) -> None:
        self.iterations: Counter[int] = Counter()
        """Users with a SCRAM secret, by its iterations."""
        self.md5: Counter[bool] = Counter()
        """Users with any secret, by whether MD5 can check it."""
        for user in users:
            self.add(user)

    def add(self, user: Known | None) -> None:
        """One more; None is nobody."""
        self._count(user, 1)

    def remove(self, user: Known | None) -> None:
        """One less, that was added before."""
        self._count(user, -1)

    def _count(self, user: Known | None, by: int) -> None:
        if user is None:
            return
        if user.scram is not None:
            _add(self.iterations, user.scram.iterations, by)
        if user.scram is not None or user.md5 is not None:
            _add(self.md5, user.md5 is not None, by)


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

    def resemble(self, *crowds: Crowd) -> None:
        """Look like most of the users in these; as before where there are none."""
        self.iterations = _most(crowds, lambda crowd: crowd.iterations, self.iterations)
        self.uses_md5 = _most(crowds, lambda crowd: crowd.md5, self.uses_md5)

    def copy(self) -> Self:
        """Others that look the same, and go on from there by themselves."""
        new = type(self)(self.key)
        new.iterations, new.uses_md5 = self.iterations, self.uses_md5
        return new

    def salt(self, name: str) -> bytes:
        """The salt of a SCRAM secret, whatever users there are."""
        return self.scram(name).salt

    def scram(self, name: str) -> ScramSecret:
        """A SCRAM secret."""
        return ScramSecret.mock(name, self.key, self.iterations)

    def md5(self, name: str) -> str:
        """An MD5 secret."""
        return "md5" + hmac.digest(self.key, b"md5:" + name.encode("utf-8", "surrogateescape"), "sha256").hex()[:32]


def _add(counter: Counter[_V], value: _V, by: int) -> None:
    counter[value] += by
    if not counter[value]:
        del counter[value]


def _most(crowds: Iterable[Crowd], counted: Callable[[Crowd], Counter[_V]], otherwise: _V) -> _V:
    """The commonest value. Of those that are equally common the greatest, whoever came last: that one whose secret is
    read anew does not change what strangers look like."""
    total: Counter[_V] = Counter()
    for crowd in crowds:
        total.update(counted(crowd))
    return max(total, key=lambda value: (total[value], value), default=otherwise)
