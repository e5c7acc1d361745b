"""Turns: nobody is served more at a time than takes a moment, however much of it came at once.

A session that has more to do when its turn is over is put here, and goes on between two looks at the sockets, as long
as all of them together take no longer than `GO_ON`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heliosproxy.switch.session import Session

UNITS_AT_ONCE = 20
"""Units of a client that are answered by the proxy itself before it is others' turn."""
GO_ON = 0.005
"""Seconds for which those who have more to do are served between two looks at the sockets."""


class Turns:
    """Who has more to do, in the order in which they had their turn. `serve` gives a session its next one; `leaves` is
    called with one whose client has left meanwhile, when it has no more to do."""

    def __init__(self, serve: Callable[[Session], None], leaves: Callable[[Session], None]) -> None:
        self._serve = serve
        self._leaves = leaves
        self._waiting: dict[Session, None] = {}
        self._left: set[Session] = set()

    def put(self, session: Session) -> None:
        """It has more to do, and it is others' turn."""
        self._waiting[session] = None

    def has_left(self, session: Session) -> bool:
        """Its client has left; whether it has more to do before that counts, as with PostgreSQL."""
        if session.has_more or session in self._waiting:
            self._left.add(session)
            return True
        return False

    def forget(self, session: Session) -> None:
        """It is over."""
        self._waiting.pop(session, None)
        self._left.discard(session)

    def go_on(self) -> bool:
        """Give those who wait their next turn, for `GO_ON` at most; whether somebody has more to do still."""
        if not self._waiting:
            return False
        until = monotonic() + GO_ON
        for session in list(self._waiting):
            del self._waiting[session]
            self._serve(session)
            if session in self._left and session not in self._waiting and not session.has_more:
                self._left.discard(session)
                self._leaves(session)
            if monotonic() > until:
                break
        return bool(self._waiting)
