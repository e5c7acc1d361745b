"""What a plugin may do beyond answering: write to the proxy's log, read the clock. Each is granted by name.

A plugin that did not ask for a capability in its manifest gets an object that raises `CapabilityError`. That is a
courtesy to authors; the wall is the host, which links what was not granted to a trap (SAFETY P2).
"""

from __future__ import annotations

import builtins
import datetime
import os
import random
import time
import uuid
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

from helios_sdk.contract import LogLevel


class CapabilityError(RuntimeError):
    """The plugin used something that its manifest does not ask for, or that no plugin may have."""


class Log:
    """Capability `log`: a line in the proxy's log under the plugin's name. Bounded in length and rate."""

    __slots__ = ("_write",)

    def __init__(self, write: Callable[[LogLevel, str], None]) -> None:
        self._write = write

    def debug(self, message: str) -> None:
        """Write at level debug."""
        self._write("debug", message)

    def info(self, message: str) -> None:
        """Write at level info."""
        self._write("info", message)

    def warning(self, message: str) -> None:
        """Write at level warning."""
        self._write("warning", message)

    def error(self, message: str) -> None:
        """Write at level error."""
        self._write("error", message)


class Clock:
    """Capability `clock`. An answer that used it is remembered only with a ttl."""

    __slots__ = ("_now",)

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now

    def now(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self._now()


def denied_log(plugin: str) -> Log:
    """A log that raises CapabilityError."""

    def write(level: LogLevel, message: str) -> NoReturn:
        raise CapabilityError(_missing(plugin, "log"))

    return Log(write)


def denied_clock(plugin: str) -> Clock:
    """A clock that raises CapabilityError."""

    def now() -> NoReturn:
        raise CapabilityError(_missing(plugin, "clock"))

    return Clock(now)


def _missing(plugin: str, capability: str) -> str:
    return f'plugin {plugin} used self.{capability} without the capability: say capabilities = ("{capability}",)'


def close_ambient(log: Callable[[], Log]) -> None:
    """In a component: replace what would end in a trap without a traceback by something that says what to do.

    `print` writes to the log of the bound plugin, which raises CapabilityError where it was not granted.
    Everything else that needs the outside world raises CapabilityError (SAFETY P3).
    """

    def log_print(*values: object, sep: str | None = " ", **_: object) -> None:
        log().info((" " if sep is None else sep).join(map(str, values)))

    builtins.print = log_print
    for owner, refused, advice in _REFUSED:
        if hasattr(owner, refused):
            setattr(owner, refused, _refusal(f"{owner.__name__}.{refused}".removeprefix("builtins."), advice))
    for name in ("datetime", "date"):
        setattr(datetime, name, _timeless(getattr(datetime, name)))
    random.Random = _seeded(random.Random)  # type: ignore[misc]


_CLOCK = 'use self.clock.now() with capabilities = ("clock",)'
_RANDOM = "no plugin has randomness; random.Random(seed) with a seed of your own works"
_FILES = "a plugin has no files: put what it needs into its configuration"
_TERMINAL = "a plugin has no terminal"
_REFUSED: tuple[tuple[ModuleType, str, str], ...] = (
    *((time, name, _CLOCK) for name in (
        "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime", "gmtime",
    )),
    (time, "sleep", "a hook answers at once"),
    (os, "urandom", _RANDOM),
    (random, "_urandom", _RANDOM),
    (uuid, "uuid1", _RANDOM),
    (uuid, "uuid4", _RANDOM),
    *((random, name, _RANDOM) for name in (
        "random", "randint", "randrange", "choice", "choices", "shuffle", "sample", "uniform", "gauss", "getrandbits",
        "randbytes", "betavariate", "expovariate", "normalvariate", "triangular",
    )),
    (builtins, "input", _TERMINAL),
    (builtins, "breakpoint", _TERMINAL),
    (builtins, "open", _FILES),
    *((os, name, _FILES) for name in ("open", "listdir", "stat", "scandir", "getcwd", "mkdir", "remove", "rename")),
)  # fmt: skip


def _refusal(what: str, advice: str) -> Callable[..., NoReturn]:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise CapabilityError(f"{what} is not available in a plugin: {advice}")

    return refuse


def _timeless(cls: type) -> type:
    """A subclass whose `now`, `today` and `utcnow` are refused."""
    names = [name for name in ("now", "today", "utcnow") if hasattr(cls, name)]
    refusals = {name: staticmethod(_refusal(f"{cls.__name__}.{name}", _CLOCK)) for name in names}
    return type(cls.__name__, (cls,), {"__slots__": (), **refusals})


def _seeded(cls: type[random.Random]) -> type[random.Random]:
    """random.Random that is refused without a seed."""

    class Random(cls):  # type: ignore[valid-type, misc]
        def __init__(self, seed: int | float | str | bytes | bytearray | None = None) -> None:
            if seed is None:
                raise CapabilityError(f"random.Random() is not available in a plugin: {_RANDOM}")
            super().__init__(seed)

    return Random
