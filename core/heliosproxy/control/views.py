"""What the admin API shows, as plain values for JSON. Nothing here holds a secret, or a statement but as its shape."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from time import monotonic
from typing import TYPE_CHECKING, TypedDict, cast

from helios_sdk.contract import HookSpec, Manifest

from heliosproxy import __version__
from heliosproxy.config.model import Config
from heliosproxy.control.shapes import (
    ClusterShown,
    FlowsShown,
    HintShown,
    HookShown,
    NodeShown,
    PluginShown,
    PoolShown,
    ProxyShown,
    StatusShown,
)

if TYPE_CHECKING:
    from heliosproxy.sandbox import Found, Plugin, PluginStatistics
    from heliosproxy.switch.proxy import Proxy

_DECIDING = ("on-parse", "on-route")


def not_ready(proxy: Proxy) -> list[str]:
    """Why clients cannot be served now; empty if they can."""
    reasons = ["the proxy is stopping"] if proxy.stopping.is_set() else []
    if not any(node.healthy for node in proxy.cluster.nodes):
        reasons += [f"{node.name} is down: {node.reason}" for node in proxy.cluster.nodes]
    return reasons


def status(proxy: Proxy) -> StatusShown:
    """`GET /status`: everything at a glance."""
    now = monotonic()
    cluster = asdict(proxy.cluster.statistics())
    nodes = cast("list[NodeShown]", list(cluster.pop("nodes")))
    table = proxy.planner.table.statistics()
    statistics = proxy.statistics()
    return {
        "version": __version__,
        "listen": str(proxy.address),
        "uptime": round(statistics.uptime, 3),
        "proxy": cast("ProxyShown", asdict(statistics)),
        "nodes": nodes,
        "cluster": cast("ClusterShown", cluster),
        "pools": [cast("PoolShown", asdict(pool.statistics(now))) for pool in proxy.switch.links.pools],
        "flows": cast("FlowsShown", {**asdict(table), "remembered": round(table.remembered, 4)}),
        "plugins": [
            {"name": p.name, "version": p.manifest.version, "state": p.state, "reason": p.reason}
            for p in proxy.planner.plugins
        ],
    }


def plugins(proxy: Proxy, installed: Sequence[Found]) -> list[PluginShown]:
    """`GET /plugins`: the loaded plugins in the order in which they decide, then those that could be enabled."""
    table = proxy.planner.table.statistics()
    loaded = [_loaded(plugin, table.hits + table.misses) for plugin in proxy.planner.plugins]
    names = {plugin.name for plugin in proxy.planner.plugins}
    return loaded + [found_plugin(found) for found in installed if found.name not in names]


def _loaded(plugin: Plugin, statements: int) -> PluginShown:
    statistics = plugin.statistics()
    return {
        **_described(plugin.manifest),
        "origin": plugin.origin,
        "hooks": [_hook(spec, statistics) for spec in plugin.manifest.hooks],
        "state": plugin.state,
        "reason": plugin.reason,
        "calls": statistics.calls,
        "faults": statistics.faults,
        "refused": statistics.refused,
        "microseconds_per_call": _mean(statistics.microseconds, statistics.calls),
        "memory": statistics.memory,
        "instances": statistics.instances,
        "remembered": _remembered(statistics, statements),
    }


def found_plugin(found: Found) -> PluginShown:
    """A plugin that is installed and not loaded. It has no counters."""
    shown: PluginShown = {
        "name": found.name,
        "origin": found.origin,
        "hooks": [] if found.manifest is None else [_hook(spec, None) for spec in found.manifest.hooks],
        "state": "broken" if found.problems else "not enabled",
        "reason": "; ".join(found.problems),
    }
    return shown if found.manifest is None else {**shown, **_described(found.manifest)}


class _Described(TypedDict):
    name: str
    version: str
    summary: str
    contract: str
    stage: str
    capabilities: list[str]
    tables: list[str]


def _described(manifest: Manifest) -> _Described:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "summary": manifest.summary,
        "contract": manifest.contract,
        "stage": manifest.stage,
        "capabilities": list(manifest.capabilities),
        "tables": list(manifest.tables),
    }


def _hook(spec: HookSpec, statistics: PluginStatistics | None) -> HookShown:
    shown: HookShown = {
        "hook": spec.hook,
        "reads": list(spec.reads),
        "only_with": list(spec.only_with),
        "on_failure": spec.on_failure,
    }
    if statistics is not None:
        counted = statistics.hooks[spec.hook]
        shown["calls"], shown["faults"] = counted.calls, counted.faults
        shown["microseconds_per_call"] = _mean(counted.microseconds, counted.calls)
    return shown


def _mean(total: float, count: int) -> float | None:
    return round(total / count, 1) if count else None


def _remembered(statistics: PluginStatistics, statements: int) -> float | None:
    """Share of the statements that did not need the plugin's answer anew, 0 to 1; None before the first.

    Of its hooks the one asked more often counts. Explanations ask it too, without a statement: the share is then a
    little low.
    """
    asked = [counted.calls for hook, counted in statistics.hooks.items() if hook in _DECIDING]
    if not asked or not statements:
        return None
    return round(max(0.0, 1 - max(asked) / statements), 4)


def hints(manifests: Sequence[Manifest], config: Config) -> list[HintShown]:
    """`GET /routing/hints`: the `x-hints` of these plugins' schemas.

    Whatever `[routing.aliases]` names is a further value of `route`, where one of them owns `[routing]`.
    """
    known: dict[str, dict[str, None]] = {}
    for manifest in manifests:
        for hint in json.loads(manifest.schema).get("x-hints", ()):
            known.setdefault(str(hint["name"]), {}).update(dict.fromkeys(map(str, hint["values"])))
    aliases = config.table("routing.aliases")
    if isinstance(aliases, dict) and "route" in known and any("routing" in each.tables for each in manifests):
        known["route"].update(dict.fromkeys(aliases))
    return [{"name": name, "values": list(values)} for name, values in known.items()]
