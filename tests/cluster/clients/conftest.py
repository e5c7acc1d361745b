"""A proxy in transaction mode with few links, for each module of clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster.clients.crowd import TRANSACTION_MODE
from tests.cluster.proxies import Connect, RunningProxy, running


@pytest.fixture(scope="module")
def schema() -> str:
    """The module's tables, as SQL that the application's own role runs; a module overrides this fixture."""
    return ""


@pytest.fixture(scope="module")
def proxy(
    cluster: LocalCluster, database: str, schema: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningProxy]:
    """The module's proxy. Whatever its clients do, nothing of it may look like a bug of ours in its log."""
    cluster.psql(f"set role {cluster.user}; {schema}", database=database)
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), TRANSACTION_MODE) as started:
        started.replayed()
        yield started
        assert started.faults() == []


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Connect]:
    """Opens psycopg connections in autocommit through the proxy; see `RunningProxy.connections`."""
    with proxy.connections() as connect:
        yield connect
