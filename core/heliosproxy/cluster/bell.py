"""Waking a task that is at rest."""

from __future__ import annotations

import trio


class Bell:
    """`ring_nowait` wakes the one task in `wait`; rung while nobody waits, the next `wait` returns at once. Once."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring_nowait(self) -> None:
        """Wake the task, now or when it next waits."""
        self._event.set()

    async def wait(self) -> None:
        """Until it is rung. Cancelled, it leaves the bell as it was."""
        await self._event.wait()
        self._event = trio.Event()
