"""The sandbox: finds components, checks what they say of themselves, and loads the enabled plugins."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helios_sdk.contract import Manifest
from helios_sdk.plugin import STAGES
from wasmtime import Config as EngineConfig
from wasmtime import Engine, WasmtimeError

from heliosproxy.config.model import Config
from heliosproxy.sandbox import frame
from heliosproxy.sandbox.cache import CompileCache, default_directory
from heliosproxy.sandbox.faults import GuestError, GuestLost, LoadError, Problem
from heliosproxy.sandbox.host import Host, PluginLog, foreign_imports
from heliosproxy.sandbox.instance import Instance, Limits, LoadedComponent, Runtime, brief, load_component
from heliosproxy.sandbox.manifest import (
    config_problems,
    manifest_problems,
    ownership_problems,
    plugin_config,
    refusal_problem,
)
from heliosproxy.sandbox.plan import PlanError
from heliosproxy.sandbox.plugin import Plugin
from heliosproxy.sandbox.ticker import Ticker

BUNDLED = Path(__file__).resolve().parent.parent / "_bundled" / "plugins.wasm"
"""The component of the bundled plugins."""
_LARGEST = 256 * 1024 * 1024
_COMPONENT, _MODULE = b"\0asm\r\0\1\0", b"\0asm\1\0\0\0"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin that a component holds. `problems`: why it cannot be loaded; `manifest` is None if it gave none."""

    name: str
    origin: str
    """The component's file, or `bundled`."""
    manifest: Manifest | None
    problems: tuple[str, ...] = ()
    component: LoadedComponent | None = field(default=None, repr=False)


class Sandbox:
    """One per process: an engine, its ticker, and the cache of compiled code. Use it as a context manager, or `close`.

    `load` and `installed` compile, which can take seconds: call them from a thread. One call at a time.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        cache: Path | None = None,
        bundled: Path = BUNDLED,
        clock: Callable[[], float] = time.monotonic,
        fast: bool = True,
    ) -> None:
        """`cache`: the directory of compiled code, ~/.cache/heliosproxy if None. `fast`: False for the public path."""
        config = EngineConfig()
        config.epoch_interruption = True
        self._engine = Engine(config)
        reason = frame.usable() if fast else "it was not asked for"
        self._runtime = Runtime(self._engine, limits or Limits(), fast=not reason)
        self._tested = bool(reason)
        self._cache = CompileCache(cache or default_directory())
        self._bundled = bundled
        self._clock = clock
        self._components: dict[tuple[Path, int, int], list[Found]] = {}
        self._ticker = Ticker(self._engine, self._runtime.limits.tick)
        self._ticker.start()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def fast(self) -> bool:
        """Calls go through the frames of `frame`, not through wasmtime's public API."""
        return self._runtime.fast

    def close(self) -> None:
        """Stop the ticker. Plugins must be closed before: without epochs nothing ends a hook."""
        self._ticker.stop()
        self._components.clear()

    def load(self, config: Config) -> list[Plugin]:
        """The enabled plugins, configured: by stage, and within one as `enabled` lists them.

        Raises LoadError with everything that is wrong; then nothing stays loaded.
        """
        found, problems = self._enabled(config)
        plugins: list[Plugin] = []
        for one in found:
            plugin, more = self._load_one(one, config)
            problems += more
            plugins += [] if plugin is None else [plugin]
        if problems:
            for plugin in plugins:
                plugin.close()
            raise LoadError(problems)
        return plugins

    def installed(self, config: Config) -> list[Found]:
        """Every plugin that there is, enabled or not; what is hidden by one of the same name is left out.

        A file that is no component of plugins is listed under its own name, with its problem.
        """
        seen: dict[str, Found] = {}
        for file in self._files(config):
            for found in self._inspect(file):
                seen.setdefault(found.name, found)
        return sorted(seen.values(), key=lambda found: found.name)

    def _enabled(self, config: Config) -> tuple[list[Found], list[Problem]]:
        """The enabled plugins in their order, and what is wrong with them."""
        installed = {found.name: found for found in self.installed(config)}
        broken = [found for found in installed.values() if found.manifest is None and found.component is None]
        problems = [Problem(found.name, None, problem) for found in broken for problem in found.problems]
        for at, directory in enumerate(config.plugins.path):
            if not directory.is_dir():
                problems.append(Problem(directory.name, ("plugins", "path", at), f"{directory} is no directory"))
        enabled: list[Found] = []
        for at, name in enumerate(config.plugins.enabled):
            found = installed.get(name)
            if found is None or found in broken:
                problems.append(Problem(name, ("plugins", "enabled", at), _not_found(name, installed)))
            elif found.problems:
                problems += [Problem(name, None, f"{found.origin}: {problem}") for problem in found.problems]
            elif found in enabled:
                problems.append(Problem(name, ("plugins", "enabled", at), "it is listed twice"))
            else:
                enabled.append(found)
        problems += ownership_problems(found.manifest for found in enabled if found.manifest)
        return sorted(enabled, key=lambda found: STAGES.index(found.manifest.stage) if found.manifest else 0), problems

    def _load_one(self, found: Found, config: Config) -> tuple[Plugin | None, list[Problem]]:
        manifest, component = found.manifest, found.component
        if manifest is None or component is None:
            return None, []
        wanted = plugin_config(manifest, config)
        problems = config_problems(manifest, wanted)
        if problems:
            return None, problems
        try:
            return Plugin(self._runtime, component, manifest, wanted, self._clock), []
        except GuestError as error:
            return None, [refusal_problem(manifest, str(error))]
        except GuestLost as error:
            return None, [Problem(manifest.name, None, f"it failed while it was configured: {brief(str(error))}")]

    def _files(self, config: Config) -> Iterator[Path]:
        """Components, in the order in which they are searched."""
        for directory in config.plugins.path:
            yield from sorted(directory.glob("*.wasm"))
        if self._bundled.is_file():
            yield self._bundled

    def _inspect(self, file: Path) -> Sequence[Found]:
        """What a file holds; remembered until the file changes."""
        try:
            status = file.stat()
            key = (file, status.st_mtime_ns, status.st_size)
            if key not in self._components:
                self._components[key] = list(self._describe(file))
            return self._components[key]
        except OSError as error:
            return [self._broken(file, f"cannot be read: {error.strerror}")]

    def _broken(self, file: Path, problem: str) -> Found:
        return Found(file.name, self._origin(file), None, (f"{file}: {problem}",))

    def _origin(self, file: Path) -> str:
        return "bundled" if file == self._bundled else str(file)

    def _describe(self, file: Path) -> Iterable[Found]:
        data = file.read_bytes() if file.stat().st_size <= _LARGEST else b""
        problem = _no_component(data)
        if problem:
            return [self._broken(file, problem)]
        try:
            component = self._cache.component(self._engine, data)
        except WasmtimeError as error:
            return [self._broken(file, f"cannot be compiled: {brief(str(error))}")]
        foreign = foreign_imports(self._engine, component)
        if foreign:
            return [self._broken(file, f"imports {', '.join(foreign)}, which no plugin is given")]
        try:
            return self._manifests(load_component(self._runtime, component, self._origin(file)))
        except (PlanError, GuestError, GuestLost) as error:
            return [self._broken(file, brief(str(error)))]

    def _manifests(self, loaded: LoadedComponent) -> list[Found]:
        names: tuple[str, ...] = self._fresh(loaded, "plugins")
        self._self_test(loaded, names)
        return [self._manifest(loaded, name) for name in dict.fromkeys(names)]

    def _manifest(self, loaded: LoadedComponent, name: str) -> Found:
        try:
            manifest: Manifest = self._fresh(loaded, "describe", name)
        except (GuestError, GuestLost) as error:
            return Found(name, loaded.origin, None, (f"it does not describe itself: {brief(str(error))}",), loaded)
        return Found(name, loaded.origin, manifest, tuple(manifest_problems(manifest, name)), loaded)

    def _fresh(self, loaded: LoadedComponent, export: str, *values: object) -> Any:
        """Call an export of an instance made for it. Raises GuestError, GuestLost."""
        instance = Instance(self._runtime, loaded, Host("", frozenset(), PluginLog("")))
        try:
            return instance.call(export, self._runtime.limits.load_deadline, *values)
        finally:
            instance.close()

    def _self_test(self, loaded: LoadedComponent, names: Sequence[str]) -> None:
        """Once: compare a call through `frame` with one through the public API; where they differ, use the latter."""
        if self._tested or not names:
            return
        self._tested = True
        answers: list[object] = []
        for self._runtime.fast in (True, False):
            try:
                answers.append(self._fresh(loaded, "describe", names[0]))
            except (GuestError, GuestLost) as error:
                answers.append(brief(str(error)))
        self._runtime.fast = answers[0] == answers[1]
        if not self._runtime.fast:
            logger.warning("wasmtime's C API does not behave as expected: hooks are called through its slower API")


def _no_component(data: bytes) -> str:
    """Why these bytes are no component; empty if they look like one."""
    if data.startswith(_COMPONENT):
        return ""
    if data.startswith(_MODULE):
        return "is a core module; a plugin is a component"
    if not data:
        return "is empty, or larger than 256 MiB"
    return "is no WebAssembly component"


def _not_found(name: str, installed: Iterable[str]) -> str:
    known = ", ".join(sorted(installed)) or "none"
    return f"no component holds a plugin {name!r}; found: {known}"
