"""How many may come in, and how much of everything each may have, in front of real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Thread

import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from heliosproxy.demo.running import find
from tests.cli.support import fetch
from tests.cluster import raw
from tests.cluster.proxies import RunningProxy, running, wait_for

CLIENTS, OF_A_USER, LOGINS, OF_A_SESSION = 5, 4, 8, 3
LIMITS = {
    "max_client_connections": str(CLIENTS), "max_user_client_connections": str(OF_A_USER), "max_logins": str(LOGINS),
    "max_prepared_statements": str(OF_A_SESSION), "max_settings": str(OF_A_SESSION),
}  # fmt: skip
Open = Callable[..., raw.Client]


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    with running(cluster, database, tmp_path_factory.mktemp("proxy"), {"client_limits": LIMITS}) as started:
        with started.deadline(120):
            yield started
        assert started.faults() == []


@pytest.fixture
def connect(proxy: RunningProxy) -> Iterator[Open]:
    """Opens clients, closed after the test, when the proxy has noticed."""
    with ExitStack() as stack:
        yield lambda user=proxy.cluster.user: stack.enter_context(client_of(proxy, user))
    wait_for(lambda: status(proxy)["clients"] == 0, "the clients to be gone")


def client_of(proxy: RunningProxy, user: str) -> raw.Client:
    parameters = {"user": user, "database": proxy.database, "options": "-c helios.route=primary"}
    return raw.Client((proxy.host, proxy.port), parameters, proxy.cluster.password)


def status(proxy: RunningProxy) -> dict[str, object]:
    """What the admin API says of clients and logins."""
    wait_for(lambda: find(config=proxy.file) is not None, "the proxy to register")
    found = find(config=proxy.file)
    assert found is not None
    shown: dict[str, object] = fetch(found.admin, "/status")[1]["proxy"]
    return shown


def count(proxy: RunningProxy, reason: str) -> int:
    """How often somebody was refused, or ended, for this reason."""
    refused = status(proxy)["refused"]
    assert isinstance(refused, dict)
    return int(refused.get(reason, 0))


def refusal(connect: Open, *user: str) -> tuple[str, str, str]:
    """SQLSTATE, words and detail with which a login is refused."""
    with pytest.raises(raw.Refused) as caught:
        connect(*user)
    fields = caught.value.fields
    return fields["C"], fields["M"], fields["D"]


def test_clients_beyond_a_limit_are_refused_until_somebody_leaves(proxy: RunningProxy, connect: Open) -> None:
    user, superuser = proxy.cluster.user, proxy.cluster.superuser
    mine = [connect() for _ in range(OF_A_USER)]
    detail = f"max_user_client_connections is {OF_A_USER}."
    assert refusal(connect) == ("53300", f'too many connections for role "{user}"', detail)
    connect(superuser)
    detail = f"max_client_connections is {CLIENTS}."
    assert refusal(connect, superuser) == ("53300", "sorry, too many clients already", detail)
    assert count(proxy, "max_user_client_connections") == count(proxy, "max_client_connections") == 1
    mine[0].close()
    wait_for(lambda: status(proxy)["clients"] == CLIENTS - 1, "the client to be gone")
    assert connect().value("select 1") == "1"


def test_a_cancel_request_comes_through_when_all_places_are_taken(proxy: RunningProxy, connect: Open) -> None:
    clients = [connect() for _ in range(OF_A_USER)]
    connect(proxy.cluster.superuser)
    sleeper = clients[0]
    answers: list[raw.Answer] = []
    asking = Thread(target=lambda: answers.append(sleeper.query("select pg_sleep(60)")))
    asking.start()
    sleeps = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'"
    wait_for(lambda: proxy.cluster.psql(sleeps) == "1", "the statement to run")
    sleeper.cancel()
    asking.join(30)
    assert [answer.sqlstate for answer in answers] == ["57014"]


def test_whoever_opens_connections_and_says_nothing_keeps_nobody_out(proxy: RunningProxy, connect: Open) -> None:
    before = count(proxy, "max_logins")
    with ExitStack() as stack:
        silent = [stack.enter_context(raw.connected((proxy.host, proxy.port))) for _ in range(3 * LOGINS)]
        wait_for(lambda: count(proxy, "max_logins") - before >= 2 * LOGINS, "the oldest to be ended")
        said = silent[0].recv(1000)
        assert b"53300" in said
        assert b"max_logins" in said
        assert silent[0].recv(1000) == b""
        assert int(str(status(proxy)["logging_in"])) <= LOGINS
        assert connect().value("select 1") == "1"


@pytest.mark.parametrize("extended", [False, True])
def test_one_prepared_statement_too_many_is_refused_and_the_session_lives(
    proxy: RunningProxy, connect: Open, *, extended: bool
) -> None:
    client = connect()
    for at in range(OF_A_SESSION):
        client.send(raw.parse(f"s{at}", f"select {at}, 'x{at}'") + raw.SYNC)
        assert client.answer().errors == []
    client.send(raw.parse("more", "select 1") + raw.SYNC if extended else raw.query("prepare more as select 1"))
    [error] = client.answer().errors
    assert (error["C"], error["D"]) == ("53400", f"max_prepared_statements is {OF_A_SESSION}.")
    assert client.value("select 1") == "1"
    client.send(raw.bind("s0") + raw.execute() + raw.SYNC)
    assert client.answer().rows == [("0", "x0")]
    client.send(raw.close("s0") + raw.parse("more", "select 1") + raw.SYNC)
    assert client.answer().errors == []


@pytest.mark.parametrize("name", ["helios.x", "my.x"])
def test_one_setting_too_many_is_refused_and_the_session_lives(connect: Open, name: str) -> None:
    client = connect()
    for at in range(OF_A_SESSION - 1):  # helios.route is one
        assert client.query(f"set {name}{at} = 'y'").errors == []
    [error] = client.query(f"set {name}more = 'y'").errors
    assert (error["C"], error["D"]) == ("53400", f"max_settings is {OF_A_SESSION}.")
    assert client.value(f"show {name}0") == "y"
    assert client.query("set work_mem = '5MB'").errors == []
    assert client.query("discard all").errors == []
    assert client.query(f"set {name}more = 'y'").errors == []


def test_a_driver_that_prepares_more_than_it_may_sees_the_error_and_goes_on(proxy: RunningProxy) -> None:
    with proxy.connections() as connect:
        client = connect()
        for at in range(OF_A_SESSION):
            client.execute(f"select {at}", prepare=True)
        with pytest.raises(psycopg.Error) as caught:
            client.execute("select 100", prepare=True)
        assert caught.value.sqlstate == "53400"
        assert client.execute("select 7").fetchone() == (7,)
