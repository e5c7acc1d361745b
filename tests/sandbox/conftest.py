"""Components of the sandbox's tests: built once per state of their sources, kept in pytest's cache directory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import helios_sdk
import pytest
from helios_sdk.build import build, contract_dir

from heliosproxy.config.model import Config, Plugins
from heliosproxy.sandbox import Limits, Plugin, Sandbox

GUESTS = Path(__file__).parent / "guests"
Load: TypeAlias = Callable[..., Plugin]


def _digest(sources: list[Path]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def work(pytestconfig: pytest.Config) -> Path:
    """A directory that outlives the test run."""
    cache = pytestconfig.cache
    assert cache is not None
    return cache.mkdir("helios-sandbox")


@pytest.fixture(scope="session")
def compiled(work: Path) -> Path:
    """The directory of the compile cache."""
    return work / "compiled"


@pytest.fixture(scope="session")
def guests(work: Path) -> Path:
    """A directory with one component that holds every plugin under `guests`."""
    sdk = Path(helios_sdk.__file__).parent
    sources = [*sorted(GUESTS.rglob("*.py")), *sorted(sdk.glob("*.py")), contract_dir() / "helios.wit"]
    directory = work / _digest(sources)
    if not (directory / "guests.wasm").is_file():
        build([GUESTS / "honest", GUESTS / "hostile", GUESTS / "wrong"], directory / "guests.wasm")
    return directory


@pytest.fixture(scope="session", params=["frame", "public"])
def fast(request: pytest.FixtureRequest) -> bool:
    """Both ways of calling."""
    return bool(request.param == "frame")


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def configuration(guests: Path) -> Callable[..., Config]:
    """Makes a configuration that enables plugins of the tests' component."""

    def make(*enabled: str, path: Path = guests, tables: Mapping[str, object] | None = None) -> Config:
        plugins = Plugins(enabled=enabled, path=(path,))
        return Config(Path("heliosproxy.toml"), (), plugins=plugins, tables=tables or {})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def sandbox(compiled: Path, clock: Clock, fast: bool) -> Iterator[Sandbox]:
    """A sandbox with a short deadline for loading, once per way of calling."""
    limits = Limits(memory=32 << 20, load_deadline=0.5)
    with Sandbox(limits, cache=compiled, bundled=Path("/nonexistent"), clock=clock, fast=fast) as made:
        yield made


@pytest.fixture
def load(sandbox: Sandbox, configuration: Callable[..., Config]) -> Iterator[Load]:
    """Loads one plugin."""
    loaded: list[Plugin] = []

    def one(name: str, **tables: object) -> Plugin:
        plugin = sandbox.load(configuration(name, tables=tables))[0]
        loaded.append(plugin)
        return plugin

    yield one
    for plugin in loaded:
        plugin.close()
