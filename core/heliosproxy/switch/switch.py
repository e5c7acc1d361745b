"""The switch: sessions, links and pools put together, sans-IO.

Events come in as method calls (bytes of a client, bytes of a server, a link that opened or died, a tick of the
clock); what is to be done goes out through a `Port`. No method waits. Every path by which a unit ends is here:

    submitted → answered by the proxy
              → waits for a node, or for a link of its pool  → error 57P03, 53300
              → on a link  → answered  → the link is released, or stays (transaction, pin)
                           → link lost → run again (L2), or error 08006, 08007
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from heliosproxy.switch import local, loss, simple
from heliosproxy.switch.ledger import Ledger
from heliosproxy.switch.link import RECOVERY_CONFLICT, Answer, Link, emit
from heliosproxy.switch.links import Links, Port
from heliosproxy.switch.loss import FAILED, IDLE, flows_of
from heliosproxy.switch.placing import must_move, place
from heliosproxy.switch.planner import Planner
from heliosproxy.switch.policies import Policies
from heliosproxy.switch.prepared import Prepared, StatementNames
from heliosproxy.switch.resolving import resolve
from heliosproxy.switch.session import CUT_AT_ONCE, EXECUTE, Session
from heliosproxy.switch.timeouts import Timeouts
from heliosproxy.switch.translating import Translator
from heliosproxy.switch.turns import UNITS_AT_ONCE, Turns
from heliosproxy.switch.unit import CANCELED, READY, TIMED_OUT, Expect, Unit
from heliosproxy.wire import builders
from heliosproxy.wire.errors import LengthError, PeerError, ProtocolError, error_response

if TYPE_CHECKING:
    from heliosproxy.cluster.registry import Cluster
    from heliosproxy.config.model import Config
    from heliosproxy.switch.admission import Reason

log = logging.getLogger("heliosproxy.switch")

PATIENCE = 0.1
"""Seconds after which messages of the extended protocol are sent although neither Flush nor Sync has come."""
_STOPPED = error_response("FATAL", "57P01", "terminating connection due to administrator command")
MOST_ATTEMPTS = 3
"""Links that may die under a statement before it was sent to one."""


class Switch:
    """The data plane's decisions."""

    def __init__(
        self,
        config: Config,
        cluster: Cluster,
        planner: Planner,
        port: Port,
        counts: Callable[[Reason], None] = lambda reason: None,
    ) -> None:
        self.config = config
        self.cluster = cluster
        self.planner = planner
        self.port = port
        self.ledger = Ledger(planner)
        self.sessions: dict[int, Session] = {}
        self.policies = Policies(config)
        """What `[pool]` and `[[pools]]` say of a database and a user: mode, sizes, time-outs."""
        self.links = Links(self.policies, cluster, port, self)
        self.timeouts = Timeouts(self, self.links, counts)
        self._counts = counts
        """Called with the reason when a client is ended, or denied something, by a limit."""
        self._keys: dict[tuple[int, bytes], Session] = {}
        self._turns = Turns(self._have_turn, self.client_gone)
        self._unfinished: dict[int, float] = {}
        """Sessions whose last unit has no end yet, by id, with the time since when."""
        self._homeless: dict[int, float] = {}
        """Sessions whose statement no node qualifies for, by id, with the time since when."""
        self._translator = Translator(StatementNames(100 * config.pool.prepared_statements), planner)

    def reload(self, config: Config) -> None:
        """Take over who users are on the nodes, time-outs, and `client_limits`; the rest of the configuration is what
        it was.

        A session whose user is somebody else on the nodes from now on ends: it must not become that in its middle.
        """
        before = {session: self._roles(session) for session in self.sessions.values()}
        self.config = config
        self.policies.learn(config)
        for session, roles in before.items():
            if self._roles(session) != roles:
                self.end(session, _STOPPED)
            else:
                self.timeouts.watch(session, self.policies.of(session.client.database, session.client.user))
        self.links.policies_changed()

    def _roles(self, session: Session) -> tuple[str, ...]:
        return self.policies.roles(session.client.database, session.client.user)

    # --- clients --------------------------------------------------------------------------------------------------

    def add_session(self, session: Session) -> None:
        """A client has logged in."""
        policy = self.policies.of(session.client.database, session.client.user)
        session.mode, session.keeps_sequences = policy.mode, policy.sequence_values == "pin"
        session.limits, session.counts = self.config.client_limits, self._counts
        self.timeouts.watch(session, policy)
        self.sessions[session.id] = session
        self._keys[session.key] = session

    def client_data(self, session: Session, data: bytes) -> None:
        """Bytes of a client."""
        if session.id not in self.sessions:
            return  # it was on its way when the connection was ended
        try:
            session.receive(data)
        except LengthError:
            session.closing = True
            self._counts("protocol")
        except ProtocolError as error:
            session.closing, session.last_words = True, error.response("FATAL")
            self._counts("max_message" if error.sqlstate == "54000" else "protocol")
        self.advance(session)
        if session.units and not session.units[-1].complete and not session.units[-1].held:
            self._unfinished.setdefault(session.id, monotonic())

    def go_on(self) -> bool:
        """Let those go on who had more to do than a turn is long; whether there is more still."""
        return self._turns.go_on()

    def _have_turn(self, session: Session) -> None:
        try:
            if session.has_more and len(session.units) < CUT_AT_ONCE:
                self.client_data(session, b"")
            elif session.id in self.sessions:
                self.advance(session)
        except Exception:  # a bug of ours; without a word of its own the session would wait for ever
            log.exception("internal error; the session that met it is closed")
            self.end(session, error_response("FATAL", "XX000", "internal error"))

    def client_gone(self, session: Session) -> None:
        """A client closed its connection without a word, or with one that is still in the queue."""
        if session.id not in self.sessions:
            return
        if self._turns.has_left(session):
            return
        if session.closing and session.units and all(unit.runs_out for unit in session.units):
            return  # it said Terminate after these: they run, as with PostgreSQL
        self._drop(session)

    def _drop(self, session: Session) -> None:
        """The session is over; nothing of it runs from here on."""
        self._forget(session)
        link = session.link
        unit = session.units[0] if session.units else None
        if link is not None and unit is not None and unit.link is link and unit not in link.units:
            link.node.in_flight -= 1  # its end was held back: `_restore`
        session.units.clear()
        if link is None:
            return
        if link.units:
            self.port.cancel(link, lambda: None)
            self.links.close(link)
        else:
            link.dirt = max(link.dirt, 2 if session.pin else 0)
            self.links.handover.release(session, link)

    def cancel(self, key: tuple[int, bytes], done: Callable[[], None]) -> bool:
        """A cancel request; whether its key was a session's. `done` is called once it has done all it will ever do."""
        session = self._keys.get(key)
        link = session.link if session is not None else None
        if session is not None and session.units:
            canceled = error_response("ERROR", CANCELED, "canceling statement due to user request")
            if self.is_waiting(session):
                self.give_up(session, canceled)
            elif session.settling:  # the link only tells the settings; the statement has not begun
                self.fail(session, canceled)
            elif link is not None and link.units:
                self.links.handover.cancel(link, done)
                return True
        done()
        return session is not None

    def advance(self, session: Session) -> None:
        """Go on with what the client asked for, in its order, until it is others' turn."""
        if session.has_more and len(session.units) < CUT_AT_ONCE:
            self._turns.put(session)
        for _ in range(UNITS_AT_ONCE):
            if not session.units:
                break
            unit = session.units[0]
            if session.closing and not unit.runs_out:
                break  # nobody will ever end it
            if unit.link is not None:
                if unit.messages and not (unit.restartable or unit.moving or unit.sync_sent):
                    self._send(session, unit, unit.link)
                return
            if session.pool is not None or session.id in self._homeless:
                return
            if session.is_held_up:
                self._take_up(session, unit)
                return
            if not (unit.complete or unit.held):
                return
            if not self._begin(session, unit):
                return
        else:
            self._turns.put(session)
            return
        if session.closing and not session.has_more:
            self._terminate(session)

    def _terminate(self, session: Session) -> None:
        if session.id in self.sessions:
            self._say(session, session.last_words)
            self._drop(session)
        self.port.close_client(session)

    def end(self, session: Session, message: bytes) -> None:
        """Say why, and close."""
        self._say(session, message)
        self._terminate(session)

    def _say(self, session: Session, message: bytes) -> None:
        """Not in the middle of a message: it would be taken for the rest of that, and its words for a row's."""
        if message and not (session.units and session.units[0].mid_message):
            self.port.to_client(session, message)

    def _forget(self, session: Session) -> None:
        self.sessions.pop(session.id, None)
        self._keys.pop(session.key, None)
        self._stop_waiting(session)
        self.timeouts.forget(session)
        self._turns.forget(session)
        session.closing, session.has_more = True, False

    def is_waiting(self, session: Session) -> bool:
        """Whether the unit at the head waits for a node or a link."""
        return session.pool is not None or session.id in self._homeless

    def _stop_waiting(self, session: Session) -> None:
        self._homeless.pop(session.id, None)
        if session.pool is not None:
            session.pool.leave(session)

    # --- a unit's way ---------------------------------------------------------------------------------------------

    def _begin(self, session: Session, unit: Unit) -> bool:
        """Start the unit at the head; whether it is answered already."""
        self._take_up(session, unit)
        if unit.told:
            unit.messages.clear()
            return self._conclude(session, unit, b"") if unit.complete else False
        if unit.simple:
            needs_server = simple.plan(unit, session, self.planner)
        else:
            resolve(unit, session, self.planner)
            unit.flow = unit.flows[0] if unit.flows else None
            failing = bool(unit.steps) and any(step.error for step in unit.steps)
            needs_server = any(step.asks_server for step in unit.steps) or (failing and session.status != IDLE)
        if session.lost:
            return self._while_lost(session, unit)
        if not needs_server:
            return self._answer(session, unit)
        if session.link is not None:
            self._send(session, unit, session.link)
        else:
            self._route(session, unit)
        return False

    def _take_up(self, session: Session, unit: Unit) -> None:
        unit.started = unit.started or monotonic()
        if session.clock is not None:
            self.timeouts.began(session, session.clock)

    def _answer(self, session: Session, unit: Unit) -> bool:
        """A unit that no server need see."""
        if unit.simple:
            assert unit.flow is not None
            data = local.notices(unit.flow.verdict.notices)
            if session.status == FAILED and not unit.error:
                data += loss.aborted()
            else:
                data += unit.error or local.simple(session, unit.flow)
        else:
            self._translator.translate(unit, session, None)
            data = emit(unit.expected) if unit.expected else b""
            unit.body.clear()
            unit.let_go()
        if unit.complete:
            session.units.popleft()
            data += builders.ready_for_query(session.status)
        if unit.flow is not None and unit.flow.answered not in ("show", ""):
            self.ledger.decided(session, unit.flow, "", "")
        self.port.to_client(session, data)
        if session.clock is not None:
            self.timeouts.rests(session, session.clock)
        return unit.complete

    def _route(self, session: Session, unit: Unit) -> None:
        """Find a node and a link for it."""
        node, database = place(session, unit, self.planner, self.cluster)
        if node is None:
            unit.lost_on = None  # by the next tick it is known whether the node is there
            self._homeless.setdefault(session.id, unit.started)
            return
        self._homeless.pop(session.id, None)
        pool = self.links.pool(node, database or session.client.database, session.client.user)
        self.links.take(session, pool)

    def _send(self, session: Session, unit: Unit, link: Link, *, examined: bool = False) -> None:
        """Put the unit, or what was added to it, on the session's link."""
        lead = b""
        first = unit.link is None
        if unit.simple:
            simple.translate(unit, session, link, self.planner)
        else:
            if not first:
                resolve(unit, session, self.planner)
                if must_move(session, unit, link):
                    self._move(unit, link)
                    return
            elif not examined and (unsure := self._translator.unsure(unit, session, link)):
                self._examine(session, unit, link, unsure)
                return
            self._translator.translate(unit, session, link)
            unit.sync_sent = unit.synced
            if not unit.complete or not first:
                unit.began = unit.began or any(step.tag == EXECUTE for step in unit.steps)
                unit.let_go()
        self.ledger.mark(session, unit, link)
        link.send(unit)
        if first:
            link.node.in_flight += 1
            lead += self.ledger.sent(session, unit, link)
            if session.clock is not None:
                self.timeouts.sent(session, session.clock)
        if unit.expected:
            lead += emit(unit.expected)
        self.port.to_link(link)
        if unit.complete and first:
            unit.lead = lead  # goes out with the answer, so that until then the unit may run again (L2)
        elif lead:
            unit.forwarded = True
            self.port.to_client(session, lead)

    def _examine(self, session: Session, unit: Unit, link: Link, statements: list[Prepared]) -> None:
        """Before the unit: see whether statements that the link must learn still return what the client knows."""
        left = set(statements)

        def done(prepared: Prepared, reply: Unit, wrong: bool) -> None:
            left.discard(prepared)
            if wrong:
                self.links.close(link, "its settings are not known")
                return
            if link.session is not session or not session.units or session.units[0] is not unit:
                return  # it has failed meanwhile, or its client is gone
            problem = unit.told_as(reply.sqlstate, reply.problem_response)
            if session.status != IDLE:  # then nothing behind it in the transaction runs
                unit.stand_in = unit.stand_in or problem
            if reply.sqlstate == CANCELED and session.status == IDLE:
                self.fail(session, problem)
                self.links.handover.settle(session, link)
                self.advance(session)
            elif not left:
                self._go(session, unit, link, examined=True)

        for prepared in statements:
            self._translator.examine(link, prepared, partial(done, prepared))
        self.port.to_link(link)

    def _move(self, unit: Unit, link: Link) -> None:
        """Leave this link, on which nothing was executed, for one to the primary."""
        unit.parked, unit.steps = unit.steps, []
        unit.moving = True
        unit.body.append(builders.SYNC)
        unit.expect(Expect(READY))
        link.send(unit)
        self.port.to_link(link)

    def _moved(self, link: Link, session: Session, unit: Unit) -> None:
        link.node.in_flight -= 1
        unit.link, unit.expected, unit.moving = None, None, False
        unit.steps, unit.parked = unit.parked, []
        unit.to_primary = True
        self.links.handover.release(session, link)
        self._route(session, unit)

    # --- what links tell (links.Sessions) -------------------------------------------------------------------------

    def start(self, session: Session, link: Link) -> None:
        """The link is the session's; its unit may go."""
        if not session.units:
            self.links.handover.release(session, link)
            return
        if session.mode == "session":
            session.keep_link("pool mode session")
        try:
            self._go(session, session.units[0], link)
        except Exception:  # a bug of ours; without a word of its own the session would wait for ever
            log.exception("internal error; the session that met it is closed")
            self.links.close(link, "internal error")
            self.end(session, error_response("FATAL", "XX000", "internal error"))

    def _go(self, session: Session, unit: Unit, link: Link, *, examined: bool = False) -> None:
        """Send the unit, with what came of it while it waited."""
        if not unit.simple and (unit.failed or len(unit.messages) > len(unit.steps)):
            examined = False
            resolve(unit, session, self.planner)
            if must_move(session, unit, link):
                unit.to_primary = True
                self.links.handover.release(session, link)
                self._route(session, unit)
                return
        self._send(session, unit, link, examined=examined)

    def refused(self, session: Session, error: PeerError) -> None:
        """The server lets nobody in for this session, or refuses its settings."""
        self.fail(session, session.units[0].told_as(error.sqlstate, error.response()))
        self.advance(session)

    def look_elsewhere(self, session: Session) -> None:
        """The node, or the link, that it waited for is not there: at the next tick it is routed again."""
        self._homeless.setdefault(session.id, session.units[0].started)

    def waited_too_long(self, session: Session, error: PeerError) -> None:
        """No link became free in time."""
        self._counts("wait_timeout")
        self.fail(session, error.response())
        self.advance(session)

    def link_data(self, link: Link, data: bytes) -> None:
        """Bytes of a server."""
        if link.closed:
            return  # they were on their way
        for answer in link.receive(data):
            self._answered(link, answer)
        if link.broken is not None and not link.closed:
            log.error("%s sent what is not the protocol: %s", link.node.name, link.broken.message)
            self.links.close(link, link.broken.message)

    def _answered(self, link: Link, answer: Answer) -> None:
        unit = answer.unit
        session = link.session if unit is None else unit.session
        if session is None:
            return
        if unit is not None and unit.refused:
            if answer.status:
                self._refused_by_standby(link, session, unit)
            return
        if unit is None:
            self.port.to_client(session, answer.data)
            return
        data = answer.data
        if unit.lead:
            data, unit.lead = unit.lead + data, b""
        if answer.status and unit.resets and (not unit.failed or link.settings.values != session.settings.values):
            self.port.to_client(session, data[: -len(builders.ready_for_query(answer.status))])
            unit.forwarded = True
            self._restore(link, session, unit, answer.status)
            return
        self.port.to_client(session, data)
        unit.forwarded = True
        if answer.status and unit.moving:
            self._moved(link, session, unit)
        elif answer.status:
            self._finished(link, session, unit, answer.status)
        elif unit.messages and not (unit.restartable or unit.sync_sent):
            self._send(session, unit, link)  # COPY data that came before the server asked for it

    def _refused_by_standby(self, link: Link, session: Session, unit: Unit) -> None:
        """Run it again on the primary; what a standby can never do is remembered (R2)."""
        link.node.in_flight -= 1
        if unit.refused != RECOVERY_CONFLICT and not unit.names:  # it may have been a stale plan's 0A000
            for flow in flows_of(unit):
                flow.only_on_primary(unit.refused)
        unit.restart()
        unit.to_primary = True
        self.links.handover.release(session, link)
        self.advance(session)

    def _restore(self, link: Link, session: Session, unit: Unit, status: int) -> None:
        """Settings were reset: the client's are what it named at start-up. It hears of them, then of the end."""

        def restored() -> None:
            changed = [item for item in link.settings.values if item not in session.settings.values]
            reported = [(name, value) for name, value in changed if name not in link.asked]
            for name, value in reported:
                session.report(name, value)
            statuses = b"".join(builders.parameter_status(name, value) for name, value in reported)
            self.port.to_client(session, statuses + builders.ready_for_query(status))
            self._finished(link, session, unit, status)

        self.links.handover.restore(session, link, unit.resets, restored)

    def _finished(self, link: Link, session: Session, unit: Unit, status: int) -> None:
        session.units.popleft()
        rolled_back = status == IDLE and loss.rolls_back(session, unit)
        session.status = status
        link.node.in_flight -= 1
        self.ledger.ended(session, unit, link)
        if unit.breaks_copy:
            self._end_of_broken_copy(session, link)
            return
        if session.clock is not None:
            self.timeouts.rests(session, session.clock)
        if status != IDLE and session.mode == "statement":
            self.end(session, local.no_transactions("FATAL"))  # by a text that could not be read
            return
        if status == IDLE:
            if session.portals:
                session.portals.clear()
            if session.has_changed:
                session.transaction_ended(rolled_back=rolled_back)
            elif session.salt and not (session.pins or session.ask):
                session.unpin()
            self._let_go(session, link)
        self.advance(session)

    def _let_go(self, session: Session, link: Link) -> None:
        """Its transaction is over, and with it the need for the link, unless it must keep that. One that is being
        cancelled cannot be asked for settings."""
        if not session.pins and not (session.ask and session.cancelling is link):
            self.links.handover.settle(session, link)

    def cancel_arrived(self, session: Session, link: Link) -> None:
        """The link may have other statements again."""
        if session.cancelling is not link:
            return
        session.cancelling = None
        if session.link is link and session.id in self.sessions:
            done = not link.units and not (session.units and session.units[0].link is link)
            if done and session.status == IDLE:
                self._let_go(session, link)
            self.advance(session)

    def _end_of_broken_copy(self, session: Session, link: Link) -> None:
        """The server had given up the COPY before it came to what has no place there, and now answers that."""
        session.link = link.session = None
        self.links.close(link, "its client sent in the middle of a COPY what does not belong there")
        self.end(session, ProtocolError("unexpected message during COPY from stdin").response("FATAL"))

    def settled(self, session: Session) -> None:
        """The session's settings are known again: it may go on."""
        self.advance(session)

    def link_lost(self, session: Session, unit: Unit | None, link: Link, reason: str) -> None:
        """The session's link died."""
        if session.id not in self.sessions:
            return
        session.settling = False
        if session.status != IDLE and session.ask:  # what it has set is rolled back
            session.settings_are_known()
        if unit is None and session.units and session.units[0].link is link:
            unit = session.units[0]  # its end was held back: `_restore`
            link.node.in_flight -= 1
        match loss.after(session, unit, link, reason):
            case loss.End(error):
                self._counts("lost")
                self.end(session, error)
            case loss.Repeat() if unit is not None:
                unit.attempts += 1
                unit.restart()
                unit.lost_on = link.node
                self.advance(session)
            case loss.Fail(error, transaction):
                session.lost = transaction
                session.status = FAILED if transaction else IDLE
                self.fail(session, error)
                self.advance(session)
            case _:
                session.lost = session.status != IDLE
                session.status = FAILED if session.lost else IDLE
                self._lost_before_start(session, link, reason)

    def _lost_before_start(self, session: Session, link: Link, reason: str) -> None:
        """The link died between statements, or while it was given the session's settings."""
        if not session.units:
            return
        unit = session.units[0]
        unit.attempts += 1
        if unit.overdue_since:
            self.fail(session, TIMED_OUT)
        elif unit.attempts > MOST_ATTEMPTS:
            self.fail(session, error_response("ERROR", "08006", f"no link to {link.node.name} lives: {reason}"))
        self.advance(session)

    def _while_lost(self, session: Session, unit: Unit) -> bool:
        """A statement of a transaction whose link died."""
        data, over, accepted = loss.answer_in_lost_transaction(unit)
        if not accepted:
            unit.undo()
        if over:
            session.lost = False
            session.status = IDLE
            session.transaction_ended(rolled_back=True)
        return self._conclude(session, unit, data, failed=not accepted)

    def fail(self, session: Session, error: bytes) -> None:
        """The unit at the head ends with an error."""
        unit = session.units[0]
        unit.undo()
        unit.link = None
        self._conclude(session, unit, error)

    def _conclude(self, session: Session, unit: Unit, data: bytes, *, failed: bool = True) -> bool:
        """The unit at the head ends with these bytes of the proxy's own, now or once its Sync is there; whether now."""
        if unit.complete:
            session.units.popleft()
            data += builders.ready_for_query(session.status)
        else:
            unit.failed = unit.told = failed
            unit.let_go()
        self.port.to_client(session, data)
        if session.clock is not None:
            self.timeouts.rests(session, session.clock)
        return unit.complete

    def give_up(self, session: Session, error: bytes) -> None:
        """The unit at the head, which waits for a node or a link, has waited long enough."""
        self._stop_waiting(session)
        self.fail(session, error)
        self.advance(session)

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look after those who wait and those who idle; called several times a second."""
        for identity in list(self._homeless):
            self._look_again(self.sessions[identity], now)
        for identity in [one for one, since in self._unfinished.items() if now - since > PATIENCE]:
            del self._unfinished[identity]
            if (session := self.sessions.get(identity)) is not None and session.units:
                session.units[-1].held = True  # an error in it is to be told, as PostgreSQL tells it, at once
                self.advance(session)
        self.links.tick(now)
        self.timeouts.tick(now)
        self.ledger.observers.flush()

    def _look_again(self, session: Session, now: float) -> None:
        since = self._homeless.pop(session.id)
        if not session.units:
            return
        waited = now - since
        if waited > self.config.pool.wait_timeout:
            unit = session.units[0]
            flow = unit.flow
            reason = self.planner.candidates(flow).relaxed if flow is not None else "no primary"
            self._counts("no_node")
            self.give_up(session, error_response("ERROR", "57P03", f"no node can run this statement: {reason}"))
            return
        self._homeless[session.id] = since
        self._route(session, session.units[0])

    # --- the end --------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> int:
        """Sessions that wait for an answer or are in a transaction."""
        return sum(1 for session in self.sessions.values() if session.units or session.status != IDLE)

    def shut_down(self, *, everyone: bool) -> None:
        """End the sessions that do nothing, or everyone, as PostgreSQL does when it is stopped."""
        for session in list(self.sessions.values()):
            if everyone or not (session.units or session.status != IDLE):
                self.end(session, _STOPPED)
