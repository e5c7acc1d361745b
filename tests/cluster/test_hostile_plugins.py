"""Plugins that loop, grow, trap, raise, answer too much and leak, in a running proxy: every client gets its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, cast

import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster.proxies import PRIMARY, STANDBYS, WHERE, Connect, RunningProxy, helios, running, wait_for

DEEDS = ("loop", "grow", "trap", "bug", "huge")
LOSES_THE_INSTANCE = ("loop", "grow", "trap")
MAX_FAULTS = 5


class Shown(TypedDict):
    """What `helios plugins list --json` says of a plugin, as far as it is looked at here."""

    name: str
    state: str
    reason: str
    faults: int
    instances: int


@pytest.fixture(scope="module")
def proxy(
    cluster: LocalCluster, database: str, components: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningProxy]:
    """With every plugin that fails open."""
    names = [f"{deed}open" for deed in DEEDS]
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections(components, *names)) as started:
        yield started
        assert started.faults() == []


@contextmanager
def only(
    cluster: LocalCluster, database: str, components: Path, folder: Path, name: str
) -> Iterator[tuple[RunningProxy, Connect]]:
    """A proxy with one plugin beside hints: one that fails closed refuses what is meant for others, too."""
    with running(cluster, database, folder, sections(components, name)) as proxy, proxy.connections() as connect:
        yield proxy, connect
        assert proxy.faults() == []


def sections(components: Path, *enabled: str) -> dict[str, dict[str, str]]:
    return {
        "plugins": {
            "enabled": json.dumps(["hints", *enabled]), "path": json.dumps([str(components)]), "flows": "500",
            "max_faults": str(MAX_FAULTS), "memory": '"32MB"',
        }
    }  # fmt: skip


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Connect]:
    with proxy.connections(60) as connect:
        yield connect


def plugins(proxy: RunningProxy) -> dict[str, Shown]:
    done = helios("plugins", "list", "--json", "--config", str(proxy.file))
    assert (done.returncode, done.stderr) == (0, "")
    return {each["name"]: each for each in cast("list[Shown]", json.loads(done.stdout)["plugins"])}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_statement_goes_on_without_a_plugin_that_fails_open(
    proxy: RunningProxy, connect: Connect, deed: str
) -> None:
    client, bystander = connect(), connect()
    for number in range(MAX_FAULTS + 3):
        asked = f"/*helios:{deed}open=1,route=primary*/ {WHERE}, {number} as n{number}"
        assert client.execute(asked.encode()).fetchone() == (PRIMARY, number)
        assert client.execute(asked.replace(f", {number} as", ", %s::int as").encode(), (number,)).fetchone() == (
            PRIMARY, number)  # fmt: skip
        assert bystander.execute(WHERE).fetchone() in [(node,) for node in STANDBYS]
    shown = plugins(proxy)[f"{deed}open"]
    assert shown["faults"] >= 1
    assert plugins(proxy)["hints"]["state"] == "enabled"


@pytest.mark.parametrize("deed", DEEDS)
def test_P4_a_statement_is_refused_for_a_plugin_that_fails_closed(
    cluster: LocalCluster, database: str, components: Path, tmp_path: Path, deed: str
) -> None:
    name = f"{deed}closed"
    with only(cluster, database, components, tmp_path, name) as (_, connect):
        client, bystander = connect(), connect()
        for number in range(3 * MAX_FAULTS):
            for parameters in (None, (1,)):
                value = "%s::int" if parameters else "1"
                assert refused(client, f"/*helios:{name}=1*/ select {value} as n{number}", parameters) == name
            assert bystander.execute("select 2").fetchone() == (2,)


def refused(client: psycopg.Connection, sql: str, parameters: tuple[int, ...] | None = None, **how: bool) -> str:
    """The name of the plugin that a refusal names."""
    with pytest.raises(psycopg.Error) as caught:
        client.execute(sql.encode(), parameters, **how)
    assert caught.value.sqlstate == "58000"
    found = re.match(r"plugin (\w+) failed in on-", str(caught.value))
    return found[1] if found else str(caught.value)


def test_P4_a_plugin_that_fails_closed_refuses_also_when_it_is_disabled(
    cluster: LocalCluster, database: str, components: Path, tmp_path: Path
) -> None:
    with only(cluster, database, components, tmp_path, "trapclosed") as (proxy, connect):
        client = connect()

        def disabled(number: int) -> bool:
            assert refused(client, f"/*helios:trapclosed=1*/ select 1 as n{number}") == "trapclosed"
            return number % 100 == 0 and plugins(proxy)["trapclosed"]["state"] == "disabled"

        assert any(disabled(number) for number in range(1, 5_000))
        assert refused(client, "/*helios:route=primary*/ select 1") == "trapclosed"
        assert client.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("deed", LOSES_THE_INSTANCE)
def test_a_plugin_that_keeps_failing_is_disabled_with_a_reason(
    proxy: RunningProxy, connect: Connect, deed: str
) -> None:
    client = connect()
    name = f"{deed}open"

    def disabled(number: int) -> bool:
        client.execute(f"/*helios:{name}=1*/ select 1 as n{number}".encode())
        return number % 100 == 0 and plugins(proxy)[name]["state"] == "disabled"

    assert any(disabled(number) for number in range(1, 5_000))
    shown = plugins(proxy)[name]
    assert shown["reason"].startswith(f"{MAX_FAULTS + 1} faults within a minute, the last in on-parse: ")
    assert f"disabled: {shown['reason']}" in proxy.log.read_text()
    assert plugins(proxy)["hints"]["state"] == "enabled"
    assert client.execute(f"/*helios:{name}=1,route=primary*/ {WHERE}".encode()).fetchone() == (PRIMARY,)


def test_the_other_hook_fails_as_well_in_a_prepared_statement_and_in_a_transaction(
    cluster: LocalCluster, database: str, components: Path, tmp_path: Path
) -> None:
    with only(cluster, database, components, tmp_path, "routeloop") as (_, connect):
        client = connect()
        assert refused(client, "/*helios:routeloop=1*/ select %s::int", (1,), prepare=True) == "routeloop"
        assert client.execute("select %s::int", (1,), prepare=True).fetchone() == (1,)
        client.execute("begin")
        assert refused(client, "/*helios:routeloop=1*/ select 1") == "routeloop"
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            client.execute("select 1")
        client.execute("rollback")
        assert client.execute("select 1").fetchone() == (1,)


def test_an_exception_of_a_plugin_is_in_the_log_with_its_traceback(proxy: RunningProxy, connect: Connect) -> None:
    connect().execute("/*helios:bugopen=1*/ select 1 as logged")
    wait_for(lambda: "there is a bug in here" in proxy.log.read_text(), "the log to say it", 5)
    assert "plugin.py" in proxy.log.read_text()


def test_memory_stays_flat_over_ten_thousand_calls_that_leak(
    cluster: LocalCluster, database: str, components: Path, tmp_path: Path
) -> None:
    """Each statement is a flow of its own, so that the plugin is asked each time; 200 MB are leaked in all."""
    with only(cluster, database, components, tmp_path, "leak") as (proxy, connect):
        _leak(proxy, connect())


def _leak(proxy: RunningProxy, client: psycopg.Connection) -> None:
    most = []
    for half in range(2):
        samples = []
        for batch in range(10):
            with client.pipeline():
                for number in range(500):
                    name = half * 5_000 + batch * 500 + number
                    client.execute(f"/*helios:leak=1*/ select %s::int as n{name}".encode(), (1,), prepare=False)
            samples.append(proxy.memory())
        most.append(max(samples))
    shown = plugins(proxy)["leak"]
    assert shown["state"] == "enabled"
    assert shown["instances"] > 2
    assert most[1] - most[0] < 16 << 20
    assert client.execute("select 1").fetchone() == (1,)
