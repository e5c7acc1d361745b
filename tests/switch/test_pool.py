"""A pool by itself: how many links there are, how long each lives, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise

import pytest

from heliosproxy.config.model import PoolFor
from heliosproxy.switch.opening import Unreachable
from heliosproxy.wire.errors import PeerError, parse_fields
from tests.switch.pools_support import Make, Theatre, theatre, waits
from tests.switch.stage import IDLE, ONE_ROW, server_error, split, sqlstate

FULL = PeerError("sorry, too many clients already", "53300")
WRONG_PASSWORD = PeerError('password authentication failed for user "alice"', "28P01")


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda **keys: stack.enter_context(theatre(**keys))


def fields(heard: bytes) -> dict[str, str]:
    """The fields of the first message, an ErrorResponse."""
    return parse_fields(split(heard)[0][5:])


def settle(play: Theatre, clients: int, *, answered: bool = True) -> None:
    """So many clients at once, so that so many links are open."""
    speakers = [play.asking() for _ in range(clients)]
    for speaker in speakers if answered else ():
        play.answer(speaker)


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_no_more_links_than_size_are_opened(make: Make) -> None:
    play = make(size=2)
    clients = [play.asking() for _ in range(5)]
    assert len(play.servers) == 2
    assert [waits(client) for client in clients] == [False, False, True, True, True]


def test_the_link_released_last_is_taken_first(make: Make) -> None:
    play = make(size=3)
    one, two, three = (play.asking() for _ in range(3))
    for client in (one, three, two):
        play.answer(client)
    last = play.servers[1]
    assert play.serving(play.asking()) is last


def test_min_size_is_opened_ahead_once_the_pool_exists(make: Make) -> None:
    play = make(size=5, min_size=3)
    play.answer(play.asking())
    assert len(play.servers) == 1
    play.passes(0.1)
    assert len(play.servers) == 3
    play.passes(0.1)
    assert play.statistics().idle == 3


def test_min_size_outlives_the_idle_timeout_while_the_pool_is_used(make: Make) -> None:
    play = make(size=5, min_size=2, idle_timeout=10.0, max_lifetime=100.0)
    settle(play, 4)
    for _ in range(5):
        play.passes(9)
        play.answer(play.asking())
    assert len(play.alive) == 2
    assert play.statistics().closed == {"idle": 2}


def test_min_size_is_let_go_once_the_pool_has_not_been_used_for_a_lifetime(make: Make) -> None:
    play = make(size=5, min_size=2, idle_timeout=10.0, max_lifetime=100.0)
    settle(play, 2)
    for _ in range(9):
        play.passes(10)
        assert len(play.alive) == 2
    for _ in range(3):
        play.passes(10)
    assert play.alive == []
    play.asking()
    play.passes(0.1)
    assert len(play.alive) == 2


def test_the_reserve_is_only_for_those_who_have_waited(make: Make) -> None:
    play = make(size=1, reserve=2, reserve_after=1.0)
    clients = [play.asking() for _ in range(2)]
    play.passes(0.9)
    clients.append(play.asking())
    clients.append(play.asking())
    play.passes(0.2)
    assert [waits(client) for client in clients] == [False, False, True, True]
    play.passes(1)
    assert [waits(client) for client in clients] == [False, False, False, True]
    play.passes(5)
    assert len(play.servers) == 3


def test_the_reserve_is_closed_once_it_is_idle(make: Make) -> None:
    play = make(size=1, reserve=2, reserve_after=1.0)
    clients = [play.asking() for _ in range(3)]
    play.passes(1.1)
    for client in clients:
        play.answer(client)
    play.passes(0.1)
    assert len(play.alive) == 1


# --- lifetimes -------------------------------------------------------------------------------------------------------


def test_an_unused_link_is_closed_after_the_idle_timeout(make: Make) -> None:
    play = make(idle_timeout=10.0)
    settle(play, 2)
    play.passes(5)
    play.answer(play.asking())
    play.passes(5.5)
    assert [server.closed for server in play.servers] == [True, False]
    assert play.statistics().closed == {"idle": 1}


def test_a_link_past_its_lifetime_is_closed_when_it_returns(make: Make) -> None:
    play = make(max_lifetime=100.0)
    client = play.asking()
    play.passes(101)
    assert len(play.alive) == 1
    play.answer(client)
    assert play.alive == []
    assert client.hears() == ONE_ROW + IDLE
    assert play.statistics().closed == {"lifetime": 1}


def test_who_waits_for_a_link_that_is_too_old_gets_a_new_one(make: Make) -> None:
    play = make(size=1, max_lifetime=20.0)
    first, second = play.asking(), play.asking()
    play.passes(21)
    play.answer(first)
    assert play.serving(second) is play.servers[1]


def test_an_idle_link_is_closed_for_its_age_too(make: Make) -> None:
    play = make(max_lifetime=100.0, idle_timeout=1000.0)
    settle(play, 1)
    play.passes(89)
    assert len(play.alive) == 1
    play.passes(12)
    assert play.alive == []


def test_lifetimes_are_spread(make: Make) -> None:
    play = make(size=20, max_lifetime=100.0, idle_timeout=1000.0)
    settle(play, 20)
    play.passes(90)
    ages = set()
    for tenth in range(101):
        play.passes(0.1)
        ages |= {tenth} if play.statistics().closed.get("lifetime", 0) > len(ages) else set()
    assert play.alive == []
    assert len(ages) > 3


# --- the queue -------------------------------------------------------------------------------------------------------


def test_who_waits_is_served_in_order(make: Make) -> None:
    play = make(size=1)
    clients = [play.asking() for _ in range(4)]
    for client in clients:
        play.answer(client)
        play.now += 0.01
    assert [client.hears() for client in clients] == [ONE_ROW + IDLE] * 4


def test_a_higher_priority_goes_first_and_first_come_first_served_within_one(make: Make) -> None:
    play = make(size=1)
    holder = play.asking()
    names = ("low", "normal", "critical", "high", "low", "critical", "normal")
    clients = [(name, at, play.asking(priority=name)) for at, name in enumerate(names)]
    order = []
    play.answer(holder)
    while len(order) < len(names):
        name, at, client = next(each for each in clients if each[2].session.link is not None)
        order.append((name, at))
        play.answer(client)
    assert order == [
        ("critical", 2), ("critical", 5), ("high", 3), ("normal", 1), ("normal", 6), ("low", 0), ("low", 4),
    ]  # fmt: skip


def test_low_does_not_starve(make: Make) -> None:
    play = make(size=1, priority_ageing=5.0)
    holder = play.asking()
    low = play.asking(priority="low")
    served = 0
    while waits(low):
        following = play.asking(priority="critical")
        play.answer(holder)
        play.now += 1.0
        holder = following if following.session.link is not None else low
        served += 1
    assert served == 16  # three levels of 5 s, and the one that held the link


def test_who_leaves_the_queue_is_not_given_a_link(make: Make) -> None:
    play = make(size=1)
    holder, gone, cancelled, last = (play.asking() for _ in range(4))
    gone.leaves()
    play.switch.cancel(cancelled.session.key, lambda: None)
    assert play.statistics().waiting == 1
    play.answer(holder)
    play.answer(last)
    assert last.hears() == ONE_ROW + IDLE
    assert sqlstate(cancelled.hears()) == "57014"


def test_everyone_past_the_time_limit_is_told_whatever_their_place(make: Make) -> None:
    play = make(size=1, wait_timeout=10.0, priority_ageing=20.0)
    play.asking()
    late = [play.asking(priority=name) for name in ("low", "critical", "normal")]
    play.passes(5)
    later = [play.asking(priority=name) for name in ("high", "low")]
    play.passes(5.5)
    assert [sqlstate(client.hears()) for client in late] == ["53300"] * 3
    assert [waits(client) for client in later] == [True, True]
    play.passes(5)
    assert [sqlstate(client.hears()) for client in later] == ["53300"] * 2
    assert play.statistics().timed_out == 5


def test_53300_says_which_pool_how_long_who_waits_ahead_and_what_to_raise(make: Make) -> None:
    play = make(size=2, wait_timeout=10.0)
    settle(play, 2, answered=False)
    client = play.asking(priority="low")
    play.asking(priority="high")
    play.passes(10.1)
    error = fields(client.hears())
    expected = "no link for alice@db on primary became free within 10 s: 2 of 2 are in use, 1 wait ahead"
    assert (error["C"], error["M"]) == ("53300", expected)
    assert error["H"] == "Raise size in [pool], or keep transactions shorter."


def test_53300_names_the_section_that_holds_for_the_pool(make: Make) -> None:
    play = make(pools=(PoolFor(user="alice", size=1, wait_timeout=5.0),))
    play.asking()
    client = play.asking()
    play.passes(5.1)
    assert fields(client.hears())["H"] == 'Raise size in [[pools]] for user "alice", or keep transactions shorter.'


def test_statistics_tell_who_waits_and_for_how_long(make: Make) -> None:
    play = make(size=1, reserve=4, min_size=1)
    play.answer(play.asking())
    play.asking()
    play.asking(priority="low")
    play.now += 2.5
    play.asking(priority="critical")
    found = play.statistics()
    assert (found.waiting, found.longest_wait, found.waited, found.taken) == (2, 2.5, 3, 1)
    assert (found.size, found.reserve, found.min_size, found.opened, found.active) == (1, 4, 1, 1, 1)


# --- per pool --------------------------------------------------------------------------------------------------------


def test_pools_are_as_the_first_entry_says_that_matches(make: Make) -> None:
    play = make(
        size=4,
        pools=(
            PoolFor(database="db", user="bob", size=1),
            PoolFor(database="db", size=2),
            PoolFor(user="bob", size=3, mode="session"),
        ),
    )
    policies = play.switch.policies
    named = (("db", "bob"), ("db", "x"), ("y", "bob"), ("y", "x"))
    assert [policies.of(*names).size for names in named] == [1, 2, 3, 4]
    assert policies.of("y", "bob").mode == "session"
    for _ in range(5):
        play.asking("bob"), play.asking("alice"), play.asking("carol", "other")
    assert [play.statistics(*names).active for names in (("bob",), ("alice",), ("carol", "other"))] == [1, 2, 4]


# --- links that cannot be opened -------------------------------------------------------------------------------------


def test_a_node_without_room_gets_one_attempt_at_a_time_after_growing_pauses(make: Make) -> None:
    play = make(size=10, wait_timeout=1000.0)
    play.open_at_once = False
    clients = [play.asking() for _ in range(10)]
    attempts = []
    while play.now < 1100:
        while play.opening:
            attempts.append(play.now)
            play.switch.links.not_opened(play.opening.pop(), FULL, unreachable=False)
        play.passes(0.1)
    assert attempts[:10] == [1000.0] * 10
    pauses = [after - before for before, after in pairwise(attempts[9:])]
    assert 0.1 <= pauses[0] <= 0.31
    assert all(after + 0.11 > before for before, after in pairwise(pauses) if after < 10)  # ticks are 0.1 apart
    assert 10 < max(pauses) <= 15.2
    assert all(waits(client) for client in clients)


def test_after_the_first_success_all_that_are_wanted_are_opened(make: Make) -> None:
    play = make(size=5)
    play.open_at_once = False
    clients = [play.asking() for _ in range(5)]
    while play.opening:
        play.switch.links.not_opened(play.opening.pop(), FULL, unreachable=False)
    play.open_at_once = True
    play.passes(1)
    assert not any(waits(client) for client in clients)
    assert play.statistics().problem == ""


def test_who_waits_for_a_node_without_room_is_served_by_the_links_that_there_are(make: Make) -> None:
    play = make(size=3)
    holder = play.asking()
    play.open_at_once = False
    client = play.asking()
    play.switch.links.not_opened(play.opening.pop(), FULL, unreachable=False)
    assert waits(client)
    play.answer(holder)
    play.answer(client)
    assert client.hears() == ONE_ROW + IDLE


def test_53300_tells_why_no_link_could_be_opened(make: Make) -> None:
    play = make(size=3, wait_timeout=5.0)
    play.open_at_once = False
    client = play.asking()
    play.switch.links.not_opened(play.opening.pop(), FULL, unreachable=False)
    assert client.hears() == b""
    assert play.statistics().problem == "sorry, too many clients already"
    play.passes(6)
    error = fields(client.hears())
    assert error["D"] == "No further link could be opened: sorry, too many clients already (53300)"


def test_a_login_refused_for_good_is_told_at_once(make: Make) -> None:
    play = make(size=3)
    play.open_at_once = False
    first, second = play.asking(), play.asking()
    while play.opening:
        play.switch.links.not_opened(play.opening.pop(), WRONG_PASSWORD, unreachable=False)
    assert [sqlstate(client.hears()) for client in (first, second)] == ["28P01", "28P01"]


def test_while_a_refusal_is_fresh_the_next_client_is_told_without_another_attempt(make: Make) -> None:
    play = make()
    play.open_at_once = False
    play.asking()
    play.switch.links.not_opened(play.opening.pop(), WRONG_PASSWORD, unreachable=False)
    client = play.asking()
    assert play.opening == []
    play.passes(0.05)
    assert sqlstate(client.hears()) == "28P01"
    play.passes(0.5)
    client = play.asking()
    assert len(play.opening) == 1


def test_a_thousand_statements_in_a_row_are_refused_one_after_the_other(make: Make) -> None:
    play = make()
    play.open_at_once = False
    client = play.user()
    for _ in range(1000):
        client.asks("select 1")
    play.switch.links.not_opened(play.opening.pop(), WRONG_PASSWORD, unreachable=False)
    assert client.hears().count(b"C28P01\0") == 1000


def test_while_there_are_links_a_refusal_is_nobodys_error(make: Make) -> None:
    play = make()
    holder = play.asking()
    play.open_at_once = False
    client = play.asking()
    play.switch.links.not_opened(play.opening.pop(), WRONG_PASSWORD, unreachable=False)
    play.answer(holder)
    play.answer(client)
    assert client.hears() == ONE_ROW + IDLE


def test_a_node_that_comes_back_is_tried_at_once(make: Make) -> None:
    play = make()
    play.open_at_once = False
    play.asking()
    for _ in range(50):
        while play.opening:
            play.switch.links.not_opened(play.opening.pop(), FULL, unreachable=False)
        play.passes(0.3)
    assert play.opening == []
    play.node.healthy = False
    play.passes(0.1)
    play.node.healthy = True
    play.passes(0.1)
    assert len(play.opening) == 1


def test_who_waits_for_a_node_that_cannot_be_reached_looks_elsewhere(make: Make) -> None:
    play = make()
    play.open_at_once = False
    client = play.asking()
    play.switch.links.not_opened(play.opening.pop(), Unreachable("no answer"), unreachable=True)
    assert not waits(client)
    play.open_at_once = True
    play.passes(0.3)
    play.answer(client)
    assert client.hears() == ONE_ROW + IDLE


def test_the_reasons_why_links_ended_are_counted(make: Make) -> None:
    play = make()
    settle(play, 4)
    play.servers[0].dies()
    client = play.user()
    client.asks("call work()")  # leaves what nobody knows, so that its link is reset
    server = play.serving(client)
    server.answers(ONE_ROW + IDLE)
    server.answers(ONE_ROW + IDLE + server_error() + IDLE)
    play.asking().leaves()  # in the middle of its statement
    assert play.statistics().closed == {"lost": 1, "reset failed": 1, "dropped": 1}
    assert play.statistics().opened == 4
