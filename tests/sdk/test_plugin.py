"""The class API: manifests are derived from classes, and mistakes are told where they are made."""

from __future__ import annotations

import json

import pytest
from helios_sdk import (
    PRIMARY,
    CapabilityError,
    Directive,
    HookSpec,
    Manifest,
    Plugin,
    Route,
    Statement,
    hook,
)
from helios_sdk.testing import RecordingLog, load


class Reports(Plugin):
    """Sends reports to the primary.

    More about it.
    """

    name = "reports"
    version = "1.0.0"
    stage = "routing"
    capabilities = ("log",)
    tables = ("reports",)
    schema = {"type": "object", "properties": {"reports": {"type": "object"}}}

    def configured(self) -> None:
        self.table = str(self.config["reports"].get("table", "reports"))
        if not self.table:
            raise ValueError("reports.table: is empty")

    @hook(reads=("tables", "tag:x"), only_with=("tables",), on_failure="closed")
    def on_parse(self, statement: Statement):
        if self.table in statement.tables:
            self.log.info("a report")
            yield Directive(Route((PRIMARY,)), "reports read their own writes")


def test_the_manifest_is_derived_from_the_class() -> None:
    assert Reports.manifest() == Manifest(
        "reports",
        "1.0.0",
        "Sends reports to the primary.",
        "0.1",
        "routing",
        (HookSpec("on-parse", ("tables", "tag:x"), ("tables",), "closed"),),
        ("log",),
        ("reports",),
        json.dumps({"type": "object", "properties": {"reports": {"type": "object"}}}),
    )


def test_a_loaded_plugin_is_configured_and_its_hooks_are_methods() -> None:
    plugin = load(Reports, {"reports": {"table": "orders"}})
    assert list(plugin.on_parse(Statement("select", tables=("orders",)))) == [
        Directive(Route((PRIMARY,)), "reports read their own writes")
    ]
    assert list(plugin.on_parse(Statement("select", tables=("reports",)))) == []
    assert isinstance(plugin.log, RecordingLog)
    assert plugin.log.lines == [("info", "a report")]


def test_absent_tables_are_empty() -> None:
    plugin = load(Reports)
    assert plugin.config == {"reports": {}, "plugin": {}}
    assert plugin.table == "reports"


def test_what_configured_raises_reaches_the_test() -> None:
    with pytest.raises(ValueError, match=r"reports\.table: is empty"):
        load(Reports, {"reports": {"table": ""}})
    with pytest.raises(ValueError, match="reports owns no table routing"):
        load(Reports, {"routing": {}})


def test_a_capability_that_was_not_asked_for_is_refused_by_name() -> None:
    plugin = load(Reports)
    with pytest.raises(CapabilityError, match=r'plugin reports used self\.clock .* capabilities = \("clock",\)'):
        plugin.clock.now()


def test_instances_do_not_share_what_they_were_given() -> None:
    first, second = load(Reports, {"reports": {"table": "a"}}), load(Reports)
    assert (first.table, second.table) == ("a", "reports")
    assert first.log is not second.log


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"version": ""}, "version is missing"),
        ({"stage": "sometime"}, "stage 'sometime' is not one of identity,"),
        ({"capabilities": ("sql",)}, "capability 'sql' is not one of log, clock"),
        ({"capabilities": "log"}, "capabilities is a tuple"),
        ({"tables": "routing"}, "tables is a tuple"),
        ({"on_tick": lambda self, milliseconds: None}, r"on_tick is not marked: put @hook"),
    ],
)
def test_a_mistake_in_a_class_is_told_where_it_is_defined(attributes: dict[str, object], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        type("Bad", (Plugin,), {"name": "bad", "version": "1", "stage": "rules", **attributes})


def test_a_base_class_without_a_name_is_not_checked() -> None:
    assert type("Base", (Plugin,), {"stage": "anything"}).name == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"reads": ("password",)}, "reads names 'password'; known are text, shape,"),
        ({"reads": "user"}, "tuples"),
        ({"reads": ("tag:",)}, "reads names 'tag:'"),
        ({"only_with": ("user",)}, "only_with names 'user'"),
        ({"on_failure": "maybe"}, "on_failure is 'open' or 'closed'"),
    ],
)
def test_a_mistake_in_a_hooks_mark_is_told_where_it_is_made(arguments: dict[str, object], why: str) -> None:
    def on_tick(self: object, milliseconds: int) -> None: ...

    with pytest.raises(TypeError, match=why):
        hook(**arguments)(on_tick)  # type: ignore[arg-type]


def test_only_hooks_can_be_marked() -> None:
    def on_fire(self: object) -> None: ...

    with pytest.raises(TypeError, match="on_fire is no hook; hooks are on_connect,"):
        hook()(on_fire)
