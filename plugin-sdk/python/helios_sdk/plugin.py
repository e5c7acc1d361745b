"""`Plugin` and `hook`: a plugin is a class, its manifest is derived from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar, TypeAlias, TypeVar

from helios_sdk.capabilities import Clock, Log, denied_clock, denied_log
from helios_sdk.contract import (
    CONTRACT,
    Answer,
    Directive,
    Effect,
    FailurePolicy,
    Hook,
    HookSpec,
    Manifest,
)

HOOKS: Mapping[str, Hook] = MappingProxyType(
    {
        "on_connect": "on-connect",
        "on_parse": "on-parse",
        "on_route": "on-route",
        "on_result": "on-result",
        "on_tick": "on-tick",
    }
)
"""Method name to hook."""
STAGES = (
    "identity", "tenancy", "hints", "rules", "guard", "rewrite", "mask", "limits", "routing", "cache", "observers",
)  # fmt: skip
"""The order in which plugins run."""
CAPABILITIES = ("log", "clock")
"""What a plugin may ask for."""
FACTS = (
    "text", "shape", "hints", "tables", "functions", "parameters", "user", "database", "application-name", "address",
    "tenant", "authentication", "server-name", "nodes",
)  # fmt: skip
"""What a hook may read, beside `tag:<key>` and `comment:<key>`."""
CONDITIONS = ("hints", "tables", "functions")
"""What `only_with` may name, beside `tag:<key>` and `comment:<key>`."""

Directives: TypeAlias = Answer | Directive | Iterable[Directive] | None
"""What on_connect, on_parse and on_route may return."""
Effects: TypeAlias = Effect | Iterable[Effect] | None
"""What on_result and on_tick may return."""

_Method = TypeVar("_Method", bound=Callable[..., object])


def hook(
    *,
    reads: tuple[str, ...] = (),
    only_with: tuple[str, ...] = (),
    on_failure: FailurePolicy = "open",
) -> Callable[[_Method], _Method]:
    """Mark a method as the hook of its name.

    `reads` names the facts that the answer may depend on: what is not named is empty, and the answer is remembered as
    long as what is named stays the same. `only_with`: call the hook only if one of these facts is there.
    `on_failure`: `open`, go on without this plugin; `closed`, refuse the statement. Raises TypeError for a name that
    does not exist.
    """
    if isinstance(reads, str) or isinstance(only_with, str):
        raise TypeError("reads and only_with are tuples: reads=('user',)")

    def mark(method: _Method) -> _Method:
        name = HOOKS.get(method.__name__)
        if name is None:
            raise TypeError(f"{method.__qualname__} is no hook; hooks are {', '.join(HOOKS)}")
        _check_facts(f"{method.__qualname__}: reads", reads, FACTS)
        _check_facts(f"{method.__qualname__}: only_with", only_with, CONDITIONS)
        if on_failure not in ("open", "closed"):
            raise TypeError(f"{method.__qualname__}: on_failure is 'open' or 'closed', not {on_failure!r}")
        method.__dict__["helios_hook"] = HookSpec(name, tuple(reads), tuple(only_with), on_failure)
        return method

    return mark


def _check_facts(where: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        prefix, colon, key = name.partition(":")
        if name not in known and not (prefix in ("tag", "comment") and colon and key):
            raise TypeError(f"{where} names {name!r}; known are {', '.join(known)}, tag:<key>, comment:<key>")


class Plugin:
    """Base class of plugins. The first line of the docstring is the summary; the attributes are the manifest.

    A class that has a mistake raises TypeError where it is defined. An instance is configured once, before any hook.
    """

    name: ClassVar[str] = ""
    version: ClassVar[str] = ""
    stage: ClassVar[str] = ""
    capabilities: ClassVar[tuple[str, ...]] = ()
    tables: ClassVar[tuple[str, ...]] = ()
    """Configuration tables that it owns, beside `plugins.<name>`."""
    schema: ClassVar[Mapping[str, object]] = MappingProxyType({})
    """JSON Schema of `config`: an object with a property per owned table, and `plugin` for `[plugins.<name>]`."""

    config: Mapping[str, Mapping[str, object]] = MappingProxyType({})
    """What the configuration file says: a mapping per owned table, and `plugin`. An absent table is empty."""
    log: Log
    clock: Clock

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            _check_class(cls)

    def __init__(self) -> None:
        self.log = denied_log(self.name)
        self.clock = denied_clock(self.name)

    def configured(self) -> None:
        """Called once `config` is set. Raise ValueError("table.key: what is wrong") for what a schema cannot say."""

    @classmethod
    def hooks(cls) -> tuple[HookSpec, ...]:
        """The hooks that it has, in the order of a statement's life."""
        methods = (getattr(cls, method, None) for method in HOOKS)
        specs = (getattr(method, "helios_hook", None) for method in methods)
        return tuple(spec for spec in specs if isinstance(spec, HookSpec))

    @classmethod
    def manifest(cls) -> Manifest:
        """What the proxy is told about it."""
        return Manifest(
            name=cls.name,
            version=cls.version,
            summary=_summary(cls),
            contract=CONTRACT,
            stage=cls.stage,
            hooks=cls.hooks(),
            capabilities=tuple(cls.capabilities),
            tables=tuple(cls.tables),
            schema=json.dumps(dict(cls.schema) or {"type": "object"}),
        )


def _summary(cls: type[Plugin]) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _check_class(cls: type[Plugin]) -> None:
    """Raise TypeError for the first mistake in a plugin's class attributes."""
    if not cls.version:
        raise TypeError(f'{cls.__name__}: version is missing: version = "0.1.0"')
    if cls.stage not in STAGES:
        raise TypeError(f"{cls.__name__}: stage {cls.stage!r} is not one of {', '.join(STAGES)}")
    for attribute in ("capabilities", "tables"):
        if not isinstance(getattr(cls, attribute), tuple):
            raise TypeError(f"{cls.__name__}: {attribute} is a tuple of names")
    for capability in cls.capabilities:
        if capability not in CAPABILITIES:
            raise TypeError(f"{cls.__name__}: capability {capability!r} is not one of {', '.join(CAPABILITIES)}")
    for method in HOOKS:
        found = getattr(cls, method, None)
        if found is not None and not hasattr(found, "helios_hook"):
            raise TypeError(f"{cls.__name__}.{method} is not marked: put @hook(reads=(…)) above it")
