"""The SDK's dataclasses are the WIT file's types: same names, same fields in the same order, same cases."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest
from helios_sdk import contract
from helios_sdk.build import contract_dir
from helios_sdk.plugin import HOOKS

CLASS_OF = {"rows": contract.Rows}
ALIAS_OF = {
    "kind": contract.Kind,
    "role": contract.Role,
    "sync-mode": contract.SyncMode,
    "consistency": contract.Consistency,
    "severity": contract.Severity,
    "cache-mode": contract.CacheMode,
    "priority": contract.PriorityLevel,
    "pool-mode": contract.PoolMode,
    "failure-policy": contract.FailurePolicy,
    "hook": contract.Hook,
    "level": contract.LogLevel,
}
NO_DATACLASS = {"fault"}


def wit() -> str:
    """The WIT file without comments and keyword marks."""
    text = (contract_dir() / "helios.wit").read_text()
    return re.sub(r"//[^\n]*", "", text).replace("%", "")


def blocks(keyword: str) -> dict[str, list[str]]:
    """Bodies of `keyword name { … }`, split at commas outside angle brackets and parentheses."""
    found = {}
    for name, body in re.findall(rf"\b{keyword}\s+([a-z-]+)\s*\{{([^}}]*)\}}", wit()):
        parts = re.split(r",(?![^<(]*[>)])", body)
        found[name] = [" ".join(part.split()) for part in parts if part.strip()]
    return found


def class_name(name: str) -> str:
    return "".join(part.title() for part in name.split("-"))


def annotation(ty: str) -> str:
    """A WIT type as the annotation that the dataclass should have."""
    if match := re.fullmatch(r"list<(.*)>", ty):
        return f"tuple[{annotation(match[1])}, ...]"
    if match := re.fullmatch(r"option<(.*)>", ty):
        return f"{annotation(match[1])} | None"
    simple = {"string": "str", "bool": "bool", "u32": "int", "u64": "int", "f64": "float"}
    return simple.get(ty, class_name(ty))


@pytest.mark.parametrize("name", sorted(set(blocks("record")) - NO_DATACLASS))
def test_a_record_is_a_dataclass_with_its_fields(name: str) -> None:
    declared = [part.split(": ") for part in blocks("record")[name]]
    cls = getattr(contract, class_name(name))
    assert [field.name for field in dataclasses.fields(cls)] == [field.replace("-", "_") for field, _ in declared]
    assert [field.type for field in dataclasses.fields(cls)] == [annotation(ty) for _, ty in declared]


@pytest.mark.parametrize("name", sorted(blocks("enum")))
def test_an_enumeration_is_a_literal_with_its_cases(name: str) -> None:
    assert list(typing.get_args(ALIAS_OF[name])) == blocks("enum")[name]


def test_every_selector_case_is_known() -> None:
    cases = [part.split("(")[0] for part in blocks("variant")["selector"]]
    hints = typing.get_type_hints(contract.Selector)
    assert list(typing.get_args(hints["case"])) == cases


def test_every_action_has_a_class() -> None:
    special = {"answer": "Rows"}
    cases = [part.split("(")[0] for part in blocks("variant")["action"]]
    classes = [cls.__name__ for cls in typing.get_args(contract.Action)]
    assert classes == [special.get(case, class_name(case)) for case in cases]


def test_the_hooks_are_the_worlds() -> None:
    exports = re.findall(r"export (on-[a-z]+):", wit())
    assert list(HOOKS.values()) == exports
    assert [name.replace("_", "-") for name in HOOKS] == exports


def test_the_version_is_the_packages() -> None:
    (version,) = re.findall(r"package helios:plugin@(\d+\.\d+)\.\d+;", wit())
    assert version == contract.CONTRACT


def test_everything_of_the_contract_is_exported_by_the_sdk() -> None:
    import helios_sdk

    public = {name for name in vars(contract) if name[0].isupper()} - {"Literal", "TypeAlias"}
    assert public <= set(helios_sdk.__all__)
    assert all(hasattr(helios_sdk, name) for name in helios_sdk.__all__)


def test_the_wit_file_is_beside_the_sdk() -> None:
    assert (Path(contract_dir()) / "helios.wit").is_file()
