"""Components as they were compiled, and instances of them: one store each, bounded in memory and time."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from wasmtime import Engine, Store, WasmtimeError
from wasmtime.component import Component, Func

from heliosproxy.config.model import Plugins
from heliosproxy.sandbox.faults import GuestLost
from heliosproxy.sandbox.frame import Frame
from heliosproxy.sandbox.host import Host, PluginLog
from heliosproxy.sandbox.memory import linear_memories
from heliosproxy.sandbox.plan import PARAMETERS, Plan, PlanError, plan_function, restrict
from heliosproxy.sandbox.public import PublicCall

_CORE_INSTANCES, _TABLES, _TABLE_ELEMENTS = 200, 20, 200_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds an instance: memory in bytes, deadline of a hook in seconds, faults a minute."""

    memory: int = 64 * 1024 * 1024
    deadline: float = 0.010
    max_faults: int = 5
    load_deadline: float = 2.0
    """For `describe`, and for `configure` when plugins are loaded: nobody waits for those."""

    @classmethod
    def of(cls, plugins: Plugins) -> Limits:
        """The limits that `[plugins]` sets."""
        return cls(plugins.memory, plugins.deadline, plugins.max_faults)

    @property
    def tick(self) -> float:
        """Seconds between epochs. Half the deadline: a guest that does not end is stopped between one and two of it.

        The system's own clock tick, often 4 ms, is why it is not closer.
        """
        return min(max(self.deadline / 2, 0.001), 0.050)

    def ticks(self, seconds: float) -> int:
        """Epochs that give a guest at least `seconds`."""
        return math.ceil(seconds / self.tick) + 1


@dataclass(slots=True)
class Runtime:
    """What instances share: the engine, the limits, and how calls are made."""

    engine: Engine
    limits: Limits
    fast: bool
    """Calls go through `frame`; else through `public`."""
    creating: threading.Lock = field(default_factory=threading.Lock)
    """Held while an instance is made, so that its memory can be told from others'."""


@dataclass(frozen=True, slots=True)
class LoadedComponent:
    """A compiled component, and how its exports are called."""

    origin: str
    component: Component
    exports: Mapping[str, tuple[tuple[Plan, ...], Plan]]


class Call(Protocol):
    """An export of an instance. Raises GuestError, GuestLost."""

    def call(self, ticks: int, *values: Any) -> Any:
        """Call it, for at most `ticks` epochs."""


def load_component(runtime: Runtime, component: Component, origin: str) -> LoadedComponent:
    """Match the component's exports with the contract. Raises PlanError, GuestLost."""
    blank = LoadedComponent(origin, component, MappingProxyType({}))
    instance = Instance(runtime, blank, Host("", frozenset(), PluginLog("")))
    try:
        return LoadedComponent(origin, component, MappingProxyType({name: instance.plan(name) for name in PARAMETERS}))
    finally:
        instance.close()


class Instance:
    """An instance in a store of its own. Not for use by two threads at once."""

    def __init__(self, runtime: Runtime, loaded: LoadedComponent, host: Host) -> None:
        self.host = host
        self._runtime = runtime
        self._loaded = loaded
        self._store = Store(runtime.engine)
        self._store.set_limits(
            memory_size=runtime.limits.memory,
            memories=1,
            instances=_CORE_INSTANCES,
            tables=_TABLES,
            table_elements=_TABLE_ELEMENTS,
        )
        self._store.set_epoch_deadline(runtime.limits.ticks(runtime.limits.load_deadline))
        with runtime.creating:
            before = linear_memories()
            self._instance = self._instantiate()
            self._memories = [start for start in linear_memories() if start not in before]
        self._calls: dict[str, Call] = {}

    def _instantiate(self) -> Any:
        linker = self.host.linker(self._runtime.engine, self._loaded.component)
        try:
            return linker.instantiate(self._store, self._loaded.component)
        except WasmtimeError as error:
            self._store.close()
            raise GuestLost(f"it cannot be instantiated: {brief(str(error))}") from None
        finally:
            linker.close()

    def _func(self, name: str) -> Func:
        func = self._instance.get_func(self._store, name)
        if not isinstance(func, Func):
            raise PlanError(f"it does not export {name}")
        return func

    def plan(self, name: str) -> tuple[tuple[Plan, ...], Plan]:
        """How the component's export is called. Raises PlanError."""
        return plan_function(name, self._func(name).type(self._store))

    def prepare(self, name: str, reads: frozenset[str] | None = None) -> Call:
        """Make the call of an export; for a hook, with only the facts that it reads. `call` uses it from then on."""
        parameters, result = self._loaded.exports[name]
        if reads is not None:
            parameters = tuple(restrict(parameter, reads) for parameter in parameters)
        kind = Frame if self._runtime.fast else PublicCall
        self._calls[name] = call = kind(self._store, self._func(name), parameters, result)
        return call

    def call(self, name: str, seconds: float, *values: Any) -> Any:
        """Call an export, for at most about `seconds`. Raises GuestError, GuestLost."""
        call = self._calls.get(name) or self.prepare(name)
        return call.call(self._runtime.limits.ticks(seconds), *values)

    def memory(self) -> int:
        """Bytes of its linear memory; 0 where that cannot be told."""
        sizes = linear_memories()
        return sum(sizes.get(start, 0) for start in self._memories)

    def close(self) -> None:
        """Give everything back."""
        self._calls.clear()
        self._store.close()


def brief(message: str) -> str:
    """What wasmtime's error says, without the backtrace."""
    head, _, cause = message.partition("Caused by:")
    lines = [line.strip() for line in (cause or head).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else "no reason given")[:500].removeprefix("0: ")
