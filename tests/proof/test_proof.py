"""The proof's own logic, on catalogues made by hand; tests/cluster/test_catalogue.py has a real server's objects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliosproxy.cluster.catalogue import Cast, Catalogue, Function, Oid, Relation, Type
from heliosproxy.cluster.effect import NO_EFFECT, Effect, Leaves
from heliosproxy.cluster.proof import Proof, prove, prove_types
from heliosproxy.sql import facts

EMPTY = Catalogue({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {})


def function(oid: Oid, name: str, volatility: str = "s", types: tuple[Oid, ...] = ()) -> Function:
    first = types[0] if types else 0
    return Function(oid, "public", name, "f", volatility, "sql", types, bool(types), first, False, None, False)


def view(oid: Oid, name: str, definition: str) -> Relation:
    return Relation(oid, "public", name, "v", "p", False, (), False, definition, None, False)


def catalogue(*functions: Function, relations: tuple[Relation, ...] = (), types: tuple[Type, ...] = (),
              casts: tuple[Cast, ...] = ()) -> Catalogue:  # fmt: skip
    return replace(
        EMPTY,
        functions={item.oid: item for item in functions},
        functions_by_name={item.name: (item,) for item in functions},
        relations={item.oid: item for item in relations},
        relations_by_name={item.name: (item,) for item in relations},
        types={item.oid: item for item in types},
        types_by_name={item.name: (item,) for item in types},
        casts_from={cast.source: (cast,) for cast in casts},
        casts_to={cast.target: (cast,) for cast in casts},
        memo={},
    )


def test_R1_without_a_catalogue_only_what_names_nothing_is_proven() -> None:
    assert prove(facts.of("select 1, 'a', $1, current_date"), None) == Proof(True, "nothing")
    for text in ("select now()", "select * from a", "select 1 + 1", "select 1::int", "select a.b"):
        found = prove(facts.of(text), None)
        assert (found.read_only, found.leaves, found.reason) == (False, "anything", "the catalogue is not known")
    assert not prove_types([23], None).read_only


def test_R1_a_cycle_of_types_and_casts_ends_and_hides_nothing() -> None:
    a, b = (Type(oid, "public", name, "b", 0, ()) for oid, name in ((20_001, "a"), (20_002, "b")))
    there, back = function(20_003, "there", types=(20_001, 20_002)), function(20_004, "back", types=(20_002, 20_001))
    casts = (Cast(20_001, 20_002, 20_003, True), Cast(20_002, 20_001, 20_004, True))
    harmless = catalogue(there, back, types=(a, b), casts=casts)
    assert prove(facts.of("select there($1)"), harmless).read_only
    assert prove(facts.of("select back($1)"), harmless).read_only
    volatile = catalogue(there, replace(back, volatility="v"), types=(a, b), casts=casts)
    # In either order: what was proven of one must not have been remembered too early for the other.
    for texts in (("select there($1)", "select null::a", "select null::b"), ("select null::b", "select there($1)")):
        volatile.memo.clear()
        assert not [text for text in texts if prove(facts.of(text), volatile).read_only]


def test_R1_views_that_lead_to_each_other_end() -> None:
    found = catalogue(relations=(
        view(20_001, "a", "SELECT * FROM public.b"), view(20_002, "b", "SELECT * FROM public.a"),
    ))  # fmt: skip
    assert prove(facts.of("select * from a"), found).read_only


@pytest.mark.parametrize("definition", ["SELECT", "SELECT 1; SELECT 2", "CREATE TABLE x()", "",
    "SELECT " + "1+" * 9_000 + "1"])
def test_R1_a_definition_that_cannot_be_read_proves_nothing(definition: str) -> None:
    found = catalogue(relations=(view(20_001, "a", definition),))
    if definition == "SELECT":
        assert prove(facts.of("select * from a"), found).read_only  # no columns, and valid
    else:
        assert prove(facts.of("select * from a"), found).reason == "a definition could not be read"


def test_R1_a_definitions_unqualified_names_are_built_in() -> None:
    volatile = function(20_001, "lower", "v")
    stable = Function(870, "pg_catalog", "lower", "f", "i", "internal", (25,), True, 25, False, None, False)
    found = replace(
        catalogue(volatile, stable, relations=(view(20_002, "a", "SELECT lower('x')"),)),
        functions_by_name={"lower": (volatile, stable)},
    )
    assert prove(facts.of("select * from a"), found).read_only
    assert not prove(facts.of("select lower('x')"), found).read_only


def test_R1_a_name_stands_for_every_object_that_bears_it() -> None:
    one, other = (replace(view(oid, "a", "SELECT 1"), schema=schema) for oid, schema in ((20_001, "x"), (20_002, "y")))
    other = replace(other, definition="SELECT public.f()")
    found = replace(catalogue(function(20_003, "f",
        "v"), relations=(one, other)), relations_by_name={"a": (one, other)})
    assert prove(facts.of("select * from x.a"), found).read_only
    assert not prove(facts.of("select * from y.a"), found).read_only
    assert not prove(facts.of("select * from a"), found).read_only
    assert not prove(facts.of("select * from z.a"), found).read_only


def test_R1_foreign_tables_are_not_proven() -> None:
    foreign = replace(view(20_001, "a", ""), kind="f", definition=None)
    assert prove(facts.of("select * from a"), catalogue(relations=(foreign,))).leaves == "anything"


def test_R1_virtual_generated_columns_run_when_read_and_stored_ones_when_written() -> None:
    table = replace(view(20_001, "a", ""), kind="r", definition=None)
    found = catalogue(function(20_002, "f", "v"), relations=(table,))
    virtual = replace(found, expressions={(20_001, "virtual"): ("public.f()",)}, memo={})
    stored = replace(found, expressions={(20_001, "default"): ("public.f()",)}, memo={})
    assert not prove(facts.of("select * from a"), virtual).read_only
    assert prove(facts.of("select * from a"), stored).read_only
    assert prove(facts.of("delete from a"), found).leaves == "nothing"
    assert prove(facts.of("update a set b = 1"), stored).leaves == "anything"


def test_L1_functions_of_extensions_leave_nothing_only_if_immutable_c() -> None:
    base = replace(function(20_001, "f", "i"), language="c", extension=True)
    for changed, leaves in (
        (base, "nothing"), (replace(base, volatility="s"), "anything"), (replace(base, language="plpgsql"), "anything"),
        (replace(base, extension=False), "anything"), (replace(base, settings=True), "anything"),
    ):  # fmt: skip
        found = prove(facts.of("select f()"), catalogue(changed))
        assert found.read_only
        assert found.leaves == leaves


def test_names_that_clients_invent_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from heliosproxy.cluster import proof

    monkeypatch.setattr(proof, "MAX_REMEMBERED", 100)
    found = catalogue()
    for number in range(300):
        assert not prove(facts.of(f"select f{number}()"), found).read_only
    prover = found.memo["prover"]
    assert isinstance(prover, proof._Prover)
    assert len(prover._effects) <= 100


def test_effects_add_up_to_the_worst() -> None:
    sequences = Effect("a", Leaves.SEQUENCES, "s")
    assert NO_EFFECT | sequences == sequences
    assert sequences | NO_EFFECT == sequences
    assert sequences | Effect("b", Leaves.ANYTHING, "t") == Effect("a", Leaves.ANYTHING, "t")
    assert Effect("", Leaves.ANYTHING, "t") | sequences == Effect("a", Leaves.ANYTHING, "t")
