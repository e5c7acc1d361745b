"""Whatever clients, servers and the clock do, in whatever order: limits hold, nothing is lost, nobody is forgotten."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from heliosproxy.config.model import PoolFor
from heliosproxy.switch.link import Link
from heliosproxy.switch.opening import Unreachable
from heliosproxy.switch.pool import Pool
from heliosproxy.switch.session import Session
from heliosproxy.switch.waiting import Waiter
from heliosproxy.wire.errors import PeerError
from tests.switch.pools_support import Theatre, theatre
from tests.switch.stage import IDLE, ONE_ROW, Server, Speaker

USERS = ("alice", "bob", "carol")
DATABASES = ("db", "other")
REFUSALS = (
    PeerError("sorry, too many clients already", "53300"),
    PeerError("the database system is starting up", "57P03"),
    PeerError("permission denied", "42501"),
    Unreachable("no answer"),
)
AT = st.integers(0, 1000)
WAIT = 20.0


class Storm(RuleBasedStateMachine):
    """Clients of six pools under two kinds of caps, on a node whose links open late or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.play: Theatre
        self.asking: list[Speaker] = []
        """Those whose statement has no answer yet."""
        self.queues: dict[Pool, dict[Session, Waiter]] = {}
        """Who waited before the last step."""

    @initialize(
        size=st.integers(1, 3), min_size=st.integers(0, 1), reserve=st.integers(0, 2),
        node=st.none() | st.integers(1, 5), database=st.none() | st.integers(1, 3),
    )  # fmt: skip
    def begin(self, size: int, min_size: int, reserve: int, node: int | None, database: int | None) -> None:
        keys = {"size": size, "min_size": min_size, "reserve": reserve, "wait_timeout": WAIT, "idle_timeout": 7.0,
                "max_lifetime": 30.0, "max_database_connections": database}  # fmt: skip
        bob = PoolFor(user="bob", **{**keys, "size": 1})  # type: ignore[arg-type]
        self.play = self.stack.enter_context(theatre(max_connections=node, pools=(bob,), **keys))
        self.play.open_at_once = False

    def teardown(self) -> None:
        try:
            if hasattr(self, "play"):
                self.calm()
        finally:
            self.stack.close()

    # --- what may happen ----------------------------------------------------------------------------------------------

    @rule(user=st.sampled_from(USERS), database=st.sampled_from(DATABASES),
          priority=st.sampled_from(("low", "normal", "high", "critical")))  # fmt: skip
    def somebody_asks(self, user: str, database: str, priority: str) -> None:
        self.asking.append(self.play.asking(user, database, priority))

    @precondition(lambda self: self.asking)
    @rule(at=AT)
    def a_client_leaves(self, at: int) -> None:
        self.asking.pop(at % len(self.asking)).leaves()

    @precondition(lambda self: self.asking)
    @rule(at=AT)
    def a_client_cancels(self, at: int) -> None:
        self.play.switch.cancel(self.asking[at % len(self.asking)].session.key, lambda: None)
        for _, done in self.play.cancels:
            done()
        self.play.cancels.clear()

    @precondition(lambda self: self.play.alive)
    @rule(at=AT)
    def a_server_answers(self, at: int) -> None:
        self.answer(self.play.alive[at % len(self.play.alive)])

    @precondition(lambda self: self.play.alive)
    @rule(at=AT)
    def a_server_dies(self, at: int) -> None:
        self.play.alive[at % len(self.play.alive)].dies()

    @precondition(lambda self: self.play.opening)
    @rule(at=AT)
    def a_link_is_opened(self, at: int) -> None:
        self.play.open(self.play.opening.pop(at % len(self.play.opening)))

    @precondition(lambda self: self.play.opening)
    @rule(at=AT, error=st.sampled_from(REFUSALS))
    def a_link_cannot_be_opened(self, at: int, error: PeerError) -> None:
        pool = self.play.opening.pop(at % len(self.play.opening))
        self.play.switch.links.not_opened(pool, error, isinstance(error, Unreachable))

    @rule(seconds=st.sampled_from((0.1, 1.0, 6.0)))
    def time_passes(self, seconds: float) -> None:
        self.play.passes(seconds)

    @rule(healthy=st.booleans())
    def the_node_goes_or_comes(self, healthy: bool) -> None:
        self.play.node.healthy = healthy
        self.play.cluster.primary = self.play.node if healthy else None
        self.play.cluster.version += 1
        self.play.passes(0.1)

    def answer(self, server: Server) -> None:
        server.answers((ONE_ROW + IDLE) * len(server.link.units))

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def limits_hold_and_nothing_is_lost(self) -> None:
        if not hasattr(self, "play"):
            return
        self.asking = [speaker for speaker in self.asking if speaker.session.units]
        links: set[Link] = set()
        for pool in self.play.switch.links.pools:
            self.check(pool)
            self.check_order(pool)
            links.update(pool.links)
        assert links == {server.link for server in self.play.alive}
        assert all(server.closed or server.link in links for server in self.play.servers if not server.link.closed)
        for speaker in self.asking:
            session = speaker.session
            homeless = session.id in self.play.switch._homeless
            assert (session.link is not None) + (session.pool is not None) + homeless == 1

    def check(self, pool: Pool) -> None:
        assert pool.count <= pool.policy.size + pool.policy.reserve
        assert pool.opening == self.play.opening.count(pool)
        assert set(pool.idle) <= set(pool.links)
        assert all(link.session is None and not link.units for link in pool.idle)
        assert not (pool.idle and pool.queue.waiting), "somebody waits although a link is idle"
        assert all(session.pool is pool and session.units for session in pool.queue.waiting)
        first = pool.queue.first()
        assert first is min(pool.queue.waiting.values(), default=None)
        for cap in pool.caps:
            assert cap.used == sum(other.count for other in cap.pools) <= cap.limit
        if pool.wanted and self.play.node.healthy:
            assert pool.full_cap is not None, "a link is wanted, allowed, and not opened"
            assert not any(other.idle for other in pool.full_cap.pools), "an idle link could make room"
            assert any(pool in cap.blocked for cap in pool.caps), "nobody will think of it when there is room"

    def check_order(self, pool: Pool) -> None:
        before, now = self.queues.get(pool, {}), pool.queue.waiting
        served = [place for session, place in before.items() if session.link is not None and session.link.pool is pool]
        passed_over = [place for session, place in before.items() if now.get(session) is place]
        assert not served or not passed_over or max(served) < min(passed_over), "somebody jumped the queue"
        self.queues[pool] = dict(now)

    def calm(self) -> None:
        """From now on everything works: everybody is answered, within the time that one may wait."""
        self.the_node_goes_or_comes(healthy=True)
        self.play.open_at_once = True
        while self.play.opening:
            self.play.open(self.play.opening.pop())
        for _ in range(int(WAIT / 0.5) + 1):
            for server in self.play.alive:
                self.answer(server)
            self.play.passes(0.5)
        assert [speaker for speaker in self.asking if speaker.session.units] == []
        for pool in self.play.switch.links.pools:
            assert (pool.opening, len(pool.queue.waiting), len(pool.links) - len(pool.idle)) == (0, 0, 0)


Storm.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
test_pools_in_a_storm = Storm.TestCase
