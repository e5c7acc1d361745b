"""Building: mistakes are told by the author's file and line, before anything slow runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from helios_sdk.build import BuildError, build

GOOD = '''
from helios_sdk import Plugin, hook

class Good(Plugin):
    """Good."""
    name = "good"
    version = "1"
    stage = "rules"

    @hook()
    def on_tick(self, milliseconds):
        return None
'''


def plugin(tmp_path: Path, source: str, name: str = "mine") -> Path:
    directory = tmp_path / name
    directory.mkdir()
    (directory / "plugin.py").write_text(source)
    return directory


@pytest.mark.parametrize(
    ("source", "line", "why"),
    [
        ("import helios_sdk\n\nnonsense\n", 3, "NameError: name 'nonsense' is not defined"),
        ("x = 1\ny = (\n", 2, "SyntaxError: '(' was never closed"),
        ("import nowhere\n", 1, "ModuleNotFoundError: No module named 'nowhere'"),
        (GOOD.replace('"rules"', '"sometime"'), 4, "TypeError: Good: stage 'sometime' is not one of"),
        ("from helios_sdk import Plugin\n\nclass P(Plugin):\n    name = 'p'\n", 3, "TypeError: P: version is missing"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_told_by_file_and_line(
    tmp_path: Path, source: str, line: int, why: str
) -> None:
    directory = plugin(tmp_path, source)
    with pytest.raises(BuildError) as caught:
        build([directory], tmp_path / "out.wasm")
    assert str(caught.value).startswith(f"{directory / 'plugin.py'}:{line}: {why}")
    assert not (tmp_path / "out.wasm").exists()


def test_a_directory_without_a_plugin_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"nothing/plugin\.py: no such file"):
        build([tmp_path / "nothing"], tmp_path / "out.wasm")
    empty = plugin(tmp_path, "x = 1\n")
    with pytest.raises(BuildError, match=r"plugin\.py: no subclass of helios_sdk\.Plugin"):
        build([empty], tmp_path / "out.wasm")
    with pytest.raises(BuildError, match="no plugin directory was given"):
        build([], tmp_path / "out.wasm")


def test_a_name_that_no_module_can_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="named like a Python module, not '2fast'"):
        build([plugin(tmp_path, GOOD, "2fast")], tmp_path / "out.wasm")


def test_two_plugins_of_one_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="two plugins are named 'good'"):
        build([plugin(tmp_path, GOOD, "one"), plugin(tmp_path, GOOD, "two")], tmp_path / "out.wasm")


def test_the_bundled_plugins_import_natively_by_the_name_they_have_in_a_component() -> None:
    from plugins.hints.plugin import Hints

    assert Hints.__module__ == "plugins.hints.plugin"
    assert Hints.manifest().name == "hints"
