"""What goes wrong with plugins: those that cannot be loaded, and hooks that fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a plugin cannot be loaded."""

    plugin: str
    path: tuple[str | int, ...] | None
    """Where in the configuration (`("routing", "aliases", "vector")`); None: not a matter of the configuration.
    The plugin's own table is `("plugins", <name>, …)`."""
    message: str

    def __str__(self) -> str:
        where = "" if self.path is None else ".".join(map(str, self.path)) + ": "
        return f"plugin {self.plugin}: {where}{self.message}"


class LoadError(Exception):
    """Plugins cannot be loaded. `problems` holds every reason, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class PluginFault(Exception):
    """A hook failed: the kernel applies its on_failure. `traceback` is the guest's, empty where there is none."""

    def __init__(self, plugin: str, hook: str, message: str, traceback: str = "") -> None:
        self.plugin = plugin
        self.hook = hook
        self.message = message
        self.traceback = traceback
        super().__init__(f"plugin {plugin}, {hook}: {message}")


class GuestError(Exception):
    """The guest answered `err(fault)`: its own code failed and said so. The instance is as good as before."""

    def __init__(self, message: str, traceback: str = "") -> None:
        self.traceback = traceback
        super().__init__(message)


class GuestLost(Exception):
    """The guest trapped, ran out of time or answered nonsense: the instance cannot be used again."""
