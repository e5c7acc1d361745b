from __future__ import annotations

import logging

import pytest
from helios_sdk.contract import Node as Fact

from heliosproxy.cluster.node import Node
from heliosproxy.cluster.observe import Replica, Seen, choose_primary, sync_mode
from heliosproxy.cluster.registry import MAX_LAG_LIMITS, Cluster
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Health, NodeConfig


def configured(name: str, port: int) -> NodeConfig:
    return NodeConfig(name, Address("127.0.0.1", port))


def cluster_of(*configs: NodeConfig) -> Cluster:
    return Cluster(configs or (configured("p", 1), configured("s", 2)), health=Health(failures=2))


def primary(at: float = 0.0, *, timeline: int = 1, lsn: int = 1000, replicas: tuple[Replica, ...] = ()) -> Seen:
    return Seen(at, 0.001, False, insert=lsn, flush=lsn, timeline=timeline, replicas=replicas, version="16.14")


def standby(at: float = 0.0, *, timeline: int = 1, lsn: int = 1000) -> Seen:
    return Seen(at, 0.001, True, replay=lsn, timeline=timeline, version="16.14")


def test_a_node_is_down_until_it_was_seen() -> None:
    cluster = cluster_of()
    assert cluster.primary is None
    assert [(node.healthy, node.reason) for node in cluster.nodes] == [(False, "not seen yet")] * 2
    cluster.saw(cluster.nodes[0], primary())
    assert cluster.primary is cluster.nodes[0]
    assert cluster.nodes[0].role == "primary"


def test_time_outs_count_and_refusals_do_not_wait() -> None:
    cluster = cluster_of()
    p, s = cluster.nodes
    cluster.saw(p, primary())
    cluster.saw(s, standby())
    cluster.lost(s, "no answer", at_once=False, now=1.0)
    assert s.healthy
    cluster.lost(s, "no answer", at_once=False, now=2.0)
    assert (s.healthy, s.reason) == (False, "no answer")
    cluster.lost(p, "connection refused", at_once=True, now=2.0)
    assert cluster.primary is None


def test_a_node_that_answers_again_starts_counting_anew() -> None:
    cluster = cluster_of()
    s = cluster.nodes[1]
    cluster.saw(s, standby())
    for at in (1.0, 3.0):
        cluster.lost(s, "no answer", at_once=False, now=at)
        cluster.saw(s, standby(at=at + 1))
    assert s.healthy


def test_a_server_that_is_not_what_the_configuration_says_is_left_out() -> None:
    cluster = cluster_of(NodeConfig("p", Address("127.0.0.1", 1), role="primary"))
    cluster.saw(cluster.nodes[0], standby())
    assert (cluster.nodes[0].healthy, cluster.nodes[0].reason) == (False, "configured as primary, but is a standby")


def test_of_two_primaries_the_higher_timeline_wins() -> None:
    cluster = cluster_of()
    p, s = cluster.nodes
    cluster.saw(p, primary(timeline=1))
    cluster.saw(s, primary(timeline=2))
    assert cluster.primary is s
    assert "timeline" in p.reason


def test_of_two_primaries_on_one_timeline_the_one_seen_first_wins() -> None:
    cluster = cluster_of()
    p, s = cluster.nodes
    cluster.saw(s, primary())
    cluster.saw(p, primary())
    assert cluster.primary is s
    assert p.reason.startswith("a second primary")


def test_F2_a_primary_on_an_older_timeline_is_not_believed_even_alone() -> None:
    cluster = cluster_of()
    p, s = cluster.nodes
    cluster.saw(s, primary(timeline=2))
    cluster.lost(s, "connection refused", at_once=True, now=1.0)
    cluster.saw(p, primary(timeline=1))
    assert cluster.primary is None
    assert p.reason.startswith("an old primary")


def test_positions_of_another_timeline_do_not_count() -> None:
    cluster = cluster_of()
    p, s = cluster.nodes
    cluster.saw(p, primary(timeline=2, lsn=1000))
    cluster.saw(s, standby(timeline=1, lsn=5000))
    assert s.healthy
    assert s.lag_ms is None
    assert not cluster.meets(s, 10_000)
    assert not cluster.meets(s, 0)


def test_a_primary_that_lost_unflushed_wal_in_a_crash_sets_the_position_back() -> None:
    cluster = cluster_of()
    p, s = cluster.nodes
    cluster.saw(p, primary(at=0.0, lsn=5000))
    cluster.saw(p, primary(at=1.0, lsn=4000))
    cluster.saw(s, standby(at=1.0, lsn=4000))
    assert cluster.write_lsn == 4000
    assert cluster.meets(s, 0)


def test_the_version_counts_what_a_choice_depends_on() -> None:
    cluster = cluster_of()
    p, s = cluster.nodes

    def counts(change: str) -> bool:
        before = cluster.version
        match change:
            case "same primary":
                cluster.saw(p, primary(at=1.0))
            case "same standby":
                cluster.saw(s, standby(at=1.0))
            case "sync":
                cluster.saw(p, primary(at=1.0, replicas=(Replica("127.0.0.1", "sync", "s"),)))
            case "address":
                cluster.moved(s, (Address("127.0.0.2", 2),))
            case "down":
                cluster.lost(s, "connection refused", at_once=True, now=1.0)
            case "behind":
                cluster.saw(p, primary(at=2.0, lsn=2000))
        return cluster.version > before

    assert counts("same primary")
    assert not counts("same primary")
    assert counts("same standby")
    assert not counts("same standby")
    assert counts("sync")
    assert counts("address")
    assert not counts("address")
    cluster.meets(s, 0)
    cluster.saw(s, standby(at=1.5))
    assert counts("behind")
    assert not counts("behind")
    assert counts("down")


def test_a_write_that_was_told_of_counts_where_the_last_write_matters() -> None:
    cluster = cluster_of()
    p, s = cluster.nodes
    cluster.saw(p, primary())
    cluster.saw(s, standby())
    assert cluster.meets(s, 0)
    cluster.saw(s, standby())
    before = cluster.version
    cluster.wrote(1001)
    assert not cluster.meets(s, 0)
    assert cluster.version > before


def test_with_very_many_lag_limits_every_sample_counts() -> None:
    cluster = cluster_of()
    p, s = cluster.nodes
    cluster.saw(p, primary())
    for limit in range(MAX_LAG_LIMITS + 1):
        cluster.meets(s, limit)
    before = cluster.version
    cluster.saw(p, primary())
    assert cluster.version > before
    cluster.saw(p, primary())
    assert cluster.version > before + 1


def test_facts_are_the_same_object_until_the_topology_changes() -> None:
    cluster = cluster_of()
    p, s = cluster.nodes
    assert cluster.facts() == (Fact("p", "standby"), Fact("s", "standby"))
    cluster.saw(p, primary(replicas=(Replica("127.0.0.1", "quorum", "s"),)))
    cluster.saw(s, standby())
    facts, version = cluster.facts(), cluster.topology_version
    assert facts == (Fact("p", "primary"), Fact("s", "standby", "semisync"))
    cluster.lost(s, "connection refused", at_once=True, now=1.0)
    assert cluster.facts() is facts
    assert cluster.topology_version == version


@pytest.mark.parametrize(
    ("state", "mode"), [("sync", "sync"), ("quorum", "semisync"), ("potential", "async"), ("async", "async")]
)
def test_sync_state_becomes_the_mode(state: str, mode: str) -> None:
    node = Node(configured("s", 2))
    assert sync_mode(node, [Replica("10.0.0.9", state, "s")], [node]) == mode


def test_a_replica_without_a_known_name_is_matched_by_an_address_that_only_it_has() -> None:
    a, b = Node(configured("a", 1)), Node(configured("b", 2))
    a.addresses, b.addresses = (Address("10.0.0.1", 5432),), (Address("10.0.0.2", 5432),)
    rows = [Replica("10.0.0.1", "sync", "walreceiver"), Replica("10.0.0.2", "async", "walreceiver")]
    assert [sync_mode(node, rows, [a, b]) for node in (a, b)] == ["sync", "async"]
    b.addresses = (Address("10.0.0.1", 5433),)
    assert sync_mode(a, rows, [a, b]) is None


def test_a_configured_sync_mode_wins() -> None:
    cluster = cluster_of(configured("p", 1), NodeConfig("s", Address("127.0.0.1", 2), sync="semisync"))
    cluster.saw(cluster.nodes[0], primary(replicas=(Replica("127.0.0.1", "async", "s"),)))
    assert cluster.nodes[1].sync_mode == "semisync"


def test_choose_primary_without_claims() -> None:
    assert choose_primary({}, 0) == (None, {})


def test_every_event_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heliosproxy.cluster")
    cluster = cluster_of(configured("s", 2))
    s = cluster.nodes[0]
    for at in (0.0, 1.0):
        cluster.saw(s, standby(at=at))
    for at in (2.0, 3.0):
        cluster.lost(s, "connection refused", at_once=True, now=at)
    assert [record.getMessage() for record in caplog.records] == [
        "s is up: standby at 127.0.0.1:2, PostgreSQL 16.14",
        "s is down: connection refused",
    ]


def test_statistics_show_every_node() -> None:
    cluster = cluster_of()
    cluster.saw(cluster.nodes[0], primary())
    shown = cluster.statistics()
    assert shown.primary == "p"
    assert [(node.name, node.healthy) for node in shown.nodes] == [("p", True), ("s", False)]
