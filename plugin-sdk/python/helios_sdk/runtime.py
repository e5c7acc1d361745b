"""The guest side: the world's exports, over the plugins that a component holds.

Imported only inside a component (`wit_world` exists nowhere else); `helios_sdk.build` writes the application module
that hands over the plugin classes. componentize-py takes a snapshot of the interpreter once everything is imported,
so what is done at import time costs nothing at run time.

The generated binding classes of what hooks are *given* are replaced by the contract's dataclasses, so that the
runtime builds those directly; what hooks *answer* is converted, by `helios_sdk.lower`.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any

import componentize_py_types as component_types  # type: ignore[import-not-found]
from helios_sdk import contract
from helios_sdk.capabilities import Clock, Log, close_ambient, denied_clock, denied_log
from helios_sdk.lower import Lower
from helios_sdk.plugin import Plugin

_types: Any = importlib.import_module("wit_world.imports.types")
_log: Any = importlib.import_module("wit_world.imports.log")
_clock: Any = importlib.import_module("wit_world.imports.clock")


_FRAMES = 20


class App:
    """A component's application. Make it before the plugins are imported: it closes what they must not reach."""

    def __init__(self) -> None:
        self.plugin: Plugin = _Unbound()
        close_ambient(lambda: self.plugin.log)
        self.lower = Lower(_types)
        _lift_into_contract()

    def world(self, classes: Sequence[type[Plugin]]) -> type:
        """The class that the generated runtime instantiates, for these plugins."""
        app, plugins = self, {cls.name: cls for cls in classes}

        class WitWorld(_World):
            """The component's exports."""

            def __init__(self) -> None:
                super().__init__(app, plugins)

        return WitWorld


def _lift_into_contract() -> None:
    """Have the runtime call these where it would call the generated classes: positionally, in the contract's order."""
    for cls in (contract.Hint, contract.Pair, contract.Client, contract.Statement, contract.Node, contract.Outcome):
        setattr(_types, cls.__name__, _quick(cls))
    for name in ("Kind", "Role", "SyncMode"):
        members = tuple(member.name.lower().replace("_", "-") for member in getattr(_types, name))
        setattr(_types, name, members.__getitem__)


def _quick(cls: type) -> type:
    """A class of the same slots whose objects turn into `cls` once they are filled; lists become tuples.

    A frozen dataclass sets each field through object.__setattr__; this takes a quarter of the time, which saves
    5 µs of a hook's 19. The source is made of the contract's field names alone.
    """
    names = [each.name for each in fields(cls)]
    tuples = {each.name for each in fields(cls) if str(each.type).startswith("tuple[")}
    lines = [f"    self.{name} = {f'tuple({name})' if name in tuples else name}" for name in names]
    source = "\n".join([f"def __init__(self, {', '.join(names)}):", *lines, "    self.__class__ = cls"])
    scope: dict[str, Any] = {"cls": cls}
    exec(source, scope)
    return type(cls.__name__, (), {"__slots__": tuple(names), "__init__": scope["__init__"]})


class _Unbound(Plugin):
    """Stands where no plugin is bound yet."""


class _World:
    """The exports. Every exception becomes `err(fault)`: a trap would tell the author nothing.

    The generated runtime makes one object per export, so what they share is in the `App`.
    """

    def __init__(self, app: App, plugins: dict[str, type[Plugin]]) -> None:
        self.app = app
        self.classes = plugins
        self.lower = app.lower

    def plugins(self) -> list[str]:
        return list(self.classes)

    def describe(self, name: str) -> object:
        return self._guard(lambda: self.lower.manifest(self._class(name).manifest()))

    def configure(self, name: str, config: str) -> None:
        self._guard(lambda: self._bind(name, json.loads(config)))

    def on_connect(self, client: contract.Client) -> object:
        try:
            return self.lower.answer(self.app.plugin.on_connect(client))  # type: ignore[attr-defined]
        except Exception as error:
            raise _fault(error) from None

    def on_parse(self, statement: contract.Statement) -> object:
        try:
            return self.lower.answer(self.app.plugin.on_parse(statement))  # type: ignore[attr-defined]
        except Exception as error:
            raise _fault(error) from None

    def on_route(self, statement: contract.Statement, nodes: list[contract.Node]) -> object:
        try:
            return self.lower.answer(self.app.plugin.on_route(statement, tuple(nodes)))  # type: ignore[attr-defined]
        except Exception as error:
            raise _fault(error) from None

    def on_result(self, outcomes: list[contract.Outcome]) -> object:
        return self._guard(lambda: self.lower.effects(self.app.plugin.on_result(tuple(outcomes))))  # type: ignore[attr-defined]

    def on_tick(self, milliseconds: int) -> object:
        return self._guard(lambda: self.lower.effects(self.app.plugin.on_tick(milliseconds)))  # type: ignore[attr-defined]

    def _class(self, name: str) -> type[Plugin]:
        sys.meta_path[:] = [_NoImports()]
        if name not in self.classes:
            raise LookupError(f"this component holds no plugin {name!r}")
        return self.classes[name]

    def _bind(self, name: str, config: dict[str, dict[str, object]]) -> None:
        cls = self._class(name)
        plugin = cls()
        granted = plugin.capabilities
        plugin.log = Log(_write_log) if "log" in granted else denied_log(name)
        plugin.clock = Clock(_clock.now) if "clock" in granted else denied_clock(name)
        plugin.config = {table: config.get(table, {}) for table in (*cls.tables, "plugin")}
        self.app.plugin = plugin
        plugin.configured()

    def _guard(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise _fault(error) from None


def _fault(error: Exception) -> Exception:
    """`err(fault)`: the exception's last line and its traceback, from the plugin's own frames on."""
    message = "".join(traceback.format_exception_only(error)).strip()
    text = "".join(_frames(error))
    err: Exception = component_types.Err(_types.Fault(message[:4000], f"{text}{message}"[-16000:]))
    return err


def _frames(error: Exception) -> Iterable[str]:
    """The plugin's innermost frames, without source lines: there are no files to read them from."""
    frames: deque[str] = deque(maxlen=_FRAMES)
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if "helios_sdk" not in code.co_filename:
            frames.append(f'  File "{code.co_filename}", line {step.tb_lineno}, in {code.co_name}\n')
        step = step.tb_next
    return ("Traceback (most recent call last):\n", *frames)


class _NoImports:
    """Ends the search for a module that was not there when the component was built."""

    def find_spec(self, name: str, *_: object) -> None:
        raise ImportError(f"{name} must be imported at the top of the module: a component has no files to import from")


_LEVELS = {level.name.lower(): level for level in _log.Level}


def _write_log(level: contract.LogLevel, message: str) -> None:
    _log.write(_LEVELS[level], message)
