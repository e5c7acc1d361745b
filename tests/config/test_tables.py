"""Tables that plugins own: whose they are, and their schemas' violations where they stand."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from helios_sdk.contract import Manifest

from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.load import load
from heliosproxy.config.tables import check_tables, locate, plugin_config

TABLE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "mode": {"enum": ["fast", "safe"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "names": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "either": {
            "oneOf": [{"const": "auto"}, {"type": "array", "items": {"type": "string"}}],
            "description": "a list",
        },
        "rules": {"type": "array", "items": {"$ref": "#/$defs/rule"}},
        "text": {"type": "string", "pattern": "^a"},
    },
    "patternProperties": {"^x_": {"type": "string"}},
}
RULE = {
    "type": "object",
    "required": ["when", "use"],
    "additionalProperties": False,
    "properties": {"when": {"type": "string"}, "use": {"type": "string"}},
}
PLUGIN = {"type": "object", "properties": {"level": {"type": "integer"}}, "additionalProperties": False}
SCHEMA = {
    "type": "object",
    "$defs": {"rule": RULE},
    "properties": {"routing": TABLE, "limits.tenants": {"type": "object"}, "plugin": PLUGIN},
}  # fmt: skip
HINTS = Manifest(
    name="hints", version="1", summary="", contract="0.1", stage="hints",
    tables=("routing", "limits.tenants"), schema=json.dumps(SCHEMA),
)  # fmt: skip
NEEDY = Manifest(
    name="needy", version="1", summary="", contract="0.1", stage="hints",
    schema=json.dumps({"properties": {"plugin": {"type": "object", "required": ["key"]}}, "required": ["plugin"]}),
)  # fmt: skip
HEAD = '[[nodes]]\nname = "a"\naddress = "db1:5432"\n[auth]\nmethod = "trust"\n'


def mistakes(tmp_path: Path, text: str, *manifests: Manifest) -> list[str]:
    """What is found beside the head's five lines, without the file's name; lines counted after the head."""
    file = tmp_path / "a.toml"
    file.write_text(HEAD + text)
    try:
        load(file, {}, lambda config: manifests or (HINTS,))
    except ConfigErrors as errors:
        return [f"{error.line - 5}:{error.column}: {str(error).split(': ', 1)[1]}" for error in errors.errors]
    return []


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[pol]\nsize = 1\n", '1:2: unknown section [pol]: no installed plugin owns it (did you mean "pool"?)'),
        ("[rooting]\n", '1:2: unknown section [rooting]: no installed plugin owns it (did you mean "routing"?)'),
        ("[[routes]]\n", '1:3: unknown section [routes]: no installed plugin owns it (did you mean "routing"?)'),
        ("[limits.tennants]\n", "1:9: unknown section [limits.tennants]: no installed plugin owns it (did you mean"),
        (
            "[plugins.hint]\na = 1\n",
            '1:10: [plugins.hint]: no plugin named "hint" is installed (did you mean "hints"?)',
        ),
        ("[plugins.hints]\nlevle = 1\n", '2:1: unknown key "levle" in [plugins.hints] (did you mean "level"?)'),
        ('[plugins]\nenabled = ["hnits"]\n', '2:12: no plugin named "hnits" is installed (did you mean "hints"?)'),
        ("[routing]\nmodes = 1\n", '2:1: unknown key "modes" in [routing] (did you mean "mode"?)'),
        ('[routing]\nmode = "Fast"\n', '2:8: "Fast" is not one of "fast", "safe" (did you mean "fast"?)'),
        ('[routing]\ncount = "1"\n', "2:9: must be a whole number (leave out the quotes)"),
        ("[routing]\ncount = 0\n", "2:9: 0 is too small (it must be at least 1)"),
        ("[routing]\ncount = 10\n", "2:9: 10 is too large (it must be at most 9)"),
        ('[routing]\nnames = ["a", 1]\n', "2:15: must be text in quotes"),
        ("[routing]\nx_a = 1\n", "2:7: must be text in quotes"),
        ('[routing]\ntext = "b"\n', '2:8: "b" is not allowed here'),
        ("[routing]\neither = 1\n", "2:10: 1 is not allowed here (a list)"),
        ('[routing]\neither = ["a", 2]\n', "2:16: must be text in quotes"),
        ('[[routing.rules]]\nwhen = "x"\n', '1:11: "use" is missing'),
        ('[routing]\nrules = [{ when = "x", use = "y", us = 1 }]\n', '2:35: unknown key "us" in [routing.rules]'),
        ('[routing]\nmode = "${NONE}"\n', "2:8: the environment variable NONE is not set"),
    ],
)
def test_a_mistake_is_reported_where_it_stands(tmp_path: Path, text: str, mistake: str) -> None:
    (found,) = mistakes(tmp_path, text)
    assert found.startswith(mistake)


def test_all_violations_are_reported_beside_the_other_mistakes(tmp_path: Path) -> None:
    text = "[pool]\nsize = 0\n[routing]\nmode = 1\ncount = 0\na = 1\nb = 2\n[[routing.rules]]\n"
    assert [found.split(": ")[0] for found in mistakes(tmp_path, text)] == [
        "2:8",
        "4:8",
        "5:9",
        "6:1",
        "7:1",
        "8:11",
        "8:11",
    ]


def test_good_tables_pass(tmp_path: Path) -> None:
    text = '[routing]\nmode = "fast"\neither = "auto"\nx_y = "z"\n'
    assert mistakes(tmp_path, text + "[limits.tenants.acme]\na = 1\n[plugins.hints]\nlevel = 1\n") == []


def test_an_enabled_plugin_must_have_what_it_requires_and_another_only_if_configured(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "", HINTS, NEEDY) == []
    assert mistakes(tmp_path, "[plugins.needy]\n", HINTS, NEEDY) == ['1:10: "key" is missing']
    missing = ["1:2: [plugins.needy] is missing; plugin needy needs it"]
    assert mistakes(tmp_path, '[plugins]\nenabled = ["needy"]\n', HINTS, NEEDY) == missing


def test_a_schema_that_refers_elsewhere_is_refused_and_nothing_is_fetched(tmp_path: Path) -> None:
    schema = json.dumps({"properties": {"plugin": {"$ref": "http://127.0.0.1:9/schema.json"}}})
    manifest = dataclasses.replace(NEEDY, schema=schema)
    (found,) = mistakes(tmp_path, '[plugins]\nenabled = ["needy"]\n[plugins.needy]\n', manifest)
    assert found.startswith("2:12: the schema of plugin needy refers to http://127.0.0.1:9/schema.json")


def test_several_problems_in_one_message_are_located_each(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(HEAD + '[[routing.rules]]\nuse = "x"\n[plugins.hints]\nlevel = 1\n')
    loaded = load(file, {})
    problem = Refusal("hints", ("routing",), "wrong\nrouting.rules[0].use: worse\nplugin.level: worst\nelse: bad")
    found = [str(error).removeprefix(f"{file}:") for error in locate(loaded.config, [problem], loaded.positions)]
    assert found == [
        "6:3: plugin hints: wrong",
        "7:7: plugin hints: worse",
        "9:9: plugin hints: worst",
        "6:3: plugin hints: else: bad",
    ]


@dataclass(frozen=True)
class Refusal:
    """A problem as the sandbox reports it."""

    plugin: str
    path: tuple[str | int, ...] | None
    message: str


def test_what_the_sandbox_reports_is_located(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(HEAD + '[plugins]\nenabled = ["x", "hints"]\n[routing]\nmode = "fast"\n')
    loaded = load(file, {})
    problems = [
        Refusal("hints", ("routing", "mode"), "no"),
        Refusal("hints", None, "broken"),
        Refusal("y", None, "lost"),
    ]
    found = [str(error).removeprefix(f"{file}:") for error in locate(loaded.config, problems, loaded.positions)]
    assert found == ["9:8: plugin hints: no", "7:17: plugin hints: broken", "7:11: plugin y: lost"]


def test_a_plugin_is_given_each_of_its_tables_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(HEAD + "[limits.tenants]\na = 1\n")
    loaded = load(file, {})
    assert plugin_config(loaded.config, HINTS) == {"limits.tenants": {"a": 1}}
    assert check_tables(loaded.config, [HINTS], loaded.positions) == []
