"""TLS, sans-IO: ciphertext in, plaintext out, and the other way round.

One `Tls` is one side of one connection for as long as that lives. It is moved from the task that lets a client in to
the reactor as it is, so that no byte is lost on the way (H1). Whoever has it moves the bytes: what `outgoing` and
`send` give goes to the peer, in that order; what the peer sends goes into `feed` or `receive`.

OpenSSL does the work, by Python's `ssl.SSLObject` between two memory buffers. Source: RFC 8446 (TLS 1.3), RFC 5246.
"""

from __future__ import annotations

import contextlib
import ssl

from heliosproxy.wire.client_hello import MOST_HELLO, server_name
from heliosproxy.wire.errors import ProtocolError

_RECORD = 16 * 1024
"""Plaintext of the largest record."""
_PIECE = _RECORD
"""What is handed to OpenSSL at a time: its buffers never shrink, so that this bounds what a connection keeps."""
_ALERTS = ("TLSV1_ALERT_", "SSLV3_ALERT_", "TLSV13_ALERT_")


class TlsError(ProtocolError):
    """Not TLS, or TLS that cannot be trusted: garbage, a broken record, an alert, a certificate that is not good.

    Nothing that follows on the connection counts. `outgoing` may hold the alert that tells the peer.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)


class Tls:
    """One side of a TLS connection. Not to be used by two threads at once."""

    __slots__ = ("_ended", "_hello", "_incoming", "_outgoing", "_server_name", "_side", "closed", "done")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None) -> None:
        """`server_hostname`: of the server that is connected to, a name or an IP address; its certificate is held
        against it where `context.check_hostname`. Raises ValueError for what can be neither."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._side = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._hello = bytearray() if server_side else None
        self._server_name = ""
        self._ended = False
        self.done = False
        """The handshake is complete."""
        self.closed = False
        """The peer has said that nothing follows (close_notify)."""

    def feed(self, ciphertext: bytes) -> None:
        """Take what the peer sent, to be looked at by `handshake`."""
        if self._hello is not None and len(self._hello) < MOST_HELLO:
            self._hello += ciphertext
        self._incoming.write(ciphertext)

    def handshake(self) -> bool:
        """Go on with the handshake as far as what was fed allows; whether it is complete. Takes up to 2 ms.

        Send `outgoing` after each call, also after one that raised. Raises TlsError.
        """
        try:
            self._side.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise _wrong(error) from None
        if self._hello is not None:
            self._server_name = server_name(bytes(self._hello))
            self._hello = None
        self.done = True
        return True

    def receive(self, ciphertext: bytes = b"") -> bytes:
        """Take what the peer sent; all that can be decrypted now, which may be nothing.

        After the handshake, to be called once without new ciphertext: the peer's first bytes may have come with it.
        Sets `closed` at the peer's last word; what follows that is dropped. May leave something in `outgoing`. Raises
        TlsError.
        """
        if len(ciphertext) <= _PIECE:
            return b"".join(self._decrypt(ciphertext))
        pieces: list[bytes] = []
        with memoryview(ciphertext) as view:
            for start in range(0, len(view), _PIECE):
                pieces += self._decrypt(view[start : start + _PIECE])
        return b"".join(pieces)

    def _decrypt(self, ciphertext: bytes | memoryview) -> list[bytes]:
        pieces: list[bytes] = []
        incoming, side = self._incoming, self._side
        try:
            incoming.write(ciphertext)
            while (incoming.pending or side.pending()) and not self.closed:
                if data := side.read(_RECORD):
                    pieces.append(data)
                else:
                    self.closed = True
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still to come
        except ssl.SSLZeroReturnError:
            self.closed = True
        except ssl.SSLError as error:
            raise _wrong(error) from None
        if self.closed:
            incoming.read()
        return pieces

    def send(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """The ciphertext of it, and before it whatever TLS itself still had to say. To be sent as it is, in order.

        Only once the handshake is complete. After `close` nothing more is said. Raises TlsError where a connection is
        broken already.
        """
        if self._ended or not plaintext:
            return self._outgoing.read()
        try:
            return self._encrypt(plaintext)
        except ssl.SSLError as error:
            raise _wrong(error) from None

    def _encrypt(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        write, read = self._side.write, self._outgoing.read
        if len(plaintext) <= _PIECE:
            write(plaintext)
            return read()
        pieces: list[bytes] = []
        with memoryview(plaintext) as view:
            for start in range(0, len(view), _PIECE):
                write(view[start : start + _PIECE])
                pieces.append(read())
        return b"".join(pieces)

    def outgoing(self) -> bytes:
        """What TLS itself has to say (handshake, alerts, answers to key updates); to be sent at once."""
        return self._outgoing.read()

    @property
    def owes(self) -> bool:
        """`outgoing` has something."""
        return self._outgoing.pending > 0

    def close(self) -> bytes:
        """Our last word (close_notify) behind whatever is still to be said; said once."""
        if not self._ended:
            self._ended = True
            with contextlib.suppress(ssl.SSLError):  # the peer has not said its own, or is nobody to say ours to
                self._side.unwrap()
        return self._outgoing.read()

    @property
    def alpn(self) -> str | None:
        """What the connection is for, as both sides agreed; None if nothing was said of that."""
        return self._side.selected_alpn_protocol()

    @property
    def server_name(self) -> str:
        """The host that the client wished to reach (SNI), once the handshake is complete; empty if it did not say, and
        on the client's side. Not checked against anything."""
        return self._server_name

    @property
    def version(self) -> str:
        """What is spoken, as "TLSv1.3"; empty before the handshake."""
        return self._side.version() or ""

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate as DER; None if it showed none, and before the end of the handshake.

        That of a client is good: contexts that ask for one refuse others. That of a server may be anyone's where the
        context verifies nothing, and still is what channel binding rests on.
        """
        return self._side.getpeercert(binary_form=True) if self.done else None


def _wrong(error: ssl.SSLError) -> TlsError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsError(f"certificate verify failed: {error.verify_message.rstrip('.')}")
    reason = error.reason or "UNKNOWN"
    for alert in _ALERTS:
        if reason.startswith(alert):
            return TlsError(f"the peer ended TLS: {_words(reason.removeprefix(alert))}")
    return TlsError(f"TLS failed: {_words(reason)}")


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ")
