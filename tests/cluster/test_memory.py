"""Back-pressure: whoever does not read stops his own link and nothing else, and nothing large is ever kept.

HELIOS_LARGE_MB: size of the large transfers, 256 if not given; 1024 (four times as long) before a release.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster import raw
from tests.cluster.proxies import RunningProxy, running, wait_for

MEGABYTE = 1 << 20
LARGE = int(os.environ.get("HELIOS_LARGE_MB", "256")) * MEGABYTE
MOST = 16 * MEGABYTE
"""By how much the proxy may grow while anything passes."""
ROW = 8192
ROWS = LARGE // ROW
SLOW_ROWS, SLOW_ROW = 64_000, 1_000
"""A result that fills every buffer on its way many times over."""
SLOW = f"select n || ':' || repeat(chr(97 + n % 26), {SLOW_ROW}) from generate_series(1, {SLOW_ROWS}) n"
SMALL_BUFFER = 16 * 1024
PATIENCE = 60.0


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), {"pool": {"size": "4"}}) as started:
        yield started
        assert started.faults() == []


Open = Callable[..., raw.Client]


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Open]:
    """Opens clients whose statements all run on the primary, closed after the test."""
    clients: list[raw.Client] = []

    def open_one(receives: int = 0) -> raw.Client:
        parameters = {"user": proxy.cluster.user, "database": proxy.database, "options": "-c helios.route=primary"}
        address = (proxy.host, proxy.port)
        clients.append(raw.Client(address, parameters, proxy.cluster.password, receives=receives))
        return clients[-1]

    with proxy.deadline(PATIENCE):
        yield open_one
    for client in clients:
        client.close()


@pytest.fixture
def watcher(proxy: RunningProxy) -> Iterator[raw.Client]:
    """A superuser's connection to the primary itself."""
    parameters = {"user": proxy.cluster.superuser, "database": proxy.database}
    with raw.Client(proxy.cluster.node("primary").address, parameters, proxy.cluster.password) as client:
        yield client


@contextmanager
def little_growth(proxy: RunningProxy) -> Iterator[None]:
    """The proxy's resident memory, at its peak, is at most MOST above what it is now."""
    before = proxy.memory()
    Path(f"/proc/{proxy.process.pid}/clear_refs").write_text("5")  # the peak counts from here
    yield
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{proxy.process.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    grown = int(found[1]) * 1024 - before
    assert grown <= MOST, f"grew by {grown / MEGABYTE:.1f} MB"


def wait_until_stuck(watcher: raw.Client, event: str) -> None:
    """Until a server process of a client waits for this."""
    found = f"select count(*) from pg_stat_activity where usename = 'helios' and wait_event = '{event}'"
    wait_for(lambda: watcher.value(found) == "1", f"the server to wait ({event})")


def assert_goes_on(clients: list[raw.Client]) -> None:
    """Neighbours get their answers, and large ones too."""
    for turn in range(20):
        for number, client in enumerate(clients):
            assert client.value(f"select '{number}/{turn}'") == f"{number}/{turn}"
    for client in clients:
        assert len(client.value(f"select repeat('n', {MEGABYTE})") or "") == MEGABYTE


# --- whoever does not read ------------------------------------------------------------------------------------------

ASKED = {
    "simple": raw.query(SLOW),
    "extended": raw.parse("", SLOW) + raw.bind("") + raw.execute() + raw.SYNC,
    "COPY": raw.query(f"copy ({SLOW}) to stdout"),
}


@pytest.mark.parametrize("how", list(ASKED))
def test_a_client_that_does_not_read_stops_its_own_link_and_nothing_else(
    proxy: RunningProxy, connect: Open, watcher: raw.Client, how: str
) -> None:
    slow, neighbours = connect(SMALL_BUFFER), [connect() for _ in range(3)]
    assert_goes_on(neighbours)
    with little_growth(proxy):
        slow.send(ASKED[how])
        wait_until_stuck(watcher, "ClientWrite")
        assert_goes_on(neighbours)
        found = slow.answer()
    rows = [f"{n}:{chr(97 + n % 26) * SLOW_ROW}" for n in range(1, SLOW_ROWS + 1)]
    if how == "COPY":
        assert found.copied == "".join(f"{row}\n" for row in rows).encode()
    else:
        assert found.rows == [(row,) for row in rows]
    assert (found.errors, found.status) == ([], "I")
    assert_goes_on([slow, *neighbours])


def test_a_client_that_does_not_read_many_small_answers_stops_itself_only(proxy: RunningProxy, connect: Open) -> None:
    slow, neighbours = connect(SMALL_BUFFER), [connect() for _ in range(3)]
    count, size = 4_000, 4_000
    assert_goes_on(neighbours)

    def ask() -> None:
        for number in range(count):
            slow.send(raw.query(f"select '{number}', repeat('s', {size})"))

    asking = threading.Thread(target=ask)  # which is held up as well, sooner or later
    with little_growth(proxy):
        asking.start()
        assert_goes_on(neighbours)
        for number in range(count):
            assert slow.answer().rows == [(str(number), "s" * size)]
        asking.join()
    assert_goes_on([slow, *neighbours])


def test_a_client_that_sends_faster_than_the_server_takes_is_held_up(
    proxy: RunningProxy, connect: Open, watcher: raw.Client
) -> None:
    """The server's COPY waits for a lock in a trigger, and takes nothing meanwhile."""
    fast, neighbours = connect(), [connect() for _ in range(3)]
    neighbours[0].query(
        "create table guarded (value text);"
        "create function guard() returns trigger language plpgsql as"
        " 'begin perform pg_advisory_xact_lock(42); return new; end';"
        "create trigger guard before insert on guarded for each row execute function guard()"
    )
    watcher.query("select pg_advisory_lock(42)")
    assert_goes_on(neighbours)
    line = f"{'c' * SLOW_ROW}\n".encode()

    def fill() -> None:
        fast.send(raw.query("copy guarded from stdin"))
        fast.answer(b"G")
        for _ in range(SLOW_ROWS // 64):
            fast.send(raw.copy_data(line * 64))
        fast.send(raw.COPY_DONE)

    filling = threading.Thread(target=fill)
    with little_growth(proxy):
        filling.start()
        wait_until_stuck(watcher, "advisory")
        assert_goes_on(neighbours)
        assert filling.is_alive()
        watcher.query("select pg_advisory_unlock(42)")
        filling.join()
        assert fast.answer().commands == [f"COPY {SLOW_ROWS}"]
    same = f"select count(*) from guarded where value = repeat('c', {SLOW_ROW})"
    assert fast.value(same) == str(SLOW_ROWS)
    fast.query("drop table guarded; drop function guard")


# --- what is large --------------------------------------------------------------------------------------------------

RESULT = f"select repeat('x', {ROW}) from generate_series(1, {ROWS})"
READY = b"Z\0\0\0\5I"


def received(client: raw.Client, message: bytes, most: int) -> tuple[int, bytes]:
    """How many bytes the answer has, and the last of them; the client's own memory is not needed for it."""
    client.send(message)
    buffer = bytearray(MEGABYTE)
    total, end = 0, b""
    while not end.endswith(READY):
        count = client.socket.recv_into(buffer)
        assert count, "closed"
        total += count
        assert total <= most, "more than was asked for"
        end = (end + buffer[max(0, count - 64) : count])[-64:]
    return total, end


def size_of(*messages: tuple[int, int]) -> int:
    """Bytes of messages: (how many, length of the body)."""
    return sum(count * (5 + length) for count, length in messages)


@pytest.mark.parametrize("how", ["simple", "extended"])
def test_a_large_result_passes_in_little_memory(proxy: RunningProxy, connect: Open, how: str) -> None:
    client = connect()
    client.value("select 1")
    command = f"SELECT {ROWS}\0"
    described = size_of((1, 2 + len("repeat\0") + 18)) if how == "simple" else 2 * size_of((1, 0))
    expected = described + size_of((ROWS, 6 + ROW), (1, len(command)), (1, 1))
    asked = {
        "simple": raw.query(RESULT),
        "extended": raw.parse("", RESULT) + raw.bind("") + raw.execute() + raw.SYNC,
    }
    with little_growth(proxy):
        total, end = received(client, asked[how], expected)
    assert total == expected
    assert end.endswith(command.encode() + READY)


def test_a_large_copy_out_passes_in_little_memory(proxy: RunningProxy, connect: Open) -> None:
    client = connect()
    client.value("select 1")
    command = f"COPY {ROWS}\0"
    expected = size_of((1, 5), (ROWS, ROW + 1), (1, 0), (1, len(command)), (1, 1))
    with little_growth(proxy):
        total, end = received(client, raw.query(f"copy ({RESULT}) to stdout"), expected)
    assert total == expected
    assert end.endswith(command.encode() + READY)


def test_a_large_copy_in_passes_in_little_memory(proxy: RunningProxy, connect: Open) -> None:
    """WHERE keeps the server from storing it."""
    client = connect()
    client.query("create table taken (value text)")
    line = b"y" * (ROW - 1) + b"\n"
    data = raw.copy_data(line * 8)
    with little_growth(proxy):
        client.send(raw.query(f"copy taken from stdin where length(value) <> {ROW - 1} or value = 'z'"))
        client.answer(b"G")
        for _ in range(ROWS // 8):
            client.send(data)
        client.send(raw.copy_data(b"z\n") + raw.COPY_DONE)
        assert client.answer().commands == ["COPY 1"]
    assert client.value("select value from taken") == "z"
    client.query("drop table taken")


def test_a_large_value_passes_in_little_memory(proxy: RunningProxy, connect: Open) -> None:
    """One message that is larger than what the proxy may grow by."""
    client, size = connect(), 64 * MEGABYTE
    client.value("select 1")
    sql = f"select repeat('v', {size})"
    expected = size_of((1, 2 + len("repeat\0") + 18), (1, 6 + size), (1, len("SELECT 1\0")), (1, 1))
    with little_growth(proxy):
        total, _ = received(client, raw.query(sql), expected)
    assert total == expected
