"""The queue against a list that is sorted each time, and the pauses between attempts."""

from __future__ import annotations

from itertools import pairwise

from helios_sdk.contract import Client, PriorityLevel
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.switch.retry import FIRST_PAUSE, LONGEST_PAUSE, Retry, for_good
from heliosproxy.switch.session import Session
from heliosproxy.switch.settings import from_parameters
from heliosproxy.switch.waiting import LEVELS, MOST_GONE, Queue
from heliosproxy.wire.errors import PeerError

AGEING = 5.0
FULL = PeerError("sorry, too many clients already", "53300")


def session(number: int) -> Session:
    return Session(number, (number, b"key!"), Client("u", "d"), from_parameters({}))


@given(
    st.lists(
        st.tuples(st.just("push"), st.floats(0, 100), st.sampled_from(list(LEVELS)))
        | st.tuples(st.sampled_from(("pop", "leave", "late")), st.floats(0, 100), st.none())
    )
)
def test_the_queue_is_in_order_of_arrival_less_priority(steps: list[tuple[str, float, PriorityLevel | None]]) -> None:
    queue = Queue(AGEING)
    model: list[tuple[float, int, float, Session]] = []
    for number, (what, moment, level) in enumerate(steps):
        model.sort(key=lambda place: place[:2])
        if what == "push":
            new = session(number)
            queue.push(new, moment, level)
            model.append((moment - LEVELS[level] * AGEING, number, moment, new))
        elif what == "pop":
            assert queue.pop() is (model.pop(0)[3] if model else None)
        elif what == "leave" and model:
            queue.remove(model.pop(int(moment) % len(model))[3])
        elif what == "late":
            late = [place[3] for place in model if place[2] < moment]
            assert [waiter.session for waiter in queue.since_before(moment)] == late
    model.sort(key=lambda place: place[:2])
    found = [queue.after(served) for served in range(len(model) + 1)]
    assert [waiter and waiter.session for waiter in found] == [*(place[3] for place in model), None]
    assert queue.longest(100.0) == max((100.0 - place[2] for place in model), default=0.0)


def test_those_who_have_left_do_not_fill_the_queue() -> None:
    queue = Queue(AGEING)
    stays = session(0)
    queue.push(stays, 1.0, "low")
    for number in range(1, 10_000):
        leaves = session(number)
        queue.push(leaves, 0.0, "critical")
        queue.remove(leaves)
        assert len(queue._heap) <= MOST_GONE + 3
    assert queue.pop() is stays


def test_pauses_double_from_the_shortest_to_the_longest_and_begin_anew_after_success() -> None:
    retry, now, pauses = Retry(), 0.0, []
    for _ in range(20):
        retry.failed(FULL, now, 0.0)
        begun = now
        while retry.resting:
            now += 0.01
            retry.look(now)
        pauses.append(now - begun)
    assert FIRST_PAUSE <= pauses[0] < FIRST_PAUSE + 0.02
    assert all(abs(after - min(2 * before, LONGEST_PAUSE)) < 0.04 for before, after in pairwise(pauses))
    assert LONGEST_PAUSE <= pauses[-1] < LONGEST_PAUSE + 0.02
    retry.succeeded()
    assert (retry.failures, retry.error) == (0, None)


def test_chance_makes_a_pause_at_most_twice_as_long() -> None:
    retry = Retry()
    retry.failed(FULL, 0.0, 1.0)
    retry.look(2 * FIRST_PAUSE - 0.001)
    assert retry.resting
    retry.look(2 * FIRST_PAUSE)
    assert not retry.resting


def test_attempts_that_fail_together_count_as_one() -> None:
    retry = Retry()
    for _ in range(50):
        retry.failed(FULL, 0.0, 0.0)
    assert retry.failures == 1


def test_want_of_room_passes_and_a_refusal_does_not() -> None:
    passing = ("53300", "53400", "53200", "57P03", "08006")
    lasting = ("28P01", "28000", "3D000", "42501", "55000")
    assert {code: for_good(PeerError("", code)) for code in passing + lasting} == {
        **dict.fromkeys(passing, False),
        **dict.fromkeys(lasting, True),
    }
