"""The stage, once for all conversations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.differential.stage import Stage, opened


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One server, and a proxy for each mode in front of it."""
    with opened(tmp_path_factory.mktemp("stage")) as stage:
        yield stage
