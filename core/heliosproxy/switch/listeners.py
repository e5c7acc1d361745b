"""Where clients connect: a TCP address, and a Unix socket as PostgreSQL has it.

Why not trio's serve_listeners: it goes around trio's loop for each connection, and closes each once more when its
handler is done, though the reactor has it by then.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Proxy
from heliosproxy.switch.admission import LOCAL

log = logging.getLogger("heliosproxy.login")

BACKLOG = 1024
AT_ONCE = 16
"""Connections accepted before others get their turn."""
PAUSE = 0.1
"""Seconds after which it is tried again to accept where the system has had nothing left."""
_SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))


@asynccontextmanager
async def listening(proxy: Proxy) -> AsyncIterator[tuple[Sequence[socket.socket], Address]]:
    """The listeners of `[proxy]`, and the address where TCP connects; closed at the end, with the socket's file gone.

    Raises OSError where one of them cannot be had.
    """
    with contextlib.ExitStack() as stack:
        found = await trio.open_tcp_listeners(proxy.listen.port, host=proxy.listen.host, backlog=BACKLOG)
        listeners = [stack.enter_context(socket.socket(fileno=each.socket.detach())) for each in found]
        port = listeners[0].getsockname()[1]
        if proxy.unix_socket_directory is not None:
            file = proxy.unix_socket_directory / f".s.PGSQL.{port}"
            listeners.append(stack.enter_context(_unix(file, int(proxy.unix_socket_permissions, 8))))
            stack.callback(file.unlink, missing_ok=True)
        for listener in listeners:
            listener.setblocking(False)
        yield listeners, Address(proxy.listen.host, port)


async def accept(listener: socket.socket, arrived: Callable[[socket.socket, str], None]) -> None:
    """Call `arrived` with each connection and the address that it comes from, "local" for the Unix socket; until
    cancelled.

    A connection that is gone before it is accepted is passed over. Where the system has no more files or memory, the
    others wait: it is tried again after `PAUSE`, and said in the log once until it goes again.
    """
    short = False
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            for _ in range(AT_ONCE):
                arrived(*_accepted(listener))
                short = False
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in _SHORTAGES:
                continue
            if not short:
                log.error("no connection can be accepted for now: %s", error.strerror)
            short = True
            await trio.sleep(PAUSE)


def _accepted(listener: socket.socket) -> tuple[socket.socket, str]:
    connection, name = listener.accept()
    if not isinstance(name, tuple):
        return connection, LOCAL
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection, name[0]


def _unix(file: Path, mode: int) -> socket.socket:
    _forget_dead(file)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Bound for nobody, opened for those who may: at no moment can anybody else connect.
        before = os.umask(0o177)
        try:
            listener.bind(str(file))
        finally:
            os.umask(before)
        file.chmod(mode)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


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
