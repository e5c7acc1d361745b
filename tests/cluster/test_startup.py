"""What a client says when it connects: PostgreSQL's answer, word for word, or the same session as from the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from heliosproxy.demo.local import LocalCluster
from tests.cluster import raw
from tests.cluster.proxies import RunningProxy, running, wait_for

WHEN_ASKED = ("statement_timeout", "search_path", "work_mem", "TimeZone", "DateStyle", "application_name",
              "client_encoding", "extra_float_digits", "default_transaction_isolation", "role")  # fmt: skip
ROLES = "barred", "crowded"
"""A role that may not connect to the database, and one that may do so once."""


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    cluster.psql(f"revoke connect on database {database} from public; grant connect on database {database} to helios")
    for role in ROLES:
        cluster.psql(f"create role {role} login password '{cluster.password}'")
    cluster.psql(f"alter role crowded connection limit 1; grant connect on database {database} to crowded")
    cluster.psql("create database closed_to_all; alter database closed_to_all allow_connections false")
    file = Path(tmp_path_factory.mktemp("users")) / "users"
    file.touch(0o600)
    file.write_text("".join(f'"{role}" "{cluster.password}"\n' for role in (*ROLES, "nobody_there")))
    sections = {"auth": {"users_file": f'"{file}"'}, "pool": {"size": "3", "wait_timeout": '"5s"'}}
    try:
        with running(cluster, database, tmp_path_factory.mktemp("proxy"), sections) as started, started.deadline(60):
            yield started
            assert started.faults() == []
    finally:
        cluster.psql("drop database closed_to_all")
        cluster.psql(f"revoke connect on database {database} from crowded, helios")
        for role in ROLES:
            cluster.psql(f"drop role {role}")


@dataclass(frozen=True, slots=True)
class Both:
    """The same login at the server and through the proxy."""

    proxy: RunningProxy

    def login(self, direct: bool, parameters: Mapping[str, str], **more: object) -> raw.Client:
        """A client of one of them; `parameters` beside user and database, or instead of them."""
        cluster = self.proxy.cluster
        address = cluster.node("primary").address if direct else (self.proxy.host, self.proxy.port)
        whole = {"user": cluster.user, "database": self.proxy.database, **parameters}
        return raw.Client(address, whole, cluster.password, **more)  # type: ignore[arg-type]

    def refusals(self, parameters: Mapping[str, str]) -> list[dict[str, str]]:
        """What the server, and the proxy, say to somebody they do not let in; where the server's code says it, less."""
        found = []
        for direct in (True, False):
            with pytest.raises(raw.Refused) as caught:
                self.login(direct, parameters).close()
            found.append({key: value for key, value in caught.value.fields.items() if key not in "FLR"})
        return found

    def settings(self, parameters: Mapping[str, str], names: tuple[str, ...] = WHEN_ASKED) -> list[object]:
        """What a session that began so has, at the server and through the proxy: reported and asked for."""
        found: list[object] = []
        for direct in (True, False):
            with self.login(direct, parameters) as client:
                asked = [client.value(f"select current_setting('{name}')") for name in names]
                found.append((asked, client.parameters))
        return found


@pytest.fixture
def both(proxy: RunningProxy) -> Both:
    return Both(proxy)


# --- settings -------------------------------------------------------------------------------------------------------

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "none": {},
    "one": {"TimeZone": "Europe/Berlin"},
    "in another case": {"timezone": "Europe/Berlin", "DATESTYLE": "german"},
    "one that is not reported": {"statement_timeout": "12345", "work_mem": "7MB"},
    "a list": {"search_path": 'public, "Odd, name", "$user"'},
    "an application": {"application_name": "an application"},
    "an application with odd letters": {"application_name": "Zoë's\ttool"},
    "an application with a long name": {"application_name": "x" * 100},
    "an encoding": {"client_encoding": "LATIN1"},
    "an encoding in quotes": {"client_encoding": "'utf-8'"},
    "floats": {"extra_float_digits": "2"},
    "a role": {"role": "helios"},
    "-c": {"options": "-c statement_timeout=4321"},
    "-c without a blank": {"options": "-cstatement_timeout=4321"},
    "--": {"options": "--statement-timeout=4321"},
    "dashes": {"options": "-c statement-timeout=4321"},
    "an end of options": {"options": "-c work_mem=7MB --"},
    "several": {"options": "-c work_mem=7MB  -c statement_timeout=4s --default_transaction_isolation=serializable"},
    "an escaped blank": {"options": "-c DateStyle=German,\\ DMY -c application_name=two\\ words"},
    "an escaped backslash": {"options": "-c application_name=back\\\\slash"},
    "an escape at the end": {"options": "-c application_name=end\\"},
    "blanks around": {"options": "  -c work_mem=7MB "},
    "empty options": {"options": ""},
    "the last counts": {"options": "-c work_mem=7MB -c work_mem=8MB"},
    "the packet before options": {"options": "-c work_mem=7MB", "work_mem": "9MB"},
    "an application in options": {"options": "-c application_name=in_options"},
    "an isolation": {"options": "-c default_transaction_isolation=repeatable\\ read"},
    "a value with an equals sign": {"options": "-c application_name=a=b"},
    "a custom one": {"options": "-c my.own=text", "work_mem": "7MB"},
}


@pytest.mark.parametrize("case", list(SETTINGS))
def test_settings_are_what_they_are_at_the_server(both: Both, case: str) -> None:
    names = (*WHEN_ASKED, "my.own") if case == "a custom one" else WHEN_ASKED
    direct, proxied = both.settings(SETTINGS[case], names)
    assert proxied == direct


@pytest.mark.parametrize("case", list(SETTINGS))
def test_settings_are_there_on_every_link_and_come_back_with_reset(both: Both, case: str) -> None:
    """Others dirty the links between this client's statements."""
    parameters = SETTINGS[case]
    asked = "select " + ", ".join(f"current_setting('{name}')" for name in WHEN_ASKED)
    with both.login(True, parameters) as direct:
        expected = direct.query(asked).rows
        assert direct.query("reset all").commands == ["RESET"]
        assert direct.query(asked).rows == expected
    with both.login(False, parameters) as client, both.login(False, {"work_mem": "3MB"}) as other:
        for step in ("select 1", "begin", "commit", "reset all", "set work_mem to '2MB'", "discard all"):
            assert not client.query(step).errors
            if step.startswith("set"):
                continue
            other.query("set application_name to 'other'; set search_path to nowhere; set statement_timeout to 9999")
            assert client.query(asked).rows == expected, step
            assert other.query("select current_setting('search_path'), current_setting('work_mem')").rows == [
                ("nowhere", "3MB")
            ]


@pytest.mark.parametrize("reset", ["reset DateStyle", "reset all"])
@pytest.mark.parametrize("held", ["begin", "create temp table held (n int)"], ids=["transaction", "pinned"])
def test_a_reset_to_what_the_start_up_said_leaves_the_role_as_it_is(both: Both, held: str, reset: str) -> None:
    """The link keeps its client meanwhile, and nobody asks the server which role that is."""
    seen: list[list[str | None]] = []
    asked = "select current_user || ' ' || current_setting('DateStyle') || ' ' || current_setting('search_path')"
    steps = ("set role pg_monitor", held, "set role pg_read_all_stats", "set search_path to nowhere, public", reset)
    both.proxy.cluster.psql("grant pg_monitor to helios")
    for direct in (True, False):
        with both.login(direct, {"options": "-c DateStyle=German"}) as client:
            for step in steps:
                assert not client.query(step).errors, step
            seen.append([client.value(asked), client.query("rollback").status, client.value(asked)])
    both.proxy.cluster.psql("revoke pg_monitor from helios")
    assert seen[1] == seen[0]


def test_R2_who_begins_serializable_reads_where_that_can_be_and_disturbs_nobody(both: Both) -> None:
    """A standby refuses every statement under that default, also one that would change it."""
    parameters = {"options": "-c default_transaction_isolation=serializable"}
    with both.login(False, parameters) as client, both.login(False, {}) as other:
        for turn in range(6):
            assert client.query(f"select {turn} as n{turn} from pg_am limit 1").rows == [(str(turn),)]
            assert client.value("show transaction_isolation") == "serializable"
            assert other.query(f"select {turn} as m{turn} from pg_am limit 1").rows == [(str(turn),)]
            assert other.value("show transaction_isolation") == "read committed"


def test_the_database_is_the_users_name_where_none_is_given(both: Both) -> None:
    with both.login(False, {"database": ""}) as client:
        assert client.value("select current_database()") == "helios"


# --- refusals -------------------------------------------------------------------------------------------------------

REFUSED: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "an unknown database": ("3D000", {"database": "no_such_database"}),
    "a database with odd letters": ("3D000", {"database": 'no "such" database'}),
    "a database not accepting connections": ("55000", {"database": "closed_to_all"}),
    "an unknown setting": ("42704", {"no_such_setting": "1"}),
    "an unknown setting in options": ("42704", {"options": "-c no_such_setting=1"}),
    "a bad value": ("22023", {"TimeZone": "nowhere"}),
    "a bad value in options": ("22023", {"options": "-c work_mem=plenty"}),
    "a value out of range": ("22023", {"work_mem": "1kB"}),
    "a bad encoding": ("22023", {"client_encoding": "KLINGON"}),
    "a setting that only a restart changes": ("55P02", {"options": "-c shared_buffers=1GB"}),
    "a setting of superusers": ("42501", {"options": "-c log_statement=all"}),
    "an unknown role": ("22023", {"role": "no_such_role"}),
    "a role that is not its own": ("42501", {"role": "postgres"}),
    "no privilege to connect": ("42501", {"user": "barred"}),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_who_is_not_let_in_is_told_what_the_server_says(both: Both, case: str) -> None:
    sqlstate, parameters = REFUSED[case]
    direct, proxied = both.refusals(parameters)
    assert direct["C"] == sqlstate
    assert proxied == direct
    assert both.refusals(parameters) == [direct, direct], "the second time as well"


def test_a_user_that_the_server_does_not_know_is_told_so(both: Both) -> None:
    """PostgreSQL itself says only that the password was wrong; the proxy, which knows the user, quotes it."""
    direct, proxied = both.refusals({"user": "nobody_there"})
    assert (proxied["C"], proxied["V"]) == ("28P01", "FATAL")
    assert proxied == direct


def test_a_role_with_too_many_connections_is_told_so_and_let_in_later(both: Both) -> None:
    with both.login(True, {"user": "crowded"}) as holder:
        direct, proxied = both.refusals({"user": "crowded"})
        assert direct["C"] == "53300"
        assert proxied == direct
        holder.close()
    gone = "select count(*) from pg_stat_activity where usename = 'crowded'"
    wait_for(lambda: both.proxy.cluster.psql(gone) == "0", "the only connection to end")
    with both.login(False, {"user": "crowded"}) as client:
        assert client.value("select current_user") == "crowded"


BAD_OPTIONS = ("-x", "-c", "-c novalue", "--novalue", "value", "-c work_mem=7MB -x", "-- x")


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_options_that_make_no_sense_are_refused_and_nobody_else_notices(both: Both, options: str) -> None:
    with both.login(False, {}) as bystander:
        direct, proxied = both.refusals({"options": options})
        assert [proxied[key] for key in "VCM"] == [direct[key] for key in "VCM"]
        assert bystander.value("select 'undisturbed'") == "undisturbed"


@pytest.mark.parametrize("value", ["true", "on", "1", "yes", "TRUE", "t", "Y", "database"])
def test_replication_is_refused_with_a_clear_error(both: Both, value: str) -> None:
    with pytest.raises(raw.Refused) as caught:
        both.login(False, {"replication": value}).close()
    assert caught.value.sqlstate == "0A000"
    assert "replication" in caught.value.fields["M"]
    assert caught.value.fields["H"]


@pytest.mark.parametrize("value", ["false", "off", "0", "no", "FALSE", "of", "F"])
def test_replication_that_is_off_is_an_ordinary_connection(both: Both, value: str) -> None:
    for direct in (True, False):
        with both.login(direct, {"replication": value}) as client:
            assert client.value("select 'ordinary'") == "ordinary"


@pytest.mark.parametrize("value", ["perhaps", "o", "", "truely", "DATABASE"])
def test_a_replication_value_that_is_none_is_refused_as_by_the_server(both: Both, value: str) -> None:
    direct, proxied = both.refusals({"replication": value})
    assert (proxied["C"], proxied["M"]) == (direct["C"], direct["M"])


def test_libpq_is_told_the_servers_words(both: Both) -> None:
    proxy = both.proxy
    for sqlstate, parameters in REFUSED.values():
        if set(parameters) <= {"options"}:
            with pytest.raises(psycopg.OperationalError) as caught:
                psycopg.connect(**proxy.parameters(**parameters))  # type: ignore[arg-type]
            assert both.refusals(parameters)[0]["M"] in str(caught.value), sqlstate


# --- versions and options of the protocol ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minor", "options", "negotiated"),
    [
        (0, {}, None),
        (2, {}, None),
        (3, {}, (2, ())),
        (9999, {}, (2, ())),
        (0, {"_pq_.unknown": "1"}, (0, ("_pq_.unknown",))),
        (2, {"_pq_.one": "1", "_pq_.two": ""}, (2, ("_pq_.one", "_pq_.two"))),
        (7, {"_pq_.both": "x"}, (2, ("_pq_.both",))),
    ],
)
def test_a_version_or_an_option_that_is_not_known_is_negotiated(
    both: Both, minor: int, options: dict[str, str], negotiated: tuple[int, tuple[str, ...]] | None
) -> None:
    with both.login(False, {}, minor=minor, options=options) as client:
        assert client.negotiated == negotiated
        assert len(client.key[1]) == (4 if minor < 2 else 32)
        assert client.value("select 'agreed'") == "agreed"


def test_an_option_that_is_not_known_is_negotiated_as_by_the_server(both: Both) -> None:
    """PostgreSQL 16 speaks 3.0 only, so that is what can be compared."""
    told = []
    for direct in (True, False):
        with both.login(direct, {}, options={"_pq_.unknown": "1"}) as client:
            told.append(client.negotiated)
    assert told[0] == told[1] == (0, ("_pq_.unknown",))


def test_two_clients_that_begin_at_once_with_equal_settings_are_both_let_in(both: Both) -> None:
    """What a server says to them is found out once, and each combination once."""
    clients = [both.login(False, {"work_mem": f"{size % 3 + 10}MB"}) for size in range(9)]
    try:
        for size, client in enumerate(clients):
            assert client.value("show work_mem") == f"{size % 3 + 10}MB"
    finally:
        for client in clients:
            client.close()
