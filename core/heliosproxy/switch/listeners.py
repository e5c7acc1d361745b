"""Where clients connect: a TCP address, and a Unix socket as PostgreSQL has it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Proxy

BACKLOG = 1024


@asynccontextmanager
async def listening(proxy: Proxy) -> AsyncIterator[tuple[Sequence[trio.SocketListener], Address]]:
    """The listeners of `[proxy]`, and the address where TCP connects; closed at the end, with the socket's file gone.

    Raises OSError where one of them cannot be had.
    """
    async with contextlib.AsyncExitStack() as stack:
        listeners: list[trio.SocketListener] = []
        for listener in await trio.open_tcp_listeners(proxy.listen.port, host=proxy.listen.host, backlog=BACKLOG):
            listeners.append(await stack.enter_async_context(listener))
        port = listeners[0].socket.getsockname()[1]
        if proxy.unix_socket_directory is not None:
            file = proxy.unix_socket_directory / f".s.PGSQL.{port}"
            local = await _unix(file, int(proxy.unix_socket_permissions, 8))
            stack.callback(file.unlink, missing_ok=True)
            listeners.append(await stack.enter_async_context(local))
        yield listeners, Address(proxy.listen.host, port)


async def _unix(file: Path, mode: int) -> trio.SocketListener:
    _forget_dead(file)
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Bound for nobody, opened for those who may: at no moment can anybody else connect.
        before = os.umask(0o177)
        try:
            await listener.bind(str(file))
        finally:
            os.umask(before)
        file.chmod(mode)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return trio.SocketListener(listener)


def _forget_dead(file: Path) -> None:
    """Remove what a process that was killed has left. Raises OSError (EADDRINUSE) if somebody listens there."""
    if not file.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(file))
        except ConnectionRefusedError:
            file.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(file))
