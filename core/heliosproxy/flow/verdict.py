"""A verdict: everything that the plugins decided about one flow, in the form in which the switch executes it."""

from __future__ import annotations

from dataclasses import dataclass

from helios_sdk.contract import (
    Cache,
    Directive,
    Limit,
    Mask,
    Notice,
    Pair,
    PoolMode,
    PriorityLevel,
    Reject,
    Route,
    Rows,
    Tag,
)


@dataclass(frozen=True, slots=True)
class Applied:
    """A directive and whose it is, in the order in which it was given."""

    plugin: str
    hook: str
    directive: Directive


@dataclass(frozen=True, slots=True)
class Verdict:
    """The merged directives of a flow.

    Where plugins differ the most restrictive wins, as `merge.py` has it; `applied` keeps what each one said.
    """

    applied: tuple[Applied, ...] = ()
    routes: tuple[Route, ...] = ()
    reject: Reject | None = None
    answer: Rows | None = None
    notices: tuple[Notice, ...] = ()
    rewrite: str | None = None
    limits: tuple[Limit, ...] = ()
    cache: Cache | None = None
    timeout_ms: int | None = None
    retry: int | None = None
    priority: PriorityLevel | None = None
    pool: PoolMode | None = None
    settings: tuple[Pair, ...] = ()
    masks: tuple[Mask, ...] = ()
    tags: tuple[Tag, ...] = ()
    wait_replay: bool = False
    ttl_ms: int | None = None
    """How long it may be remembered; None: until something that it was made from changes; 0: not at all."""

    @property
    def database(self) -> str | None:
        """Another database that a route names."""
        return next((route.database for route in self.routes if route.database), None)

    @property
    def sticky(self) -> str | None:
        """The key by which statements stay on one node."""
        return next((route.sticky for route in self.routes if route.sticky), None)

    @property
    def reason(self) -> str:
        """One line for the decision log: the reasons of what refused, answered or routed the statement."""
        deciding = (Reject,) if self.reject else (Rows,) if self.answer else (Route,)
        reasons = [a.directive.reason for a in self.applied if isinstance(a.directive.action, deciding)]
        return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


NOTHING_DECIDED = Verdict()
"""The verdict where no plugin said anything."""
