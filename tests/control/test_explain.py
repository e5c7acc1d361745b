"""Explanations: right, and without a trace. With real servers: tests/cluster/test_admin.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helios_sdk.contract import (
    ANY,
    PRIMARY,
    STANDBY,
    Action,
    Cache,
    Client,
    Pair,
    Pool,
    Priority,
    Reject,
    Rewrite,
    Route,
    Rows,
    Settings,
    Tag,
    Timeout,
    WaitReplay,
)

from heliosproxy.cluster.balance import Balancer
from heliosproxy.cluster.observe import Replica, Seen
from heliosproxy.cluster.registry import Cluster
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Config, NodeConfig
from heliosproxy.sandbox import Sandbox
from heliosproxy.sql.shape import shape
from heliosproxy.switch.explain import Explanation, describe, explain
from heliosproxy.switch.planner import Planner

CLIENT = Client("alice", "shop", authentication="scram-sha-256")
NAMES = ("primary", "standby-sync-1", "standby-async-1")


def three_nodes() -> Cluster:
    """A primary, a synchronous and an asynchronous standby, all up; their catalogue was never read."""
    cluster = Cluster(NodeConfig(name, Address("127.0.0.1", port)) for port, name in enumerate(NAMES, 1))
    replicas = (Replica("", "sync", "standby-sync-1"), Replica("", "async", "standby-async-1"))
    cluster.saw(cluster.by_name["primary"], Seen(0.0, 0.001, False, insert=9, flush=9, replicas=replicas))
    for name in NAMES[1:]:
        cluster.saw(cluster.by_name[name], Seen(0.0, 0.001, True, replay=9))
    return cluster


@pytest.fixture
def planner(sandbox: Sandbox, config: Config) -> Iterator[Planner]:
    plugins = sandbox.load(config)
    yield Planner(three_nodes(), plugins, flows=100, balancer=Balancer())
    for plugin in plugins:
        plugin.close()


def ask(planner: Planner, text: str, **hints: str) -> Explanation:
    return explain(planner, CLIENT, text, hints)


def qualifying(explanation: Explanation) -> list[str]:
    return [node.name for node in explanation.candidates if node.qualifies]


def test_each_step_of_a_hinted_read(planner: Planner) -> None:
    found = ask(planner, "/*helios:route=async,lag=10s*/ select 'private', 1")
    assert found.sent == "select ?, ?"
    assert (found.kind, found.read_only, found.proof, found.remembered) == ("select", True, "", False)
    assert [(hint.key, hint.value, hint.at) for hint in found.hints] == [("route", "async", 10), ("lag", "10s", 22)]
    assert [(step.hook, step.skipped) for step in found.hooks] == [("on-parse", ""), ("on-route", "")]
    assert all(step.microseconds and step.microseconds > 0 for step in found.hooks)
    assert [said.reason for said in found.hooks[1].directives] == ["Hint: route=async", "Hint: lag=10s"]
    assert found.verdict == {"routes": "to async otherwise standby, to any max lag 10000 ms"}
    assert qualifying(found) == ["standby-async-1"]
    assert [node.why_not for node in found.candidates] == ["is not async", "is not async", ""]
    assert (found.node, found.fallback) == ("standby-async-1", "")
    assert "private" not in repr(found)


def test_a_hook_that_need_not_be_called_says_why(planner: Planner) -> None:
    parse, route = ask(planner, "select 1").hooks
    assert (parse.skipped, parse.microseconds) == ("nothing of hints in the statement", None)
    assert not route.skipped


def test_R3_a_write_stays_on_the_primary_whatever_it_hints(planner: Planner) -> None:
    found = ask(planner, "/*helios:route=async*/ insert into t values (1)")
    assert (found.read_only, qualifying(found), found.node) == (False, ["primary"], "primary")
    assert found.reason.startswith("insert runs on the primary: ")
    assert found.tables == ("t",)


def test_what_the_catalogue_must_prove_is_not_read_only_without_it(planner: Planner) -> None:
    found = ask(planner, "select f(x) from t")
    assert (found.proof, found.node) == ("the catalogue is not known", "primary")
    assert (found.tables, found.functions) == (("t",), ("f",))


def test_hints_of_the_session_count(planner: Planner) -> None:
    found = ask(planner, "select 1", route="primary")
    assert [(hint.key, hint.at) for hint in found.hints] == [("route", 0)]
    assert found.node == "primary"


def test_a_refused_statement_has_no_destination(planner: Planner) -> None:
    found = ask(planner, "/*helios:route=async,consistency=strong*/ select 1")
    assert found.answered.startswith("refused with 42601: ")
    assert (found.node, found.sent, found.candidates) == ("", "", ())


def test_a_setting_of_the_proxy_is_answered_by_it(planner: Planner) -> None:
    assert ask(planner, "set helios.route = 'async'").answered == "set of a setting of the proxy"


def test_a_fallback_says_which_constraint_failed(planner: Planner) -> None:
    away = planner.cluster.by_name["standby-async-1"]
    planner.cluster.lost(away, "connection refused", at_once=True, now=1.0)
    found = ask(planner, "/*helios:node=standby-async-1*/ select 1")
    assert "standby-async-1 is down (connection refused)" in found.fallback
    assert found.node in ("primary", "standby-sync-1")
    assert found.candidates[2].why_not == "is down (connection refused)"


def test_it_sees_the_nodes_as_they_are_now(planner: Planner) -> None:
    """Before the first statement too, which would make the planner look."""
    fresh = Planner(Cluster([NodeConfig("a", Address("127.0.0.1", 1))]), planner.plugins, flows=9, balancer=Balancer())
    fresh.cluster.saw(fresh.cluster.by_name["a"], Seen(0.0, 0.001, False, insert=9, flush=9))
    assert ask(fresh, "/*helios:route=primary*/ select 1").fallback == ""


def test_it_leaves_no_trace(planner: Planner) -> None:
    before = planner.table.statistics()
    turns = [Balancer().choose(planner.cluster.nodes[1:]).name]
    for _ in range(5):
        ask(planner, "select 1")
    assert planner.table.statistics() == before
    assert len(planner.decisions) == 0
    assert [planner.balancer.choose(planner.cluster.nodes[1:]).name] == turns


def test_a_flow_in_the_table_is_told(planner: Planner) -> None:
    planner.refresh()  # as the statement would have done
    text = b"select 1"
    shaped = shape(text)
    planner.table.put((shaped, 0, None), planner.decide(CLIENT, {}, text, shaped))
    assert ask(planner, "select 2").remembered
    assert not ask(planner, "select 2 + 2").remembered


def test_in_pool_mode_session_the_primary_takes_what_has_no_hints(planner: Planner) -> None:
    found = explain(planner, CLIENT, "select 1", {}, session_mode=True)
    assert (found.node, qualifying(found)) == ("primary", ["primary"])
    assert found.reason.startswith("pool mode session")
    assert explain(planner, CLIENT, "select 1", {"route": "async"}, session_mode=True).node == "standby-async-1"


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (Route((PRIMARY, STANDBY), max_lag_ms=0), "route to primary or standby max lag 0 ms"),
        (Route((ANY,), prefer=(STANDBY,), sticky="k", database="d"), "route to any prefer standby sticky k database d"),
        (Rewrite("select 'private'"), "rewrite select ?"),
        (Reject("42501", "no", hint="ask"), "reject 42501: no"),
        (Rows(("a", "b"), (("private", None),)), "answer 1 rows of a, b"),
        (Timeout(5000), "timeout 5000 ms"),
        (Cache("store", ttl_ms=60000, depends_on=("t", "u")), "cache mode store ttl 60000 ms depends on t, u"),
        (Priority("high"), "priority level high"),
        (Pool("session"), "pool mode session"),
        (Settings((Pair("role", "x"),)), "settings values key role value x"),
        (Tag("tool", "search"), "tag key tool value search"),
        (WaitReplay(), "wait-replay"),
    ],
)  # fmt: skip
def test_every_action_has_words(action: Action, text: str) -> None:
    assert describe(action) == text
