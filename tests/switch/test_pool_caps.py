"""Caps across pools: never more links than they allow, room for whoever comes first, nobody starved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from heliosproxy.config.model import PoolFor
from heliosproxy.wire.errors import PeerError, parse_fields
from tests.switch.pools_support import Make, Theatre, theatre, waits
from tests.switch.stage import IDLE, ONE_ROW, Speaker, split


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda **keys: stack.enter_context(theatre(**keys))


def test_a_node_gets_no_more_links_than_its_cap(make: Make) -> None:
    play = make(max_connections=3)
    clients = [play.asking(user, database) for user in ("alice", "bob") for database in ("db", "other")]
    assert [waits(client) for client in clients] == [False, False, False, True]
    play.passes(5)
    assert len(play.alive) == 3


def test_a_database_gets_no_more_links_than_its_cap_and_others_are_free(make: Make) -> None:
    play = make(max_database_connections=2)
    clients = [play.asking(user) for user in ("alice", "bob", "carol")]
    others = [play.asking(user, "other") for user in ("alice", "bob")]
    assert [waits(client) for client in clients + others] == [False, False, True, False, False]


def test_an_entry_for_a_database_has_its_own_cap(make: Make) -> None:
    play = make(max_database_connections=2, pools=(PoolFor(database="small", max_database_connections=1),))
    clients = [play.asking(user, database) for database in ("db", "small") for user in ("alice", "bob")]
    assert [waits(client) for client in clients] == [False, False, False, True]


def test_the_longest_idle_link_of_others_makes_room(make: Make) -> None:
    play = make(max_connections=3)
    for user in ("alice", "bob", "carol"):
        play.answer(play.asking(user))
        play.now += 1
    play.answer(play.asking("alice"))
    dave = play.asking("dave")
    assert not waits(dave)
    assert [server.closed for server in play.servers] == [False, True, False, False]
    assert play.statistics("bob").closed == {"evicted": 1}


def test_an_idle_link_of_another_database_makes_no_room_under_the_cap_of_a_database(make: Make) -> None:
    play = make(max_database_connections=1)
    play.answer(play.asking("alice", "other"))
    play.asking("alice")
    assert waits(play.asking("bob"))
    assert not play.servers[0].closed


def test_under_both_caps_one_link_of_the_database_makes_room_for_both(make: Make) -> None:
    play = make(max_connections=2, max_database_connections=1)
    play.answer(play.asking("alice", "other"))
    play.now += 1
    play.answer(play.asking("alice"))
    assert not waits(play.asking("bob"))
    assert [server.closed for server in play.servers] == [False, True, False]


def test_a_link_that_comes_back_is_closed_for_a_pool_that_has_none(make: Make) -> None:
    play = make(max_connections=2)
    holder, _ = play.asking("alice"), play.asking("alice")
    bob = play.asking("bob")
    play.now += 0.1
    late = play.asking("alice")
    play.answer(holder)
    assert not waits(bob)
    assert waits(late)
    assert holder.hears() == ONE_ROW + IDLE


def test_room_goes_to_whoever_comes_first_by_priority(make: Make) -> None:
    play = make(max_connections=1)
    holder = play.asking("alice")
    clients = {"bob": play.asking("bob", priority="low"), "carol": play.asking("carol")}
    play.now += 1
    clients["dave"] = play.asking("dave", priority="high")
    order = []
    play.answer(holder)
    while clients:
        name = next(name for name, client in clients.items() if not waits(client))
        order.append(name)
        play.answer(clients.pop(name))
    assert order == ["dave", "carol", "bob"]


def test_pools_that_have_links_keep_them_rather_than_connect_anew_for_each_statement(make: Make) -> None:
    play = make(max_connections=2)
    busy = [play.asking("alice"), play.asking("bob")]
    for _ in range(100):
        following = [play.asking("alice"), play.asking("bob")]
        for client in busy:
            play.answer(client)
        busy = following
        play.now += 0.001
    assert len(play.servers) == 2


def test_a_busy_pool_does_not_starve_one_whose_only_link_is_in_a_long_transaction(make: Make) -> None:
    play = make(max_connections=2, wait_timeout=1000.0)
    play.asking("bob")  # and never answered
    bob = play.asking("bob")
    busy = play.asking("alice")
    took = 0
    while waits(bob):
        following = play.asking("alice")
        play.answer(busy)
        busy = following if not waits(following) else busy
        play.passes(0.1)
        took += 1
    assert took <= 15


def test_a_link_that_is_opened_and_no_longer_wanted_makes_room(make: Make) -> None:
    play = make(max_connections=1)
    play.open_at_once = False
    alice, bob = play.asking("alice"), play.asking("bob")
    alice.leaves()
    play.open(play.opening.pop(0))
    (pool,) = play.opening
    assert pool is play.pool("bob")
    play.open(pool)
    play.answer(bob)
    assert bob.hears() == ONE_ROW + IDLE


def test_a_link_that_dies_makes_room(make: Make) -> None:
    play = make(max_connections=1)
    play.asking("alice")
    bob = play.asking("bob")
    play.servers[0].dies()
    assert not waits(bob)


def test_an_attempt_that_fails_makes_room(make: Make) -> None:
    play = make(max_connections=1)
    play.open_at_once = False
    play.asking("alice")
    play.asking("bob")
    play.switch.links.not_opened(play.opening.pop(), PeerError("no such role", "28000"), unreachable=False)
    assert play.opening == [play.pool("bob")]


def test_links_opened_ahead_take_no_room_from_those_who_wait(make: Make) -> None:
    play = make(max_connections=2, min_size=2)
    alice, bob = play.asking("alice"), play.asking("bob")
    for _ in range(3):
        play.passes(0.1)
    assert len(play.servers) == 2
    play.answer(alice)
    play.answer(bob)
    play.asking("carol")
    for _ in range(3):
        play.passes(0.1)
    assert len(play.alive) == 2
    assert sum(len(pool.links) for pool in play.switch.links.pools) == 2


def test_53300_names_the_cap(make: Make) -> None:
    assert hint(make(max_connections=1, wait_timeout=5.0)) == (
        "Raise max_connections of node primary, or keep transactions shorter."
    )
    assert hint(make(max_database_connections=1, wait_timeout=5.0)) == (
        "Raise max_database_connections, or keep transactions shorter."
    )


def hint(play: Theatre) -> str:
    """What is said to somebody who waits for longer than 5 s because of a cap."""
    play.asking("alice")
    bob: Speaker = play.asking("bob")
    play.passes(5.1)
    return parse_fields(split(bob.hears())[0][5:])["H"]


def test_a_link_serves_the_client_that_it_was_opened_for_before_it_makes_room(make: Make) -> None:
    play = make(max_connections=1)
    play.open_at_once = False
    bob, carol = play.asking("bob"), play.asking("carol", priority="critical")
    play.open(play.opening.pop())
    assert not waits(bob)
    play.answer(bob)
    assert play.opening == [play.pool("carol")]
    assert waits(carol)


def test_users_with_one_role_on_the_nodes_share_a_pool(make: Make) -> None:
    play = make(size=1, pools=(PoolFor(database="db", size=1, server_user="app"),))
    play.answer(play.asking("alice"))
    play.answer(play.asking("bob"))
    assert play.pool("alice") is play.pool("bob")
    assert (play.pool("bob").user, play.pool("bob").asked_by, len(play.alive)) == ("app", "bob", 1)
    assert play.pool("alice", "other") is not play.pool("bob", "other")


def test_users_with_one_role_and_keys_of_their_own_do_not_share_a_pool(make: Make) -> None:
    entries = tuple(PoolFor(user=name, server_user="app", size=size) for name, size in (("alice", 1), ("bob", 2)))
    play = make(pools=entries)
    assert play.pool("alice") is not play.pool("bob")
    assert {play.pool(name).user for name in ("alice", "bob")} == {"app"}
