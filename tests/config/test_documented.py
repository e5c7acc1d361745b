"""The sample file and the manual know every key there is, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest
from helios_sdk.contract import Manifest

from heliosproxy.config.access import Auth, ClientLimits, ClientTls, NameMap, Rule, ServerTls, User
from heliosproxy.config.load import load
from heliosproxy.config.model import Health, NodeConfig, Plugins, Pool, PoolFor, Proxy
from heliosproxy.config.reference import SECTIONS, field_docs, reference

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "heliosproxy.toml"
ENVIRON = {"HELIOS_PASSWORD": "a", "HELIOS_HEALTH_PASSWORD": "b"}


def keys_by_section(text: str) -> dict[str, set[str]]:
    """Keys given in each section, commented out ones included."""
    found: dict[str, set[str]] = {}
    section = ""
    for line in text.splitlines():
        if header := re.match(r"(?:# )?\[+([\w.]+)\]+$", line):
            section = header[1]
        elif key := re.match(r"(?:# )?(\w+) = ", line):
            found.setdefault(section, set()).add(key[1])
    return found


def names(cls: type[object]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def test_the_sample_gives_every_key_of_every_section_and_no_other() -> None:
    found = keys_by_section(SAMPLE.read_text())
    assert {
        section: keys
        for section, keys in found.items()
        if section != "pools" and not section.startswith("routing")
    } == {
        "proxy": names(Proxy),
        "nodes": names(NodeConfig),
        "client_tls": names(ClientTls),
        "server_tls": names(ServerTls),
        "pool": names(Pool),
        "client_limits": names(ClientLimits),
        "auth": names(Auth) - {"users", "rules", "maps"},
        "auth.rules": names(Rule),
        "auth.maps": names(NameMap),
        "auth.users": names(User),
        "health": names(Health),
        "plugins": names(Plugins),
    }


def test_the_sample_has_an_entry_for_one_pool_with_keys_that_there_are() -> None:
    (entry,) = load(SAMPLE, ENVIRON).config.pools
    assert entry == PoolFor(database="reports", user="helios", size=4)
    assert keys_by_section(SAMPLE.read_text())["pools"] <= names(PoolFor)


def test_every_key_of_the_sample_has_a_comment_where_it_first_appears() -> None:
    seen: set[tuple[str, str]] = set()
    section = ""
    for line in SAMPLE.read_text().splitlines():
        section = line.strip("[]") if line.startswith("[") else section
        key = re.match(r"(\w+) = ", line)
        if key and (section, key[1]) not in seen and not section.startswith("routing"):
            assert "#" in line, line
            seen.add((section, key[1]))
    assert len(seen) > 30


def test_the_sample_gives_the_defaults() -> None:
    config = load(SAMPLE, ENVIRON).config
    assert config.proxy == Proxy()
    assert config.pool == Pool()
    assert config.plugins == Plugins()
    assert (config.client_tls, config.server_tls, config.client_limits) == (ClientTls(), ServerTls(), ClientLimits())
    assert dataclasses.replace(config.health, password=None) == Health()
    assert dataclasses.replace(config.auth, users=()) == Auth()
    assert [node.name for node in config.nodes] == ["primary", "standby-sync-1", "standby-async-1"]


def test_the_sample_meets_the_hints_plugins_schema_and_gives_all_of_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    from plugins.hints.schema import SCHEMA

    manifest = Manifest("hints", "1", "", "0.1", "hints", tables=("routing",), schema=json.dumps(SCHEMA))
    loaded = load(SAMPLE, ENVIRON, lambda config: [manifest])
    routing = json.loads(manifest.schema)["properties"]["routing"]["properties"]
    given = loaded.config.tables["routing"]
    assert isinstance(given, dict)
    assert set(given) == set(routing)
    for table in ("hints", "consistency"):
        assert set(given[table]) == set(routing[table]["properties"])  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", SECTIONS)
def test_every_key_says_what_it_means(cls: type[object]) -> None:
    assert all(field_docs(cls)[name] for name in names(cls))


def test_the_manual_holds_the_reference() -> None:
    """After a change of model.py: put the output of `python -m heliosproxy.config.reference` under "Sections"."""
    assert reference() in (ROOT / "docs" / "configuration.md").read_text()
