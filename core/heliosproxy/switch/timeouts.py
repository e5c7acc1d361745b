"""Clients and statements that take too long, by the time-outs of `[pool]` and `[[pools]]`. Sans-IO; no method waits.

For each of its time-outs a session has one place at most in a heap, which says when to look at it. It is put there
when the time-out begins to run, and stays there when what it runs for has ended: looked at too early, it moves to
where it belongs by then. So a statement costs a look at a flag, a tick one at the heap, and whoever idles costs nothing
until his time has come.

A statement that waits is given up. One that runs is cancelled, again each second; where the server does not obey, its
link is closed. Until such a cancel request has arrived the link gets no other statement, which it might hit (L3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from heliosproxy.switch.loss import IDLE
from heliosproxy.switch.unit import TIMED_OUT
from heliosproxy.wire.errors import error_response

if TYPE_CHECKING:
    from heliosproxy.config.model import Pool
    from heliosproxy.switch.admission import Reason
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.links import Links
    from heliosproxy.switch.session import Session

AGAIN = 1.0
"""Seconds after which a statement that still runs is cancelled again."""
OBEY = 5.0
"""Seconds after the first cancel request for which a server may go on; then the link is closed."""
MOST_DEAD = 64
"""Places of sessions that have left which the heap may hold beside as many others."""

IDLE_SESSION, IDLE_IN_TRANSACTION, STATEMENT, TRANSACTION = 1, 2, 4, 8
OVERDUE = 16
"""Not a time-out: to see whether a statement that was cancelled has ended."""
_REASONS: Mapping[int, Reason] = MappingProxyType({
    IDLE_SESSION: "idle_session_timeout", IDLE_IN_TRANSACTION: "idle_in_transaction_session_timeout",
    STATEMENT: "statement_timeout", TRANSACTION: "transaction_timeout",
})  # fmt: skip
_LAST_WORDS = MappingProxyType({
    IDLE_SESSION: error_response("FATAL", "57P05", "terminating connection due to idle-session timeout"),
    IDLE_IN_TRANSACTION: error_response("FATAL", "25P03", "terminating connection due to idle-in-transaction timeout"),
    TRANSACTION: error_response("FATAL", "25P04", "terminating connection due to transaction timeout"),
})  # fmt: skip


class Clock:
    """The time-outs of a session in seconds, None: off; and since when they run. One is made for each policy."""

    __slots__ = ("idle_in_transaction", "idle_session", "places", "rests_since", "statement", "transaction",
                 "transaction_since")  # fmt: skip

    def __init__(self, policy: Pool) -> None:
        self.idle_session = policy.idle_session_timeout
        self.idle_in_transaction = policy.idle_in_transaction_session_timeout
        self.statement = policy.statement_timeout
        self.transaction = policy.transaction_timeout
        self.places = 0
        """Which of them have a place in the heap, as the sum of their numbers."""
        self.rests_since = 0.0
        """When its last unit was answered."""
        self.transaction_since = 0.0
        """When the first statement of its transaction was sent to a server, be it the only one; 0: in none."""

    @property
    def runs(self) -> bool:
        """Whether there is any time-out."""
        return any((self.idle_session, self.idle_in_transaction, self.statement, self.transaction))


class _Place(NamedTuple):
    when: float
    number: int
    session: Session
    clock: Clock
    kind: int


class Acts(Protocol):
    """What time-outs ask of the switch."""

    def end(self, session: Session, message: bytes) -> None:
        """Say why, and close."""

    def fail(self, session: Session, error: bytes) -> None:
        """The unit at the head ends with an error."""

    def give_up(self, session: Session, error: bytes) -> None:
        """The unit at the head, which waits for a node or a link, has waited long enough."""

    def is_waiting(self, session: Session) -> bool:
        """Whether the unit at the head waits for a node or a link."""

    def cancel_arrived(self, session: Session, link: Link) -> None:
        """The link may have other statements again."""


class Timeouts:
    """For the whole switch. `counts` is called with a reason each time one strikes."""

    def __init__(self, acts: Acts, links: Links, counts: Callable[[Reason], None]) -> None:
        self._acts = acts
        self._links = links
        self._counts = counts
        self._heap: list[_Place] = []
        self._dead = 0  # places in it of clocks that are no more
        self._numbers = count()

    # --- what happens ---------------------------------------------------------------------------------------------

    def watch(self, session: Session, policy: Pool) -> None:
        """A client has logged in, or another policy holds for it from now on."""
        before = session.clock
        self.forget(session)
        clock = Clock(policy)
        if clock.runs:
            session.clock = clock
            if before is not None:
                clock.transaction_since = before.transaction_since
            self.rests(session, clock)

    def forget(self, session: Session) -> None:
        """The client has left."""
        clock, session.clock = session.clock, None
        if clock is not None:
            self._dead += clock.places.bit_count()
            if self._dead > len(self._heap) // 2 + MOST_DEAD:
                self._heap = [place for place in self._heap if place.session.clock is place.clock]
                heapify(self._heap)
                self._dead = 0

    def began(self, session: Session, clock: Clock) -> None:
        """The unit at the head was taken up."""
        if clock.statement is not None and not clock.places & STATEMENT:
            self._put(session, clock, STATEMENT, session.units[0].started + clock.statement)

    def sent(self, session: Session, clock: Clock) -> None:
        """The unit at the head was sent to a server."""
        if clock.transaction is not None and not clock.transaction_since:
            clock.transaction_since = monotonic()
            if not clock.places & TRANSACTION:
                self._put(session, clock, TRANSACTION, clock.transaction_since + clock.transaction)

    def rests(self, session: Session, clock: Clock) -> None:
        """A unit was answered: it is the client's turn, unless there is another one."""
        clock.rests_since = monotonic()
        if session.status == IDLE:
            clock.transaction_since = 0.0
            if clock.idle_session is not None and not clock.places & IDLE_SESSION:
                self._put(session, clock, IDLE_SESSION, clock.rests_since + clock.idle_session)
        elif clock.idle_in_transaction is not None and not clock.places & IDLE_IN_TRANSACTION:
            self._put(session, clock, IDLE_IN_TRANSACTION, clock.rests_since + clock.idle_in_transaction)

    def tick(self, now: float) -> None:
        """Called several times a second: see whose time has come."""
        while self._heap and self._heap[0].when <= now:
            _, _, session, clock, kind = heappop(self._heap)
            if session.clock is not clock:
                self._dead -= 1
                continue
            clock.places &= ~kind
            due = self._due(session, clock, kind)
            if due is not None and due > now:
                self._put(session, clock, kind, due)
            elif due is not None:
                self._strike(session, clock, kind, now)

    def _put(self, session: Session, clock: Clock, kind: int, when: float) -> None:
        clock.places |= kind
        heappush(self._heap, _Place(when, next(self._numbers), session, clock, kind))

    # --- whose time has come --------------------------------------------------------------------------------------

    def _due(self, session: Session, clock: Clock, kind: int) -> float | None:
        """When it strikes, as things are; None: it does not run."""
        if kind == OVERDUE:
            return _sum(session.units[0].overdue_since or None if self._runs(session) else None, AGAIN)
        if kind == TRANSACTION:
            return _sum(clock.transaction_since or None, clock.transaction)
        if kind == STATEMENT:
            return _sum(session.units[0].started if self._runs(session) else None, clock.statement)
        if (session.status == IDLE) is not (kind == IDLE_SESSION) or not self._is_the_clients_turn(session):
            return None
        since = max(clock.rests_since, session.units[0].started) if session.units else clock.rests_since
        return _sum(since, clock.idle_session if kind == IDLE_SESSION else clock.idle_in_transaction)

    def _runs(self, session: Session) -> bool:
        """Whether the unit at the head was taken up and has neither ended nor been answered as far as it is there."""
        unit = session.units[0] if session.units else None
        if unit is None or not unit.started or unit.told:
            return False
        return unit.link is not None or session.is_held_up or self._acts.is_waiting(session)

    def _is_the_clients_turn(self, session: Session) -> bool:
        """Whether nothing is due to it until it says more, if only the Sync of a unit that was answered so far."""
        return not session.units or (not session.units[0].complete and not self._runs(session))

    def _strike(self, session: Session, clock: Clock, kind: int, now: float) -> None:
        if kind in (STATEMENT, OVERDUE):
            self._end_statement(session, clock, now)
            return
        self._counts(_REASONS[kind])
        inside = bool(session.units) and session.units[0].mid_message
        self._acts.end(session, b"" if inside else _LAST_WORDS[kind])  # in a message, they would be taken for data

    def _end_statement(self, session: Session, clock: Clock, now: float) -> None:
        unit, link = session.units[0], session.link
        if not unit.overdue_since:
            self._counts("statement_timeout")
        if link is None:
            self._acts.give_up(session, TIMED_OUT)
        elif session.settling:  # the link only tells the settings; the statement has not begun
            self._acts.fail(session, TIMED_OUT)
        elif unit.overdue_since and now - unit.overdue_since >= OBEY:
            self._links.close(link, "a statement did not end when it was cancelled")
        else:
            unit.overdue_since = unit.overdue_since or now
            if not clock.places & OVERDUE:
                self._put(session, clock, OVERDUE, now + AGAIN)
            if not link.cancels:
                session.cancelling = link
                self._links.handover.cancel(link, partial(self._acts.cancel_arrived, session, link))


def _sum(since: float | None, seconds: float | None) -> float | None:
    return None if since is None or seconds is None else since + seconds
