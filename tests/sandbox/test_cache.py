"""The compile cache: used when it is ours and whole, replaced when it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from wasmtime import Config, Engine, wat2wasm
from wasmtime.component import Component

from heliosproxy.sandbox import cache
from heliosproxy.sandbox.cache import CompileCache, default_directory, read_trusted, write_private

WASM = bytes(wat2wasm('(component (core module $m (func (export "f"))))'))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(Config())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def only_file(directory: Path) -> Path:
    (file,) = directory.iterdir()
    return file


def test_what_was_compiled_is_remembered_for_us_only(engine: Engine, directory: Path) -> None:
    CompileCache(directory).component(engine, WASM)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert only_file(directory).stat().st_mode & 0o777 == 0o600


def test_what_is_remembered_is_not_compiled_again(engine: Engine, directory: Path, monkeypatch) -> None:
    CompileCache(directory).component(engine, WASM)
    monkeypatch.setattr(cache, "Component", Deserializing)
    assert CompileCache(directory).component(engine, WASM) == "from the cache"


class Deserializing(Component):
    """A component that cannot be compiled."""

    def __init__(self, engine: Engine, wasm: object) -> None:
        raise AssertionError("it was compiled again")

    @classmethod
    def deserialize(cls, engine: Engine, encoded: object) -> str:  # type: ignore[override]
        return "from the cache"


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_damaged_file_is_replaced(engine: Engine, directory: Path, at: int) -> None:
    CompileCache(directory).component(engine, WASM)
    file = only_file(directory)
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[at] ^= 1
    file.write_bytes(damaged)
    assert read_trusted(file) is None
    assert isinstance(CompileCache(directory).component(engine, WASM), Component)
    assert only_file(directory).read_bytes()[:65] == whole[:65] or read_trusted(file) is not None
    assert read_trusted(file) is not None


def test_code_of_another_kind_is_compiled_afresh(engine: Engine, directory: Path) -> None:
    CompileCache(directory).component(engine, WASM)
    write_private(only_file(directory), b"not code at all")
    assert isinstance(CompileCache(directory).component(engine, WASM), Component)


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_not_trusted(engine: Engine, directory: Path, mode: int) -> None:
    CompileCache(directory).component(engine, WASM)
    file = only_file(directory)
    assert read_trusted(file) is not None
    file.chmod(mode)
    assert read_trusted(file) is None


def test_a_directory_that_others_may_write_is_not_trusted(engine: Engine, directory: Path) -> None:
    CompileCache(directory).component(engine, WASM)
    directory.chmod(0o777)
    assert read_trusted(only_file(directory)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_not_trusted(engine: Engine, directory: Path) -> None:
    CompileCache(directory).component(engine, WASM)
    file = only_file(directory)
    os.chown(file, 65534, 65534)
    assert read_trusted(file) is None


def test_a_symbolic_link_is_not_followed(engine: Engine, directory: Path, tmp_path: Path) -> None:
    CompileCache(directory).component(engine, WASM)
    file = only_file(directory)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert read_trusted(file) is None


def test_a_cache_that_cannot_be_written_is_done_without(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert isinstance(CompileCache(tmp_path / "file" / "cache").component(engine, WASM), Component)


def test_the_directory_follows_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_directory() == Path("/somewhere/heliosproxy")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_directory() == Path.home() / ".cache" / "heliosproxy"
