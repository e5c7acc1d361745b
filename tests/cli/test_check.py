"""`helios check` on files, and its judgement on what nodes say. Real nodes: tests/cluster/test_check_connect.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
import typer
from helios_sdk.contract import Manifest
from typer.testing import CliRunner

from heliosproxy.cli.check import check, run_check
from heliosproxy.cli.connect import Answer, Finding, judge
from heliosproxy.cli.loading import InstalledPlugins, Plugins
from heliosproxy.cli.survey import Server, Standby, SurveyError, Upstream
from heliosproxy.config.access import ServerTls
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Config, Health, NodeConfig, Pool
from heliosproxy.config.tables import Problem
from heliosproxy.sandbox import Sandbox

GOOD = """\
[[nodes]]
name = "a"
address = "127.0.0.1:1"
[auth]
method = "trust"
[plugins]
enabled = []
"""


class NoPlugins:
    """A proxy that has none installed."""

    def manifests(self, config: Config) -> Sequence[Manifest]:
        return ()

    def broken(self, config: Config) -> Sequence[Problem]:
        return ()

    def refusals(self, config: Config) -> Sequence[Problem]:
        return ()


NONE: Plugins = NoPlugins()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "heliosproxy.toml"


def test_a_good_file_is_ok(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD)
    assert run_check(file, connect=False, json=False, plugins=NONE) == 0
    assert capsys.readouterr() == (f"{file}: ok (1 node, 0 users, 0 plugins)\n", "")


def test_five_mistakes_give_five_lines_with_carets_and_exit_code_3(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(GOOD + '[pool]\nsize = 0\nmode = "x"\nmod = 1\n[health]\ninterval = 1\n[rout]\n')
    assert run_check(file, connect=False, json=False, plugins=NONE) == 3
    out, err = capsys.readouterr()
    assert out == ""
    places = [line.removeprefix(f"{file}:").split(": ")[0] for line in err.splitlines() if line.startswith(f"{file}:")]
    assert places == ["9:8", "10:8", "11:1", "13:12", "14:2"]
    assert sum(line.strip() == "^" for line in err.splitlines()) == 5
    assert err.splitlines()[-1] == f"5 mistakes in {file}"


def test_mistakes_as_json_are_on_standard_output(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD + "[pool]\nsizes = 1\n")
    assert run_check(file, connect=False, json=True, plugins=NONE) == 3
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "ok": False,
        "file": str(file),
        "errors": [
            {
                "file": str(file),
                "line": 9,
                "column": 1,
                "path": "pool.sizes",
                "message": 'unknown key "sizes" in [pool]',
                "hint": 'did you mean "size"?',
            }
        ],
        "warnings": [],
    }


def test_a_missing_file_is_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_check(file, connect=False, json=False, plugins=NONE) == 3
    assert capsys.readouterr().err.splitlines()[0] == f"{file}: cannot read it: No such file or directory"


def test_a_warning_does_not_fail(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD + '[health]\npassword = "hunter2"\n')
    file.chmod(0o644)
    assert run_check(file, connect=False, json=False, plugins=NONE) == 0
    assert capsys.readouterr().err.startswith(f"warning: {file}:9:12: a password in plain text")


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Plugins]:
    """A real sandbox without bundled plugins."""
    with Sandbox(cache=tmp_path / "cache", bundled=tmp_path / "none.wasm") as sandbox:
        yield InstalledPlugins(sandbox)


def test_a_file_on_the_path_that_is_no_plugin_is_reported_beside_other_mistakes(
    file: Path, installed: Plugins, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = file.parent / "wasm"
    folder.mkdir()
    (folder / "broken.wasm").write_bytes(b"text")
    text = GOOD.replace("enabled = []", 'enabled = ["mine"]\npath = ["wasm"]')
    reason = f"plugin broken.wasm: {folder}/broken.wasm: is no WebAssembly component"
    for more in ("", "[pool]\nsize = 0\n"):
        file.write_text(text + more)
        assert run_check(file, connect=False, json=False, plugins=installed) == 3
        err = capsys.readouterr().err
        assert f"{file}:8:8: {reason}" in err
        assert f'{file}:7:12: no plugin named "mine" is installed (installed: none)' in err
    assert f"{file}:10:8: 0 is too small" in err


def test_the_command_exits_with_the_code(file: Path) -> None:
    file.write_text("nodes = 1\n")
    app = typer.Typer()
    app.command()(check)
    result = CliRunner().invoke(app, ["--config", str(file)])
    assert result.exit_code == 3
    assert CliRunner().invoke(app, ["--nonsense"]).exit_code == 2


def test_a_node_that_cannot_be_reached_is_one_line_at_its_address_and_exit_code_4(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(GOOD)
    assert run_check(file, connect=True, json=False, plugins=NONE) == 4
    assert capsys.readouterr().err == f"{file}:3:11: a: cannot connect to 127.0.0.1:1: connection refused\n"


# --- judgement -------------------------------------------------------------------------------------------------------

CONFIG = Config(file=Path("a.toml"), nodes=(), health=Health(user="health"), pool=Pool(size=20))


def server(**changes: object) -> Server:
    """A primary in good health, but for the changes."""
    primary: dict[str, object] = {
        "version": "16.14",
        "in_recovery": False,
        "system": "1",
        "cluster_name": "",
        "max_connections": 100,
        "reserved": 3,
        "in_use": 10,
        "synchronous_commit": "on",
        "synchronous_standby_names": "",
        "standbys": [],
        "upstream": None,
    }
    return cast(Server, primary | changes)


def row(name: str, sync_state: str | None = "async") -> Standby:
    return Standby(name=name, host=None, state=sync_state and "streaming", sync_state=sync_state)


STREAMING = Upstream(status="streaming", host="db1", port=5432, conninfo="")


def standby(**changes: object) -> Server:
    return server(in_recovery=True, upstream=STREAMING, **changes)


def findings(*given: tuple[NodeConfig, Server | SurveyError]) -> list[tuple[str, str]]:
    """Level and message of each finding."""
    answers = [
        Answer(index, node, None, said) if isinstance(said, SurveyError) else Answer(index, node, said)
        for index, (node, said) in enumerate(given)
    ]
    return [(finding.level, finding.message) for finding in judge(CONFIG, answers)]


def node(name: str, **keys: object) -> NodeConfig:
    return NodeConfig(name, Address(name, 5432), **keys)  # type: ignore[arg-type]  # keys of one test each


def test_a_healthy_cluster_gives_no_findings() -> None:
    primary = server(standbys=[row("b"), row("c", "sync")], synchronous_standby_names="c")
    assert (
        findings((node("a", role="primary"), primary), (node("b"), standby()), (node("c", sync="sync"), standby()))
        == []
    )


@pytest.mark.parametrize(
    ("given", "finding"),
    [
        (((node("a", role="standby"), server()),), ("failure", "a is a primary, not a standby; it would be left out")),
        (((node("a"), standby()),), ("failure", "none of the nodes is a primary: nothing can be written")),
        (((node("a"), server()), (node("b"), server())), ("failure", "b is a primary too, beside a")),
        (
            ((node("a"), server(standbys=[row("b")])), (node("b"), standby(system="2"))),
            ("failure", "b belongs to another cluster than a"),
        ),
        (
            ((node("a"), server(in_use=90)),),
            ("warning", "a has room for 7 more connections; one user's pool takes up to 20"),
        ),
        (
            ((node("a"), server(in_use=99)),),
            ("warning", "a has room for 0 more connections; one user's pool takes up to 20"),
        ),
        (
            ((node("a"), server(synchronous_commit="off")),),
            ("warning", "a has synchronous_commit = off: acknowledged writes can be lost in a crash"),
        ),
        (
            ((node("a"), server(synchronous_commit="local", synchronous_standby_names="b")),),
            ("warning", "a has synchronous_commit = local: it does not wait for its synchronous standbys"),
        ),
        (
            ((node("a"), server()), (node("b"), standby())),
            ("warning", 'no standby of the primary has the application_name "b"; set it, or sync'),
        ),
        (
            ((node("a"), server(standbys=[row("b", "quorum")])), (node("b", sync="async"), standby())),
            ("warning", "b is semisync to the primary, not async; the configuration wins"),
        ),
        (
            ((node("a"), server(standbys=[row("b", None)])), (node("b"), standby())),
            ("warning", 'health may not see the state of replication; grant pg_monitor to "health"'),
        ),
        (
            ((node("a"), server()), (node("b", sync="sync"), standby())),
            ("warning", "a has no synchronous_standby_names, though b is configured as synchronous"),
        ),
        (
            ((node("a"), server(standbys=[row("b")])), (node("b"), server(in_recovery=True))),
            ("warning", "b receives nothing from a primary; its lag will grow"),
        ),
        (((node("a"), SurveyError("unreachable", "no answer")),), ("unreachable", "a: no answer")),
    ],
)
def test_what_is_wrong_or_doubtful_is_found(
    given: tuple[tuple[NodeConfig, Server | SurveyError], ...], finding: tuple[str, str]
) -> None:
    assert findings(*given) == [finding]


def test_one_wrong_password_is_one_finding_whatever_the_number_of_nodes() -> None:
    refusal = SurveyError("refused", "refused", "password authentication failed")
    assert findings((node("a"), refusal), (node("b"), refusal)) == [
        ("configuration", "a, b: password authentication failed")
    ]


def test_findings_name_the_key_they_speak_of() -> None:
    (found,) = judge(CONFIG, [Answer(0, node("a"), server(in_use=90))])
    assert found == Finding("warning", "a", ("pool", "size"), found.message)


@pytest.mark.parametrize(
    ("keys", "unobserved"),
    [
        ({"tls": ServerTls("require", channel_binding="require")}, "channel_binding"),
        ({"require_auth": ("scram-sha-256",)}, "require_auth"),
        ({"tls": ServerTls("verify-full", channel_binding="require"), "require_auth": ("md5",)}, None),
        ({"tls": ServerTls("require")}, None),
    ],
)
def test_what_the_own_connections_do_not_observe_is_said(keys: dict[str, object], unobserved: str | None) -> None:
    found = [message for _, message in findings((node("a", **keys), server()))]
    assert [unobserved in message for message in found] == ([True] if unobserved else [])
