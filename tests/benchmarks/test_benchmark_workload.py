"""The workload of the hints benchmark is what the targets are stated for."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from benchmarks._workload import CLUSTER_HINTS, ONE_NODE_HINTS, Workload
from heliosproxy.sql.comments import hints
from heliosproxy.sql.shape import shape


@pytest.mark.parametrize(("read_hints", "writes"), [(CLUSTER_HINTS, 0.2), (ONE_NODE_HINTS, 0.0)])
def test_it_has_a_thousand_shapes_with_hints_on_half_of_them(read_hints: tuple[str, ...], writes: float) -> None:
    each = Workload(read_hints, writes=writes).each()
    assert len({one.shape for one in each}) == len(each) == 1_000
    assert sum(one.hinted for one in each) == 500
    assert all(bool(hints(one.text)) == one.hinted for one in each)


def test_every_text_of_a_template_has_the_same_shape() -> None:
    random = Random(1)
    for template in Workload(CLUSTER_HINTS).templates:
        assert len({shape(template.draw(random)) for _ in range(5)}) == 1


def test_it_is_the_same_each_time() -> None:
    assert Workload(CLUSTER_HINTS).draw(100) == Workload(CLUSTER_HINTS).draw(100)


def test_the_most_frequent_shape_comes_twice_as_often_as_the_second_and_ten_times_as_often_as_the_tenth() -> None:
    workload = Workload(CLUSTER_HINTS)
    order = [one.shape for one in workload.each()]
    counts = Counter(one.shape for one in workload.draw(50_000))
    assert counts[order[0]] / counts[order[1]] == pytest.approx(2, rel=0.2)
    assert counts[order[0]] / counts[order[9]] == pytest.approx(10, rel=0.3)
