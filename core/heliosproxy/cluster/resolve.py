"""What a node's host name stands for now."""

from __future__ import annotations

import ipaddress
import socket

import trio

from heliosproxy.config.kinds import Address


async def resolve(address: Address, timeout: float) -> tuple[Address, ...]:
    """Every address that the host has, in the resolver's order, each once. A Unix socket's directory is its own.

    Raises OSError (socket.gaierror is one) where the name is not known, and trio.TooSlowError after `timeout` seconds.
    """
    if address.host.startswith("/") or _numeric(address.host):
        return (address,)
    with trio.fail_after(timeout):
        found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(Address(str(entry[4][0]), address.port) for entry in found))


def _numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def merge(known: tuple[Address, ...], found: tuple[Address, ...]) -> tuple[Address, ...]:
    """`known` if it holds the same addresses as `found`, else `found`.

    Resolvers rotate their answers, which is no change; and the order we know has an address that worked first.
    """
    return known if set(known) == set(found) else found
