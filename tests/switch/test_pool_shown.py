"""What the admin API and `helios status` show of a pool is what its statistics hold."""

from __future__ import annotations

from dataclasses import fields

from heliosproxy.control.shapes import PoolShown
from heliosproxy.switch.pool import PoolStatistics


def test_the_admin_api_shows_every_figure_of_a_pool() -> None:
    assert list(PoolShown.__annotations__) == [field.name for field in fields(PoolStatistics)]
