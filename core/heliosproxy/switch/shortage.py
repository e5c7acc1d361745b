"""What a client is told that waited for a link in vain."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from heliosproxy.switch.policies import section
from heliosproxy.wire.errors import PeerError

if TYPE_CHECKING:
    from heliosproxy.switch.pool import Pool
    from heliosproxy.switch.waiting import Waiter


def no_link(pool: Pool, late: Sequence[Waiter]) -> list[PeerError]:
    """An error 53300 for each of these who wait: how the pool stands, how many are ahead, what might help."""
    if not late:
        return []
    places = sorted(pool.queue.waiting.values())
    return [_error(pool, bisect_left(places, waiter)) for waiter in late]


def _error(pool: Pool, ahead: int) -> PeerError:
    active, size = len(pool.links) - len(pool.idle), pool.policy.size + pool.policy.reserve
    message = (
        f"no link for {pool} became free within {pool.policy.wait_timeout:g} s: "
        f"{active} of {size} are in use, {ahead} wait ahead"
    )
    failure, cap = pool.retry.error, pool.full_cap
    detail = f"No further link could be opened: {failure.message} ({failure.sqlstate})" if failure else None
    if failure:
        hint = f"See whether {pool.node.name} allows as many connections as the proxy may open."
    elif cap and pool.count < size:
        hint = f"Raise {cap.key}, or keep transactions shorter."
    else:
        hint = f"Raise size in {section(pool.policy)}, or keep transactions shorter."
    return PeerError(message, "53300", detail=detail, hint=hint)
