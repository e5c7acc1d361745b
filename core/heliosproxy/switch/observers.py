"""What happened, handed to the plugins that want to know: `on_result` in batches, `on_tick` once a second."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from helios_sdk.contract import Effect, HookSpec, Outcome, Pair

from heliosproxy.sandbox.faults import PluginFault
from heliosproxy.sql.shape import printable

if TYPE_CHECKING:
    from heliosproxy.sandbox.plugin import Plugin
    from heliosproxy.switch.flows import Flow
    from heliosproxy.switch.planner import Planner
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.unit import Unit

log = logging.getLogger("heliosproxy.plugins")

BATCH = 256
"""Outcomes handed over at once; also handed over at each tick of the switch."""
TICK = 1.0
"""Seconds between calls of `on_tick`."""


class Observers:
    """Collects outcomes for the plugins that have `on_result`. Costs nothing where there is none."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._outcomes: list[Outcome] = []
        self._ticked = monotonic()

    @property
    def active(self) -> bool:
        """Whether any plugin observes outcomes."""
        return bool(self._planner.observers)

    def ended(self, session: Session, unit: Unit, flow: Flow, node: str, seconds: float) -> None:
        """A unit was answered."""
        self._outcomes.append(
            Outcome(
                printable(flow.shape),
                session.client.user,
                session.client.database,
                node,
                int(seconds * 1e6),
                unit.rows,
                unit.bytes,
                unit.sqlstate,
                tuple(Pair(tag.key, tag.value) for tag in flow.verdict.tags),
            )
        )
        if len(self._outcomes) >= BATCH:
            self._hand_over()

    def flush(self) -> None:
        """Hand over what was collected, and tell those who want to know what time it is."""
        if self._outcomes:
            self._hand_over()
        now = monotonic()
        if self._planner.tickers and now - self._ticked >= TICK:
            elapsed, self._ticked = now - self._ticked, now
            for plugin, spec in self._planner.tickers:
                self._call(plugin, spec, int(elapsed * 1000))

    def _hand_over(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        for plugin, spec in self._planner.observers:
            self._call(plugin, spec, [_readable(outcome, spec) for outcome in outcomes])

    def _call(self, plugin: Plugin, spec: HookSpec, argument: list[Outcome] | int) -> None:
        if plugin.state != "enabled":
            return
        effects: tuple[Effect, ...] = ()
        try:
            effects = plugin.on_tick(argument) if isinstance(argument, int) else plugin.on_result(argument)
        except PluginFault as fault:
            log.warning("plugin %s failed in %s: %s", plugin.manifest.name, spec.hook, fault.message)
        for effect in effects:
            self._planner.flush(effect.relation)


def _readable(outcome: Outcome, spec: HookSpec) -> Outcome:
    """The outcome without the facts that the hook does not read."""
    reads = spec.reads
    return Outcome(
        outcome.shape if "shape" in reads else "",
        outcome.user if "user" in reads else "",
        outcome.database if "database" in reads else "",
        outcome.node,
        outcome.microseconds,
        outcome.rows,
        outcome.bytes,
        outcome.sqlstate,
        tuple(pair for pair in outcome.tags if f"tag:{pair.key}" in reads),
    )
