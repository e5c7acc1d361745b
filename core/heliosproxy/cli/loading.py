"""A configuration together with the plugins that it names: every mistake of both at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from helios_sdk.contract import Manifest

from heliosproxy.config.errors import ConfigErrors, in_file_order
from heliosproxy.config.load import Loaded, load
from heliosproxy.config.model import Config
from heliosproxy.config.tables import Problem, locate
from heliosproxy.sandbox import LoadError, Sandbox
from heliosproxy.sandbox import Problem as SandboxProblem


class Plugins(Protocol):
    """What is known of the installed plugins. Its calls block, and take seconds the first time."""

    def manifests(self, config: Config) -> Sequence[Manifest]:
        """Of every plugin that the configuration can name."""

    def broken(self, config: Config) -> Sequence[Problem]:
        """What is wrong with the enabled plugins and with files on the path, whatever the configuration says."""

    def refusals(self, config: Config) -> Sequence[Problem]:
        """Why the enabled plugins cannot be loaded with this configuration; none if they can."""


def load_with_plugins(file: Path, environ: Mapping[str, str], plugins: Plugins) -> Loaded:
    """As `load`, and the plugins can be loaded with it. Raises ConfigErrors."""
    try:
        loaded = load(file, environ, plugins.manifests)
    except ConfigErrors as errors:
        if errors.loaded is None:
            raise
        raise _with_broken(errors, errors.loaded, plugins) from None
    refusals = locate(loaded.config, plugins.refusals(loaded.config), loaded.positions)
    if refusals:
        raise ConfigErrors(in_file_order(refusals, file), loaded)
    return loaded


def _with_broken(errors: ConfigErrors, loaded: Loaded, plugins: Plugins) -> ConfigErrors:
    """Plugins are not configured with what is known to be wrong, but that one is no plugin at all is said."""
    broken = locate(loaded.config, plugins.broken(loaded.config), loaded.positions)
    return ConfigErrors(in_file_order((*errors.errors, *broken), loaded.config.file), loaded)


class InstalledPlugins:
    """The plugins that a sandbox finds. The sandbox stays the caller's to close."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def manifests(self, config: Config) -> Sequence[Manifest]:
        """A plugin with a fault stands for its name only: the fault is reported, not that the name is unknown."""
        return [
            Manifest(found.name, "", "", "", "") if found.manifest is None or found.problems else found.manifest
            for found in self._sandbox.installed(config)
            if found.component is not None
        ]

    def broken(self, config: Config) -> Sequence[Problem]:
        """Files that hold no plugins, wherever the path leads; plugins with faults where they are enabled."""
        return [
            SandboxProblem(found.name, None, problem)
            for found in self._sandbox.installed(config)
            if found.component is None or found.name in config.plugins.enabled
            for problem in found.problems
        ]

    def refusals(self, config: Config) -> Sequence[Problem]:
        """Loads the plugins and lets them go again."""
        try:
            plugins = self._sandbox.load(config)
        except LoadError as error:
            return error.problems
        for plugin in plugins:
            plugin.close()
        return ()
