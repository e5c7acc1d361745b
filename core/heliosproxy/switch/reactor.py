"""The reactor: one trio task that owns its own poller and serves every established socket.

Why not a task per connection: a wake-up of a trio task costs more than the whole work on a statement. The reactor asks
its poller for everything that is ready, lets the switch decide, and writes to each socket once, so that what became
ready together leaves together. When nothing is ready it hands the poller's own file descriptor to trio and sleeps
there; when busy it yields to trio every 2 ms.

An endpoint that came with TLS speaks it here as well: decrypted after each read, encrypted once before each write.

Resource handling: an `Endpoint` owns its socket from `adopt` on and closes it. Error handling: whatever a socket or its
TLS raises ends that endpoint only; what the switch raises (a bug) is logged and ends the endpoint whose event it was.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Callable
from time import monotonic

import trio

from heliosproxy.wire.tls import Tls, TlsError

log = logging.getLogger("heliosproxy.reactor")

RECEIVED = 16 * 1024
"""First size of a read. Larger ones cost a fresh mapping each time, so they are used only where they were filled."""
RECEIVED_MOST = 128 * 1024
HIGH_WATER = 256 * 1024
"""Bytes waiting to be written to a socket, above which whoever produces them is not read."""
LOW_WATER = 64 * 1024
LINGER = 5.0
"""Seconds for which a connection that is closed is kept so that what is due can be taken."""
SPIN = 0.001
"""Seconds for which the poller itself waits before trio is given the wait."""
BUSY = 0.002
"""Seconds after which trio's other tasks get their turn."""
WELCOME = 0.02
"""Seconds after a connection has arrived for which they get it after every round: a login is a few steps of them, which
would otherwise each wait for `SPIN` or `BUSY`."""


class Endpoint:
    """A socket in the reactor: who is told of its bytes, and what is still to be written to it."""

    __slots__ = (
        "_closing", "_events", "_on_ended", "_reactor", "_received", "_waiting", "closed", "fd", "on_closed", "on_data",
        "outgoing", "pending", "producer", "socket", "tls",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Reactor,
        connection: socket.socket,
        on_data: Callable[[bytes], None],
        on_closed: Callable[[str], None],
        tls: Tls | None,
    ) -> None:
        self._reactor = reactor
        self.socket = connection
        self.fd = connection.fileno()
        self.on_data = on_data
        self.on_closed = on_closed
        self.tls = tls
        """None where the bytes travel in the clear."""
        self.outgoing: list[bytes] = []
        """Written at the end of this round."""
        self.pending = bytearray()
        """What the socket did not take; of TLS, ciphertext."""
        self.producer: Endpoint | None = None
        """Whose bytes fill `pending`; not read while there is too much of it."""
        self.closed = False
        self._closing = False
        self._on_ended: Callable[[], None] | None = None
        self._events = select.EPOLLIN
        self._waiting = 0  # how many endpoints hold up reading from this one
        self._received = RECEIVED

    def send(self, data: bytes) -> None:
        """Write at the end of this round."""
        if not self.outgoing:
            self._reactor.due.append(self)
        self.outgoing.append(data)

    def close(self, on_ended: Callable[[], None] | None = None) -> None:
        """Write what is due, then close; what is not taken within `LINGER` is dropped. `on_closed` is not called.

        With `on_ended` it closes once the peer has, and calls that; what the peer still says is dropped.
        """
        if not self._closing and not self.closed:
            self._closing = True
            self._on_ended = on_ended
            self._let_go()
            self._watch()
            self._reactor.due.append(self)
            self._reactor.closing[self] = monotonic()

    def hold(self, held: bool) -> None:
        """Stop reading, or go on."""
        self._waiting += 1 if held else -1
        self._watch()

    def _watch(self) -> None:
        if self.closed:
            return
        reads = not self._waiting and not self._closing
        awaits_end = self._on_ended is not None and not self.pending
        events = (select.EPOLLIN if reads or awaits_end else 0) | (select.EPOLLOUT if self.pending else 0)
        if events != self._events:
            self._events = events
            self._reactor.poller.modify(self.fd, events)

    def ready(self, events: int) -> None:
        """The poller's word that something can be done."""
        if events & select.EPOLLOUT:
            self.flush()
        if events & ~select.EPOLLOUT and not self.closed:
            if not self._closing:
                self._read()
            elif self._on_ended is None or self._has_ended():
                self.discard()  # the peer is gone as well

    def _has_ended(self) -> bool:
        """Drop what arrived; whether it was the last."""
        try:
            return not self.socket.recv(RECEIVED_MOST)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _read(self) -> None:
        try:
            data = self.socket.recv(self._received)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error.strerror or str(error))
            return
        if not data:
            self._lost("closed by the peer")
            return
        if len(data) == self._received and self._received < RECEIVED_MOST:
            self._received *= 2
        elif self._received > RECEIVED and len(data) < RECEIVED:
            self._received = RECEIVED
        if self.tls is None:
            self.on_data(data)
        else:
            self._decrypt(self.tls, data)

    def _decrypt(self, tls: Tls, ciphertext: bytes) -> None:
        try:
            data = tls.receive(ciphertext)
        except TlsError as error:
            self._fail(tls, error)
            return
        if tls.owes and not self.outgoing:
            self._reactor.due.append(self)
        if data:
            self.on_data(data)
        if tls.closed and not self.closed:
            self._lost("closed by the peer")

    def _fail(self, tls: Tls, error: TlsError) -> None:
        if not self.pending:
            with contextlib.suppress(OSError):
                self.socket.send(tls.outgoing())  # the alert, if the socket takes it
        self._lost(error.message)

    def flush(self) -> None:
        """Write what is due, as far as the socket takes it."""
        if self.closed:
            return
        data: bytes | bytearray = self.outgoing[0] if len(self.outgoing) == 1 else b"".join(self.outgoing)
        self.outgoing.clear()
        if self.tls is not None:
            try:
                data = self._encrypted(self.tls, data)
            except TlsError as error:
                self._fail(self.tls, error)
                return
        if self.pending:
            self.pending += data
            data = self.pending
        try:
            sent = self.socket.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lost(error.strerror or str(error))
            return
        self._keep(data, sent)
        if self._closing and not self.pending:
            if self._on_ended is None:
                self.discard()
            else:
                self._watch()

    def _encrypted(self, tls: Tls, data: bytes | bytearray) -> bytes:
        """Everything that is due, and at the end the last word."""
        return tls.send(data) + tls.close() if self._closing else tls.send(data)

    def _keep(self, data: bytes | bytearray, sent: int) -> None:
        if data is self.pending:
            del self.pending[:sent]
        elif sent < len(data):
            self.pending += memoryview(data)[sent:]
        elif self._events & select.EPOLLOUT == 0:
            return
        self._watch()
        self._regulate()

    def _regulate(self) -> None:
        """Hold the producer while too much waits here."""
        if self.producer is None and not self._closing:
            if len(self.pending) > HIGH_WATER:
                self.producer = self._reactor.producer_of(self)
                if self.producer is not None:
                    self.producer.hold(True)
        elif self.producer is not None and len(self.pending) < LOW_WATER:
            self._let_go()

    def _let_go(self) -> None:
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.hold(False)

    def _lost(self, reason: str) -> None:
        closing = self._closing
        self.discard()
        if not closing:
            self._reactor.guarded(self.on_closed, reason)

    def discard(self) -> None:
        """Close at once."""
        if self.closed:
            return
        self.closed = True
        self._let_go()
        self._reactor.remove(self)
        self.socket.close()
        if self._on_ended is not None:
            self._reactor.guarded(self._on_ended)


class Reactor:
    """The poller and its endpoints."""

    def __init__(self) -> None:
        self.poller = select.epoll()
        self.due: list[Endpoint] = []
        """Endpoints with something to write at the end of this round."""
        self.has_more = False
        """Somebody has more to do: `settle`, which sets it, is to be called again at once."""
        self.closing: dict[Endpoint, float] = {}
        """Endpoints that close once what is due was taken, and since when."""
        self._endpoints: dict[int, Endpoint] = {}
        self.producer_of: Callable[[Endpoint], Endpoint | None] = lambda endpoint: None
        """Whose reading fills an endpoint; set by whoever pairs them."""

    def adopt(
        self,
        connection: socket.socket,
        on_data: Callable[[bytes], None],
        on_closed: Callable[[str], None],
        tls: Tls | None = None,
    ) -> Endpoint:
        """Take over a connected socket, which the endpoint owns from now on, and the TLS that is spoken over it.

        What TLS has decrypted by then, or could have, is the caller's to hand on (`Stream.detach`).
        """
        connection.setblocking(False)
        endpoint = Endpoint(self, connection, on_data, on_closed, tls)
        self._endpoints[endpoint.fd] = endpoint
        self.poller.register(endpoint.fd, select.EPOLLIN)
        return endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """Forget an endpoint that closes."""
        del self._endpoints[endpoint.fd]
        self.closing.pop(endpoint, None)
        self.poller.unregister(endpoint.fd)

    def notice(self, listener: socket.socket) -> None:
        """Let trio's tasks, one of which accepts, have their turn when a connection arrives here."""
        self.poller.register(listener.fileno(), select.EPOLLIN | select.EPOLLET)

    def flush(self) -> None:
        """Write everything that is due. Tasks outside the reactor call it after they have used the switch."""
        while self.due:
            due, self.due = self.due, []
            for endpoint in due:
                endpoint.flush()

    async def run(self, tick: Callable[[float], None], every: float, settle: Callable[[], None]) -> None:
        """Serve until cancelled; `tick(now)` is called every so many seconds, `settle()` after each round."""
        poll, endpoints = self.poller.poll, self._endpoints
        yielded = ticked = monotonic()
        now = welcome = 0.0
        while True:
            events = poll(0 if now < welcome or self.has_more else SPIN, 256)
            now = monotonic()
            if events or self.has_more:
                for fd, event in events:
                    endpoint = endpoints.get(fd)
                    if endpoint is not None:
                        self._serve(endpoint, event)
                    else:  # one that has just been closed, or a listener
                        welcome = now + WELCOME
                self.guarded(settle)
                self.flush()
            if now - ticked >= every:
                ticked = now
                self.guarded(tick, now)
                self._reap(now)
                self.flush()
            if not events and not self.has_more:
                with trio.move_on_after(max(0.0, ticked + every - now)):
                    await trio.lowlevel.wait_readable(self.poller.fileno())
                yielded = monotonic()
            elif now < welcome or now - yielded > BUSY:
                await trio.lowlevel.checkpoint()
                yielded = now

    def _reap(self, now: float) -> None:
        """Drop what peers that read nothing keep open."""
        for endpoint, since in list(self.closing.items()):
            if now - since > LINGER:
                endpoint.discard()

    @staticmethod
    def guarded(call: Callable[..., object], *arguments: object) -> None:
        """Call it; a bug of ours in it is logged, and must not take the whole proxy with it."""
        try:
            call(*arguments)
        except Exception:
            log.exception("internal error")

    def _serve(self, endpoint: Endpoint, event: int) -> None:
        try:
            endpoint.ready(event)
        except Exception:  # a bug of ours must not take the other connections with it
            log.exception("internal error; the connection that caused it is closed")
            closing = endpoint.closed
            endpoint.discard()
            if not closing:
                endpoint.on_closed("internal error")

    def close(self) -> None:
        """Close every socket and the poller."""
        self.flush()
        for endpoint in list(self._endpoints.values()):
            endpoint.discard()
        self.poller.close()
