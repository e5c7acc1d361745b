"""Which nodes a verdict's routes leave, now. Pure and synchronous."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from helios_sdk.contract import Pair, Route, Selector

from heliosproxy.cluster.node import Node
from heliosproxy.cluster.registry import Cluster

Selection = Sequence[tuple[Selector, ...]]
"""One tuple of selectors for each route: a node must be named by one of each."""


@dataclass(frozen=True, slots=True)
class Qualified:
    """The nodes to choose from; empty: nobody can take it now.

    `relaxed` says why, where `nodes` are not those that the routes asked for first: it is fit for a warning or, where
    there are none, for the error.
    """

    nodes: tuple[Node, ...]
    relaxed: str = ""


def qualify(cluster: Cluster, routes: tuple[Route, ...]) -> Qualified:
    """The nodes that meet every route, being healthy and within the lag allowed; valid until `cluster.version` changes.

    Where there are none, routes that have `otherwise` are taken by that instead, and then the primary is taken: it
    meets every consistency. Limits on lag and consistency are never weakened (SAFETY O4).
    """
    limit = _lag_limit(routes)
    asked = [route.select for route in routes]
    nodes = _fitting(cluster, asked, limit)
    if nodes:
        return Qualified(_preferred(cluster, nodes, routes))
    why = _explain(cluster, asked, limit)
    if any(route.otherwise for route in routes):
        nodes = _fitting(cluster, [route.otherwise or route.select for route in routes], limit)
        if nodes:
            return Qualified(_preferred(cluster, nodes, routes), f"{why}; used {_names(nodes)} instead")
    if cluster.primary is not None:
        return Qualified((cluster.primary,), f"{why}; used the primary, {cluster.primary.name}, instead")
    return Qualified((), f"{why}; and there is no primary")


def shortcoming(cluster: Cluster, routes: tuple[Route, ...], node: Node) -> str:
    """Why the node is not among those that the routes ask for first, to follow its name; empty if it is."""
    limit, asked = _lag_limit(routes), [route.select for route in routes]
    if node in _fitting(cluster, asked, limit):
        return ""
    unmet = [selectors for selectors in asked if not any(_names_node(cluster, s, node) for s in selectors)]
    return f"is not {' or '.join(map(str, unmet[0])) or 'named'}" if unmet else _shortcoming(node, limit)


def _lag_limit(routes: tuple[Route, ...]) -> int | None:
    """The strictest limit in ms. `strong` is one of 0, whatever else is said."""
    limits = [0 if route.consistency == "strong" else route.max_lag_ms for route in routes]
    return min((limit for limit in limits if limit is not None), default=None)


def _fitting(cluster: Cluster, selection: Selection, limit: int | None) -> tuple[Node, ...]:
    return tuple(
        node
        for node in cluster.nodes
        if node.healthy
        and all(any(_names_node(cluster, s, node) for s in selectors) for selectors in selection)
        and (node.config.weight > 0 or _called_by_name(cluster, selection, node))
        and (limit is None or cluster.meets(node, limit))
    )


def _names_node(cluster: Cluster, selector: Selector, node: Node) -> bool:
    case, value = selector.case, selector.value
    if case == "role":
        return node.role == value
    if case == "sync-mode":
        return node.sync_mode == value and node.role != "primary"
    if case == "node":
        return node.name == value
    if case == "label":
        return isinstance(value, Pair) and node.labels.get(value.key) == value.value
    return case == "any" or (case == "local" and _is_local(cluster, node))


def _is_local(cluster: Cluster, node: Node) -> bool:
    """In the proxy's region; where no node is, the nearest."""
    region = cluster.region
    if region and any(other.labels.get("region") == region for other in cluster.nodes):
        return node.labels.get("region") == region
    return node is cluster.nearest


def _called_by_name(cluster: Cluster, selection: Selection, node: Node) -> bool:
    """Named so that no other node could be meant: by its name, or as the primary."""
    by_name = Selector("node", node.name)
    return any(s == by_name or (s.case == "role" and s.value == "primary" == node.role) for ss in selection for s in ss)


def _preferred(cluster: Cluster, nodes: tuple[Node, ...], routes: tuple[Route, ...]) -> tuple[Node, ...]:
    wanted = [selector for route in routes for selector in route.prefer]
    first = tuple(node for node in nodes if any(_names_node(cluster, selector, node) for selector in wanted))
    return first or nodes


def _explain(cluster: Cluster, selection: Selection, limit: int | None) -> str:
    """Why each node does not qualify. The nodes that were meant come first, since theirs is the interesting reason."""
    meant, others = [], []
    for node in cluster.nodes:
        unmet = [selectors for selectors in selection if not any(_names_node(cluster, s, node) for s in selectors)]
        if unmet:
            others.append(f"{node.name} is not {' or '.join(map(str, unmet[0])) or 'named'}")
        else:
            meant.append(f"{node.name} {_shortcoming(node, limit)}")
    known = {node.name for node in cluster.nodes}
    unknown = {s.value for selectors in selection for s in selectors if s.case == "node"} - known
    strange = [f"there is no node {name}" for name in sorted(map(str, unknown))]
    return "no node qualifies: " + ", ".join(meant + strange or others or ["none is configured"])


def _shortcoming(node: Node, limit: int | None) -> str:
    if not node.healthy:
        return f"is down ({node.reason})"
    if limit is None or node.config.weight == 0:
        return "has weight 0 and was not named"
    if node.lag_ms is None:
        return f"has an unknown lag, and {limit} ms is the most allowed"
    if limit == 0:
        return "has not replayed the last write"
    return f"lags {node.lag_ms:.0f} ms, and {limit} ms is the most allowed"


def _names(nodes: Iterable[Node]) -> str:
    return ", ".join(node.name for node in nodes)
