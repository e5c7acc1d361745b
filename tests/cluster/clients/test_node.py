"""node-postgres and postgres.js: their workloads are in node/, each a program that asserts what it gets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heliosproxy.demo.processes import environment
from tests.cluster.clients.crowd import CLIENTS, changed_hands
from tests.cluster.clients.support import NUMBERS
from tests.cluster.proxies import RunningProxy

HERE = Path(__file__).parent / "node"
PACKAGES = Path(sys.prefix) / "node" / "node_modules"
"""Beside Python's packages; .ci/run puts them there."""


@pytest.fixture(scope="module")
def schema() -> str:
    shops = "".join(
        f"create schema shop_{n}; create table shop_{n}.here as select 'shop {n}' as name;" for n in range(CLIENTS)
    )
    return f"""
        {NUMBERS}
        {shops}
        create table sale (id serial primary key, shop int, item text, price float8, tags text[], at timestamptz);
        create table good (id serial primary key, warehouse int, name text, amount int, about jsonb);
    """


@pytest.fixture(scope="module")
def node() -> str:
    """The program `node`, with the packages that the workloads need."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("not run: there is no node on this machine")
    if not PACKAGES.is_dir():
        pytest.skip(f"not run: {PACKAGES} is not there (CONTRIBUTING.md says how it comes there)")
    return found


@pytest.mark.parametrize("script", ["node_postgres", "postgres_js"])
def test_workload(proxy: RunningProxy, node: str, script: str) -> None:
    # Without --no-deprecation node speaks of what pg itself uses when it cancels.
    done = subprocess.run(
        [node, "--no-deprecation", str(HERE / f"{script}.js")], capture_output=True, text=True, timeout=90, check=False,
        env=environment(
            NODE_PATH=str(PACKAGES), PGHOST=proxy.host, PGPORT=str(proxy.port), PGUSER=proxy.cluster.user,
            PGPASSWORD=proxy.cluster.password, PGDATABASE=proxy.database,
        ),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    changed_hands([set(links) for links in json.loads(done.stdout)["links"]])
