"""Which of the nodes that qualify takes the next unit."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import log

from heliosproxy.cluster.node import Node

MASK = (1 << 64) - 1


class Balancer:
    """Least in flight by weight; ties go round, each node as often as its weight says.

    Without the second half the weights would say nothing to a proxy that is not busy, where every node has nothing in
    flight. Each node has a virtual time that goes on by 1/weight when it is chosen; of equals the one furthest behind
    is next.
    """

    __slots__ = ("_hashes", "_now", "_times")

    def __init__(self) -> None:
        self._times: dict[Node, float] = {}
        self._now = 0.0
        self._hashes: dict[Node, int] = {}

    def choose(self, nodes: Sequence[Node], sticky: str | None = None) -> Node:
        """One of `nodes`, which must not be empty. A node of weight 0 counts as 1: it is here because it was named.

        With `sticky`, equal keys get the same node in every process while it is among `nodes`, and a node that comes or
        goes takes only its own share of the keys with it (rendezvous hashing).
        """
        if len(nodes) == 1:
            return nodes[0]
        if sticky is not None:
            return self._rendezvous(nodes, sticky)
        times, best, load, behind = self._times, nodes[0], -1.0, 0.0
        for node in nodes:
            mine = node.in_flight / (node.config.weight or 1)
            time = times.get(node, 0.0)
            if load < 0 or mine < load or (mine == load and time < behind):
                best, load, behind = node, mine, time
        # A node that was away does not make up for it: it is at most as far behind as the last one chosen was.
        self._now = max(behind, self._now)
        times[best] = self._now + 1 / (best.config.weight or 1)
        return best

    def _rendezvous(self, nodes: Sequence[Node], sticky: str) -> Node:
        key = _hash(sticky)
        best, highest = nodes[0], -1.0
        for node in nodes:
            own = self._hashes.get(node)
            if own is None:
                own = self._hashes[node] = _hash(node.name)
            # From 0 to 1, both excluded; then the weighted form of rendezvous hashing.
            share = ((_mix(key ^ own) >> 11) + 0.5) * 2.0**-53
            score = (node.config.weight or 1) / -log(share)
            if score > highest:
                best, highest = node, score
        return best


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _mix(value: int) -> int:
    """Spread every bit of a 64-bit number over all of them (splitmix64's finaliser)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)
