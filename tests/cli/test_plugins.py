"""`helios plugins`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.support import helios

PLUGIN = """\
from helios_sdk import Directive, Directives, Plugin, Statement, Tag, hook

class Tagging(Plugin):
    \"\"\"Tags every statement.\"\"\"

    name = "tagging"
    version = "1.2.3"
    stage = "observers"

    @hook()
    def on_parse(self, statement: Statement) -> Directives:
        return [Directive(Tag("seen", "yes"), "everything is tagged")]
"""


def test_list_shows_the_running_proxys_plugins(served: Path) -> None:
    done = helios("plugins", "list", "--config", served)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for word in ("hints", "on-parse", "on-route", "application-name", "enabled"):
        assert word in done.stdout


def test_list_as_json_has_the_counters(served: Path) -> None:
    helios("route", "select 1", "--config", served)
    (hints,) = json.loads(helios("plugins", "list", "--json", "--config", served).stdout)["plugins"]
    assert (hints["name"], hints["state"], hints["origin"]) == ("hints", "enabled", "bundled")
    route = next(hook for hook in hints["hooks"] if hook["hook"] == "on-route")
    assert route["calls"] >= 1
    assert route["microseconds_per_call"] > 0


def test_without_a_proxy_list_shows_what_is_installed_and_says_so(tmp_path: Path) -> None:
    done = helios("plugins", "list", "--json", cwd=tmp_path, XDG_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 0
    assert "listing what is installed" in done.stderr
    (hints,) = [each for each in json.loads(done.stdout)["plugins"] if each["name"] == "hints"]
    assert hints["state"] == "not enabled"
    assert "calls" not in hints


def test_inspect_shows_the_whole_manifest(tmp_path: Path) -> None:
    done = helios("plugins", "inspect", "hints", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "reads hints, authentication; only with hints; fails open" in done.stdout
    assert "default_read_target" in done.stdout
    shown = json.loads(helios("plugins", "inspect", "hints", "--json", cwd=tmp_path).stdout)
    assert shown["tables"] == ["routing"]
    assert shown["size"] > 0


def test_inspect_of_an_unknown_plugin_names_the_known_ones(tmp_path: Path) -> None:
    done = helios("plugins", "inspect", "hintz", cwd=tmp_path)
    assert done.returncode == 1
    assert "no plugin 'hintz' is installed; there are: " in done.stderr
    assert "hints" in done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    (folder / "tagging").mkdir()
    (folder / "tagging" / "plugin.py").write_text(PLUGIN)
    (folder / "components").mkdir()
    done = helios("plugins", "build", folder / "tagging", "--output", folder / "components" / "tagging.wasm")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder}/components/tagging.wasm\n"
    return folder


def test_a_plugin_that_was_built_is_found_on_the_path(built: Path) -> None:
    (built / "heliosproxy.toml").write_text('[plugins]\npath = ["components"]\nenabled = ["tagging"]\n')
    done = helios("plugins", "inspect", "tagging", cwd=built)
    assert done.returncode == 0, done.stderr
    assert "1.2.3" in done.stdout
    assert str(built / "components" / "tagging.wasm") in done.stdout


def test_a_mistake_in_a_plugin_is_shown_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "plugin.py").write_text("import helios_sdk\n\nnonsense\n")
    done = helios("plugins", "build", "broken", cwd=tmp_path)
    assert done.returncode == 1
    assert "broken/plugin.py:3: NameError" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "broken.wasm").exists()
