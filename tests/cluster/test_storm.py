"""A hundred clients over eight links, each doing whatever a client can do: everyone sees its own state and its own
answers, and nothing of anybody else's.

HELIOS_STORM_SECONDS: how long, 20 if not given (a minute before a release). HELIOS_STORM_SEED: what a run that failed
has printed, to have the same clients do the same things again.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from time import monotonic

import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster import raw
from tests.cluster.proxies import RunningProxy, running, wait_for
from tests.cluster.storm_deeds import Anybody
from tests.cluster.stormers import ROLES, SCHEMA, Surroundings

CLIENTS, LINKS, PINNED = 100, 8, 4
SECONDS = float(os.environ.get("HELIOS_STORM_SECONDS", "20"))
SEED = int(os.environ.get("HELIOS_STORM_SEED", random.SystemRandom().randrange(1_000_000)))
PATIENCE = 60.0
"""Seconds beyond the storm's own within which everybody must have finished."""
SETTLED = 0.4
"""Share of the storm after which memory should no longer grow."""
OURS = "from pg_stat_activity where usename = 'helios' and datname = '{}'"


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    cluster.psql(f"set role {cluster.user}; {SCHEMA}", database=database)
    for number in range(ROLES):
        role = f"storm_role_{number}"
        cluster.psql(f"create role {role}; grant {role} to {cluster.user}")
    sections = {
        "pool": {"size": str(LINKS), "wait_timeout": '"30s"', "prepared_statements": "10",
                 "tracked_settings": '["work_mem", "storm.followed"]'},
        "plugins": {"flows": "500", "memory": '"20MB"'},  # what is remembered, and a guest's memory, is soon full
    }
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as started:
        yield started
    for number in range(ROLES):
        cluster.psql(f"drop owned by storm_role_{number}", database=database)
        cluster.psql(f"drop role storm_role_{number}")


@pytest.fixture
def watcher(proxy: RunningProxy) -> Iterator[raw.Client]:
    """A superuser's connection to the primary itself."""
    parameters = {"user": proxy.cluster.superuser, "database": proxy.database}
    with raw.Client(proxy.cluster.node("primary").address, parameters, proxy.cluster.password) as client:
        yield client


def test_L1_everyone_sees_its_own_and_nobody_elses(proxy: RunningProxy, watcher: raw.Client) -> None:
    print(f"HELIOS_STORM_SEED={SEED} HELIOS_STORM_SECONDS={SECONDS:g}")
    around = Surroundings(
        (proxy.host, proxy.port), proxy.cluster.user, proxy.cluster.password, proxy.database, SEED,
        threading.Semaphore(PINNED), threading.Event(),
    )  # fmt: skip
    with proxy.deadline(SECONDS + 2 * PATIENCE), ThreadPoolExecutor(CLIENTS) as threads:
        clients = [Anybody(number, around) for number in range(CLIENTS)]
        running_clients = [threads.submit(client.live) for client in clients]
        most, memory = 0, 0
        began, end = monotonic(), monotonic() + SECONDS
        while monotonic() < end and not wait(running_clients, 0.05, FIRST_EXCEPTION).done:
            most = max(most, int(watcher.value(f"select count(*) {OURS.format(proxy.database)}") or 0))
            if not memory and monotonic() - began > SETTLED * SECONDS:
                memory = proxy.memory()
        around.over.set()
        for client in running_clients:
            client.result(PATIENCE)
        grown = proxy.memory() - memory
    print(sum(around.done.values()), most, grown, around.done)
    assert len(around.done) == len({deed.__name__ for deed in clients[0].all_deeds()}), "everything was done"
    assert 2 <= most <= LINKS
    assert grown < 8 << 20
    assert_as_before(proxy, watcher, around)
    assert proxy.faults() == []


def assert_as_before(proxy: RunningProxy, watcher: raw.Client, around: Surroundings) -> None:
    """Nothing is left on the servers, and whoever gets any of the links finds it as new."""
    busy = f"select count(*) {OURS.format(proxy.database)} and state <> 'idle'"
    wait_for(lambda: watcher.value(busy) == "0", "every link to be idle")
    assert int(watcher.value(f"select count(*) {OURS.format(proxy.database)}") or 0) <= LINKS
    assert watcher.value("select count(*) from pg_locks where locktype = 'advisory'") == "0"
    wait_for(
        lambda: watcher.value("select count(*) from pg_class where relpersistence = 't'") == "0",
        "temporary tables to be gone",
    )
    assert watcher.value("select count(*) from rows where value = 'never'") == "0"
    newcomers = [Anybody(CLIENTS + number, around) for number in range(LINKS)]
    pids = {newcomer.client.query("begin; select pg_backend_pid()").rows[0] for newcomer in newcomers}
    assert len(pids) == LINKS, "each has a link of its own"
    for newcomer in newcomers:
        found = newcomer.client.query(newcomer.everything("as new"))
        assert found.rows == [newcomer.fresh.row("as new")]
        newcomer.fails("select lastval()", "55000")
        newcomer.client.close()
