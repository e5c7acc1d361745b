"""Pauses after faults, and the end of a plugin that faults too often."""

from heliosproxy.sandbox.backoff import FIRST_PAUSE, LONGEST_PAUSE, WINDOW, Backoff


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_there_is_no_pause_before_a_fault() -> None:
    assert not Backoff(5, Clock()).pausing


def test_pauses_double_up_to_the_longest_and_start_over_after_a_success() -> None:
    clock = Clock()
    backoff = Backoff(1_000, clock)
    pause = FIRST_PAUSE
    for _ in range(40):
        backoff.fault()
        clock.now += pause * 0.99
        assert backoff.pausing
        clock.now += pause * 0.02
        assert not backoff.pausing
        pause = min(2 * pause, LONGEST_PAUSE)
    backoff.success()
    backoff.fault()
    clock.now += FIRST_PAUSE * 1.01
    assert not backoff.pausing


def test_more_faults_than_allowed_within_the_window_are_too_many() -> None:
    clock = Clock()
    backoff = Backoff(3, clock)
    verdicts = []
    for _ in range(4):
        verdicts.append(backoff.fault())
        clock.now += WINDOW / 4
    assert verdicts == [False, False, False, True]


def test_faults_that_left_the_window_do_not_count() -> None:
    clock = Clock()
    backoff = Backoff(3, clock)
    for _ in range(20):
        assert not backoff.fault()
        clock.now += WINDOW / 3 + 1


def test_no_fault_allowed_means_the_first_is_one_too_many() -> None:
    assert Backoff(0, Clock()).fault()
