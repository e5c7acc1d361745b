"""Thousands of connections that mean harm, beside two that do not.

HELIOS_HOSTILE_SEED: of the cases, said at each failure. HELIOS_HOSTILE_CASES: how many of them, in the order that the
seed gives; there are some 6,500.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic

import pytest
import trio

from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.processes import environment
from tests.certificates import Issuer
from tests.cluster.differential.talking import Place
from tests.cluster.hostile.attack import Report, attack, cancels, connections, floods, slow
from tests.cluster.hostile.cases import every
from tests.cluster.proxies import DEADLINE, RunningProxy, helios, running, wait_for

MEGABYTE = 1 << 20
LOGIN_TIMEOUT = 5.0
GROWTH = 20 * MEGABYTE
"""What memory may have grown by afterwards."""
WAIT = 1.0
"""Seconds that the steady client may wait."""
LOGINS = 300
"""Under way at most: more than the cases have, fewer than the slow ones are."""
SLOW, CANCELS, CONNECTS, WARM = 400, 600, 300, 400
SEED = int(os.environ.get("HELIOS_HOSTILE_SEED") or (4 if "CI" in os.environ else monotonic() * 1000))

CASES = int(os.environ.get("HELIOS_HOSTILE_CASES", "3600"))


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    directory = tmp_path_factory.mktemp("proxy")
    own = Issuer(directory / "issued").issue("localhost")
    sections = {
        "client_tls": {"cert_file": f'"{own.certificate}"', "key_file": f'"{own.key}"'},
        "proxy": {"login_timeout": f'"{LOGIN_TIMEOUT:g}s"'},
        "client_limits": {"max_logins": str(LOGINS)},
        "pool": {"size": "20"},
        "routing": {"default_read_target": '"primary"'},
    }
    with running(cluster, database, directory, sections) as started:
        yield started
        assert started.faults() == []


@contextmanager
def bystanders(proxy: RunningProxy) -> Iterator[tuple[int, bytes]]:
    """A steady client and a newcomer, neither of whom may suffer; the steady one's cancel key."""
    place = {
        "host": proxy.host, "port": proxy.port, "user": proxy.cluster.superuser, "password": proxy.cluster.password,
        "database": proxy.database,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.hostile.bystander"], text=True, cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(place) + "\n")
        process.stdin.flush()
        pid, key = json.loads(process.stdout.readline())
        yield pid, bytes.fromhex(key)
        said, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
    (asked, longest, wrong), (came, slowest, refused) = map(json.loads, said.splitlines())
    print(f"beside it: {asked} statements, the longest {longest:.3f} s; {came} logins, the longest {slowest:.3f} s")
    assert (wrong, refused) == ([], [])
    assert longest <= WAIT
    assert slowest <= LOGIN_TIMEOUT
    assert asked > 100
    assert came > 10


def open_files(proxy: RunningProxy) -> int:
    """File descriptors of the proxy that are no connections to nodes."""
    nodes = {node.address[1] for node in proxy.cluster.nodes}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    links = {f"socket:[{line[9]}]" for line in lines if int(line[2].rpartition(":")[2], 16) in nodes}
    found = 0
    for entry in Path(f"/proc/{proxy.process.pid}/fd").iterdir():
        try:
            found += os.readlink(entry) not in links
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def test_whatever_enemies_send_ends_well_for_everybody_else(proxy: RunningProxy) -> None:
    place = Place(proxy.host, proxy.port, proxy.cluster.user, proxy.cluster.password, proxy.database)
    cases = every(place, SEED)[:CASES]
    warm, report = Report(), Report()
    trio.run(attack, place, cases[:WARM], warm)
    trio.run(floods, place, warm)
    trio.run(partial(slow, place, SLOW, warm, from_one_address=True))
    before, memory, began = open_files(proxy), proxy.memory(), monotonic()

    async def everything(key: tuple[int, bytes]) -> None:
        random = Random(SEED)
        wrong = [(random.randrange(1 << 32), random.randbytes(random.choice((4, 4, 32, 256)))) for _ in range(CANCELS)]
        wrong += [(key[0], bytes(len(key[1]))) for _ in range(50)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attack, place, cases, report)
            nursery.start_soon(cancels, place, wrong, report)
            nursery.start_soon(connections, place, CONNECTS, report)
        await floods(place, report)
        await slow(place, SLOW, report, from_one_address=True)
        await slow(place, SLOW, report, from_one_address=False)

    with bystanders(proxy) as key:
        trio.run(everything, key)
    print(f"seed {SEED}: {report.count} cases in {monotonic() - began:.1f} s, the longest {report.longest:.1f} s")
    print(dict(report.outcomes.most_common()))
    failures = warm.failures + report.failures
    assert failures == [], "\n".join([f"HELIOS_HOSTILE_SEED={SEED}", *failures[:20]])
    assert report.count >= 3_000
    wait_for(lambda: open_files(proxy) <= before, f"no more than {before} descriptors to be open")
    print(f"memory {memory >> 20} MB before, {proxy.memory() >> 20} MB after")
    wait_for(lambda: proxy.memory() <= memory + GROWTH, f"memory to be back at {memory >> 20} MB + {GROWTH >> 20}")
    assert helios("status", "--config", str(proxy.file)).returncode == 0
