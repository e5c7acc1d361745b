"""Limits that several pools share: the links to a node, and those to one database of a node.

Where a cap is full, pools whose clients wait for a link that it forbids are noted in `blocked`. Room that becomes free
goes to the one whose next client comes first by the order of the queues. So that none starves behind others which are
always busy, a busy pool gives up a link of its own to one that has none or at least two fewer; and, once in
`PATIENCE`, to whoever has waited that long. More often would cost more in connecting than it gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliosproxy.switch.policies import Policies

if TYPE_CHECKING:
    from heliosproxy.switch.pool import Pool

PATIENCE = 1.0
"""Seconds that the first of a blocked pool waits before another pool must give up a link whatever it has."""


class Cap:
    """At most `limit` links, open or being opened, in all of `pools`. `key` says where the limit was configured."""

    def __init__(self, limit: int, key: str) -> None:
        self.limit = limit
        self.key = key
        self.used = 0
        self.pools: list[Pool] = []
        self.blocked: dict[Pool, None] = {}
        """Pools that want a link and were stopped by this cap; some of them may not want one any more."""
        self._owes = False
        self._next = 0.0

    @property
    def full(self) -> bool:
        """Whether no link more may be opened."""
        return self.used >= self.limit

    def next_pool(self) -> Pool | None:
        """Of the blocked pools that still want a link, and that no narrower cap forbids one, whose client is next."""
        for pool in list(self.blocked):
            cap = pool.full_cap
            if not pool.wanted:
                del self.blocked[pool]
            elif cap is not None and cap is not self:
                del self.blocked[pool]
                cap.blocked[pool] = None
        return min(self.blocked, key=_place, default=None)

    def gives_up(self, pool: Pool) -> bool:
        """Whether `pool`, which has a link that nobody uses, should close it so that another pool may open one."""
        other = self.next_pool()
        if other is None or other is pool:
            return False
        if not pool.queue.waiting:
            return True
        own = pool.queue.first()
        if own is not None and own.rank <= _place(other):
            return False
        if self._owes:
            self._owes = False
            return True
        return not other.count or pool.count - other.count >= 2

    def idlest(self) -> Pool | None:
        """The pool whose idle link has been so for longest."""
        return min((pool for pool in self.pools if pool.idle), key=lambda pool: pool.idle[0].released_at, default=None)

    def look(self, now: float) -> None:
        """Called with each tick: see whether somebody has waited too long for other pools."""
        pool = self.next_pool() if self.blocked else None
        waiter = pool.queue.after(pool.opening) if pool is not None else None
        self._owes = waiter is not None and now - waiter.since > PATIENCE and (self._owes or now >= self._next)
        if self._owes:
            self._next = now + PATIENCE


class Caps:
    """The caps of a configuration, each made when its first pool is."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._caps: dict[tuple[str, str | None], Cap] = {}

    def join(self, pool: Pool) -> None:
        """Put a new pool under the caps that hold for it, the narrowest first."""
        node, database = pool.node, pool.database
        limits = (
            ((node.name, database), self._policies.database_limit(database), "max_database_connections"),
            ((node.name, None), node.config.max_connections, f"max_connections of node {node.name}"),
        )
        for key, limit, name in limits:
            if limit is not None:
                cap = self._caps.setdefault(key, Cap(limit, name))
                cap.pools.append(pool)
                pool.caps += (cap,)

    def leave(self, pool: Pool) -> None:
        """A pool is no more; it has no links."""
        for cap in pool.caps:
            cap.pools.remove(pool)
            cap.blocked.pop(pool, None)

    def look(self, now: float) -> None:
        """Called with each tick."""
        for cap in self._caps.values():
            cap.look(now)


def _place(pool: Pool) -> float:
    """The rank of the client for whom the pool would open a link."""
    waiter = pool.queue.after(pool.opening)
    return float("inf") if waiter is None else waiter.rank
