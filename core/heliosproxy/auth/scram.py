"""SCRAM-SHA-256 on both sides, sans-IO: messages in, messages out. Sources: RFC 5802, RFC 7677, protocol chapter, "SASL
Authentication".

Our own code and not a library, for two reasons: the server's side must hand out the ClientKey that a proof reveals
(with it a proxy can log in to a server as the same user without a password), and every message that a hostile peer can
think of must end in one of two errors. ProtocolError: not SCRAM, or a part of it that we do not speak.
AuthenticationError: SCRAM, but the proof is wrong, or the peer asks for what we refuse.

Channel binding (SCRAM-SHA-256-PLUS) is not offered and not used.
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import b64encode
from collections.abc import Callable
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

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, "28P01", detail=detail, hint=hint)


def make_nonce() -> bytes:
    """A fresh nonce: 18 random bytes in base64, as PostgreSQL makes it."""
    return b64encode(secrets.token_bytes(18))


class ScramServer:
    """The server's side of one login: `first`, then `final`, once each.

    The secret is the user's, or `ScramSecret.mock` for a user that does not exist. The user that counts is the one of
    the start-up packet: the name in SCRAM's own message is ignored, as PostgreSQL ignores it.
    """

    __slots__ = ("_bare", "_binding", "_nonce", "_secret", "_server_first", "_server_nonce", "_user", "client_key")

    def __init__(self, secret: ScramSecret, *, user: str = "", nonce: Callable[[], bytes] = make_nonce) -> None:
        """`user` is for the error's text; `nonce` gives this side's part of the nonce."""
        self._secret = secret
        self._user = user
        self._server_nonce = nonce()
        self._bare = self._binding = self._nonce = self._server_first = b""
        self.client_key: bytes | None = None
        """RFC 5802's ClientKey, once `final` has succeeded. As good as the password: not to be logged or stored."""

    def first(self, client_first: bytes) -> bytes:
        """The server-first-message. Raises ProtocolError (08P01; 0A000 for a part of SCRAM that we do not speak)."""
        match = _CLIENT_FIRST.fullmatch(client_first)
        if match is None:
            raise _malformed("the client's first message")
        _refuse_unspoken(match)
        self._bare = match["bare"]
        self._binding = b64encode(match["header"])
        self._nonce = match["nonce"] + self._server_nonce
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, b64encode(self._secret.salt), self._secret.iterations)
        return self._server_first

    def final(self, client_final: bytes) -> bytes:
        """The server-final-message, which proves to the client that we know its secret.

        Raises AuthenticationError if the client does not know the password, ProtocolError if it did not answer `first`.
        """
        match = _CLIENT_FINAL.fullmatch(client_final)
        if match is None:
            raise _malformed("the client's final message")
        if not hmac.compare_digest(match["nonce"], self._nonce):
            raise ProtocolError("invalid SCRAM response", detail="Nonce does not match.")
        if not hmac.compare_digest(match["binding"], self._binding):
            raise ProtocolError("invalid SCRAM response", detail="Channel binding is not what the first message said.")
        proof = _base64(match["proof"], "the client's proof", KEY_SIZE)
        transcript = b",".join((self._bare, self._server_first, match["unproven"]))
        self.client_key = self._recover(proof, transcript)
        return b"v=" + b64encode(_sign(self._secret.server_key, transcript))

    def _recover(self, proof: bytes, transcript: bytes) -> bytes:
        key = _xor(proof, _sign(self._secret.stored_key, transcript))
        if not hmac.compare_digest(stored_key(key), self._secret.stored_key):
            name = self._user.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            raise AuthenticationError(f'password authentication failed for user "{name}"')
        return key


class ScramClient:
    """The client's side of one login: `first`, `final`, then `verify`, once each.

    `derive` computes the salted password, 2 ms at PostgreSQL's 4,096 iterations and seconds at the most that is
    accepted; a caller that logs in often hands in one that remembers.
    """

    __slots__ = ("_bare", "_derive", "_nonce", "_password", "_server_key", "_transcript")

    def __init__(
        self,
        user: str,
        password: str | bytes,
        *,
        nonce: Callable[[], bytes] = make_nonce,
        derive: Derive = salted_password,
    ) -> None:
        self._password = prepare(password)
        self._derive = derive
        self._nonce = nonce()
        name = user.encode("utf-8", "surrogateescape").replace(b"=", b"=3D").replace(b",", b"=2C")
        self._bare = b"n=%b,r=%b" % (name, self._nonce)
        self._server_key = self._transcript = b""

    def first(self) -> bytes:
        """The client-first-message."""
        return b"n,," + self._bare

    def final(self, server_first: bytes) -> bytes:
        """The client-final-message, with the proof.

        Raises ProtocolError for what is not a server-first-message, AuthenticationError for one that no honest server
        sends: a nonce that does not extend ours, an iteration count of 0 or above MAX_ITERATIONS.
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
        salted = self._derive(self._password, _base64(match["salt"], "the server's salt"), iterations)
        return self._prove(salted, server_first, b"c=biws,r=" + nonce)

    def verify(self, server_final: bytes) -> None:
        """Returns if the server knows our secret; otherwise raises AuthenticationError, or ProtocolError."""
        match = _SERVER_FINAL.fullmatch(server_final)
        if match is None:
            raise _malformed("the server's final message")
        if match["error"] is not None:
            raise AuthenticationError(f"the server refused the proof: {match['error'].decode('utf-8', 'replace')}")
        signature = _base64(match["signature"], "the server's signature", KEY_SIZE)
        if not hmac.compare_digest(signature, _sign(self._server_key, self._transcript)):
            raise AuthenticationError("the server's SCRAM signature is wrong: it does not know the password")

    def _prove(self, salted: bytes, server_first: bytes, unproven: bytes) -> bytes:
        self._transcript = b",".join((self._bare, server_first, unproven))
        self._server_key = server_key(salted)
        key = client_key(salted)
        proof = _xor(key, _sign(stored_key(key), self._transcript))
        return unproven + b",p=" + b64encode(proof)


def _refuse_unspoken(match: re.Match[bytes]) -> None:
    if match["binding"].startswith(b"p"):
        raise ProtocolError(
            "the client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding "
            "data"
        )
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
