from __future__ import annotations

import pytest

from heliosproxy.cluster.lag import WriteHistory, settled

FRESH = 2.0


def history(*samples: tuple[float, int]) -> WriteHistory:
    made = WriteHistory()
    for now, lsn in samples:
        made.add(now, lsn)
    return made


def test_nothing_is_known_before_the_first_sample() -> None:
    assert WriteHistory().lag_ms(1.0, 100, FRESH) is None


def test_a_standby_that_has_replayed_every_sample_does_not_lag() -> None:
    assert history((1.0, 100)).lag_ms(1.5, 100, FRESH) == 0


def test_an_idle_primary_makes_nobody_lag() -> None:
    idle = history(*((float(second), 100) for second in range(1000)))
    assert idle.lag_ms(999.5, 100, FRESH) == 0


def test_lag_is_the_age_of_the_first_sample_not_replayed() -> None:
    busy = history((1.0, 100), (2.0, 200), (3.0, 300))
    assert busy.lag_ms(3.5, 100, FRESH) == pytest.approx(1500)
    assert busy.lag_ms(3.5, 299, FRESH) == pytest.approx(500)
    assert busy.lag_ms(3.5, 99, FRESH) == pytest.approx(2500)


def test_when_the_primary_is_silent_its_last_sample_ages() -> None:
    silent = history((1.0, 100))
    assert silent.lag_ms(3.0, 100, FRESH) == 0
    assert silent.lag_ms(4.0, 100, FRESH) == pytest.approx(3000)


def test_older_than_what_is_remembered_is_unknown() -> None:
    short = WriteHistory(limit=4)
    for second in range(10):
        short.add(float(second), 100 * second)
    assert short.lag_ms(10.0, 50, FRESH) is None
    assert short.lag_ms(9.5, 800, FRESH) == pytest.approx(500)


def test_another_primary_begins_anew() -> None:
    old = history((1.0, 100))
    old.clear()
    assert old.lag_ms(1.0, 100, FRESH) is None


def test_the_header_of_an_empty_page_counts_as_not_written() -> None:
    assert settled(0x5000028) == 0x5000000
    assert settled(0x5002018) == 0x5002000
    assert settled(0x5002060) == 0x5002060
