"""What the writers lay out in memory is what the readers read there, whatever it is; older contracts get their part."""

from __future__ import annotations

from ctypes import string_at
from typing import Any

import pytest
from helios_sdk.contract import Client, Hint, Node, Outcome, Pair, Statement
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import Config, Engine
from wasmtime.component import Component, FuncType

from heliosproxy.sandbox import frame
from heliosproxy.sandbox.plan import List, Plan, PlanError, Record, Scalar, plan, restrict
from heliosproxy.sandbox.reading import VALUE_SIZE, WORDS, Reading
from heliosproxy.sandbox.writing import Writing

PAIR = "(record (field \"key\" string) (field \"value\" string))"


def declared(types: str, parameter: str) -> Any:
    """The type of a function's parameter, as a component would declare it."""
    text = f"""
        (component (import "test" (instance
            {types}
            (export "call" (func (param "value" {parameter})))
        )))"""
    engine = Engine(Config())
    component = Component(engine, text)
    exports = component.type.imports(engine)["test"].ty.exports(engine)
    function = exports["call"].ty
    assert isinstance(function, FuncType)
    return function.params[0][1]


def record(name: str, /, **fields: str) -> str:
    """A named record of a component, by its fields' types."""
    listed = " ".join(f'(field "{field.replace("_", "-")}" {ty})' for field, ty in fields.items())
    return f'(type ${name}-is (record {listed})) (export "{name}" (type ${name} (eq ${name}-is)))'


CLIENT_TYPE = record("client", **dict.fromkeys(Client.__dataclass_fields__, "string"))
HINT_TYPE = record("hint", key="string", value="string", at="u32")
PAIR_TYPE = record("pair", key="string", value="string")
KIND_TYPE = '(type $kind-is (enum "select" "insert" "unknown")) (export "kind" (type $kind (eq $kind-is)))'
STATEMENT_TYPE = "".join(
    [
        KIND_TYPE,
        HINT_TYPE,
        PAIR_TYPE,
        CLIENT_TYPE,
        record(
            "statement", kind="$kind", read_only="bool", text="string", shape="string", hints="(list $hint)",
            tables="(list string)", functions="(list string)", tags="(list $pair)", comments="(list $pair)",
            parameters="(list (option string))", client="$client",
        ),
    ]
)  # fmt: skip
STATEMENT = plan(declared(STATEMENT_TYPE, "$statement"), Statement, "statement")

texts = st.text(alphabet=st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
pairs = st.lists(st.builds(Pair, texts, texts), max_size=3).map(tuple)
statements = st.builds(
    Statement,
    kind=st.sampled_from(["select", "insert"]),
    read_only=st.booleans(),
    text=texts | st.integers(0, 40_000).map(lambda size: "ü" * size),
    shape=texts,
    hints=st.lists(st.builds(Hint, texts, texts, st.integers(0, 2**32 - 1)), max_size=3).map(tuple),
    tables=st.lists(texts, max_size=40).map(tuple),
    functions=st.lists(texts, max_size=3).map(tuple),
    tags=pairs,
    comments=pairs,
    parameters=st.lists(st.none() | texts, max_size=5).map(tuple),
    client=st.builds(Client, texts, texts, texts, texts, texts, texts),
)


def round_trip(writing: Writing, read: Any, value: object) -> object:
    writing.write(value)
    return read(*WORDS.unpack(string_at(writing.address, VALUE_SIZE)))


def trip(shape: Plan, *values: object) -> list[object]:
    writing, read = Writing([shape]), Reading().reader(shape)
    return [round_trip(writing, read, value) for value in values]


def test_this_wasmtime_has_the_layout_that_is_assumed() -> None:
    assert frame.usable() == ""


@settings(max_examples=150, deadline=None)
@given(st.lists(statements, min_size=1, max_size=4))
def test_any_statement_is_read_as_it_was_written(values: list[Statement]) -> None:
    assert trip(STATEMENT, *values) == values


@given(st.lists(st.builds(Node, texts, st.just("standby"), st.none() | st.just("async"), pairs), max_size=4).map(tuple))
def test_any_nodes_are_read_as_they_were_written(nodes: tuple[Node, ...]) -> None:
    types = (
        PAIR_TYPE
        + '(type $role-is (enum "primary" "standby")) (export "role" (type $role (eq $role-is)))'
        + '(type $mode-is (enum "sync" "semisync" "async")) (export "mode" (type $mode (eq $mode-is)))'
        + record("node", name="string", role="$role", sync_mode="(option $mode)", labels="(list $pair)")
    )
    shape = plan(declared(types, "(list $node)"), tuple[Node, ...], "nodes")
    assert trip(shape, nodes) == [nodes]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_numbers_of_64_bits_keep_every_bit(rows: int, size: int) -> None:
    types = PAIR_TYPE + record(
        "outcome", shape="string", user="string", database="string", node="string", microseconds="u64", rows="u64",
        bytes="u64", sqlstate="string", tags="(list $pair)",
    )  # fmt: skip
    shape = plan(declared(types, "$outcome"), Outcome, "outcome")
    outcome = Outcome("", "", "", "", 5, rows, size)
    assert trip(shape, outcome) == [outcome]


def test_a_component_of_an_earlier_contract_gets_the_fields_it_declares() -> None:
    types = CLIENT_TYPE.replace('(field "tenant" string)', "") + KIND_TYPE
    types += record("statement", kind="$kind", text="string", client="$client")
    shape = plan(declared(types, "$statement"), Statement, "statement")
    given_whole = Statement("insert", True, "text", "shape", client=Client("ann", "db", tenant="acme"))
    assert trip(shape, given_whole) == [Statement("insert", text="text", client=Client("ann", "db"))]


def test_a_kind_that_an_earlier_contract_lacks_is_written_as_unknown() -> None:
    shape = plan(declared(KIND_TYPE + record("statement", kind="$kind"), "$statement"), Statement, "statement")
    assert trip(shape, Statement("merge")) == [Statement("unknown")]


def test_a_field_that_this_proxy_does_not_know_is_refused_by_name() -> None:
    types = record("client", user="string", shoe_size="string")
    with pytest.raises(PlanError, match="this proxy does not know the field 'shoe-size'"):
        plan(declared(types, "$client"), Client, "on-connect")


def test_a_field_of_another_type_is_refused() -> None:
    with pytest.raises(PlanError, match=r"on-connect\.user: U32 is not what the contract says"):
        plan(declared(record("client", user="u32"), "$client"), Client, "on-connect")


def test_restricted_parameters_are_blank_but_for_what_is_read() -> None:
    whole = Statement(
        "insert", True, "text", "shape", (Hint("a", "b", 1),), ("t",), ("f",), (Pair("a", "1"), Pair("b", "2")),
        (Pair("c", "3"),), ("x", None), Client("ann", "db", "app", "addr", "acme", "trust"),
    )  # fmt: skip
    expected = {
        frozenset(): Statement("insert", True),
        frozenset({"text", "hints"}): Statement("insert", True, "text", hints=whole.hints),
        frozenset({"tag:b", "comment:z"}): Statement("insert", True, tags=(Pair("b", "2"),)),
        frozenset({"tenant", "parameters"}): Statement(
            "insert", True, parameters=("x", None), client=Client(tenant="acme")
        ),
    }
    for reads, seen in expected.items():
        limited = Writing([restrict(STATEMENT, reads)])
        assert round_trip(limited, Reading().reader(STATEMENT), whole) == seen


def test_what_a_hook_reads_does_not_change_plans_of_numbers() -> None:
    assert restrict(Scalar("u64"), frozenset()) == Scalar("u64")
    assert isinstance(STATEMENT, Record)
    assert restrict(List(Scalar("u64")), frozenset()) == List(Scalar("u64"))
