"""`helios init` without servers: URLs, names, the file's text. Real clusters: tests/cluster/test_init_discovers.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliosproxy.cli.discover import Found, Member, application_name
from heliosproxy.cli.init import BadUrl, ServerUrl, compose, parse_url, run_init
from heliosproxy.cli.survey import Server, Upstream
from heliosproxy.config.kinds import Address
from heliosproxy.config.load import load

SERVER = ServerUrl(Address("db1", 5432), "app", "hunter2", "shop")
PRIMARY = Member("primary", Address("db1", 5432), "primary", "db1")


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("postgres://u:p@db1:5433/d", ServerUrl(Address("db1", 5433), "u", "p", "d")),
        ("postgresql://u@db1", ServerUrl(Address("db1", 5432), "u", None, "u")),
        ("postgres://u%40x:p%2Fq@[::1]:1/d%20e", ServerUrl(Address("::1", 1), "u@x", "p/q", "d e")),
        ("postgres://%2Frun%2Fpg/d", ServerUrl(Address("/run/pg", 5432), "postgres", None, "d")),
        ("postgres://u:@/d?host=/run/pg", ServerUrl(Address("/run/pg", 5432), "u", None, "d")),
        ("postgres://", ServerUrl(Address("localhost", 5432), "postgres", None, "postgres")),
    ],
)
def test_urls_are_read(url: str, server: ServerUrl) -> None:
    assert parse_url(url, {}) == server


def test_what_a_url_lacks_comes_from_the_environment() -> None:
    environ = {"PGUSER": "u", "PGPASSWORD": "p"}
    assert parse_url("postgres://db1/d", environ) == ServerUrl(Address("db1", 5432), "u", "p", "d")


@pytest.mark.parametrize(
    "url", ["", "db1:5432", "mysql://u:secret@db1/d", "postgres://u:secret@db1:x/d", "postgres://u:secret@db1,db2/d"]
)
def test_a_bad_url_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(BadUrl) as caught:
        parse_url(url, {})
    assert "secret" not in str(caught.value)


def test_the_file_can_be_loaded_and_holds_no_password(tmp_path: Path) -> None:
    members = (
        PRIMARY,
        Member("b", Address("::1", 5433), "sync", "::1"),
        Member("standby-2", Address("db3", 5432), "async", "db3", matched=False),
    )
    text = compose(Found(members, "16.14", ()), ServerUrl(Address("db1", 5432), 'a"p${p', "hunter2", "shop"))
    assert "hunter2" not in text
    file = tmp_path / "heliosproxy.toml"
    file.write_text(text)
    config = load(file, {"HELIOS_HEALTH_PASSWORD": "x"}).config
    assert [(node.name, node.address, node.sync) for node in config.nodes] == [
        ("primary", Address("db1", 5432), "auto"),
        ("b", Address("::1", 5433), "auto"),
        ("standby-2", Address("db3", 5432), "async"),
    ]
    assert (config.health.user, config.health.password, config.health.database) == ('a"p${p', "x", "shop")
    assert config.auth.users[0].name == 'a"p${p'


def test_a_standby_without_a_port_is_commented_out(tmp_path: Path) -> None:
    text = compose(Found((PRIMARY, Member("b", None, "async", "db2")), "16.14", ()), SERVER)
    assert '# address = "db2:PORT"' in text.splitlines()
    file = tmp_path / "heliosproxy.toml"
    file.write_text(text)
    assert len(load(file, {"HELIOS_HEALTH_PASSWORD": "x"}).config.nodes) == 1


@pytest.mark.parametrize(
    ("conninfo", "name"),
    [
        ("user=x application_name=b host=db1", "b"),
        ("fallback_application_name=walreceiver application_name='b c' port=1", "b c"),
        ("fallback_application_name=b user=x", "b"),
        (r"application_name='it\'s'", "it's"),
        ("user=application_name", "cluster"),
        (None, "cluster"),
    ],
)
def test_a_standbys_application_name_is_the_one_libpq_chooses(conninfo: str | None, name: str) -> None:
    server = Server(
        version="16", in_recovery=True, system="1", cluster_name="cluster", max_connections=1, reserved=0, in_use=0,
        synchronous_commit="on", synchronous_standby_names="", standbys=[],
        upstream=Upstream(status="streaming", host="db1", port=1, conninfo=conninfo),
    )  # fmt: skip
    assert application_name(server) == name


def test_an_existing_file_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "heliosproxy.toml"
    file.write_text("mine")
    assert run_init("postgres://u:p@127.0.0.1:1/d", file, {}) == 1
    assert capsys.readouterr().err == f"{file} exists; --force overwrites it\n"
    assert file.read_text() == "mine"


def test_a_server_that_cannot_be_reached_is_one_line_and_exit_code_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "heliosproxy.toml"
    assert run_init("postgres://u:secret@127.0.0.1:1/d", file, {}) == 4
    assert capsys.readouterr().err == "cannot connect to 127.0.0.1:1: connection refused\n"
    assert not file.exists()


@pytest.mark.parametrize(("url", "standbys"), [("x://", []), ("postgres://db1", ["db2"])])
def test_bad_arguments_are_a_matter_of_usage(tmp_path: Path, url: str, standbys: list[str]) -> None:
    assert run_init(url, tmp_path / "a.toml", {}, standbys=standbys) == 2
