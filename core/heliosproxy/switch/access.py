"""Who may come in, and how: `[auth]` and `[client_tls]` made ready for use, and one client held against them.

An `Access` never changes; a reload puts another in its place, and logins that are under way end by the one they began
with.
"""

from __future__ import annotations

import hmac
import pwd
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from heliosproxy.auth.certificates import common_name, distinguished_name
from heliosproxy.auth.exchange import Exchange, exchange_of
from heliosproxy.auth.known import Strangers
from heliosproxy.auth.rules import Attempt, Rules, refusal
from heliosproxy.auth.scram import AuthenticationError, shown
from heliosproxy.auth.users import Users
from heliosproxy.config.access import Auth, ClientTls, Rule
from heliosproxy.config.tls import BadTls, digest, end_point, for_clients
from heliosproxy.switch.conversation import Conversation
from heliosproxy.wire.errors import ProtocolError

_PEER_CREDENTIALS = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class Access:
    """What holds for clients that come now."""

    rules: Rules
    sslmode: str
    context: ssl.SSLContext | None
    """What clients are offered; None if they are offered nothing."""
    endpoint: bytes | None
    """What SCRAM binds to on the proxy's side: the digest of its certificate."""
    renewed: Callable[[], Access]
    """The same with a context that remembers nobody. Raises BadTls if the files say something else by now: what they
    say is for a reload to take over."""

    @classmethod
    def of(cls, auth: Auth, tls: ClientTls) -> Access:
        """Reads the files that `tls` names. Raises BadTls."""
        files = digest(tls)
        return cls(Rules.of(auth), tls.sslmode, for_clients(tls), end_point(tls), partial(_again, auth, tls, files))


def _again(auth: Auth, tls: ClientTls, files: bytes) -> Access:
    again = Access.of(auth, tls)
    if digest(tls) != files:
        raise BadTls("cert_file", "certificates have changed since they were read; helios reload takes them over")
    return again


def strangers_of(tls: ClientTls) -> Strangers:
    """What names are checked against that nobody has.

    Where there is a private key their secrets are made from it: then they are the same after a restart, and in another
    proxy with the same certificate, as those of users are. From nothing else that the proxy knows: what a stranger is
    shown would let him try out passwords on it at home. Raises BadTls.
    """
    file = tls.key_file or tls.cert_file
    if file is None or for_clients(tls) is None:
        return Strangers()
    return Strangers(hmac.digest(file.read_bytes(), b"heliosproxy: strangers", "sha256"))


class Authentication:
    """One client's proof of who it is."""

    def __init__(self, access: Access, users: Users, talk: Conversation, attempt: Attempt) -> None:
        self._access = access
        self._users = users
        self._talk = talk
        self._attempt = attempt
        self._tls = talk.stream.tls

    async def run(self, threads: trio.CapacityLimiter) -> str:
        """Ask for the proof that the rules want, and check it; the method by which the client came in.

        What takes milliseconds runs in one of these threads. Raises PeerError: 28000, 28P01, 08P01.
        """
        attempt = self._attempt
        rule = self._access.rules.match(attempt)
        if rule is None or rule.method == "reject":
            raise refusal(attempt, rule)
        wanted = self._certificate_wanted(rule)
        certificate = self._certificate() if wanted else None
        await self._prove(rule, threads)
        if wanted == "verify-full" and certificate is not None:
            self._check_name(rule, _name(rule, certificate))
        return rule.method

    def _certificate_wanted(self, rule: Rule) -> str | None:
        """`verify-full`: one that names the user."""
        mode = self._access.sslmode if not self._attempt.local else ""
        if rule.method == "cert" or "verify-full" in (rule.clientcert, mode):
            return "verify-full"
        return "verify-ca" if "verify-ca" in (rule.clientcert, mode) else None

    def _certificate(self) -> bytes:
        """The client's certificate, as DER. It is good: others end the handshake."""
        certificate = self._tls.peer_certificate if self._tls is not None else None
        if certificate is None:
            raise AuthenticationError("connection requires a valid client certificate", "28000")
        return certificate

    def _check_name(self, rule: Rule, name: str | None) -> None:
        if name is None or not self._access.rules.mapped(rule, name, self._attempt.user):
            raise _failed("certificate", self._attempt.user)

    async def _prove(self, rule: Rule, threads: trio.CapacityLimiter) -> None:
        if rule.method in ("trust", "cert"):
            return
        if rule.method == "peer":
            name = _process_owner(self._talk.stream.socket)
            if name is None or not self._access.rules.mapped(rule, name, self._attempt.user):
                raise _failed("Peer", self._attempt.user)
            return
        user = self._attempt.user
        exchange = await self._exchange(rule)
        try:
            await self._talk.send(exchange.begin())
            while not exchange.done:
                await self._step(exchange, threads)
        except BaseException:  # given up as well: or what is remembered of users, and how long, would tell them apart
            self._users.failed(user)
            raise
        self._users.proved(user, exchange.proof)

    async def _step(self, exchange: Exchange, threads: trio.CapacityLimiter) -> None:
        body = await self._answer()
        if exchange.heavy:
            data = await trio.to_thread.run_sync(exchange.answer, body, limiter=threads)
        else:
            data = exchange.answer(body)
        if exchange.done:
            self._talk.send_later(data)
        elif data:
            await self._talk.send(data)

    async def _exchange(self, rule: Rule) -> Exchange:
        user, users = self._attempt.user, self._users
        endpoint = self._access.endpoint if self._tls is not None else None
        return exchange_of(rule.method, user, await users.find(user), users.strangers, endpoint=endpoint)

    async def _answer(self) -> bytes:
        tag, body = await self._talk.message()
        if tag != ord("p"):
            raise ProtocolError(f"expected an authentication response, got message type {chr(tag)!r}")
        return body


def _name(rule: Rule, certificate: bytes) -> str | None:
    return common_name(certificate) if rule.clientname == "CN" else distinguished_name(certificate)


def _failed(method: str, user: str) -> AuthenticationError:
    return AuthenticationError(f'{method} authentication failed for user "{shown(user)}"', "28000")


def _process_owner(connection: socket.socket) -> str | None:
    """The name of the user whose process is at the other end of a Unix socket; None where it has none."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(raw)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
