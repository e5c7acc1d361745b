"""Time-outs of sessions, in front of real servers, in each pool mode and both protocols."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic

import pytest

from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.running import find
from heliosproxy.switch.timeouts import OBEY
from tests.cli.support import fetch
from tests.cluster import raw
from tests.cluster.proxies import RunningProxy, running, wait_for

MODES = ("session", "transaction", "statement")
STATEMENT = ("ERROR", "57014", "canceling statement due to statement timeout")
IDLE_SESSION = ("FATAL", "57P05", "terminating connection due to idle-session timeout")
IDLE_IN_TRANSACTION = ("FATAL", "25P03", "terminating connection due to idle-in-transaction timeout")
TRANSACTION = ("FATAL", "25P04", "terminating connection due to transaction timeout")
SHORT, LONG, LATE = 0.7, 2.5, 25.0
"""Seconds: of the time-outs but for the transaction's, of that, and after which none has struck."""

Open = Callable[[str], raw.Client]
Start = Callable[..., RunningProxy]


@pytest.fixture(scope="module")
def start(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Proxies by the keys of their pool, each started when it is first asked for."""
    cluster.psql("create table deeds (what text); grant all on deeds to public", database=database)
    started: dict[str, RunningProxy] = {}
    with ExitStack() as stack:

        def one(**pool: str) -> RunningProxy:
            directory = tmp_path_factory.mktemp("proxy")
            if str(pool) not in started:
                proxy = stack.enter_context(running(cluster, database, directory, {"pool": pool}))
                stack.enter_context(proxy.deadline(240))
                started[str(pool)] = proxy
            return started[str(pool)]

        yield one
    for proxy in started.values():
        assert proxy.faults() == []


@pytest.fixture
def connect(start: Start) -> Iterator[Open]:
    """Opens clients of a proxy with all time-outs, in a pool mode; their statements run on the primary."""
    short = f'"{SHORT}s"'
    with ExitStack() as stack:

        def one(mode: str) -> raw.Client:
            proxy = start(
                mode=f'"{mode}"', size="3", idle_session_timeout=short, idle_in_transaction_session_timeout=short,
                statement_timeout=short, transaction_timeout=f'"{LONG}s"',
            )  # fmt: skip
            return stack.enter_context(client_of(proxy))

        yield one


def client_of(proxy: RunningProxy) -> raw.Client:
    parameters = {"user": proxy.cluster.user, "database": proxy.database, "options": "-c helios.route=primary"}
    return raw.Client((proxy.host, proxy.port), parameters, proxy.cluster.password)


def extended(sql: str) -> bytes:
    """Parse, Bind, Execute, Sync."""
    return raw.parse("", sql) + raw.bind("") + raw.execute() + raw.SYNC


def told(answer: raw.Answer) -> tuple[str, str, str]:
    """Severity, SQLSTATE and words of the only error."""
    [error] = answer.errors
    return error["S"], error["C"], error["M"]


def last_words(client: raw.Client) -> tuple[str, str, str]:
    """Those of the FATAL error with which a connection ends, which must be closed then."""
    with pytest.raises(raw.Gone) as gone:
        client.answer()
    with pytest.raises(raw.Gone):
        client.message()
    return gone.value.fields["S"], gone.value.fields["C"], gone.value.fields["M"]


def keep_asking(client: raw.Client) -> None:
    """One short statement after the other, until the connection ends, or should have."""
    started = monotonic()
    while monotonic() - started < LATE:
        client.query("select pg_sleep(0.1)")


def refused(proxy: RunningProxy) -> dict[str, int]:
    """The proxy's counters by reason."""
    wait_for(lambda: find(config=proxy.file) is not None, "the proxy to register")
    found = find(config=proxy.file)
    assert found is not None
    counters: dict[str, int] = fetch(found.admin, "/status")[1]["proxy"]["refused"]
    return counters


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("asking", [raw.query, extended], ids=["simple", "extended"])
def test_a_statement_that_runs_too_long_is_cancelled_and_the_session_lives(
    connect: Open, mode: str, asking: Callable[[str], bytes]
) -> None:
    client = connect(mode)
    started = monotonic()
    client.send(asking("select pg_sleep(60)"))
    answer = client.answer()
    assert told(answer) == STATEMENT
    assert answer.status == "I"
    assert SHORT - 0.1 < monotonic() - started < LATE
    for _ in range(20):
        assert client.value("select 1") == "1"


@pytest.mark.parametrize("mode", MODES)
def test_a_write_that_runs_too_long_is_rolled_back(
    connect: Open, mode: str, cluster: LocalCluster, database: str
) -> None:
    client = connect(mode)
    assert told(client.query(f"insert into deeds select '{mode}' from pg_sleep(60)")) == STATEMENT
    assert cluster.psql(f"select count(*) from deeds where what = '{mode}'", database=database) == "0"


def test_in_a_transaction_it_aborts_that(connect: Open) -> None:
    client = connect("transaction")
    client.query("begin")
    answer = client.query("select pg_sleep(60)")
    assert (told(answer), answer.status) == (STATEMENT, "E")
    assert client.query("select 1").sqlstate == "25P02"
    assert client.query("rollback").status == "I"


@pytest.mark.parametrize("mode", MODES)
def test_whoever_idles_too_long_is_ended(connect: Open, mode: str) -> None:
    client = connect(mode)
    assert client.value("select 1") == "1"
    assert last_words(client) == IDLE_SESSION


@pytest.mark.parametrize("mode", ["session", "transaction"])
@pytest.mark.parametrize("asking", [raw.query, extended], ids=["simple", "extended"])
def test_whoever_idles_in_a_transaction_is_ended_and_its_locks_are_free(
    connect: Open, mode: str, asking: Callable[[str], bytes], cluster: LocalCluster, database: str
) -> None:
    client = connect(mode)
    for sql in ("begin", "insert into deeds values ('idle')", "lock table deeds in access exclusive mode"):
        client.send(asking(sql))
        assert client.answer().errors == []
    assert last_words(client) == IDLE_IN_TRANSACTION
    assert cluster.psql("select count(*) from deeds where what = 'idle'", database=database) == "0"
    assert connect(mode).value("select 1") == "1"


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_transaction_that_takes_too_long_is_ended(connect: Open, mode: str) -> None:
    client = connect(mode)
    started = monotonic()
    client.query("begin")
    client.query("insert into deeds values ('slow')")
    with pytest.raises(raw.Gone) as gone:
        keep_asking(client)
    assert (gone.value.fields["S"], gone.value.fields["C"], gone.value.fields["M"]) == TRANSACTION
    assert monotonic() - started > LONG - 0.1
    assert connect(mode).value("select count(*) from deeds where what = 'slow'") == "0"


def test_waiting_for_a_link_counts(start: Start) -> None:
    proxy = start(size="1", statement_timeout=f'"{SHORT}s"')
    with client_of(proxy) as holder, client_of(proxy) as waiting:
        holder.query("begin")
        assert told(waiting.query("select 1")) == STATEMENT
        assert holder.query("commit").status == "I"
        assert waiting.value("select 1") == "1"
        wait_for(lambda: refused(proxy).get("statement_timeout"), "the counter")


def test_a_server_that_does_not_obey_loses_its_link(start: Start) -> None:
    proxy = start(size="3", statement_timeout=f'"{SHORT}s"')
    with client_of(proxy) as stuck, client_of(proxy) as unfinished, client_of(proxy) as copying:
        stuck.query("set work_mem = '5MB'")  # followed: the session is not bound to its link
        unfinished.send(raw.parse("", "select 1") + raw.bind("") + raw.execute() + raw.FLUSH)
        unfinished.answer(until=b"C")
        copying.send(raw.query("copy deeds from stdin"))
        copying.answer(until=b"G")
        copying.send(raw.copy_data(b"half a "))
        backend = int(stuck.value("select pg_backend_pid()") or 0)
        os.kill(backend, signal.SIGSTOP)
        try:
            started = monotonic()
            assert told(stuck.query("select 1")) == STATEMENT
            assert SHORT + OBEY - 0.2 < monotonic() - started < LATE
        finally:
            os.kill(backend, signal.SIGCONT)
        assert told(unfinished.answer(until=b"E")) == STATEMENT
        unfinished.send(raw.SYNC)
        assert unfinished.answer().status == "I"
        assert told(copying.answer())[1] == "08007"  # O1: the rows may be there
        for client in (stuck, unfinished, copying):
            assert client.value("select 1") == "1"
        assert stuck.value("show work_mem") == "5MB"


def test_L3_cancels_of_ours_hit_no_other_statement(start: Start) -> None:
    """Statements that end just when their time is over, on two links that others use as well."""
    proxy = start(size="2", statement_timeout='"200ms"')
    with ExitStack() as stack:
        clients = [stack.enter_context(client_of(proxy)) for _ in range(6)]
        for round in range(4):
            for at, client in enumerate(clients):
                client.send(raw.query(f"select pg_sleep({0.170 + 0.01 * ((at + round) % 6)})"))
            for client in clients:
                assert {error["M"] for error in client.answer().errors} <= {STATEMENT[2]}
                client.send(raw.query("select 1"))
            for client in clients:
                answer = client.answer()
                assert answer.errors == [] or told(answer) == STATEMENT, answer  # it may have waited too long
        assert all(client.value("select 1") == "1" for client in clients)
