from __future__ import annotations

from collections import Counter

from heliosproxy.cluster.balance import Balancer
from heliosproxy.cluster.node import Node
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import NodeConfig


def nodes(*weights: int) -> list[Node]:
    return [Node(NodeConfig(f"n{i}", Address("127.0.0.1", i + 1), weight=w)) for i, w in enumerate(weights)]


def test_a_single_node_is_taken() -> None:
    only = nodes(1)
    assert Balancer().choose(only) is only[0]


def test_the_node_with_the_least_in_flight_is_taken() -> None:
    three = nodes(1, 1, 1)
    for node, busy in zip(three, (4, 2, 3), strict=True):
        node.in_flight = busy
    assert Balancer().choose(three) is three[1]


def test_load_counts_by_weight() -> None:
    heavy, light = nodes(4, 1)
    heavy.in_flight, light.in_flight = 3, 1
    assert Balancer().choose([heavy, light]) is heavy


def test_ties_go_round_as_often_as_the_weights_say() -> None:
    pool, balancer = nodes(3, 2, 1), Balancer()
    taken = Counter(balancer.choose(pool).name for _ in range(600))
    assert taken == {"n0": 300, "n1": 200, "n2": 100}


def test_a_node_that_was_away_does_not_make_up_for_it() -> None:
    pool, balancer = nodes(1, 1), Balancer()
    for _ in range(100):
        balancer.choose(pool[:1])  # the only one: no tie
        balancer.choose([pool[0], nodes(1)[0]])
    taken = [balancer.choose(pool).name for _ in range(10)]
    assert taken.count("n1") in (5, 6)


def test_a_node_that_was_named_although_its_weight_is_0_can_be_taken() -> None:
    pool = nodes(0, 0)
    assert {Balancer().choose(pool), Balancer().choose(pool, "key")} <= set(pool)


def test_equal_keys_get_the_same_node_whatever_its_load_and_place() -> None:
    pool = nodes(1, 1, 1)
    first = Balancer().choose(pool, "customer 7")
    first.in_flight = 100
    assert Balancer().choose(pool[::-1], "customer 7") is first


def test_a_node_that_goes_takes_only_its_own_keys_with_it() -> None:
    pool, balancer = nodes(1, 1, 1), Balancer()
    before = {f"key {i}": balancer.choose(pool, f"key {i}") for i in range(500)}
    after = {key: balancer.choose(pool[1:], key) for key in before}
    assert all(after[key] is node for key, node in before.items() if node is not pool[0])


def test_keys_are_spread_by_weight() -> None:
    pool, balancer = nodes(2, 1, 1), Balancer()
    taken = Counter(balancer.choose(pool, f"key {i}").name for i in range(8000))
    assert abs(taken["n0"] - 4000) < 250
    assert abs(taken["n1"] - 2000) < 250
