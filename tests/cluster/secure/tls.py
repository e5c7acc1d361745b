"""TLS as a client has it, for what libpq does not do: bytes around the handshake, names, what was shown."""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path

from tests.certificates import Issued
from tests.cluster import raw

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
ALPN = "postgresql"


def context(ca: Path | None = None, identity: Issued | None = None, *, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """What a client has; without a `ca` it takes any certificate."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = ca is not None
    found.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
    if ca is not None:
        found.load_verify_locations(ca)
    if identity is not None:
        found.load_cert_chain(identity.certificate, identity.key)
    if alpn:
        found.set_alpn_protocols(list(alpn))
    return found


def asked(address: tuple[str, int]) -> socket.socket:
    """A connection on which TLS was asked for and agreed to, before the handshake."""
    found = raw.connected(address)
    try:
        found.sendall(SSL_REQUEST)
        answer = found.recv(1)
        assert answer == b"S", answer
    except BaseException:
        found.close()
        raise
    return found


def secured(
    address: tuple[str, int], through: ssl.SSLContext | None = None, *, name: str | None = None, direct: bool = False
) -> ssl.SSLSocket:
    """A connection after the handshake. `name`: that of the server (SNI); `direct`: without asking first."""
    through = through or context(alpn=(ALPN,) if direct else ())
    plain = raw.connected(address) if direct else asked(address)
    try:
        return through.wrap_socket(plain, server_hostname=name or address[0])
    except BaseException:
        plain.close()
        raise


def shown(address: tuple[str, int]) -> bytes:
    """The certificate that is shown there, as it travels."""
    with secured(address) as connection:
        return connection.getpeercert(binary_form=True) or b""
