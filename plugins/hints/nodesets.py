"""Sets of nodes as selectors name them: whether two of them can have a node in common."""

from __future__ import annotations

from helios_sdk import Node, Selector

Nodes = tuple[Node, ...]
Select = tuple[Selector, ...]


def find(name: str, nodes: Nodes) -> Node | None:
    """The node of this name, or None."""
    for node in nodes:
        if node.name == name:
            return node
    return None


def disjoint(one: Select, other: Select, nodes: Nodes) -> bool:
    """Whether no node can be in both sets, however sync modes change and whichever node is the nearest.

    A name that no node has counts as "can be": that is an unknown node, not a contradiction.
    """
    return not any(_overlap(left, right, nodes) for left in one for right in other)


def without_primary(select: Select, nodes: Nodes) -> bool:
    """Whether the set leaves the primary out for certain."""
    return not any(_may_be_primary(selector, nodes) for selector in select)


def only_primary(select: Select, nodes: Nodes) -> bool:
    """Whether the set is the primary and nothing else."""
    return all(_is_primary(selector, nodes) for selector in select)


def _may_be_primary(selector: Selector, nodes: Nodes) -> bool:
    return selector.case in ("any", "local") or _is_primary(selector, nodes)


def _is_primary(selector: Selector, nodes: Nodes) -> bool:
    if selector.case == "node":
        node = find(str(selector.value), nodes)
        return node is not None and node.role == "primary"
    return selector.case == "role" and selector.value == "primary"


def _overlap(left: Selector, right: Selector, nodes: Nodes) -> bool:
    if left == right or left.case in ("any", "local") or right.case in ("any", "local"):
        return True
    if left.case == "node" and right.case == "node":
        return False
    if left.case == "node":
        return _may_name(right, find(str(left.value), nodes))
    if right.case == "node":
        return _may_name(left, find(str(right.value), nodes))
    # Two different classes: only "every standby" has something in common with another, namely with each sync mode.
    return {left.case, right.case} == {"role", "sync-mode"} and "primary" not in (left.value, right.value)


def _may_name(selector: Selector, node: Node | None) -> bool:
    if node is None:
        return True
    if selector.case == "role":
        return node.role == selector.value
    # A standby whose sync mode is not known yet may turn out to be of any.
    return node.role == "standby" and node.sync_mode in (None, selector.value)
