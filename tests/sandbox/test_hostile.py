"""Plugins that do not behave: every call comes back, memory stays flat, the neighbours notice nothing."""

from __future__ import annotations

import gc
import os
import re
import time
from pathlib import Path

import pytest
from helios_sdk.contract import Answer, Client, Flush, Hint, Statement, Tag

from heliosproxy.sandbox import LoadError, Plugin, PluginFault, Sandbox

PATIENCE = 1.0
"""Seconds in which a call must be back. The deadline is 10 ms of processor time; the machine may be busy."""


def asks(key: str, value: str = "") -> Statement:
    return Statement("select", hints=(Hint(key, value, 1),))


def count(plugin: Plugin) -> int:
    """How many calls this instance has had."""
    tag = plugin.on_parse(asks("count")).directives[0].action
    assert isinstance(tag, Tag)
    return int(tag.value)


def host_memory() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def misbehave(load) -> Plugin:
    return load("misbehave")


@pytest.mark.parametrize(
    ("hook", "values"),
    [
        ("on_connect", (Client(),)),
        ("on_parse", (Statement("select"),)),
        ("on_route", (Statement("select"), ())),
        ("on_result", ((),)),
        ("on_tick", (1,)),
    ],
)
def test_an_endless_loop_ends_at_the_deadline_in_every_hook(load, hook: str, values: tuple[object, ...]) -> None:
    plugin = load("loop")
    started = time.perf_counter()
    with pytest.raises(PluginFault, match="ran longer than 10 ms"):
        getattr(plugin, hook)(*values)
    assert 0.005 < time.perf_counter() - started < PATIENCE


def test_an_exception_is_a_fault_with_its_traceback_and_the_instance_survives(misbehave: Plugin) -> None:
    assert count(misbehave) == 1
    with pytest.raises(PluginFault, match="KeyError: 'missing'") as caught:
        misbehave.on_parse(asks("raise"))
    assert re.search(r'File ".*/hostile/plugin\.py", line \d+, in on_parse', caught.value.traceback)
    assert (caught.value.plugin, caught.value.hook) == ("misbehave", "on-parse")
    assert count(misbehave) == 3
    assert misbehave.statistics().faults == 1


@pytest.mark.parametrize("how", ["abort", "grow", "recurse", "loop"])
def test_after_a_deed_the_plugin_works_again(misbehave: Plugin, clock, how: str) -> None:
    started = time.perf_counter()
    with pytest.raises(PluginFault):
        misbehave.on_parse(asks(how))
    assert time.perf_counter() - started < PATIENCE
    clock.now += 1
    assert count(misbehave) >= 1
    assert misbehave.state == "enabled"


def test_a_trap_costs_the_instance(misbehave: Plugin, clock) -> None:
    count(misbehave)
    with pytest.raises(PluginFault, match="trapped"):
        misbehave.on_parse(asks("abort"))
    clock.now += 1
    assert count(misbehave) == 1
    assert misbehave.statistics().instances == 2


def test_during_the_pause_after_a_trap_calls_fault_at_once_and_the_pause_doubles(misbehave: Plugin, clock) -> None:
    for pause in (0.010, 0.020, 0.040):
        with pytest.raises(PluginFault, match="trapped"):
            misbehave.on_parse(asks("abort"))
        clock.now += pause - 0.001
        with pytest.raises(PluginFault, match="pausing"):
            misbehave.on_parse(asks("count"))
        clock.now += 0.002
    assert count(misbehave) == 1
    assert misbehave.statistics().refused == 3


def test_too_many_traps_within_a_minute_disable_with_a_reason(misbehave: Plugin, clock) -> None:
    for _ in range(6):
        with pytest.raises(PluginFault, match="trapped"):
            misbehave.on_parse(asks("abort"))
        clock.now += 5
    assert misbehave.state == "disabled"
    assert re.match(r"6 faults within a minute, the last in on-parse: it trapped: ", misbehave.reason)
    clock.now += 1_000
    with pytest.raises(PluginFault, match="disabled"):
        misbehave.on_parse(asks("count"))


def test_traps_far_apart_do_not_disable(misbehave: Plugin, clock) -> None:
    for _ in range(12):
        with pytest.raises(PluginFault, match="trapped"):
            misbehave.on_parse(asks("abort"))
        clock.now += 13
    assert misbehave.state == "enabled"


def test_faults_that_the_guest_reports_do_not_disable(misbehave: Plugin) -> None:
    for _ in range(50):
        with pytest.raises(PluginFault, match="KeyError"):
            misbehave.on_parse(asks("raise"))
    assert count(misbehave) == 51


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("nul", "NUL"),
        ("sqlstate", "'4260' is no SQLSTATE"),
        ("success", "no error's"),
        ("lower case", "'abcde' is no SQLSTATE"),
        ("nowhere", "selects nothing"),
        ("nameless node", "selector"),
        ("position", "position is 0"),
        ("ragged", "different lengths"),
        ("columnless", "0 columns"),
        ("rate", "nan tokens"),
        ("bucket", "bucket's name"),
        ("timeout", "timeout of 0"),
        ("retry", "1000000 retries"),
        ("setting", "is no setting"),
        ("blank", "rewrite to nothing"),
        ("tag", "tag's key"),
    ],
)
def test_an_answer_without_sense_is_a_fault_that_says_what(misbehave: Plugin, what: str, why: str) -> None:
    with pytest.raises(PluginFault, match=re.escape(why)):
        misbehave.on_parse(asks("answer", what))


@pytest.mark.parametrize("what", ["enumeration", "type", "negative"])
def test_an_answer_of_wrong_types_is_a_fault(misbehave: Plugin, what: str) -> None:
    with pytest.raises(PluginFault):
        misbehave.on_parse(asks("answer", what))


def test_a_hook_that_returns_no_directives_is_told_so(misbehave: Plugin) -> None:
    with pytest.raises(PluginFault, match="a hook returned 7, which is no directives"):
        misbehave.on_parse(asks("number"))


@pytest.mark.parametrize("how", ["many", "reason"])
def test_too_much_is_a_fault(misbehave: Plugin, how: str) -> None:
    with pytest.raises(PluginFault, match="malformed answer"):
        misbehave.on_parse(asks(how))


@pytest.mark.parametrize("what", ["huge text", "huge rows"])
def test_a_huge_answer_is_a_fault_and_leaves_no_memory_behind(misbehave: Plugin, clock, fast: bool, what: str) -> None:
    if what == "huge rows" and not fast:
        pytest.skip("the public API converts everything before we see it, minutes for this one")
    for _ in range(2):
        with pytest.raises(PluginFault):
            misbehave.on_parse(asks("answer", what))
        clock.now += 20
    gc.collect()
    before = host_memory()
    for _ in range(3):
        with pytest.raises(PluginFault):
            misbehave.on_parse(asks("answer", what))
        clock.now += 20
    gc.collect()
    assert host_memory() - before < 30 << 20


def test_many_effects_come_back(misbehave: Plugin) -> None:
    assert misbehave.on_tick(3) == (Flush("t"),) * 3


@pytest.mark.parametrize("capability", ["clock", "log"])
def test_an_import_that_was_not_granted_is_a_trap_that_names_it_P2(misbehave: Plugin, capability: str) -> None:
    with pytest.raises(PluginFault, match=f"plugin misbehave was not granted the capability {capability}"):
        misbehave.on_parse(asks(f"{capability}-import"))


@pytest.mark.parametrize(
    ("how", "advice"),
    [
        ("self.clock", 'capabilities = ("clock",)'),
        ("self.log", 'capabilities = ("log",)'),
        ("print", 'capabilities = ("log",)'),
        ("time", "self.clock.now()"),
        ("now", "self.clock.now()"),
        ("uuid", "random.Random(seed)"),
        ("random", "random.Random(seed)"),
        ("urandom", "random.Random(seed)"),
        ("open", "a plugin has no files"),
        ("import", "wave must be imported at the top"),
    ],
)
def test_what_would_need_the_outside_world_says_what_to_do_P3(misbehave: Plugin, how: str, advice: str) -> None:
    with pytest.raises(PluginFault, match=re.escape(advice)) as caught:
        misbehave.on_parse(asks(how))
    assert "hostile/plugin.py" in caught.value.traceback
    assert count(misbehave) == 2


def test_ten_thousand_calls_that_each_leak_leave_memory_flat(misbehave: Plugin, fast: bool) -> None:
    leak = asks("leak", "100000")
    calls = 10_000 if fast else 1_500
    faults: list[str] = []
    peak = 0
    for number in range(calls):
        try:
            assert misbehave.on_parse(leak) == Answer((), None)
        except PluginFault as fault:
            faults.append(str(fault))
        if number % 200 == 0:
            peak = max(peak, misbehave.statistics().memory)
    assert all("MemoryError" in fault for fault in faults)
    assert len(faults) < calls * 0.1
    assert misbehave.state == "enabled"
    assert misbehave.statistics().instances > 2
    assert peak <= 32 << 20


def test_a_hundred_thousand_calls_leave_the_host_flat(load, fast: bool) -> None:
    plugin = load("misbehave")
    asked = asks("none")
    for _ in range(2_000):
        plugin.on_parse(asked)
    guest, host = plugin.statistics().memory, host_memory()
    for _ in range(100_000 if fast else 2_000):
        assert plugin.on_parse(asked) == Answer((), None)
    grown = host_memory() - host - max(0, plugin.statistics().memory - guest)
    assert grown < 8 << 20


def test_a_plugin_beside_a_hostile_one_notices_nothing(sandbox: Sandbox, configuration, clock) -> None:
    hostile, honest = sandbox.load(configuration("loop", "echo"))
    try:
        for _ in range(4):
            with pytest.raises(PluginFault):
                hostile.on_parse(Statement("select"))
            clock.now += 1
            assert honest.on_tick(5) == (Flush("5"),)
        assert honest.statistics().faults == 0
        assert honest.statistics().instances == 1
    finally:
        hostile.close()
        honest.close()


@pytest.mark.parametrize(
    ("how", "why"), [("loop", "failed while it was configured"), ("abort", "failed while it was configured")]
)
def test_a_bomb_in_configure_is_a_load_error(load, how: str, why: str) -> None:
    started = time.perf_counter()
    with pytest.raises(LoadError, match=why):
        load("badstart", **{"plugins.badstart": {"how": how}})
    assert time.perf_counter() - started < 10


def test_a_bomb_in_describe_is_a_load_error(load) -> None:
    with pytest.raises(LoadError, match=r"plugin badmanifest: .*it does not describe itself: .*interrupt"):
        load("badmanifest")


def test_a_new_instance_that_cannot_be_had_is_a_fault_too(load, clock) -> None:
    plugin = load("badstart")
    for _ in range(6):
        with pytest.raises(PluginFault):
            plugin.on_tick(1)
        clock.now += 5
    assert plugin.state == "disabled"
