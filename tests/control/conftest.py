"""A proxy that runs in the test's own nursery, with the bundled hints and no node that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import trio
from starlette.applications import Starlette

from heliosproxy.config.model import Config
from heliosproxy.control.admin import application
from heliosproxy.control.reload import Reloader
from heliosproxy.sandbox import Found, Plugin, Sandbox
from heliosproxy.switch.proxy import Proxy
from tests.control.support import configuration


@pytest.fixture(scope="module")
def config() -> Config:
    return configuration(routing={"aliases": {"analytics": ["away"]}})


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.fixture
def plugins(sandbox: Sandbox, config: Config) -> Iterator[Sequence[Plugin]]:
    loaded = sandbox.load(config)
    yield loaded
    for plugin in loaded:
        plugin.close()


@pytest.fixture
def installed(sandbox: Sandbox, config: Config) -> Sequence[Found]:
    return sandbox.installed(config)


@pytest.fixture
async def proxy(config: Config, plugins: Sequence[Plugin]) -> AsyncIterator[Proxy]:
    made = Proxy(config, plugins)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            await nursery.start(made.run)
        yield made
        made.stop()


@pytest.fixture
async def app(proxy: Proxy, installed: Sequence[Found], config: Config) -> Starlette:
    return application(proxy, list(installed), config, Reloader(proxy))
