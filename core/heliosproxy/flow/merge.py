"""Merging: the plugins' answers, in their order, become one verdict.

Rules, one per kind of action:

- routes intersect, so all are kept; two different databases or sticky keys are a contradiction;
- the first reject ends it: nothing after it counts;
- rewrites chain: the kernel shows a plugin the text as the one before it left it, so the last one stands;
- timeout, retry, priority, ttl: the smallest; pool: session before transaction before statement;
  cache: skip before refresh before store, the shorter ttl, all dependencies;
- limits, notices, masks and tags add up;
- two answers, or one setting with two values, are a contradiction.

A contradiction is an error that names both plugins; within one plugin the later directive wins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from helios_sdk.contract import (
    Action,
    Answer,
    Cache,
    Limit,
    Mask,
    Notice,
    Pool,
    Priority,
    Reject,
    Retry,
    Rewrite,
    Route,
    Rows,
    Settings,
    Tag,
    Timeout,
    WaitReplay,
)

from heliosproxy.flow.verdict import NOTHING_DECIDED, Applied, Verdict

PRIORITIES = ("low", "normal", "high", "critical")
_POOL_MODES = ("session", "transaction", "statement")
_CACHE_MODES = ("skip", "refresh", "store")


class Contradiction(Exception):
    """Two plugins ask for what cannot both be done."""

    def __init__(self, what: str, first: str, second: str) -> None:
        super().__init__(f"plugins {first} and {second} contradict each other: {what}")
        self.plugins = (first, second)


@dataclass(slots=True)
class Merge:
    """A verdict in the making. Add each plugin's answer in order; stop once `finished`."""

    applied: list[Applied] = field(default_factory=list)
    verdict: Verdict = NOTHING_DECIDED
    _owners: dict[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether a reject has ended it."""
        return self.verdict.reject is not None

    def add(self, plugin: str, hook: str, answer: Answer) -> None:
        """Merge one answer. Raises Contradiction."""
        if answer.ttl_ms is not None:
            self._change(ttl_ms=_smaller(self.verdict.ttl_ms, answer.ttl_ms))
        for directive in answer.directives:
            self.applied.append(Applied(plugin, hook, directive))
            self._merge(plugin, directive.action)
            if self.finished:
                return

    def result(self) -> Verdict:
        """The verdict so far."""
        return replace(self.verdict, applied=tuple(self.applied))

    def _change(self, **fields: object) -> None:
        self.verdict = replace(self.verdict, **fields)  # type: ignore[arg-type]

    def _own(self, what: str, value: object, current: object, plugin: str) -> None:
        """Note that `plugin` decides `what`; another plugin's different decision is a contradiction."""
        owner = self._owners.setdefault(what, plugin)
        if owner != plugin and current != value:
            raise Contradiction(f"{what} is {current!r} for one and {value!r} for the other", owner, plugin)
        self._owners[what] = plugin

    def _merge(self, plugin: str, action: Action) -> None:
        verdict = self.verdict
        match action:
            case Route():
                self._route(plugin, action)
            case Reject():
                self._change(reject=action)
            case Rows():
                self._own("answer", action, verdict.answer, plugin)
                self._change(answer=action)
            case Settings():
                self._settings(plugin, action)
            case Rewrite():
                self._change(rewrite=action.text)
            case Timeout():
                self._change(timeout_ms=_smaller(verdict.timeout_ms, action.ms))
            case Retry():
                self._change(retry=_smaller(verdict.retry, action.attempts))
            case Priority():
                self._change(priority=min(verdict.priority or action.level, action.level, key=PRIORITIES.index))
            case Pool():
                self._change(pool=min(verdict.pool or action.mode, action.mode, key=_POOL_MODES.index))
            case Cache():
                self._change(cache=_stricter_cache(verdict.cache, action))
            case WaitReplay():
                self._change(wait_replay=True)
            case Notice():
                self._change(notices=(*verdict.notices, action))
            case Limit():
                self._change(limits=(*verdict.limits, action))
            case Mask():
                self._change(masks=(*verdict.masks, action))
            case Tag():
                self._change(tags=(*verdict.tags, action))

    def _route(self, plugin: str, action: Route) -> None:
        if action.database:
            self._own("database", action.database, self.verdict.database, plugin)
        if action.sticky:
            self._own("sticky", action.sticky, self.verdict.sticky, plugin)
        self._change(routes=(*self.verdict.routes, action))

    def _settings(self, plugin: str, action: Settings) -> None:
        values = {pair.key: pair for pair in self.verdict.settings}
        for pair in action.values:
            current = values.get(pair.key)
            self._own(f"setting {pair.key}", pair.value, current and current.value, plugin)
            values[pair.key] = pair
        self._change(settings=tuple(values.values()))


def _smaller(current: int | None, new: int) -> int:
    return new if current is None else min(current, new)


def _stricter_cache(current: Cache | None, new: Cache) -> Cache:
    if current is None:
        return new
    ttls = [ttl for ttl in (current.ttl_ms, new.ttl_ms) if ttl is not None]
    stale = (current.stale_while_revalidate_ms, new.stale_while_revalidate_ms)
    return Cache(
        min(current.mode, new.mode, key=_CACHE_MODES.index),
        min(ttls, default=None),
        tuple(dict.fromkeys((*current.depends_on, *new.depends_on))),
        None if None in stale else min(value for value in stale if value is not None),
    )


def merge(answers: Iterable[tuple[str, str, Answer]]) -> Verdict:
    """The verdict of answers given as (plugin, hook, answer), in order. Raises Contradiction."""
    state = Merge()
    for plugin, hook, answer in answers:
        if state.finished:
            break
        state.add(plugin, hook, answer)
    return state.result()
