"""The hints plugin, natively: switches, mistakes in `[routing]`, the manifest, the documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import hypothesis
import jsonschema
import pytest
from helios_sdk import (
    ANY,
    PRIMARY,
    Client,
    Hint,
    Notice,
    Reject,
    Route,
    Statement,
    Tag,
    Timeout,
    WaitReplay,
)
from hints_support import (
    ASYNC,
    BRANCHES,
    NODES,
    Config,
    actions,
    directives,
    node,
    of,
    only_notice,
    plugin,
    routes,
    rule,
    statement,
    strict,
    write,
)
from hypothesis import strategies as st

from plugins.hints.plugin import MEMO_ENTRIES, Hints
from plugins.hints.schema import SCHEMA
from plugins.hints.spelling import LONGEST_SHOWN
from plugins.hints.vocabulary import KEYS, ROUTES

# --- switches


def test_primary_reads_can_be_switched_off() -> None:
    hints = plugin({"hints": {"allow_primary_reads": False}})
    for hint in ("route=primary", "node=primary"):
        assert routes(hints, statement(hint)) == routes(hints, statement())
        said = only_notice(hints, statement(hint))
        assert said.message == f"hint {hint} ignored: reads from the primary are switched off"
        assert not of(Notice, hints, write(hint))
    assert not of(Notice, hints, statement("route=any"))


def test_hints_of_clients_let_in_by_trust_can_be_ignored() -> None:
    hints = plugin({"hints": {"require_auth": True}})
    trusted = Client(authentication="trust")
    given = statement("route=primary,tool=x,timeout=nonsense", client=trusted)
    assert routes(hints, given) == routes(hints, statement())
    assert "require_auth" in only_notice(hints, given).message
    assert not of(Tag, hints, given)
    known = statement("route=async", client=Client(authentication="scram-sha-256"))
    assert routes(hints, known)[0].select == (ASYNC,)


def test_hints_can_be_switched_off() -> None:
    hints = plugin({"hints": {"enabled": False}})
    for text in ("route=primary,tool=x", "route=nonsense", "routr=x"):
        assert directives(hints, statement(text)) == directives(hints, statement())
    assert directives(hints, write("route=async")) == directives(hints, write())


def test_on_error_notice_ignores_the_hint_and_obeys_the_others() -> None:
    hints = plugin(strict("notice"))
    given = statement("route=asnyc,timeout=5s,lag=1s,node=nobody")
    said = of(Notice, hints, given)
    assert [notice.position for notice in said] == [10, len("/*helios:route=asnyc,timeout=5s,lag=1s,") + 1]
    assert {(notice.severity, notice.sqlstate) for notice in said} == {("notice", "42601")}
    assert of(Timeout, hints, given) == [Timeout(5000)]
    assert routes(hints, given) == routes(hints, statement("lag=1s"))


def test_on_error_ignore_says_nothing() -> None:
    hints = plugin(strict("ignore"))
    assert actions(hints, statement("route=asnyc,timeout=soon,twr=true")) == actions(hints, statement())


# --- configuration


@pytest.mark.parametrize(
    ("routing", "mistake"),
    [
        ({"aliases": {"Async": ["a"]}}, "routing.aliases.Async: route=async has a meaning of its own"),
        ({"aliases": {"local": ["a"]}}, "routing.aliases.local: route=local has a meaning of its own"),
        ({"aliases": {"v": ["a"], "V": ["b"]}}, "routing.aliases.V: the same name in other letters"),
        ({"default_read_target": "nowhere"}, "routing.default_read_target: 'nowhere' is none of primary, "),
        (rule({"tool": "x"}, "route=asnyc"), "routing.rules[0].use: unknown value in hint route"),
        (rule({"tool": "x"}, "rout=async"), "routing.rules[0].use: hint rout is taken as a tag"),
        (rule({"tool": "x"}, "lag=1s,lag=2s"), "routing.rules[0].use: a key is given twice"),
        (rule({"tool": "x"}, "standby"), "routing.rules[0].use: hint standby has no value"),
        (rule({"tool": "x"}, "branch=x"), "routing.rules[0].use: unknown value in hint branch=x"),
        (
            rule({"tool": "x"}, "route=async,consistency=strong"),
            "routing.rules[0].use: route=async contradicts consistency=strong",
        ),
        (
            rule({"tool": "x"}, "route=primary,lag=1s"),
            "routing.rules[0].use: lag=1s contradicts route=primary",
        ),
        (rule({"tabel": "x"}, "lag=1s"), "routing.rules[0].when.tabel: did you mean table?"),
        (rule({"route": "sync"}, "lag=1s"), "routing.rules[0].when.route: a rule looks at"),
    ],
)
def test_mistakes_that_a_schema_cannot_find(routing: Config, mistake: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(mistake)):
        plugin(routing)


def test_all_mistakes_are_reported_at_once() -> None:
    rules = [{"when": {"tool": "x"}, "use": "retry=x"}, {"when": {"tool": "x"}, "use": "pool=x,lag=1"}]
    with pytest.raises(ValueError, match=r"routing\.aliases") as error:
        plugin({"aliases": {"any": ["a"]}, "default_read_target": "x", "rules": rules})
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == [
        "routing.aliases.any",
        "routing.default_read_target",
        "routing.rules[0].use",
        "routing.rules[1].use",
        "routing.rules[1].use",
    ]


@pytest.mark.parametrize(
    "routing",
    [
        {"default_write_target": "standby"},
        {"default_consistency": "weak"},
        {"hints": {"on_error": "panic"}},
        {"hints": {"enable": True}},
        {"aliases": {"v": []}},
        {"aliases": {"v": "node"}},
        {"branches": {"b": {}}},
        {"consistency": {"linear": {}}},
        {"consistency": {"strong": {"max_lag_ms": -2}}},
        rule({}, "lag=1s"),
        {"rules": [{"use": "lag=1s"}]},
        rule({"kind": "slect"}, "lag=1s"),
        rule({"kind": ["select", "slect"]}, "lag=1s"),
        {"read_target": "standby"},
    ],
)
def test_mistakes_that_the_schema_finds(routing: Config) -> None:
    with pytest.raises(jsonschema.ValidationError):
        plugin(routing)


def test_the_configuration_of_the_specification_is_accepted() -> None:
    hints = plugin(
        {
            "default_read_target": "standby",
            "default_write_target": "primary",
            "default_consistency": "eventual",
            "hints": {"enabled": True, "allow_node_hints": True, "allow_primary_reads": True, "require_auth": False},
            "aliases": {"vector": ["v1", "v2"], "analytics": ["standby-async-1"], "local": "auto"},
            "consistency": {
                "strong": {"allowed_nodes": ["primary", "standby-sync"], "max_lag_ms": 0},
                "bounded": {"allowed_nodes": ["primary", "standby-sync", "standby-semisync"], "max_lag_ms": 1000},
                "eventual": {"allowed_nodes": ["*"], "max_lag_ms": -1},
            },
        }
    )
    assert directives(hints, statement()) == directives(plugin(), statement())
    assert directives(hints, statement("consistency=strong")) == directives(plugin(), statement("consistency=strong"))


# --- the manifest, the documentation, the memory


def test_the_schema_is_one_and_says_what_every_key_means() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    undocumented = [path for path, table in _properties(SCHEMA, "") if "description" not in table]
    assert undocumented == []


def test_the_manifest_lists_the_supported_hints() -> None:
    assert '"x-hints"' in Hints.manifest().schema
    listed_hints = SCHEMA["x-hints"]
    assert isinstance(listed_hints, list)
    assert {entry["name"] for entry in listed_hints} == set(KEYS)
    assert listed_hints[0]["values"] == list(ROUTES)


def test_the_page_of_documentation_names_every_hint_and_every_setting() -> None:
    page = Path(__file__).parents[2].joinpath("plugins", "hints", "README.md").read_text(encoding="utf-8")
    settings = [path.rpartition(".")[2] for path, _ in _properties(SCHEMA, "")]
    assert [word for word in (*KEYS, *ROUTES, *settings) if f"`{word}" not in page] == []


def test_messages_and_reasons_stay_short_whatever_the_client_writes() -> None:
    for key in ("route", "node", "lag", "tool", "x" * 9000):
        for asked in (f"{key}={'y' * 9000}", f"{key}=1,{key}=2"):
            for said in directives(plugin(), statement(asked)):
                assert len(said.reason) <= LONGEST_SHOWN + len("Session: ")
                if isinstance(said.action, Reject):
                    assert len(said.action.message) < 3 * LONGEST_SHOWN


def test_what_clients_write_does_not_fill_the_memory() -> None:
    hints = plugin()
    for number in range(MEMO_ENTRIES + 10):
        hints.on_parse(statement(f"agent={number}"))
    hints.on_parse(statement("agent=" + "x" * 1000))
    assert len(hints._comments) <= MEMO_ENTRIES
    assert max(len(value) for _, value in hints._comments) < 1000


@hypothesis.given(
    st.lists(st.tuples(st.sampled_from((*KEYS, "team", "")), st.text(max_size=8)), max_size=5), st.booleans()
)
def test_R3_whatever_the_hints_no_route_of_a_write_leaves_out_the_primary(
    pairs: list[tuple[str, str]], notice: bool
) -> None:
    hints = plugin(strict("notice" if notice else "ignore"))
    given = Statement("update", hints=tuple(Hint(key, value, 100 * at + 1) for at, (key, value) in enumerate(pairs)))
    said = actions(hints, given)
    if WaitReplay() not in said:
        assert all(route.select in ((PRIMARY,), (ANY,), (node("primary"),)) for route in of(Route, hints, given))


@hypothesis.given(st.lists(st.sampled_from((*(f"route={name}" for name in ROUTES), *(f"node={n.name}" for n in NODES),
       "consistency=strong", "consistency=bounded", "lag=1s", "twr=true", "branch=analytics", "branch=dev")),
       max_size=6), st.sampled_from(("reject", "notice", "ignore")))  # fmt: skip
def test_O4_a_consistency_asked_for_is_required_unless_the_statement_is_refused(asked: list[str], mode: str) -> None:
    hints = plugin({"branches": BRANCHES, **strict(mode)})
    given = statement(" ".join(f"/*helios:{hint}*/" for hint in asked))
    levels = [hint.partition("=")[2] for hint in asked if hint.startswith("consistency")]
    said = actions(hints, given)
    if levels and not any(isinstance(action, Reject) for action in said):
        kept = [action.consistency for action in said if isinstance(action, Route)]
        assert [level for level in kept if level] == levels[-1:]


def _properties(schema: object, path: str) -> list[tuple[str, Mapping[str, object]]]:
    """Every key that the schema has, with its dotted path, down from the owned tables."""
    assert isinstance(schema, Mapping)
    found = []
    for name, table in schema.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        if path or name == "routing":
            found += [(where, table)] if path and path.rpartition(".")[2] != "when" else []
            found += _properties(table, where)
    for inner in ("additionalProperties", "items"):
        if isinstance(schema.get(inner), Mapping):
            found += _properties(schema[inner], path)
    return found
