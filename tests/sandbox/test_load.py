"""Loading: what is found where, what is refused and why, and where in the configuration the mistake is."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helios_sdk.contract import Flush, Hint, Manifest, Statement
from wasmtime import wat2wasm

from heliosproxy.config.model import Config, Plugins
from heliosproxy.sandbox import Limits, LoadError, Problem, Sandbox, frame
from heliosproxy.sandbox.frame import Frame
from heliosproxy.sandbox.host import LINE_LENGTH, LINES_PER_SECOND

Configuration = Callable[..., Config]


@pytest.fixture(scope="module")
def sandbox(compiled: Path) -> Iterator[Sandbox]:
    limits = Limits(load_deadline=0.5)
    with Sandbox(limits, cache=compiled, bundled=Path("/nonexistent")) as made:
        yield made


def problems(sandbox: Sandbox, config: Config) -> tuple[Problem, ...]:
    with pytest.raises(LoadError) as caught:
        sandbox.load(config)
    return caught.value.problems


def test_plugins_come_by_stage_then_in_the_order_in_which_they_are_enabled(
    sandbox: Sandbox, configuration: Configuration
) -> None:
    plugins = sandbox.load(configuration("echo", "misbehave", "granted", "hidden"))
    assert [plugin.name for plugin in plugins] == ["misbehave", "granted", "hidden", "echo"]
    for plugin in plugins:
        plugin.close()


def test_installed_lists_every_plugin_with_its_manifest(sandbox: Sandbox, configuration: Configuration) -> None:
    found = {each.name: each for each in sandbox.installed(configuration())}
    echo = found["echo"].manifest
    assert echo is not None
    assert (echo.version, echo.summary) == ("1.2.3", "Says what it was given, and every action there is.")
    assert [spec.hook for spec in echo.hooks] == ["on-connect", "on-parse", "on-route", "on-result", "on-tick"]
    assert found["echo"].origin.endswith("guests.wasm")
    assert found["echo"].problems == ()
    assert found["wrong-stage"].problems != ()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("wrong-name", "its manifest calls it 'somebody-else'"),
        ("wrong-contract", "it was built against contract '9.0'; this proxy speaks 0.1"),
        ("wrong-stage", "its stage 'whenever' is not one of identity, "),
        ("wrong-capability", "it asks for the capability 'everything'; there are log, clock"),
        ("wrong-fact", "on-parse reads 'password', which is no fact"),
        ("wrong-condition", "on-parse has only-with 'user', which is none"),
        ("wrong-twice", "it names the hook on-tick twice"),
        ("wrong-hookless", "it has no hook"),
        ("wrong-table", "it claims the configuration table [pool], which is the proxy's"),
        ("wrong-json", "its schema is no JSON: "),
        ("wrong-schema", "its schema is wrong at type: "),
        ("wrong-property", "its schema describes 'auth', which it does not own"),
        ("wrong-remote", "its schema cannot be used: "),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_reason(
    sandbox: Sandbox, configuration: Configuration, name: str, why: str
) -> None:
    (problem,) = problems(sandbox, configuration(name))
    assert problem.plugin == name
    assert why in problem.message


def test_every_problem_is_reported_at_once(sandbox: Sandbox, configuration: Configuration) -> None:
    config = configuration("echo", "nobody", "wrong-stage", "granted", "echo", tables={"greetings": {"times": 0}})
    found = {(problem.plugin, problem.path) for problem in problems(sandbox, config)}
    assert found == {
        ("nobody", ("plugins", "enabled", 1)),
        ("wrong-stage", None),
        ("granted", ("greetings", "times")),
        ("echo", ("plugins", "enabled", 4)),
    }


@pytest.mark.parametrize(
    ("tables", "path", "why"),
    [
        ({"greetings": {"word": 7}}, ("greetings", "word"), "7 is not of type 'string'"),
        ({"greetings": {"wrod": "x"}}, ("greetings", "wrod"), "unknown key"),
        ({"plugins.granted": {"loud": "yes"}}, ("plugins", "granted", "loud"), "'yes' is not of type 'boolean'"),
        ({"greetings": {"word": "boo"}}, ("greetings", "word"), "boo is no greeting"),
    ],
)
def test_a_mistake_in_a_plugins_configuration_points_into_the_file(
    sandbox: Sandbox, configuration: Configuration, tables: dict[str, object], path: tuple[str, ...], why: str
) -> None:
    assert problems(sandbox, configuration("granted", tables=tables)) == (Problem("granted", path, why),)


def test_a_plugin_sees_its_own_tables_only(sandbox: Sandbox, configuration: Configuration, caplog) -> None:
    tables = {"greetings": {"word": "salve"}, "routing": {"secret": True}, "plugins.echo": {}}
    (plugin,) = sandbox.load(configuration("granted", tables=tables))
    with caplog.at_level(logging.INFO):
        plugin.on_parse(Statement("select", hints=(Hint("log", "world"),)))
        plugin.on_parse(Statement("select", hints=(Hint("print", "again"),)))
    assert [(each.name, each.levelname, each.getMessage()) for each in caplog.records] == [
        ("heliosproxy.plugin.granted", "WARNING", "salve world"),
        ("heliosproxy.plugin.granted", "INFO", "salve again"),
    ]
    plugin.close()


def test_a_plugins_log_is_bounded_in_length_and_rate_P3(sandbox: Sandbox, configuration: Configuration, caplog) -> None:
    (plugin,) = sandbox.load(configuration("granted"))
    with caplog.at_level(logging.INFO):
        plugin.on_parse(Statement("select", hints=(Hint("log", "a\nb\x1b[31m" + "x" * 5_000),)))
        for _ in range(12):
            plugin.on_parse(Statement("select", hints=(Hint("flood", "10"),)))
    assert caplog.records[0].getMessage().startswith("hello a b [31mxxx")
    assert len(caplog.records[0].getMessage()) == LINE_LENGTH
    assert len(caplog.records) == LINES_PER_SECOND
    plugin.close()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"just text", "is no WebAssembly component"),
        (bytes(wat2wasm("(module)")), "is a core module; a plugin is a component"),
        (b"\0asm\r\0\1\0" + b"\xff" * 40, "cannot be compiled: "),
        (bytes(wat2wasm("(component)")), "it does not export"),
        (
            bytes(wat2wasm('(component (import "wasi:cli/exit@0.2.0" (instance)))')),
            "imports wasi:cli/exit@0.2.0, which no plugin is given",
        ),
        (
            bytes(wat2wasm('(component (import "helios:plugin/log@0.1.0" (instance (export "erase" (func)))))')),
            "imports helios:plugin/log@0.1.0, which no plugin is given",
        ),
    ],
    ids=["empty", "text", "module", "garbage", "exports nothing", "wasi", "unknown function"],
)
def test_a_file_that_is_no_plugin_is_refused_with_the_reason(
    sandbox: Sandbox, tmp_path: Path, content: bytes, why: str
) -> None:
    (tmp_path / "bad.wasm").write_bytes(content)
    (problem,) = problems(sandbox, Config(Path("x"), (), plugins=Plugins(enabled=(), path=(tmp_path,))))
    assert problem.plugin == "bad.wasm"
    assert why in problem.message
    assert str(tmp_path) in problem.message


def test_a_truncated_component_is_refused(sandbox: Sandbox, guests: Path, tmp_path: Path) -> None:
    data = (guests / "guests.wasm").read_bytes()
    (tmp_path / "half.wasm").write_bytes(data[: len(data) // 2])
    (problem,) = problems(sandbox, Config(Path("x"), (), plugins=Plugins(enabled=(), path=(tmp_path,))))
    assert "cannot be compiled" in problem.message


def test_a_component_on_the_path_replaces_the_bundled_one(guests: Path, compiled: Path, tmp_path: Path) -> None:
    bundled = guests / "guests.wasm"
    with Sandbox(Limits(load_deadline=0.5), cache=compiled, bundled=bundled) as sandbox:
        (without,) = sandbox.load(Config(Path("x"), (), plugins=Plugins(enabled=("echo",))))
        shutil.copy(bundled, tmp_path / "own.wasm")
        (within,) = sandbox.load(Config(Path("x"), (), plugins=Plugins(enabled=("echo",), path=(tmp_path,))))
        assert (without.origin, within.origin) == ("bundled", str(tmp_path / "own.wasm"))
        without.close()
        within.close()


def test_a_directory_that_is_not_there_is_reported(sandbox: Sandbox, tmp_path: Path) -> None:
    config = Config(Path("x"), (), plugins=Plugins(enabled=(), path=(tmp_path / "gone",)))
    assert problems(sandbox, config) == (
        Problem("gone", ("plugins", "path", 0), f"{tmp_path / 'gone'} is no directory"),
    )


def test_without_the_expected_layout_calls_take_the_public_path(
    compiled: Path, configuration: Configuration, monkeypatch
) -> None:
    monkeypatch.setattr(frame, "usable", lambda: "laid out differently")
    with Sandbox(Limits(load_deadline=0.5), cache=compiled, bundled=Path("/nonexistent")) as sandbox:
        (plugin,) = sandbox.load(configuration("echo"))
        assert not sandbox.fast
        assert plugin.on_tick(7) == (Flush("7"),)
        plugin.close()


def test_frames_that_disagree_with_the_public_path_are_not_used(
    compiled: Path, configuration: Configuration, monkeypatch, caplog
) -> None:
    call = Frame.call

    def lie(self: Frame, ticks: int, *values: object) -> object:
        answer = call(self, ticks, *values)
        return replace(answer, version="0") if isinstance(answer, Manifest) else answer

    monkeypatch.setattr(Frame, "call", lie)
    with Sandbox(Limits(load_deadline=0.5), cache=compiled, bundled=Path("/nonexistent")) as sandbox:
        (plugin,) = sandbox.load(configuration("echo"))
        assert not sandbox.fast
        assert plugin.manifest.version == "1.2.3"
        assert "slower API" in caplog.text
        plugin.close()


def test_two_owners_of_a_table_are_refused(sandbox: Sandbox, configuration: Configuration) -> None:
    from heliosproxy.sandbox.manifest import ownership_problems

    manifests = [each.manifest for each in sandbox.installed(configuration()) if each.manifest]
    granted = next(each for each in manifests if each.name == "granted")
    assert ownership_problems([granted]) == []
    other = type(granted)("other", "1", "", "0.1", "rules", (), (), ("greetings",))
    assert ownership_problems([granted, other]) == [
        Problem("other", None, "the table [greetings] belongs to plugin granted already")
    ]


def test_an_unreadable_file_is_reported(sandbox: Sandbox, tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone", tmp_path / "dangling.wasm")
    (problem,) = problems(sandbox, Config(Path("x"), (), plugins=Plugins(enabled=(), path=(tmp_path,))))
    assert "cannot be read: No such file or directory" in problem.message
