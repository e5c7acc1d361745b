"""One PostgreSQL with TLS for all tests in this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.secure.server import SecureServer, programs


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServer]:
    """The shared server. A test that changes it changes it back; roles that it makes have names of their own."""
    found = programs()
    if found is None:
        pytest.skip("there is no PostgreSQL with TLS in /usr/lib/postgresql: apt-get install postgresql")
    with SecureServer(found, tmp_path_factory.mktemp("certificates")) as running:
        yield running
