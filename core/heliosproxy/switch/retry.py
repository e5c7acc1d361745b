"""When a pool whose node could not be reached, or refused the login, tries again.

One attempt at a time until one succeeds, each after a longer pause than the last: a server that has no room, or is
just starting, gets no storm of connections, and clients who wait are served once it lets the first one in.
"""

from __future__ import annotations

from heliosproxy.wire.errors import PeerError

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 15.0
"""Seconds. The pause doubles with each failed attempt, and is up to twice as long by chance."""


class Retry:
    """The attempts of one pool. It has no clock: `look` tells it the time."""

    def __init__(self) -> None:
        self.failures = 0
        """Failed attempts in a row; those that ended while it was resting count as one with the first."""
        self.resting = False
        """No attempt may begin."""
        self.error: PeerError | None = None
        """Why the last attempt failed; None once one has succeeded."""
        self._until = 0.0

    def failed(self, error: PeerError, now: float, chance: float) -> None:
        """An attempt failed. `chance` is from 0 to 1."""
        self.error = error
        if not self.resting:
            self._until = now + min(FIRST_PAUSE * 2 ** min(self.failures, 10) * (1 + chance), LONGEST_PAUSE)
            self.failures += 1
            self.resting = True

    def succeeded(self) -> None:
        """An attempt succeeded, or there is another reason to begin anew."""
        self.failures = 0
        self.resting = False
        self.error = None

    def look(self, now: float) -> None:
        """Rest no longer if it was long enough."""
        if self.resting and now >= self._until:
            self.resting = False


def for_good(error: PeerError) -> bool:
    """Whether waiting will not help: the server refuses this user or this database, rather than now having no room.

    53… is want of resources, too many connections first of all; 57P03 a server that starts or stops.
    """
    return not error.sqlstate.startswith("53") and error.sqlstate not in ("57P03", "08006")
