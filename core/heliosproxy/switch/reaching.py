"""A connection to a node, and TLS over it as `[server_tls]` has it.

Source: libpq's `sslmode` and `sslnegotiation`; protocol chapter, "SSL Session Encryption". Unix sockets never use TLS.
"""

from __future__ import annotations

import ipaddress
import logging
import socket

import trio

from heliosproxy.cluster.node import Node
from heliosproxy.config.kinds import Address
from heliosproxy.config.tls import ALPN, BadTls, Contexts, server_name
from heliosproxy.switch.stream import Stream
from heliosproxy.wire.errors import PeerError
from heliosproxy.wire.startup import SSLRequest
from heliosproxy.wire.tls import TlsError

log = logging.getLogger("heliosproxy.links")


class Unreachable(PeerError):
    """No connection to the node, or none that can be trusted: refused, timed out, cut before the server answered, or no
    TLS as configured."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, "08006", hint=hint)


async def reach(node: Node, contexts: Contexts, *, encrypted: bool) -> Stream:
    """Connect to the first of a node's addresses that takes us, and start TLS if `encrypted`.

    Where `sslmode` leaves the choice to the node (allow, prefer) and it has none, it goes on in the clear. Raises what
    `start_tls` raises, OSError, and Unreachable if the node must speak TLS and will not.
    """
    connected = await _connect(node)
    stream = Stream(socket.socket(fileno=connected.socket.detach()))
    try:
        if encrypted:
            await _encrypt(stream, node, contexts)
    except BaseException:
        await stream.aclose()
        raise
    return stream


def is_private(stream: Stream) -> bool:
    """Whether the connection does not leave this machine: a Unix socket, or loopback. Not if it is cut already."""
    try:
        peer = stream.socket.getpeername()
    except OSError:
        return False
    return not isinstance(peer, tuple) or ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback


async def _connect(node: Node) -> trio.SocketStream:
    errors: list[OSError] = []
    for address in node.addresses or (node.config.address,):
        try:
            return await _connect_to(address)
        except OSError as error:
            errors.append(error)
    raise errors[0]


async def _connect_to(address: Address) -> trio.SocketStream:
    if address.host.startswith("/"):
        return await trio.open_unix_socket(f"{address.host}/.s.PGSQL.{address.port}")
    stream = await trio.open_tcp_stream(address.host, address.port)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return stream


async def _encrypt(stream: Stream, node: Node, contexts: Contexts) -> None:
    tls = node.config.tls
    try:
        context = contexts.of(tls)
    except BadTls as bad:  # since the configuration was checked, a file went away
        log.error("no TLS with %s: %s", node.name, bad.message)
        raise PeerError(f"the proxy cannot set up TLS with {node.name}; its log says why", "58000") from None
    assert context is not None
    direct = tls.sslnegotiation == "direct"
    if not direct and not await _asked(stream, node):
        return
    host = server_name(node.config.address.host)
    await stream.start_tls(context, server_side=False, server_hostname=host)
    if direct and (stream.tls is None or stream.tls.alpn != ALPN):
        raise TlsError("the server does not say by ALPN that it is PostgreSQL, which direct negotiation needs")


async def _asked(stream: Stream, node: Node) -> bool:
    """Whether the node speaks TLS.

    Not a byte more than its answer is read: what somebody in the middle put behind it would count as if it had come
    through TLS (CVE-2021-23222). An error instead of an answer is not shown, since nobody knows whose it is.
    """
    mode = node.config.tls.sslmode
    await stream.send_all(SSLRequest().encode())
    answer = await stream.receive_some(1)
    if answer == b"S":
        return True
    if answer == b"N" and mode in ("allow", "prefer"):
        return False
    if answer == b"N":
        hint = "Set ssl = on at the node, or another sslmode for it."
        raise Unreachable(f"{node.name} does not speak TLS, and its sslmode is {mode}", hint=hint)
    if not answer:
        raise TlsError("the server closed the connection when it was asked for TLS")
    what = "an error" if answer == b"E" else "what is no answer"
    raise TlsError(f"the server answered {what} when it was asked for TLS")
