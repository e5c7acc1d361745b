"""Imports point one way. The layers and what each may import are written down here and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import heliosproxy

ROOT = Path(heliosproxy.__file__).parent
MAY_IMPORT = {
    "wire": set(),
    "sql": set(),
    "flow": set(),
    "config": {"auth"},
    "auth": {"wire", "config"},
    "sandbox": {"flow", "config"},
    "cluster": {"flow", "sql", "config"},
    "switch": {"wire", "sql", "flow", "config", "auth", "sandbox", "cluster"},
    "control": {"switch", "cluster", "sandbox", "flow", "sql", "config"},
    "demo": {"control", "switch", "sandbox", "config"},
    "cli": {"control", "demo", "switch", "cluster", "sandbox", "config", "auth"},
}
"""Layer by layer, lowest first. Within a layer everything may import everything."""


def imports(file: Path) -> Iterator[str]:
    """The layers of ours that a module imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{file}: relative import"
            names = [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "heliosproxy" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_what_is_below_it(layer: str) -> None:
    allowed = MAY_IMPORT[layer] | {layer}
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / layer).rglob("*.py")
        for name in imports(file)
        if name not in allowed
    }
    assert not wrong


def test_every_package_has_its_place() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(MAY_IMPORT)


def test_the_sdk_imports_nothing_of_the_proxy() -> None:
    import helios_sdk

    for file in Path(helios_sdk.__file__).parent.rglob("*.py"):
        assert "heliosproxy" not in set(_top_levels(file)), file


def _top_levels(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
