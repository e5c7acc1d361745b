"""What using an object does: the currency of the proof."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Leaves(IntEnum):
    """What a statement leaves in the session, in rising order."""

    NOTHING = 0
    SEQUENCES = 1
    ANYTHING = 2


@dataclass(frozen=True, slots=True)
class Effect:
    """`writes`: why it is not read-only, empty if it is. `leaves`, and in `because` why."""

    writes: str = ""
    leaves: Leaves = Leaves.NOTHING
    because: str = ""

    def __or__(self, other: Effect) -> Effect:
        if other == NO_EFFECT:
            return self
        if other.leaves > self.leaves:
            return Effect(self.writes or other.writes, other.leaves, other.because)
        return Effect(self.writes or other.writes, self.leaves, self.because)


NO_EFFECT = Effect()


def not_known(what: str) -> Effect:
    """Of something that the catalogue does not have: it may do anything."""
    return Effect(f"{what} is not known", Leaves.ANYTHING, f"{what} is not known")


def leaving(reason: str) -> Effect:
    """Of something that may leave anything, but is not in the way of being read-only."""
    return Effect("", Leaves.ANYTHING, reason)


def anything(reason: str) -> Effect:
    """Of something that is not read-only and may leave anything."""
    return Effect(reason, Leaves.ANYTHING, reason)
