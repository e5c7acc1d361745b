"""pgjdbc: its workload is java/Workload.java, which asserts what it gets. It is Debian's libpostgresql-jdbc-java."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from heliosproxy.demo.processes import environment
from tests.cluster.clients.crowd import changed_hands
from tests.cluster.clients.support import NUMBERS
from tests.cluster.proxies import RunningProxy

DRIVER = Path("/usr/share/java/postgresql.jar")
WORKLOAD = Path(__file__).parent / "java" / "Workload.java"


@pytest.fixture(scope="module")
def schema() -> str:
    return f"""
        {NUMBERS}
        create table booking (id serial primary key, agent int, flight text, price numeric(8, 2), seats int[]);
    """


@pytest.fixture(scope="module")
def java() -> str:
    """The program `java`, which can also compile, as the one of a JDK can."""
    found = shutil.which("java")
    if found is None:
        pytest.skip("not run: there is no Java on this machine")
    if not DRIVER.exists():
        pytest.skip(f"not run: {DRIVER} is not there (Debian's libpostgresql-jdbc-java)")
    modules = subprocess.run([found, "--list-modules"], capture_output=True, text=True, timeout=30, check=True).stdout
    if "jdk.compiler@" not in modules:
        pytest.skip("not run: this Java has no compiler")
    return found


def test_workload(proxy: RunningProxy, java: str) -> None:
    done = subprocess.run(
        [java, "-XX:TieredStopAtLevel=1", "-cp", str(DRIVER), str(WORKLOAD),
         f"jdbc:postgresql://{proxy.host}:{proxy.port}/{proxy.database}"],
        capture_output=True, text=True, timeout=90, check=False,
        env=environment(PGUSER=proxy.cluster.user, PGPASSWORD=proxy.cluster.password),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    changed_hands([set(links) for links in json.loads(done.stdout)["links"]])
