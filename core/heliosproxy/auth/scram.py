"""SCRAM-SHA-256 on both sides, sans-IO: messages in, messages out. Sources: RFC 5802, RFC 7677, protocol chapter, "SASL
Authentication".

Our own code and not a library, for two reasons: the server's side must hand out the ClientKey that a proof reveals
(with it a proxy can log in to a server as the same user without a password), and every message that a hostile peer can
think of must end in one of two errors. ProtocolError: not SCRAM, or a part of it that we do not speak.
AuthenticationError: SCRAM, but the proof is wrong, or the peer asks for what we refuse.

Channel binding (SCRAM-SHA-256-PLUS) ties the exchange to the TLS connection under it by the server's certificate (RFC
5929, tls-server-end-point), so that nobody in the middle can pass it on. The other types of binding are not spoken, as
PostgreSQL does not speak them.
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from heliosproxy.auth.secrets import (
    KEY_SIZE,
    MAX_ITERATIONS,
    ScramSecret,
    client_key,
    decode_base64,
    prepare,
    salted_password,
    server_key,
    stored_key,
)
from heliosproxy.wire.errors import PeerError, ProtocolError

MECHANISM = "SCRAM-SHA-256"
MECHANISM_PLUS = "SCRAM-SHA-256-PLUS"
"""The same with channel binding."""
BINDING = b"tls-server-end-point"
"""The only type of channel binding that is spoken."""

Derive: TypeAlias = Callable[[bytes, bytes, int], bytes]
"""(prepared password, salt, iterations) to the salted password."""

_PRINTABLE = rb"[\x21-\x2b\x2d-\x7e]+"
"""What a nonce is made of: printable ASCII without the comma."""
_VALUE = rb"[^\0,]*"
_EXTENSIONS = rb"(?:,[A-Za-z]=" + _VALUE + rb")*"
_CLIENT_FIRST = re.compile(
    rb"(?P<header>(?P<binding>[ny]|p=[A-Za-z0-9.-]+),(?P<identity>a=" + _VALUE + rb")?,)"
    rb"(?P<bare>(?P<mandatory>m=" + _VALUE + rb",)?n=(?P<user>" + _VALUE + rb"),"
    rb"r=(?P<nonce>" + _PRINTABLE + rb")" + _EXTENSIONS + rb")"
)
_CLIENT_FINAL = re.compile(
    rb"(?P<unproven>c=(?P<binding>" + _VALUE + rb"),r=(?P<nonce>" + _PRINTABLE + rb")" + _EXTENSIONS + rb")"
    rb",p=(?P<proof>" + _VALUE + rb")"
)
_SERVER_FIRST = re.compile(
    rb"(?P<mandatory>m=" + _VALUE + rb",)?r=(?P<nonce>" + _PRINTABLE + rb"),s=(?P<salt>" + _VALUE + rb"),"
    rb"i=(?P<iterations>[0-9]{1,19})" + _EXTENSIONS
)
_SERVER_FINAL = re.compile(rb"(?:v=(?P<signature>" + _VALUE + rb")|e=(?P<error>" + _VALUE + rb"))" + _EXTENSIONS)


class AuthenticationError(PeerError):
    """The peer did not prove who it is."""

    def __init__(
        self, message: str, sqlstate: str = "28P01", *, detail: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, sqlstate, detail=detail, hint=hint)


def wrong_password(user: str) -> AuthenticationError:
    """What everyone is told who does not prove that he is `user`, whether or not there is such a user."""
    return AuthenticationError(f'password authentication failed for user "{shown(user)}"')


def shown(name: str) -> str:
    """A name from the wire as text that can be shown: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a client's proof reveals: enough to log in as it wherever its secret is the same one (SCRAM pass-through).

    As good as the password: not to be logged or stored.
    """

    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    salt: bytes
    iterations: int


@dataclass(frozen=True, slots=True)
class Derivation:
    """A salted password that is to be computed: 2 ms at PostgreSQL's 4,096 iterations, seconds at MAX_ITERATIONS.

    Equal ones have equal results, so that results may be remembered by it.
    """

    password: bytes = field(repr=False)
    """After `secrets.prepare`."""
    salt: bytes
    iterations: int

    def compute(self) -> bytes:
        """RFC 5802's SaltedPassword. May be called in any thread; hashlib lets go of the GIL meanwhile."""
        return salted_password(self.password, self.salt, self.iterations)


def make_nonce() -> bytes:
    """A fresh nonce: 18 random bytes in base64, as PostgreSQL makes it."""
    return b64encode(secrets.token_bytes(18))


class ScramServer:
    """The server's side of one login: `first`, then `final`, once each.

    The secret is the user's, or `ScramSecret.mock` for a user that does not exist. The user that counts is the one of
    the start-up packet: the name in SCRAM's own message is ignored, as PostgreSQL ignores it.
    """

    __slots__ = ("_bare", "_binding", "_endpoint", "_nonce", "_plus", "_secret", "_server_first", "_server_nonce",
                 "_user", "keys")  # fmt: skip

    def __init__(
        self,
        secret: ScramSecret,
        *,
        user: str = "",
        nonce: Callable[[], bytes] = make_nonce,
        endpoint: bytes | None = None,
        plus: bool = False,
    ) -> None:
        """`user` is for the error's text; `nonce` gives this side's part of the nonce.

        endpoint: the tls-server-end-point data of our certificate, if the client was offered MECHANISM_PLUS.
        plus: it chose that. ValueError without an endpoint.
        """
        if plus and endpoint is None:
            raise ValueError("channel binding needs an endpoint")
        self._secret = secret
        self._user = user
        self._server_nonce = nonce()
        self._endpoint, self._plus = endpoint, plus
        self._bare = self._binding = self._nonce = self._server_first = b""
        self.keys: ScramKeys | None = None
        """The client's keys, once `final` has succeeded."""

    @property
    def client_key(self) -> bytes | None:
        """RFC 5802's ClientKey, once `final` has succeeded."""
        return None if self.keys is None else self.keys.client_key

    def first(self, client_first: bytes) -> bytes:
        """The server-first-message.

        Raises ProtocolError (08P01; 0A000 for a part of SCRAM that we do not speak), and AuthenticationError (28000) if
        somebody has told the client that we cannot bind channels.
        """
        match = _CLIENT_FIRST.fullmatch(client_first)
        if match is None:
            raise _malformed("the client's first message")
        self._check_binding(match["binding"])
        _refuse_unspoken(match)
        self._bare = match["bare"]
        self._binding = b64encode(match["header"] + (self._endpoint or b"" if self._plus else b""))
        self._nonce = match["nonce"] + self._server_nonce
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, b64encode(self._secret.salt), self._secret.iterations)
        return self._server_first

    def final(self, client_final: bytes) -> bytes:
        """The server-final-message, which proves to the client that we know its secret.

        Raises AuthenticationError if the client does not know the password, or speaks through another TLS connection
        than this (28000); ProtocolError if it did not answer `first`.
        """
        match = _CLIENT_FINAL.fullmatch(client_final)
        if match is None:
            raise _malformed("the client's final message")
        if not hmac.compare_digest(match["nonce"], self._nonce):
            raise ProtocolError("invalid SCRAM response", detail="Nonce does not match.")
        if not hmac.compare_digest(match["binding"], self._binding):
            raise self._unbound()
        proof = _base64(match["proof"], "the client's proof", KEY_SIZE)
        transcript = b",".join((self._bare, self._server_first, match["unproven"]))
        key = self._recover(proof, transcript)
        self.keys = ScramKeys(key, self._secret.server_key, self._secret.salt, self._secret.iterations)
        return b"v=" + b64encode(_sign(self._secret.server_key, transcript))

    def _check_binding(self, flag: bytes) -> None:
        """The gs2-cbind-flag: `p=type` binds, `y` would if it were offered, `n` cannot."""
        if flag.startswith(b"p") and not self._plus:
            raise ProtocolError("malformed SCRAM message", detail=_BINDING_WITHOUT_PLUS)
        if self._plus and not flag.startswith(b"p"):
            raise ProtocolError("malformed SCRAM message", detail=_PLUS_WITHOUT_BINDING)
        if flag == b"y" and self._endpoint is not None:
            raise AuthenticationError("SCRAM channel binding negotiation error", "28000", detail=_DOWNGRADED)
        if self._plus and flag != b"p=" + BINDING:
            raise ProtocolError(f'unsupported SCRAM channel-binding type "{flag[2:].decode("ascii")}"')

    def _unbound(self) -> PeerError:
        if self._plus:
            return AuthenticationError("SCRAM channel binding check failed", "28000")
        return ProtocolError("invalid SCRAM response", detail="Channel binding is not what the first message said.")

    def _recover(self, proof: bytes, transcript: bytes) -> bytes:
        key = _xor(proof, _sign(self._secret.stored_key, transcript))
        if not hmac.compare_digest(stored_key(key), self._secret.stored_key):
            raise wrong_password(self._user)
        return key


class ScramClient:
    """The client's side of one login: `first`, `challenge`, `prove`, then `verify`, once each.

    Between `challenge` and `prove` the caller computes a salted password, in a thread if others must not wait for it,
    or takes one that it remembers. `final` does all of it in one call, with `derive`.
    """

    __slots__ = ("_bare", "_binding", "_derive", "_header", "_keys", "_nonce", "_password", "_server_first",
                 "_server_key", "_server_nonce", "_transcript", "mechanism")  # fmt: skip

    def __init__(
        self,
        user: str,
        credential: str | bytes | ScramKeys,
        *,
        nonce: Callable[[], bytes] = make_nonce,
        derive: Derive = salted_password,
        endpoint: bytes | None = None,
        plus: bool = False,
    ) -> None:
        """`credential` is the password, or the keys that a client has proved.

        endpoint: the tls-server-end-point data of the server's certificate, if we could bind to it.
        plus: the server offers MECHANISM_PLUS, and it is chosen. ValueError without an endpoint.
        """
        if plus and endpoint is None:
            raise ValueError("channel binding needs an endpoint")
        self.mechanism = MECHANISM_PLUS if plus else MECHANISM
        self._keys = credential if isinstance(credential, ScramKeys) else None
        self._password = b"" if isinstance(credential, ScramKeys) else prepare(credential)
        self._derive = derive
        self._nonce = nonce()
        flag = b"p=" + BINDING if plus else b"n" if endpoint is None else b"y"
        self._header = flag + b",,"
        self._binding = b64encode(self._header + (endpoint or b"" if plus else b""))
        name = user.encode("utf-8", "surrogateescape").replace(b"=", b"=3D").replace(b",", b"=2C")
        self._bare = b"n=%b,r=%b" % (name, self._nonce)
        self._server_first = self._server_nonce = self._server_key = self._transcript = b""

    def first(self) -> bytes:
        """The client-first-message."""
        return self._header + self._bare

    def challenge(self, server_first: bytes) -> Derivation | None:
        """What must be computed before `prove`; None where there are keys already.

        Raises ProtocolError for what is not a server-first-message, AuthenticationError for one that no honest server
        sends: a nonce that does not extend ours, an iteration count of 0 or above MAX_ITERATIONS; and if the keys are
        not of the secret that the server asks for.
        """
        match = _SERVER_FIRST.fullmatch(server_first)
        if match is None:
            raise _malformed("the server's first message")
        if match["mandatory"] is not None:
            raise ProtocolError("the server requires an unknown SCRAM extension", "0A000")
        nonce, iterations = match["nonce"], int(match["iterations"])
        if not (nonce.startswith(self._nonce) and len(nonce) > len(self._nonce)):
            raise AuthenticationError("the server's SCRAM nonce does not extend ours")
        if not 1 <= iterations <= MAX_ITERATIONS:
            raise AuthenticationError(f"the server asks for {iterations} SCRAM iterations, which we refuse")
        salt = _base64(match["salt"], "the server's salt")
        self._server_first, self._server_nonce = server_first, nonce
        if self._keys is None:
            return Derivation(self._password, salt, iterations)
        if (self._keys.salt, self._keys.iterations) != (salt, iterations):
            raise AuthenticationError(_OTHER_SECRET, hint=_SAME_SECRET)
        return None

    def prove(self, salted: bytes | None = None) -> bytes:
        """The client-final-message, with the proof. `salted` is what `challenge` asked for."""
        unproven = b"c=%b,r=%b" % (self._binding, self._server_nonce)
        self._transcript = b",".join((self._bare, self._server_first, unproven))
        key, self._server_key = self._both_keys(salted)
        proof = _xor(key, _sign(stored_key(key), self._transcript))
        return unproven + b",p=" + b64encode(proof)

    def final(self, server_first: bytes) -> bytes:
        """`challenge`, the computation and `prove` in one; raises as `challenge` does."""
        work = self.challenge(server_first)
        return self.prove(None if work is None else self._derive(work.password, work.salt, work.iterations))

    def verify(self, server_final: bytes) -> None:
        """Returns if the server knows our secret; otherwise raises AuthenticationError, or ProtocolError."""
        match = _SERVER_FINAL.fullmatch(server_final)
        if match is None:
            raise _malformed("the server's final message")
        if match["error"] is not None:
            raise AuthenticationError(f"the server refused the proof: {match['error'].decode('utf-8', 'replace')}")
        signature = _base64(match["signature"], "the server's signature", KEY_SIZE)
        expected = _sign(self._server_key, self._transcript)
        if not (self._transcript and hmac.compare_digest(signature, expected)):
            raise AuthenticationError("the server's SCRAM signature is wrong: it does not know the password")

    def _both_keys(self, salted: bytes | None) -> tuple[bytes, bytes]:
        if self._keys is not None:
            return self._keys.client_key, self._keys.server_key
        if salted is None:
            raise ValueError("the salted password that `challenge` asked for is missing")
        return client_key(salted), server_key(salted)


_BINDING_WITHOUT_PLUS = (
    "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data."
)
_PLUS_WITHOUT_BINDING = (
    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data."
)
_DOWNGRADED = (
    "The client supports SCRAM channel binding but thinks the server does not. However, this server does support "
    "channel binding."
)
_OTHER_SECRET = "the node keeps another SCRAM secret of this user than the one that its login was checked with"
_SAME_SECRET = (
    "Both must be the same, salt and iterations included: copy pg_authid.rolpassword from one to the other, or give "
    "the user a server_password."
)


def _refuse_unspoken(match: re.Match[bytes]) -> None:
    if match["identity"] is not None:
        raise ProtocolError("client uses authorization identity, but it is not supported", "0A000")
    if match["mandatory"] is not None:
        raise ProtocolError("client requires an unsupported SCRAM extension", "0A000")


def _malformed(what: str) -> ProtocolError:
    return ProtocolError("malformed SCRAM message", detail=f"{what[0].upper()}{what[1:]} is not as RFC 5802 has it.")


def _base64(data: bytes, what: str, size: int | None = None) -> bytes:
    try:
        decoded = decode_base64(data)
    except ValueError:
        raise _malformed(what) from None
    if not decoded or (size is not None and len(decoded) != size):
        raise _malformed(what)
    return decoded


def _sign(key: bytes, transcript: bytes) -> bytes:
    return hmac.digest(key, transcript, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
