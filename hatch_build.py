"""Build hook: the bundled plugins, `plugins/*/plugin.py`, become one component that is part of the package.

It runs for wheels, source distributions and editable installs. The component is built again only if a source has
changed since; a source distribution carries it, so that a wheel made from that need not build it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds `core/heliosproxy/_bundled/plugins.wasm`."""

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        """Called by hatchling before it collects files."""
        root = Path(self.root)
        bundled = root / "core" / "heliosproxy" / "_bundled"
        component, noted = bundled / "plugins.wasm", bundled / "plugins.digest"
        plugins = sorted(each.parent for each in root.glob("plugins/*/plugin.py"))
        if not plugins:
            return
        digest = source_digest(root)
        if component.is_file() and noted.is_file() and noted.read_text() == digest:
            return
        self.app.display_info(f"Building {len(plugins)} plugins into one component")
        sys.path.insert(0, str(root / "plugin-sdk" / "python"))
        try:
            from helios_sdk.build import build

            build(plugins, component)
        finally:
            sys.path.pop(0)
        noted.write_text(digest)


def source_digest(root: Path) -> str:
    """What the component depends on: the plugins' and the SDK's sources, the contract, the compiler's version."""
    digest = hashlib.sha256(installed_version("componentize-py").encode())
    for file in _sources(root):
        digest.update(f"{file.relative_to(root)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _sources(root: Path) -> Iterator[Path]:
    yield from sorted(file for file in (root / "plugins").rglob("*.py") if "tests" not in file.parts)
    yield from sorted((root / "plugin-sdk" / "python" / "helios_sdk").glob("*.py"))
    yield root / "plugin-sdk" / "wit" / "helios.wit"
