"""Somebody in the middle, who ends TLS on both sides with a certificate of his own and passes everything on."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.certificates import Issued
from tests.cluster.raw import DEADLINE, tagged
from tests.cluster.secure.tls import secured

_SASL = (10).to_bytes(4, "big")
_OFFER = tagged(b"R", _SASL + b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
_LESS = tagged(b"R", _SASL + b"SCRAM-SHA-256\0\0")


@dataclass(slots=True)
class Middle:
    """The man in the middle."""

    host: str
    port: int
    hides: bool = False
    """Whether he leaves SCRAM-SHA-256-PLUS out of what the other side offers."""


@contextmanager
def in_the_middle(address: tuple[str, int], certificate: Issued) -> Iterator[Middle]:
    """He listens on a port of his own for those who want to go to `address`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(None)
        middle = Middle(*listener.getsockname())
        serving = threading.Thread(target=_serve, args=(listener, address, certificate, middle))
        serving.start()
        try:
            yield middle
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()


def _serve(listener: socket.socket, address: tuple[str, int], certificate: Issued, middle: Middle) -> None:
    with contextlib.suppress(OSError):  # the end
        while True:
            plain, _ = listener.accept()
            plain.settimeout(DEADLINE)
            threading.Thread(target=_connect, args=(plain, address, certificate, middle), daemon=True).start()


def _connect(plain: socket.socket, address: tuple[str, int], certificate: Issued, middle: Middle) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate.certificate, certificate.key)
    with plain, contextlib.suppress(OSError):
        if len(plain.recv(8, socket.MSG_WAITALL)) < 8:  # it should ask for TLS, and has left instead
            return
        plain.sendall(b"S")
        with own.wrap_socket(plain, server_side=True) as client, secured(address) as server:
            _pass_on(client, server, middle)


def _pass_on(client: ssl.SSLSocket, server: ssl.SSLSocket, middle: Middle) -> None:
    """In one thread, since OpenSSL's connections are not for two at a time."""
    others = {client: server, server: client}
    while True:
        for source in [each for each in others if each.pending()] or select.select(list(others), [], [], DEADLINE)[0]:
            data = source.recv(65536)
            if not data:
                return
            others[source].sendall(data.replace(_OFFER, _LESS) if middle.hides else data)
