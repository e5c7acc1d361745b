from __future__ import annotations

import pytest
from helios_sdk.contract import ANY, LOCAL, PRIMARY, STANDBY, Pair, Role, Route, Selector

from heliosproxy.cluster.observe import Replica, Seen
from heliosproxy.cluster.registry import Cluster
from heliosproxy.cluster.select import qualify
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Health, NodeConfig

ASYNC = Selector("sync-mode", "async")
SYNC = Selector("sync-mode", "sync")
HEALTH = Health(interval=1.0, lag_interval=0.5, timeout=3.0, failures=2)


def configured(name: str, port: int, *, weight: int = 1, region: str = "", role: Role | None = None) -> NodeConfig:
    labels = {"region": region} if region else {}
    return NodeConfig(name, Address("127.0.0.1", port), role=role or "auto", labels=labels, weight=weight)


def primary_seen(at: float = 0.0, lsn: int = 1000, trip: float = 0.001) -> Seen:
    replicas = (Replica("127.0.0.1", "sync", "s"), Replica("127.0.0.1", "async", "a"))
    return Seen(at, trip, False, insert=lsn, flush=lsn, replicas=replicas, version="16.14")


def standby_seen(at: float = 0.0, lsn: int = 1000, trip: float = 0.001) -> Seen:
    return Seen(at, trip, True, replay=lsn, version="16.14")


def running(*configs: NodeConfig, region: str = "") -> Cluster:
    """A primary p, a synchronous standby s and an asynchronous a, all up and level."""
    made = Cluster(
        configs or (configured("p", 1), configured("s", 2), configured("a", 3)), region=region, health=HEALTH
    )
    made.saw(made.by_name["p"], primary_seen())
    made.saw(made.by_name["s"], standby_seen())
    made.saw(made.by_name["a"], standby_seen())
    return made


def names(cluster: Cluster, *routes: Route) -> list[str]:
    return [node.name for node in qualify(cluster, routes).nodes]


def down(cluster: Cluster, name: str) -> None:
    cluster.lost(cluster.by_name[name], "connection refused", at_once=True, now=1.0)


def test_without_routes_every_healthy_node_qualifies() -> None:
    cluster = running()
    assert names(cluster) == ["p", "s", "a"]
    down(cluster, "a")
    assert names(cluster) == ["p", "s"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (ANY, ["p", "s", "a"]),
        (PRIMARY, ["p"]),
        (STANDBY, ["s", "a"]),
        (SYNC, ["s"]),
        (ASYNC, ["a"]),
        (Selector("node", "s"), ["s"]),
    ],
)
def test_a_selector_names_its_nodes(selector: Selector, expected: list[str]) -> None:
    assert names(running(), Route((selector,))) == expected


def test_the_selectors_of_a_route_unite_and_routes_intersect() -> None:
    cluster = running()
    assert names(cluster, Route((PRIMARY, ASYNC))) == ["p", "a"]
    assert names(cluster, Route((PRIMARY, ASYNC)), Route((STANDBY,))) == ["a"]


def test_a_label_names_the_nodes_that_bear_it() -> None:
    cluster = running(configured("p", 1), configured("s", 2, region="eu"), configured("a", 3, region="us"))
    assert names(cluster, Route((Selector("label", Pair("region", "us")),))) == ["a"]


def test_local_is_the_proxys_region() -> None:
    configs = configured("p", 1, region="us"), configured("s", 2, region="eu"), configured("a", 3, region="eu")
    assert names(running(*configs, region="eu"), Route((LOCAL,))) == ["s", "a"]


def test_local_is_the_nearest_node_where_none_has_the_region() -> None:
    cluster = running(region="mars")
    for _ in range(20):
        cluster.saw(cluster.by_name["a"], standby_seen(trip=0.0001))
    assert names(cluster, Route((LOCAL,))) == ["a"]


def test_a_lag_limit_leaves_out_who_lags_more_or_unknown() -> None:
    cluster = running()
    p, s, a = cluster.nodes
    cluster.saw(p, primary_seen(at=10.0, lsn=2000))
    cluster.saw(s, standby_seen(at=10.1, lsn=2000))
    cluster.saw(a, standby_seen(at=12.0, lsn=1500))
    limited = Route((STANDBY,), max_lag_ms=1000)
    assert a.lag_ms == pytest.approx(2000)
    assert names(cluster, limited) == ["s"]
    assert names(cluster, Route((STANDBY,), max_lag_ms=2500)) == ["s", "a"]
    s.lag_ms = None
    assert names(cluster, limited) == ["p"]


def test_O4_a_limit_of_0_and_strong_ask_for_the_last_write() -> None:
    cluster = running()
    assert names(cluster, Route((STANDBY,), max_lag_ms=0)) == ["s", "a"]
    cluster.wrote(1500)
    cluster.saw(cluster.by_name["s"], standby_seen(lsn=1500))
    assert names(cluster, Route((STANDBY,), max_lag_ms=0)) == ["s"]
    assert names(cluster, Route((STANDBY, PRIMARY), consistency="strong")) == ["p", "s"]


def test_O4_without_a_primary_nobody_is_known_to_have_the_last_write() -> None:
    cluster = running()
    names(cluster, Route((STANDBY,), max_lag_ms=0))
    down(cluster, "p")
    refused = qualify(cluster, (Route((STANDBY,), max_lag_ms=0),))
    assert refused.nodes == ()
    assert refused.relaxed.endswith("there is no primary")


def test_O4_otherwise_does_not_weaken_the_lag_allowed() -> None:
    cluster = running()
    down(cluster, "s")
    cluster.saw(cluster.by_name["p"], primary_seen(at=1.0, lsn=9000))
    cluster.saw(cluster.by_name["a"], standby_seen(at=5.0, lsn=1000))
    routes = (Route((SYNC,), otherwise=(STANDBY,)), Route((ANY,), consistency="bounded", max_lag_ms=1000))
    assert [n.name for n in qualify(cluster, routes).nodes] == ["p"]


def test_otherwise_is_taken_where_nobody_qualifies_and_the_reason_says_so() -> None:
    cluster = running()
    down(cluster, "a")
    found = qualify(cluster, (Route((ASYNC,), otherwise=(STANDBY,)),))
    assert [node.name for node in found.nodes] == ["s"]
    assert found.relaxed == "no node qualifies: a is down (connection refused); used s instead"


def test_then_the_primary_is_taken() -> None:
    cluster = running()
    down(cluster, "a")
    found = qualify(cluster, (Route((ASYNC,)),))
    assert [node.name for node in found.nodes] == ["p"]
    assert found.relaxed == "no node qualifies: a is down (connection refused); used the primary, p, instead"


def test_an_unknown_node_qualifies_nothing() -> None:
    found = qualify(running(), (Route((Selector("node", "x"),)),))
    assert [node.name for node in found.nodes] == ["p"]
    assert "there is no node x" in found.relaxed


def test_routes_that_exclude_each_other_say_so() -> None:
    found = qualify(running(), (Route((SYNC,)), Route((ASYNC,))))
    assert "s is not async" in found.relaxed
    assert "a is not sync" in found.relaxed


def test_preferred_nodes_come_first() -> None:
    cluster = running()
    wish = Route((STANDBY,), prefer=(ASYNC,))
    assert names(cluster, wish) == ["a"]
    down(cluster, "a")
    assert names(cluster, wish) == ["s"]
    assert qualify(cluster, (wish,)).relaxed == ""


def test_a_node_of_weight_0_is_taken_only_where_it_is_named() -> None:
    cluster = running(configured("p", 1, weight=0), configured("s", 2), configured("a", 3, weight=0))
    assert names(cluster) == ["s"]
    assert names(cluster, Route((Selector("node", "a"),))) == ["a"]
    assert names(cluster, Route((PRIMARY,))) == ["p"]
    assert qualify(cluster, (Route((PRIMARY,)),)).relaxed == ""
    assert "weight 0" in qualify(cluster, (Route((ASYNC,)),)).relaxed
