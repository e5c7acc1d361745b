from __future__ import annotations

import pytest
from helios_sdk import Reject, Statement
from helios_sdk.testing import load

from examples.plugins.orderly.plugin import Orderly


def test_it_refuses_delete_on_the_ledger() -> None:
    directive = load(Orderly, {}).on_parse(Statement("delete", tables=("ledger",)))
    assert directive is not None
    assert isinstance(directive.action, Reject)
    assert directive.action.sqlstate == "42501"


@pytest.mark.parametrize(
    "statement", [Statement("delete", tables=("notes",)), Statement("select", True, tables=("ledger",))]
)
def test_it_lets_everything_else_through(statement: Statement) -> None:
    assert load(Orderly, {}).on_parse(statement) is None
