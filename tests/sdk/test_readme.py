"""The SDK's page is true: its example works, and it names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helios_sdk import CAPABILITIES, FACTS, HOOKS, STAGES, Client, Directive, Node, Pair, Route, Selector, Statement
from helios_sdk.testing import load

README = Path(__file__).parents[2] / "plugin-sdk" / "README.md"


@pytest.fixture(scope="module")
def text() -> str:
    return README.read_text()


def test_the_example_works(text: str) -> None:
    scope: dict[str, object] = {"__name__": "blue"}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], scope)
    plugin = load(scope["Blue"], {"plugin": {"user": "bi"}})  # type: ignore[arg-type]
    nodes = (Node("a", "standby", labels=(Pair("colour", "blue"),)), Node("b", "standby"))
    answer = plugin.on_route(Statement("select", True, client=Client("bi")), nodes)  # type: ignore[attr-defined]
    assert list(answer) == [Directive(Route((Selector("node", "a"),)), "bi reads blue nodes")]
    assert list(plugin.on_route(Statement("insert", client=Client("bi")), nodes)) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [*HOOKS, *FACTS, *STAGES, *CAPABILITIES])
def test_every_name_is_documented(text: str, name: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
