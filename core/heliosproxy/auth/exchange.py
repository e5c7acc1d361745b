"""The methods by which a client proves with a password who it is, each as one exchange of messages. Sans-IO.

All have one shape: `begin` gives what is to be sent first, `answer` what is to be sent after each message with tag `p`,
until `done`; AuthenticationOk is the caller's to send. Where `heavy` is set the next `answer` takes milliseconds or
more, and the caller runs it in a thread.

A name that nobody has gets the same exchange with the same work in it, and the same refusal, as a user with a wrong
password. Errors: AuthenticationError (28P01; 28000 where it is about channel binding) if the proof is wrong,
ProtocolError if the message is none.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from secrets import token_bytes
from typing import Protocol

from heliosproxy.auth.known import Known, Proof, Strangers
from heliosproxy.auth.md5 import SALT_SIZE, check_md5, md5_secret
from heliosproxy.auth.scram import (
    MECHANISM,
    MECHANISM_PLUS,
    AuthenticationError,
    Derivation,
    ScramKeys,
    ScramServer,
    make_nonce,
    wrong_password,
)
from heliosproxy.auth.secrets import client_key, prepare, stored_key
from heliosproxy.config.access import Method
from heliosproxy.wire.errors import ProtocolError
from heliosproxy.wire.messages_authentication import (
    AuthenticationCleartextPassword,
    AuthenticationMD5Password,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    PasswordMessage,
    SASLInitialResponse,
)


class Exchange(Protocol):
    """One login by a password."""

    @property
    def done(self) -> bool:
        """The client has proved who it is."""

    @property
    def heavy(self) -> bool:
        """The next `answer` belongs in a thread."""

    @property
    def proof(self) -> Proof:
        """What it has shown by that; nothing before it is done."""

    def begin(self) -> bytes:
        """The first message. Raises AuthenticationError where the method cannot work on this connection."""

    def answer(self, body: bytes) -> bytes:
        """The next message, perhaps none, after one with tag `p`. Raises AuthenticationError or ProtocolError."""


def exchange_of(
    method: Method, user: str, known: Known | None, strangers: Strangers, *, endpoint: bytes | None = None
) -> Exchange:
    """The exchange that a rule's method asks for. `known` is None where nobody has that name.

    As in PostgreSQL, `md5` takes SCRAM for users who have a SCRAM secret. endpoint: the tls-server-end-point data of
    our certificate if the connection uses TLS. ValueError for a method that asks for no password.
    """
    if method == "password":
        return PasswordExchange(user, known, strangers)
    if method in ("scram-sha-256", "scram-sha-256-plus"):
        return ScramExchange(user, known, strangers, endpoint=endpoint, only_plus=method == "scram-sha-256-plus")
    if method != "md5":
        raise ValueError(f"{method} asks for no password")
    if _checks_md5(known, strangers):
        return Md5Exchange(user, known, strangers)
    return ScramExchange(user, known, strangers, endpoint=endpoint)


def _checks_md5(known: Known | None, strangers: Strangers) -> bool:
    if known is None or (known.scram is None and known.md5 is None):
        return strangers.uses_md5
    return known.md5 is not None


class ScramExchange:
    """SCRAM, with channel binding where there is something to bind to."""

    heavy = False

    def __init__(
        self,
        user: str,
        known: Known | None,
        strangers: Strangers,
        *,
        endpoint: bytes | None = None,
        only_plus: bool = False,
        nonce: Callable[[], bytes] = make_nonce,
    ) -> None:
        secret = known.scram if known is not None else None
        stranger = strangers.scram(user)
        self._secret = stranger if secret is None else secret
        self._user, self._endpoint, self._only_plus, self._nonce = user, endpoint, only_plus, nonce
        self._scram: ScramServer | None = None
        self._step: Callable[[bytes], bytes] = self._chosen
        self.done = False

    @property
    def proof(self) -> Proof:
        """The client's keys."""
        return Proof() if self._scram is None else Proof(self._scram.keys)

    def begin(self) -> bytes:
        """Offers the mechanisms. Raises AuthenticationError if only PLUS would do and there is nothing to bind to."""
        if self._only_plus and self._endpoint is None:
            raise AuthenticationError("SCRAM channel binding is required, and there is nothing to bind to", "28000")
        return AuthenticationSASL(self._mechanisms()).encode()

    def answer(self, body: bytes) -> bytes:
        """The next of SCRAM's messages."""
        return self._step(body)

    def _mechanisms(self) -> tuple[str, ...]:
        plus = (MECHANISM_PLUS,) if self._endpoint is not None else ()
        return plus if self._only_plus else (*plus, MECHANISM)

    def _chosen(self, body: bytes) -> bytes:
        initial = SASLInitialResponse.decode(body)
        if initial.mechanism not in self._mechanisms():
            raise ProtocolError("client selected an invalid SASL authentication mechanism")
        plus = initial.mechanism == MECHANISM_PLUS
        self._scram = ScramServer(self._secret, user=self._user, nonce=self._nonce, endpoint=self._endpoint, plus=plus)
        self._step = self._first
        return AuthenticationSASLContinue(b"").encode() if initial.data is None else self._first(initial.data)

    def _first(self, data: bytes) -> bytes:
        assert self._scram is not None
        self._step = self._final
        return AuthenticationSASLContinue(self._scram.first(data)).encode()

    def _final(self, data: bytes) -> bytes:
        assert self._scram is not None
        self._step = _too_late
        last = self._scram.final(data)
        self.done = True
        return AuthenticationSASLFinal(last).encode()


class PasswordExchange:
    """The password itself, to be asked for only where nobody else can read it."""

    heavy = True

    def __init__(self, user: str, known: Known | None, strangers: Strangers) -> None:
        self._user = user
        scram, md5 = (None, None) if known is None else (known.scram, known.md5)
        self._by_scram = scram is not None
        self._by_md5 = scram is None and md5 is not None
        self._secret = scram if scram is not None else strangers.scram(user)
        self._md5 = md5 if md5 is not None else strangers.md5(user)
        self._step = self._check
        self.done = False
        self.proof = Proof()

    def begin(self) -> bytes:
        """Asks for it."""
        return AuthenticationCleartextPassword().encode()

    def answer(self, body: bytes) -> bytes:
        """Nothing more is said if it is right."""
        return self._step(body)

    def _check(self, body: bytes) -> bytes:
        """Both ways of checking are gone whatever the user has, so that all take as long."""
        self._step = _too_late
        password = _password(body)
        salted = Derivation(prepare(password), self._secret.salt, self._secret.iterations).compute()
        key = client_key(salted)
        right_by_scram = hmac.compare_digest(stored_key(key), self._secret.stored_key)
        right_by_md5 = hmac.compare_digest(md5_secret(self._user, password), self._md5)
        if self._by_scram and right_by_scram:
            self.proof = Proof(ScramKeys(key, self._secret.server_key, self._secret.salt, self._secret.iterations))
        elif self._by_md5 and right_by_md5:
            self.proof = Proof(password=password.decode("utf-8", "surrogateescape"))
        else:
            raise wrong_password(self._user)
        self.done = True
        return b""


class Md5Exchange:
    """The salted MD5 of the MD5 secret, for clients that know nothing better."""

    heavy = False

    def __init__(
        self, user: str, known: Known | None, strangers: Strangers, *, salt: Callable[[int], bytes] = token_bytes
    ) -> None:
        secret, stranger = known.md5 if known is not None else None, strangers.md5(user)
        self._user = user
        self._secret = stranger if secret is None else secret
        self._salt = salt(SALT_SIZE)
        self._step = self._check
        self.done = False
        self.proof = Proof()

    def begin(self) -> bytes:
        """Asks for it with this login's salt."""
        return AuthenticationMD5Password(self._salt).encode()

    def answer(self, body: bytes) -> bytes:
        """Nothing more is said if it is right."""
        return self._step(body)

    def _check(self, body: bytes) -> bytes:
        self._step = _too_late
        if not check_md5(self._secret, self._salt, _password(body)):
            raise wrong_password(self._user)
        self.done = True
        return b""


def _password(body: bytes) -> bytes:
    """What a PasswordMessage holds. An empty one is refused before it is looked at, as in PostgreSQL."""
    password = PasswordMessage.decode(body).password
    if not password:
        raise AuthenticationError("empty password returned by client")
    return password


def _too_late(body: bytes) -> bytes:
    raise ProtocolError("an authentication response that nothing was asked for")
