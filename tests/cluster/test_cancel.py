"""A cancel request only ever hits the statement that it was meant for."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster import raw
from tests.cluster.proxies import RunningProxy, running, wait_for

LINKS = 3
STORM, CLIENTS, SENDERS = 10_000, 20, 8
ROUNDS = 60
CANCELED = "57014"
PROTOCOLS = pytest.mark.parametrize("minor", [0, 2], ids=["four-byte key", "long key"])


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    sections = {"pool": {"size": str(LINKS), "wait_timeout": '"20s"'}}
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as started, started.deadline(120):
        yield started
        assert started.faults() == []


Open = Callable[..., raw.Client]


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Open]:
    """Opens clients whose statements all run on the primary, closed after the test."""
    clients: list[raw.Client] = []

    def open_one(minor: int = 0) -> raw.Client:
        clients.append(client_of(proxy, minor))
        return clients[-1]

    yield open_one
    for client in clients:
        client.close()


def client_of(proxy: RunningProxy, minor: int = 0) -> raw.Client:
    parameters = {"user": proxy.cluster.user, "database": proxy.database, "options": "-c helios.route=primary"}
    return raw.Client((proxy.host, proxy.port), parameters, proxy.cluster.password, minor=minor)


@pytest.fixture
def watcher(proxy: RunningProxy) -> Iterator[raw.Client]:
    """A superuser's connection to the primary itself."""
    parameters = {"user": proxy.cluster.superuser, "database": "postgres"}
    with raw.Client(proxy.cluster.node("primary").address, parameters, proxy.cluster.password) as client:
        yield client


def wait_until_runs(watcher: raw.Client, text: str, count: int = 1) -> None:
    """Until so many statements that hold the text are being executed on the primary."""
    found = f"select count(*) from pg_stat_activity where state = 'active' and query like '%{text}%'"
    found += " and pid <> pg_backend_pid() and wait_event is not null"
    wait_for(lambda: watcher.value(found) == str(count), f"{text!r} to run")


# --- requests that are nobody's -------------------------------------------------------------------------------------


class Storm:
    """Requests with every kind of key that fits no statement, each kind equally often."""

    def __init__(self, proxy: RunningProxy, keys: list[raw.Key], gone: list[raw.Key]) -> None:
        self._address = (proxy.host, proxy.port)
        self._keys, self._gone = keys, gone

    def send(self, seed: int) -> None:
        """One of them."""
        chance = random.Random(seed)
        kind = [self._made_up, self._made_up_long, self._wrong_secret, self._wrong_pid, self._shorter, self._left]
        raw.cancel(self._address, kind[seed % len(kind)](chance))

    def _made_up(self, chance: random.Random) -> raw.Key:
        return chance.getrandbits(32), chance.randbytes(4)

    def _made_up_long(self, chance: random.Random) -> raw.Key:
        return chance.getrandbits(32), chance.randbytes(chance.randint(5, 256))

    def _wrong_secret(self, chance: random.Random) -> raw.Key:
        pid, secret = chance.choice(self._keys)
        return pid, bytes(secret[:-1]) + bytes((secret[-1] ^ 1,))

    def _wrong_pid(self, chance: random.Random) -> raw.Key:
        pid, secret = chance.choice(self._keys)
        return pid + len(self._keys) + 1000, secret

    def _shorter(self, chance: random.Random) -> raw.Key:
        pid, secret = chance.choice([key for key in self._keys if len(key[1]) > 4])
        return pid, secret[: chance.randint(4, len(secret) - 1)]

    def _left(self, chance: random.Random) -> raw.Key:
        return chance.choice(self._gone)


def descriptors(proxy: RunningProxy) -> int:
    return len(os.listdir(f"/proc/{proxy.process.pid}/fd"))


def test_ten_thousand_requests_with_keys_of_nobody_cancel_nothing_and_leave_nothing(
    proxy: RunningProxy, connect: Open
) -> None:
    clients = [connect(number % 2 * 2) for number in range(CLIENTS)]
    gone = [connect(minor) for minor in (0, 2, 0, 2)]
    for client in gone:
        client.query("select 1")
        client.close()
    storm = Storm(proxy, [client.key for client in clients], [client.key for client in gone])
    done, logins = threading.Event(), 0
    with ThreadPoolExecutor(CLIENTS + SENDERS) as threads:
        # What is allocated once, and all links, are there before anything is counted.
        list(threads.map(lambda client: client.query("select pg_sleep(0.1)"), clients))
        list(threads.map(storm.send, range(100)))
        before, memory = descriptors(proxy), proxy.memory()
        busy = [threads.submit(live, client, number, done) for number, client in enumerate(clients)]
        senders = [threads.submit(each, storm, range(n, STORM, SENDERS)) for n in range(SENDERS)]
        try:
            while wait(senders, timeout=0.25).not_done:
                with client_of(proxy) as newcomer:  # within the socket's own deadline
                    assert newcomer.value("select 'let in'") == "let in"
                logins += 1
        finally:
            done.set()
        assert sum(sender.result() for sender in senders) == STORM
        assert all(answered.result() > 0 for answered in busy)
    assert logins > 1
    wait_for(lambda: descriptors(proxy) <= before, "the storm's connections to be closed")
    assert proxy.memory() - memory < 8 << 20


def each(storm: Storm, seeds: range) -> int:
    for seed in seeds:
        storm.send(seed)
    return len(seeds)


def live(client: raw.Client, number: int, done: threading.Event) -> int:
    """Run statements until `done`; how many there were. Each must give what it was asked for."""
    count = 0
    while not done.is_set():
        count += 1
        token = f"{number}/{count}"
        assert client.value(f"select '{token}' from pg_sleep({count % 3 / 200})") == token
    return count


# --- requests that come when the statement has ended ----------------------------------------------------------------


@PROTOCOLS
def test_a_request_that_comes_late_does_not_hit_the_links_next_client(connect: Open, minor: int) -> None:
    """Each link passes from clients that are cancelled at any moment to clients that nobody wants to cancel."""
    targets = [connect(minor) for _ in range(LINKS)]
    neighbours = [connect(minor) for _ in range(2 * LINKS)]
    done = threading.Event()
    with ThreadPoolExecutor(len(targets) + len(neighbours)) as threads:
        spared = [threads.submit(live, client, number, done) for number, client in enumerate(neighbours)]
        try:
            hit = [threads.submit(be_cancelled, client, number) for number, client in enumerate(targets)]
            cancelled = sum(one.result() for one in hit)
        finally:
            done.set()
        assert all(client.result() > 0 for client in spared)
    assert 0 < cancelled < ROUNDS * len(targets), "some came in time and some did not"


def be_cancelled(client: raw.Client, seed: int) -> int:
    """Run statements of about the length of a cancel request's way; how many were cancelled."""
    chance, cancelled = random.Random(seed), 0
    for turn in range(ROUNDS):
        token = f"target {seed}/{turn}"
        client.send(raw.query(f"select '{token}' from pg_sleep({chance.choice((0, 0, 0.001, 0.003, 0.01, 0.03))})"))
        client.cancel()
        found = client.answer()
        assert found.sqlstate in ("", CANCELED), found.errors
        assert found.errors or found.rows == [(token,)]
        cancelled += bool(found.errors)
    return cancelled


@PROTOCOLS
@pytest.mark.parametrize("begin", ["begin", "listen something", "select 1"], ids=["transaction", "pinned", "neither"])
def test_a_request_that_was_taken_note_of_does_not_hit_the_clients_own_next_statement(
    connect: Open, minor: int, begin: str
) -> None:
    """As with PostgreSQL: once the connection of the request is closed, it has done what it will ever do."""
    client, chance = connect(minor), random.Random(minor)
    assert not client.query(begin).errors
    for turn in range(ROUNDS):
        client.send(raw.query(f"select pg_sleep({chance.choice((0.001, 0.002, 0.003, 0.004))})"))
        client.cancel()
        if client.answer().errors:
            client.query("rollback")
            client.query(begin)
        found = client.query(f"select 'next {turn}' from generate_series(1, 2000) having count(*) = 2000")
        assert not found.errors, (turn, found.errors)


@PROTOCOLS
def test_a_request_to_an_idle_client_does_nothing(connect: Open, minor: int) -> None:
    client, other = connect(minor), connect(minor)
    for turn in range(ROUNDS):
        client.cancel()
        assert client.value(f"select 'not cancelled {turn}'") == f"not cancelled {turn}"
        assert other.value("select 'nor this'") == "nor this"


# --- wherever the statement is --------------------------------------------------------------------------------------


@PROTOCOLS
def test_a_statement_is_cancelled_and_its_neighbours_are_not(connect: Open, watcher: raw.Client, minor: int) -> None:
    clients = [connect(minor) for _ in range(LINKS)]
    for number, client in enumerate(clients):
        client.send(raw.query(f"select 'neighbour {number}' from pg_sleep(0.5)"))
    wait_until_runs(watcher, "neighbour", LINKS)
    clients[1].cancel()
    assert clients[1].answer().sqlstate == CANCELED
    assert [client.answer().rows for client in (clients[0], clients[2])] == [[("neighbour 0",)], [("neighbour 2",)]]


@PROTOCOLS
def test_a_statement_that_waits_for_a_link_is_cancelled_there(connect: Open, watcher: raw.Client, minor: int) -> None:
    holders = [connect(minor) for _ in range(LINKS)]
    for holder in holders:
        holder.query("begin")
    waiting, behind, extended = connect(minor), connect(minor), connect(minor)
    waiting.send(raw.query("select 'waits'") + raw.query("select 'after it'"))
    extended.send(raw.parse("", "select 'pipelined'") + raw.bind("") + raw.execute() + raw.FLUSH)
    behind.send(raw.query("select 'waits as well'"))
    waiting.cancel()
    assert waiting.answer().sqlstate == CANCELED
    extended.cancel()
    assert extended.answer(b"E").sqlstate == CANCELED
    extended.send(raw.execute() + raw.SYNC)
    ended = extended.answer()
    assert (ended.tags, ended.status) == (b"Z", "I")
    assert behind.silent(0.05)
    assert not holders[0].query("select 1").errors, "nobody's statement was hit on the server"
    for holder in holders:
        holder.query("end")
    assert behind.answer().rows == [("waits as well",)]
    assert waiting.answer().rows == [("after it",)]
    assert extended.value("select 'well'") == "well"


@PROTOCOLS
def test_a_transaction_is_aborted_by_it_and_goes_on_after_rollback(
    connect: Open, watcher: raw.Client, minor: int
) -> None:
    client = connect(minor)
    client.query("begin")
    client.query("savepoint before")
    client.send(raw.query("select pg_sleep(60)"))
    wait_until_runs(watcher, "pg_sleep(60)")
    client.cancel()
    found = client.answer()
    assert (found.sqlstate, found.status) == (CANCELED, "E")
    assert client.query("select 1").sqlstate == "25P02"
    assert client.query("rollback to before").status == "T"
    assert client.value("select 'goes on'") == "goes on"
    assert client.query("end").commands == ["COMMIT"]


@PROTOCOLS
def test_a_pipeline_is_cancelled_up_to_its_sync(connect: Open, watcher: raw.Client, minor: int) -> None:
    client = connect(minor)
    steps = [raw.parse("", sql) + raw.bind("") + raw.execute() for sql in ("select 1", "select pg_sleep(60)")]
    skipped = raw.parse("named", "select 'never prepared'") + raw.bind("named") + raw.execute()
    following = raw.parse("", "select 'the next'") + raw.bind("") + raw.execute() + raw.SYNC
    client.send(b"".join(steps) + skipped + raw.SYNC + following)
    wait_until_runs(watcher, "pg_sleep(60)")
    client.cancel()
    found = client.answer()
    assert (found.tags, found.sqlstate) == (b"12DC12EZ", CANCELED)
    assert client.answer().rows == [("the next",)]
    client.send(raw.bind("named") + raw.execute() + raw.SYNC)
    assert client.answer().sqlstate == "26000", "what was skipped has prepared nothing"


@PROTOCOLS
def test_copy_in_is_cancelled(connect: Open, proxy: RunningProxy, minor: int) -> None:
    client = connect(minor)
    client.query("create table if not exists filled (n int)")
    client.send(raw.query("copy filled from stdin"))
    client.answer(b"G")
    client.send(raw.copy_data(b"1\n2\n"))
    client.cancel()
    client.send(raw.copy_data(b"3\n") * 10_000 + raw.COPY_DONE)  # the server looks when more comes
    found = client.answer()
    assert (found.sqlstate, found.status) == (CANCELED, "I")
    assert client.value("select count(*) from filled") == "0"
    assert client.query("drop table filled").commands == ["DROP TABLE"]


@PROTOCOLS
def test_copy_out_is_cancelled(connect: Open, minor: int) -> None:
    client, other = connect(minor), connect(minor)
    client.send(raw.query("copy (select repeat('x', 1000) from generate_series(1, 1000000)) to stdout"))
    client.answer(b"d")
    client.cancel()
    found = client.answer()
    assert (found.sqlstate, found.status) == (CANCELED, "I")
    assert len(found.copied) < 1_000_000_000
    assert other.value("select 'other'") == "other"
    assert client.value("select 'goes on'") == "goes on"


@PROTOCOLS
def test_every_client_of_a_full_pool_can_be_cancelled_at_once(
    connect: Open, watcher: raw.Client, minor: int
) -> None:
    clients = [connect(minor) for _ in range(4 * LINKS)]
    for client in clients:
        client.send(raw.query("select pg_sleep(60)"))
    wait_until_runs(watcher, "pg_sleep(60)", LINKS)
    with ThreadPoolExecutor(len(clients)) as threads:
        list(threads.map(raw.Client.cancel, clients))
    # Those that waited may have got a link, after the request of its client, before their own request came.
    for client in clients:
        assert client.answer().sqlstate == CANCELED
    for client in clients:
        assert client.value("select 'fine'") == "fine"

