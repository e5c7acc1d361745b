"""A loaded plugin: its hooks as methods, its instance, and what happens when it faults."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from helios_sdk.contract import Answer, Client, Effect, Hook, HookSpec, Manifest, Node, Outcome, Statement

from heliosproxy.config.kinds import Json
from heliosproxy.sandbox.backoff import Backoff
from heliosproxy.sandbox.check import check_answer
from heliosproxy.sandbox.faults import GuestError, GuestLost, PluginFault
from heliosproxy.sandbox.host import Host, PluginLog
from heliosproxy.sandbox.instance import Instance, LoadedComponent, Runtime, brief

RECYCLE_SHARE = 0.75
"""An instance whose memory is above this share of the limit is replaced."""
_MEMORY_CHECK = 2_000
"""Calls between looks at the memory (a look takes 0.2 ms)."""
_BLIND_RECYCLE = 100_000
"""Calls after which an instance is replaced where its memory cannot be told."""
_RENEWAL = 10
"""A new instance at run time may take this many hooks' deadlines to be configured."""


@dataclass(frozen=True, slots=True)
class HookStatistics:
    """Of one hook: calls that reached the guest, how many of them faulted, and their time in µs."""

    calls: int
    faults: int
    microseconds: float


@dataclass(frozen=True, slots=True)
class PluginStatistics:
    """Of one plugin. `memory`: bytes of its instance, 0 where that cannot be told. `refused`: calls that were not made
    because it is disabled or pausing after a fault. `instances`: how many it has had."""

    calls: int
    faults: int
    microseconds: float
    refused: int
    instances: int
    memory: int
    hooks: Mapping[Hook, HookStatistics]


class _Counter:
    """Running totals of one hook."""

    __slots__ = ("calls", "faults", "nanoseconds")

    def __init__(self) -> None:
        self.calls = self.faults = self.nanoseconds = 0

    def statistics(self) -> HookStatistics:
        return HookStatistics(self.calls, self.faults, self.nanoseconds / 1_000)


class Plugin:
    """A configured plugin. One per worker; its methods are not for use by two threads at once.

    A hook returns or raises PluginFault: after one to two deadlines of processor time at the latest. After a trap, a
    time-out or an answer without sense the instance is gone. The next call that comes after a pause gets a new one;
    during the pause every call faults at once. More than `max_faults` of those in a minute disable the plugin: every
    call faults from then on. A fault that the guest reports itself (an exception in a Python plugin) costs only the
    call. What a fault means for the statement is `hooks[hook].on_failure`, and the kernel's matter.
    """

    def __init__(
        self,
        runtime: Runtime,
        loaded: LoadedComponent,
        manifest: Manifest,
        config: Mapping[str, Json],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make and configure the first instance. Raises GuestError (it refused its configuration), GuestLost."""
        self.manifest = manifest
        self.origin = loaded.origin
        self.state: Literal["enabled", "disabled"] = "enabled"
        self.reason = ""
        self.hooks: dict[Hook, HookSpec] = {spec.hook: spec for spec in manifest.hooks}
        self._runtime, self._loaded = runtime, loaded
        self._config = json.dumps(dict(config))
        self._log = PluginLog(manifest.name, clock)
        self._backoff = Backoff(runtime.limits.max_faults, clock)
        self._counters = {hook: _Counter() for hook in self.hooks}
        self._refused = self._instances = self._age = self._next_look = 0
        self._instance: Instance | None = self._create(runtime.limits.load_deadline)

    @property
    def name(self) -> str:
        """Its name."""
        return self.manifest.name

    def on_connect(self, client: Client) -> Answer:
        """Ask about a session that begins. Raises PluginFault."""
        return self._ask("on-connect", client)

    def on_parse(self, statement: Statement) -> Answer:
        """Ask about a statement. Facts that the hook does not read are blanked here. Raises PluginFault."""
        return self._ask("on-parse", statement)

    def on_route(self, statement: Statement, nodes: tuple[Node, ...]) -> Answer:
        """Ask where a statement may run. Raises PluginFault."""
        return self._ask("on-route", statement, nodes)

    def on_result(self, outcomes: Sequence[Outcome]) -> tuple[Effect, ...]:
        """Tell it what ended. Raises PluginFault."""
        effects: tuple[Effect, ...] = self._call("on-result", outcomes)
        return effects

    def on_tick(self, milliseconds: int) -> tuple[Effect, ...]:
        """Tell it the time, in ms of any clock that does not run backwards. Raises PluginFault."""
        effects: tuple[Effect, ...] = self._call("on-tick", milliseconds)
        return effects

    def statistics(self) -> PluginStatistics:
        """What it has done since it was loaded. Takes about 0.2 ms."""
        hooks = {hook: counter.statistics() for hook, counter in self._counters.items()}
        return PluginStatistics(
            calls=sum(each.calls for each in hooks.values()),
            faults=sum(each.faults for each in hooks.values()),
            microseconds=sum(each.microseconds for each in hooks.values()),
            refused=self._refused,
            instances=self._instances,
            memory=self._instance.memory() if self._instance is not None else 0,
            hooks=MappingProxyType(hooks),
        )

    def disable(self, reason: str) -> None:
        """Let it not run any more."""
        self.state, self.reason = "disabled", reason
        self._discard()

    def close(self) -> None:
        """Give its instance back. It must not be called afterwards."""
        self.disable("the plugin was unloaded")

    def _ask(self, hook: Hook, *values: object) -> Answer:
        answer: Answer = self._call(hook, *values)
        instance = self._instance
        if instance is not None and instance.host.clock_used and answer.ttl_ms is None:
            return Answer(answer.directives, 0)
        return answer

    def _call(self, hook: Hook, *values: object) -> Any:
        counter = self._counters[hook]
        if self.state == "disabled":
            self._refuse(hook, f"it is disabled: {self.reason}")
        if self._backoff.pausing:
            self._refuse(hook, "it faulted and is pausing")
        counter.calls += 1
        started = perf_counter_ns()
        try:
            instance = self._ready()
            instance.host.clock_used = False
            answer = instance.call(hook, self._runtime.limits.deadline, *values)
            if isinstance(answer, Answer):
                check_answer(answer)
        except GuestError as error:
            counter.faults += 1
            self._log.write("warning", f"{hook} failed: {error} {error.traceback}".rstrip())
            if "MemoryError" in str(error):
                self._next_look = self._age
            raise PluginFault(self.name, hook, str(error), error.traceback) from None
        except GuestLost as error:
            counter.faults += 1
            self._lost(hook, str(error))
        finally:
            counter.nanoseconds += perf_counter_ns() - started
        self._backoff.success()
        return answer

    def _refuse(self, hook: Hook, why: str) -> NoReturn:
        self._refused += 1
        raise PluginFault(self.name, hook, why)

    def _lost(self, hook: Hook, message: str) -> NoReturn:
        """The instance cannot be used again."""
        self._discard()
        reason = self._explain(message)
        self._log.write("warning", f"{hook} failed: {reason}")
        if self._backoff.fault():
            self.disable(f"{self._runtime.limits.max_faults + 1} faults within a minute, the last in {hook}: {reason}")
            self._log.write("warning", f"disabled: {self.reason}")
        trace = message if "wasm backtrace" in message else ""
        raise PluginFault(self.name, hook, reason, trace)

    def _explain(self, message: str) -> str:
        reason = brief(message)
        if "interrupt" in reason:
            return f"it ran longer than {self._runtime.limits.deadline * 1000:g} ms"
        return f"it trapped: {reason}" if "wasm" in message else reason

    def _ready(self) -> Instance:
        """An instance to call: a new one after a fault, or when memory has grown."""
        self._age += 1
        if self._instance is not None and self._age > self._next_look:
            self._next_look = self._age + _MEMORY_CHECK
            if self._worn(self._instance):
                self._discard()
        if self._instance is None:
            try:
                self._instance = self._create(self._runtime.limits.deadline * _RENEWAL)
            except GuestError as error:
                raise GuestLost(f"a new instance refused its configuration: {error}") from None
        return self._instance

    def _worn(self, instance: Instance) -> bool:
        memory = instance.memory()
        if not memory:
            return self._age >= _BLIND_RECYCLE
        return memory > self._runtime.limits.memory * RECYCLE_SHARE

    def _create(self, seconds: float) -> Instance:
        host = Host(self.name, frozenset(self.manifest.capabilities), self._log)
        instance = Instance(self._runtime, self._loaded, host)
        try:
            for spec in self.manifest.hooks:
                instance.prepare(spec.hook, frozenset(spec.reads))
            instance.call("configure", seconds, self.name, self._config)
        except (GuestError, GuestLost):
            instance.close()
            raise
        self._instances += 1
        self._age, self._next_look = 0, _MEMORY_CHECK
        return instance

    def _discard(self) -> None:
        if self._instance is not None:
            self._instance.close()
            self._instance = None
