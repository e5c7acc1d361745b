"""Clients as they arrive: each a trio task, from its first byte until the reactor has it, or until it is sent away.

*Resource handling*: a connection is closed here unless the reactor has taken it over. *Error handling*: whatever is
wrong with a connection, or with how it is served, ends that connection; why is counted.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import trio

from heliosproxy.auth.scram import AuthenticationError, shown
from heliosproxy.auth.users import Users
from heliosproxy.config.tls import BadTls
from heliosproxy.switch.access import Access
from heliosproxy.switch.admission import Admission, LimitError, Reason, Ticket
from heliosproxy.switch.conversation import Conversation
from heliosproxy.switch.login import Admitted, Login, NoTls
from heliosproxy.switch.stream import Stream
from heliosproxy.wire.errors import PeerError, ProtocolError
from heliosproxy.wire.tls import TlsError

log = logging.getLogger("heliosproxy.login")

LAST_WORDS = 1.0
"""Seconds for which somebody who is sent away may take his time to hear why."""
HANDSHAKES = 1000
"""Connections through TLS after which its context is made anew. OpenSSL remembers every session of TLS 1.2, with the
client's certificate, so that it can be resumed, and Python has no way to forbid it: up to 12 kB each."""
THREADS = 2
"""Passwords that are checked at a time, where that takes milliseconds."""


class PluginRefusal(PeerError):
    """A plugin does not let the client in."""


@dataclass(slots=True)
class Arrival:
    """A connection on its way in."""

    talk: Conversation
    ticket: Ticket
    entered: bool = False
    """The reactor has it; what becomes of its ticket is for whoever watches the session."""
    authenticated: bool = False


Enter: TypeAlias = Callable[[Arrival, Admitted], Awaitable[None]]
"""Makes a session of a client that has been let in, and sets `entered`; raises PeerError."""
Cancel: TypeAlias = Callable[[tuple[int, bytes]], Awaitable[None]]
"""Does what a cancel request with this key asks for; returns when that is all it will ever do."""


class Arrivals:
    """Serves listeners. `access`, `users` and `admission.limits` may be replaced: they hold for whoever comes then."""

    def __init__(
        self, access: Access, users: Users, admission: Admission, timeout: float, enter: Enter, cancel: Cancel
    ) -> None:
        """`timeout`: seconds that a login may take."""
        self.access = access
        self.admission = admission
        self.users = users
        self._timeout = timeout
        self._enter = enter
        self._cancel = cancel
        self._turn = trio.Lock()
        self._handshakes = 0
        self._threads = trio.CapacityLimiter(THREADS)

    async def serve(self, connection: socket.socket, address: str) -> None:
        """One connection from this address, from its first byte until it is in, or gone. Owns it."""
        scope = trio.CancelScope()
        arrival = Arrival(Conversation(Stream(connection)), self.admission.arrived(address, scope.cancel))
        try:
            await self._in_or_told(arrival, address, scope)
        except OSError:
            self.admission.count("gone")
        except Exception:  # a bug of ours must not end the listener
            self.admission.count("internal_error")
            log.exception("internal error during a login")
        finally:
            if not arrival.entered:
                self.admission.left(arrival.ticket)
                await arrival.talk.stream.aclose()
            if arrival.talk.stream.tls is not None:
                self._wear_out()

    async def _in_or_told(self, arrival: Arrival, address: str, scope: trio.CancelScope) -> None:
        """Until it is in, or has been told why not."""
        try:
            with scope:
                await self._in_time(arrival, address)
            if arrival.ticket.refused is not None and not arrival.entered:
                raise arrival.ticket.refused
        except PeerError as error:
            self._refused(arrival, address, error)
            await _say(arrival, error.response("FATAL"))

    async def _in_time(self, arrival: Arrival, address: str) -> None:
        with trio.move_on_after(self._timeout) as deadline:
            await self._let_in(arrival, address)
        if deadline.cancelled_caught:
            self.admission.count("login_timeout")
            raise _TooLate("canceling authentication due to timeout", "57014")

    async def _let_in(self, arrival: Arrival, address: str) -> None:
        ticket = arrival.ticket
        login = Login(
            arrival.talk, address, self.access, self.users, begins=lambda: self.admission.begins(ticket),
            cancel=self._cancel, turn=self._turn, threads=self._threads,
        )  # fmt: skip
        admitted = await login.run()
        if admitted is not None:
            self.admission.admitted(ticket, admitted.client.user, admitted.client.database)
            arrival.authenticated = True
            await self._enter(arrival, admitted)

    def _wear_out(self) -> None:
        self._handshakes += 1
        if self._handshakes % HANDSHAKES == 0:
            try:
                self.access = self.access.renewed()
            except BadTls as bad:
                log.warning("TLS goes on as it was: %s", bad.message)

    def _refused(self, arrival: Arrival, address: str, error: PeerError) -> None:
        reason = _reason(arrival, error)
        if reason is not None:
            self.admission.count(reason)
        log.info("login from %s refused: %s", address, printable(error.message))


class _TooLate(PeerError):
    """It has been counted."""


def _reason(arrival: Arrival, error: PeerError) -> Reason | None:
    """What the refusal counts as; None if it has been counted."""
    by_kind: tuple[tuple[type[PeerError], Reason | None], ...] = (
        (LimitError, None), (_TooLate, None), (TlsError, "tls"), (NoTls, "tls"), (ProtocolError, "protocol"),
        (AuthenticationError, "authentication"), (PluginRefusal, "plugin"),
    )  # fmt: skip
    for kind, reason in by_kind:
        if isinstance(error, kind):
            return reason
    return "no_node" if arrival.authenticated else "rules"


def printable(text: str) -> str:
    """What a stranger wrote, as one line of a log: what could be taken for something else is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown(text))


async def _say(arrival: Arrival, data: bytes) -> None:
    """Last words, if anybody still listens, and not where TLS is due.

    Who was ended for others is not waited for: he may be one of very many.
    """
    if arrival.talk.in_handshake:
        return
    with trio.move_on_after(LAST_WORDS):
        try:
            await arrival.talk.send(data)
            if arrival.ticket.refused is None:
                await arrival.talk.stream.farewell()
        except (OSError, TlsError):  # it is gone, or its TLS is what was wrong
            return
