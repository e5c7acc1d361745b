"""The addresses of this machine and their networks, for `samehost` and `samenet`: getifaddrs, as PostgreSQL asks.

Neither Python's standard library nor /proc has them for all systems, so the C library is called.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import TypeAlias

Interface: TypeAlias = IPv4Interface | IPv6Interface
_BSD = sys.platform == "darwin" or "bsd" in sys.platform
"""There a socket address begins with its length, and a mask ends with its last byte that is not zero."""
_PLACES = {int(socket.AF_INET): (4, 4), int(socket.AF_INET6): (8, 16)}
"""Where in a socket address the address is, and its size."""


class _Entry(ctypes.Structure):
    """struct ifaddrs, as far as it is the same everywhere."""


_Entry._fields_ = [
    ("next", ctypes.POINTER(_Entry)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("netmask", ctypes.c_void_p),
]


def read_interfaces() -> list[Interface]:
    """Each address of this machine with the network that it is in. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Entry)()
    if library.getifaddrs(ctypes.byref(first)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        return _walk(first)
    finally:
        library.freeifaddrs(first)


def _walk(entry: ctypes._Pointer[_Entry]) -> list[Interface]:
    found: list[Interface] = []
    while entry:
        here = entry.contents
        if here.address and here.netmask and (family := _family(here.address)) in _PLACES:
            address, mask = _bytes(here.address, family), _bytes(here.netmask, family)
            found.append(ip_interface(f"{ip_address(address)}/{int.from_bytes(mask, 'big').bit_count()}"))
        entry = here.next
    return found


def _family(address: int) -> int:
    head = ctypes.string_at(address, 2)
    return head[1] if _BSD else int.from_bytes(head, sys.byteorder)


def _bytes(address: int, family: int) -> bytes:
    start, size = _PLACES[family]
    length = ctypes.string_at(address, 1)[0] if _BSD else start + size
    return ctypes.string_at(address, min(length, start + size))[start:].ljust(size, b"\0")
