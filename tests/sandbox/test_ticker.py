"""The ticker ends a guest that does not end by itself, both ways, and stops."""

from __future__ import annotations

import sys
import threading
import time

import pytest
from wasmtime import Config, Engine, Instance, Module, Store, Trap

from heliosproxy.sandbox.ticker import Ticker

LOOP = '(module (func (export "run") (loop br 0)))'


@pytest.fixture(scope="module")
def engine() -> Engine:
    config = Config()
    config.epoch_interruption = True
    return Engine(config)


def run_forever(engine: Engine, ticks: int) -> float:
    store = Store(engine)
    store.set_epoch_deadline(ticks)
    run = Instance(store, Module(engine, LOOP), []).exports(store)["run"]
    started = time.process_time()
    with pytest.raises(Trap, match="interrupt"):
        run(store)  # type: ignore[operator]
    return time.process_time() - started


@pytest.mark.parametrize("timer", [True, False])
def test_a_loop_ends_after_its_ticks_and_not_before(engine: Engine, timer: bool) -> None:
    ticker = Ticker(engine, 0.010, timer=timer)
    ticker.start()
    try:
        assert ticker.kind == ("timer" if timer and sys.platform == "linux" else "thread")
        for _ in range(3):
            assert 0.010 < run_forever(engine, 3) < 0.5
    finally:
        ticker.stop()
    assert ticker.kind == "stopped"


def test_the_thread_is_gone_after_stop(engine: Engine) -> None:
    before = threading.active_count()
    ticker = Ticker(engine, 0.001, timer=False)
    ticker.start()
    assert threading.active_count() == before + 1
    ticker.stop()
    assert threading.active_count() == before


def test_many_tickers_come_and_go(engine: Engine) -> None:
    for _ in range(100):
        ticker = Ticker(engine, 0.001)
        ticker.start()
        ticker.stop()
