"""Who the proxy is to a node: the node's requests for authentication, and what answers them.

A node may be hostile, or somebody in the middle may speak for it. So it is asked for proof where the method gives any
(SCRAM), a password in the clear goes to nobody who could overhear it, one exchange is one exchange, and `require_auth`
and `channel_binding` hold as in libpq.

Source: protocol chapter, "Start-up"; libpq's `require_auth`, `channel_binding`.
"""

from __future__ import annotations

from functools import lru_cache, partial

import trio

from heliosproxy.auth.certificates import server_end_point
from heliosproxy.auth.md5 import md5_response, md5_secret
from heliosproxy.auth.scram import MECHANISM, MECHANISM_PLUS, Derivation, ScramClient
from heliosproxy.auth.users import ServerLogin
from heliosproxy.cluster.node import Node
from heliosproxy.config.access import ServerMethod
from heliosproxy.wire.errors import PeerError, ProtocolError
from heliosproxy.wire.messages_authentication import (
    Authentication,
    AuthenticationCleartextPassword,
    AuthenticationMD5Password,
    AuthenticationOk,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    AuthenticationUnsupported,
    PasswordMessage,
    SASLInitialResponse,
    SASLResponse,
    decode_authentication,
)
from heliosproxy.wire.tls import Tls

_THREADS = 2
"""So many salted passwords are computed at a time: what nodes ask for must not take the whole machine."""
_LIMITER: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("salted passwords")
_PASSWORD = "Give the user a server_password, or a password, in [[auth.users]]; or the pool a server_password."


@lru_cache(maxsize=1024)
def salted(work: Derivation) -> bytes:
    """A salted password, remembered: every link of a user needs the same."""
    return work.compute()


class Proving:
    """One login to a node: `answer` its requests until it is content. It has let us in rightly if `admitted`."""

    __slots__ = (
        "_asked", "_endpoint", "_login", "_node", "_private", "_proved", "_scram", "_through_tls", "_verified",
        "admitted",
    )  # fmt: skip

    def __init__(self, node: Node, login: ServerLogin, *, tls: Tls | None, private: bool) -> None:
        """`private`: nobody can overhear the connection, even without TLS."""
        self._node = node
        self._login = login
        self._private = private or tls is not None
        self._through_tls = tls is not None
        certificate = tls.peer_certificate if tls is not None else None
        bound = certificate is not None and node.config.tls.channel_binding != "disable"
        self._endpoint = server_end_point(certificate) if certificate is not None and bound else None
        self._asked: ServerMethod | None = None
        self._scram: ScramClient | None = None
        self._proved = self._verified = False
        self.admitted = False

    async def answer(self, body: bytes) -> bytes:
        """What answers a message with tag `R`; empty if nothing does.

        Raises PeerError: 28P01 where something to answer with is missing or wrong, 28000 for what we do not answer,
        08P01 for what no honest server says. It names the node.
        """
        request = decode_authentication(body)
        if isinstance(request, AuthenticationOk):
            self._let_in()
            return b""
        if isinstance(request, AuthenticationSASLContinue | AuthenticationSASLFinal):
            return await self._scram_goes_on(request)
        if self._asked is not None or self.admitted:
            raise ProtocolError(f"{self._node.name} asks who we are twice")
        return self._begin(request)

    def _begin(self, request: Authentication) -> bytes:
        if isinstance(request, AuthenticationSASL):
            return self._begin_scram(request)
        if isinstance(request, AuthenticationMD5Password):
            return self._md5(request)
        if isinstance(request, AuthenticationCleartextPassword):
            return self._in_the_clear()
        name = request.name if isinstance(request, AuthenticationUnsupported) else type(request).__name__
        hint = "Let the proxy log in with scram-sha-256 in the node's pg_hba.conf."
        raise PeerError(f"{self._node.name} asks for {name}, which this proxy cannot answer", "28000", hint=hint)

    # --- SCRAM ------------------------------------------------------------------------------------------------------

    def _begin_scram(self, request: AuthenticationSASL) -> bytes:
        self._accept("scram-sha-256", "SCRAM")
        plus = MECHANISM_PLUS in request.mechanisms and self._endpoint is not None
        if not plus:
            self._check_unbound(request)
        credential = self._login.password if self._login.password is not None else self._login.keys
        if credential is None:
            raise self._nothing("a password")
        self._scram = ScramClient(self._login.user, credential, endpoint=self._endpoint, plus=plus)
        return SASLInitialResponse(self._scram.mechanism, self._scram.first()).encode()

    def _check_unbound(self, request: AuthenticationSASL) -> None:
        if self._binds:
            raise self._not_bound("does not offer SCRAM-SHA-256-PLUS")
        if MECHANISM not in request.mechanisms:
            offered = ", ".join(request.mechanisms)
            hint = None
            if MECHANISM_PLUS in request.mechanisms:
                hint = "That needs TLS, a certificate whose signature has a hash, and channel_binding not disabled."
            raise PeerError(f"{self._node.name} offers no {MECHANISM}, only {offered}", "28000", hint=hint)

    async def _scram_goes_on(self, request: AuthenticationSASLContinue | AuthenticationSASLFinal) -> bytes:
        scram, challenged = self._scram, isinstance(request, AuthenticationSASLContinue)
        if scram is None or self._verified or challenged == self._proved:
            raise ProtocolError(f"{self._node.name} says what does not belong to the exchange of SCRAM")
        try:
            if challenged:
                return await self._prove(scram, request.data)
            scram.verify(request.data)
        except PeerError as error:
            message = f"{self._node.name}: {error.message}"
            raise PeerError(message, error.sqlstate, detail=error.detail, hint=error.hint) from None
        self._verified = True
        return b""

    async def _prove(self, scram: ScramClient, challenge: bytes) -> bytes:
        self._proved = True
        work = scram.challenge(challenge)
        if work is None:
            return SASLResponse(scram.prove()).encode()
        compute = partial(salted, work)
        key = await trio.to_thread.run_sync(compute, abandon_on_cancel=True, limiter=_limiter())
        return SASLResponse(scram.prove(key)).encode()

    # --- passwords --------------------------------------------------------------------------------------------------

    def _md5(self, request: AuthenticationMD5Password) -> bytes:
        self._accept("md5", "an MD5 password")
        login = self._login
        secret = login.md5 if login.password is None else md5_secret(login.user, login.password)
        if secret is None:
            raise self._nothing("an MD5 password")
        return PasswordMessage(md5_response(secret, request.salt)).encode()

    def _in_the_clear(self) -> bytes:
        self._accept("password", "a password in the clear")
        if not self._private and "password" not in self._node.config.require_auth:
            raise PeerError(
                f"{self._node.name} asks for a password in the clear, and others could overhear it",
                "28000",
                hint="Use TLS (server_tls), let it ask for scram-sha-256, or name password in its require_auth.",
            )
        if self._login.password is None:
            raise self._nothing("a password in the clear")
        return PasswordMessage(self._login.password.encode("utf-8", "surrogateescape")).encode()

    # --- what holds for all -----------------------------------------------------------------------------------------

    @property
    def _binds(self) -> bool:
        return self._node.config.tls.channel_binding == "require"

    def _accept(self, method: ServerMethod, words: str) -> None:
        """One of those that we answer; it is what the node has asked for."""
        required = self._node.config.require_auth
        if required and method not in required:
            raise self._not_required(f"asks for {words}")
        if self._binds and method != "scram-sha-256":
            raise self._not_bound(f"asks for {words}")
        self._asked = method

    def _let_in(self) -> None:
        if self.admitted or (self._scram is not None and not self._verified):
            raise ProtocolError(f"{self._node.name} lets us in before it has proved that it knows the password")
        required = self._node.config.require_auth
        if self._asked is None and required and "none" not in required:
            raise self._not_required("asks for no password")
        if self._binds and self._scram is None:
            raise self._not_bound("asks for no password")
        self.admitted = True

    def _not_required(self, deed: str) -> PeerError:
        allowed = ", ".join(self._node.config.require_auth)
        hint = "Change its pg_hba.conf, or its require_auth."
        return PeerError(f"{self._node.name} {deed}, and its require_auth allows {allowed} only", "28000", hint=hint)

    def _not_bound(self, deed: str) -> PeerError:
        why = "" if self._through_tls else " There is no TLS here."
        hint = f"Let it ask for scram-sha-256 through TLS, or set channel_binding to prefer.{why}"
        return PeerError(f"{self._node.name} {deed}, and channel_binding is require", "28000", hint=hint)

    def _nothing(self, what: str) -> PeerError:
        """There is nothing to answer with."""
        user = self._login.user
        if self._login.keys is not None or self._login.md5 is not None:
            has = "what SCRAM proved" if self._login.keys is not None else "its MD5 secret"
            message = f'{self._node.name} asks for {what} for user "{user}", of which the proxy has only {has}'
        else:
            message = f'{self._node.name} asks for {what} for user "{user}" and none is configured'
        return PeerError(message, "28P01", hint=_PASSWORD)


def _limiter() -> trio.CapacityLimiter:
    try:
        return _LIMITER.get()
    except LookupError:
        _LIMITER.set(limiter := trio.CapacityLimiter(_THREADS))
        return limiter
