from __future__ import annotations

import socket

import pytest
import trio

from heliosproxy.cluster.resolve import merge, resolve
from heliosproxy.config.kinds import Address


class Resolver(trio.abc.HostnameResolver):
    """Knows one name; others end in gaierror, and `slow` never answers."""

    async def getaddrinfo(  # type: ignore[no-untyped-def]
        self, host, port, family=0, type=0, proto=0, flags=0
    ):
        if host == b"slow":
            await trio.sleep_forever()
        if host != b"db.test":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(2, 1, 6, "", (ip, port)) for ip in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]

    async def getnameinfo(self, sockaddr, flags):  # type: ignore[no-untyped-def]
        raise NotImplementedError


@pytest.fixture
async def resolver() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver())


async def test_a_name_stands_for_each_of_its_addresses_once(resolver: None) -> None:
    found = await resolve(Address("db.test", 5432), 1)
    assert found == (Address("10.0.0.2", 5432), Address("10.0.0.1", 5432))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "/run/postgresql"])
async def test_addresses_and_sockets_stand_for_themselves(host: str) -> None:
    assert await resolve(Address(host, 5432), 1) == (Address(host, 5432),)


async def test_an_unknown_name_raises(resolver: None) -> None:
    with pytest.raises(socket.gaierror):
        await resolve(Address("nowhere.test", 5432), 1)


async def test_a_resolver_that_does_not_answer_ends_at_the_deadline(resolver: None, autojump_clock: object) -> None:
    with pytest.raises(trio.TooSlowError):
        await resolve(Address("slow", 5432), 1)


def test_a_rotated_answer_is_no_change() -> None:
    a, b, c = (Address(f"10.0.0.{i}", 5432) for i in range(3))
    assert merge((a, b), (b, a)) == (a, b)
    assert merge((a, b), (b, c)) == (b, c)
