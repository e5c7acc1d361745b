"""What happens to a link between two sessions: it is cleared of what one left, and given what the next one wants.

    a session's → cancel requests on their way have arrived → reset if anything may be left on it (L1) → idle
    idle → given the session's settings, where they differ → the session's

While a cancel request is on its way to a link, it is nobody's, since the cancel would hit whoever came next. Sans-IO,
as the switch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import SystemRandom
from typing import TYPE_CHECKING, Protocol

from heliosproxy.switch.link import Link
from heliosproxy.switch.loss import IDLE
from heliosproxy.switch.settings import Settings, answered, assignment, change, question
from heliosproxy.switch.unit import Unit
from heliosproxy.wire.errors import PeerError
from heliosproxy.wire.framing import first_message
from heliosproxy.wire.messages_backend import DataRow

if TYPE_CHECKING:
    from heliosproxy.switch.session import Session


_OF_THE_LINK = frozenset(("57014", "0A000", "25006"))
"""SQLSTATEs with which giving a link other settings fails because of those it has: a statement_timeout, or a default
isolation level that a standby has not."""


class Starts(Protocol):
    """What a handover tells of the session that a link is for."""

    def start(self, session: Session, link: Link) -> None:
        """The link is the session's; its unit may go."""

    def refused(self, session: Session, error: PeerError) -> None:
        """The server lets nobody in for this session, or refuses its settings."""

    def settled(self, session: Session) -> None:
        """The session's settings are known again: it may go on."""

    def look_elsewhere(self, session: Session) -> None:
        """The link was lost before it was the session's."""


class Sockets(Protocol):
    """What a handover needs of whoever owns the sockets."""

    def to_link(self, link: Link) -> None:
        """Send what is in `link.outgoing`."""

    def cancel(self, link: Link, done: Callable[[], None]) -> None:
        """Ask the node to cancel what the link runs; `done` once the node has taken note."""


class Handover:
    """Gives links to sessions and takes them back. `idle` is called with a link that is clean and nobody's, `close`
    with one that could not be cleaned, and why."""

    def __init__(
        self, port: Sockets, sessions: Starts, idle: Callable[[Link], None], close: Callable[[Link, str], None]
    ) -> None:
        self._port = port
        self._sessions = sessions
        self._idle = idle
        self._close = close
        self._random = SystemRandom()

    def give(self, session: Session, link: Link) -> None:
        """The link is the session's once it has the session's settings.

        A statement must not run under another's search_path because setting this one's has failed: it waits for the
        answer, unless the settings differ only in what has no meaning (application_name).
        """
        session.link, link.session = link, session
        wanted = session.settings
        sql = change(link.settings, wanted)
        if not sql:
            self._sessions.start(session, link)
        elif link.settings.meaning == wanted.meaning:
            link.run(sql, lambda done: _taken(link, wanted, done))
            self._sessions.start(session, link)
        else:
            link.run(sql, lambda done: self._adopted(session, link, wanted, done))
            self._port.to_link(link)

    def _adopted(self, session: Session, link: Link, wanted: Settings, done: Unit) -> None:
        _taken(link, wanted, done)
        if done.sqlstate in _OF_THE_LINK and not link.cancels:
            session.link = link.session = None
            self._close(link, f"it could not be given other settings: {done.problem}")
            self._sessions.look_elsewhere(session)
        elif done.sqlstate:
            self.release(session, link)
            self._sessions.refused(session, PeerError(done.problem, done.sqlstate))
        else:
            self._sessions.start(session, link)

    # --- brought back ---------------------------------------------------------------------------------------------

    def settle(self, session: Session, link: Link) -> None:
        """The session needs it no more, once it is known which settings to take along."""
        if session.ask and link.asked:
            session.settling = True
            link.run(question(link.asked), lambda done: self._told(session, link, done))
            self._port.to_link(link)
        else:
            self.release(session, link)

    def _told(self, session: Session, link: Link, done: Unit) -> None:
        session.settling = False
        if link.session is not session:
            return
        if done.sqlstate:
            session.keep_link("settings that could not be read")
        else:
            row = DataRow.decode(first_message(done.reply, b"D")[5:])
            values = answered(link.asked, row.values)
            link.settings = link.settings.with_values(values)
            session.told(values)
            self.release(session, link)
        self._sessions.settled(session)

    def restore(self, session: Session, link: Link, resets: frozenset[str], then: Callable[[], None]) -> None:
        """Settings of the link were reset: give it those that the session had named at start-up, and nothing else."""
        everything = bool(resets & {"*", "**"})
        kept = {"role"} if resets & {"*", "**", "role"} == {"*"} else set()  # RESET ALL leaves the role alone
        if everything:
            link.was_reset(role=not kept)
        wanted = [item for item in (*session.start.values, *session.start.extra) if item[0] not in kept
                  and (item not in link.base.values if everything else item[0].lower() in resets)]  # fmt: skip

        def done(unit: Unit) -> None:
            if unit.sqlstate:
                self._close(link, f"settings could not be restored: {unit.problem}")
                return
            extra = dict(link.settings.extra) | dict(item for item in wanted if item in session.start.extra)
            followed = {name: value for name, value in wanted if name not in extra}
            link.settings = Settings(link.settings.with_values(followed).values, tuple(extra.items()))
            if link.session is session:
                then()

        link.run(assignment(wanted) or "SELECT", done)
        self._port.to_link(link)

    def release(self, session: Session, link: Link) -> None:
        """The session needs it no more; its transaction, if it was in one, is rolled back."""
        session.link = link.session = None
        if link.status != IDLE:
            link.dirt = 2
            link.run("ROLLBACK")
        if not link.cancels:
            self._clean(link)

    def _clean(self, link: Link) -> None:
        """Give a link back once nothing is left on it."""
        if not link.dirt:
            self._idle(link)
            return
        everything = link.dirt > 1
        if everything:
            link.forget_statements()
            link.was_reset(role=True)
            # What DISCARD ALL leaves: with a known seed, random() would give the next client known values.
            link.run(f"SELECT pg_catalog.setseed({self._random.uniform(-1, 1):.17f})")
        link.dirt = 0
        link.cleaning = True
        link.run("DISCARD ALL" if everything else "DISCARD SEQUENCES", lambda done: self._cleaned(link, done))
        self._port.to_link(link)

    def _cleaned(self, link: Link, done: Unit) -> None:
        link.cleaning = False
        if done.sqlstate:
            self._close(link, f"reset failed with {done.sqlstate}")
        elif not link.cancels:
            self._idle(link)

    # --- cancelled ------------------------------------------------------------------------------------------------

    def cancel(self, link: Link, done: Callable[[], None]) -> None:
        """Cancel what the link runs; `done` is called when the node has taken note.

        One request is under way for a link at a time: those that come meanwhile are one, sent after it.
        """
        if link.cancels:
            link.cancels = 2
            link.cancelling.append(done)
        else:
            link.cancels = 1
            self._port.cancel(link, lambda: self._cancelled(link, (done,)))

    def _cancelled(self, link: Link, done: Iterable[Callable[[], None]]) -> None:
        following, link.cancelling = link.cancelling, []
        for each in done:
            each()
        link.cancels -= 1
        if following and (link.closed or not link.units):  # nothing is left that it could be meant for
            link.cancels -= 1
            for each in following:
                each()
        elif following:
            self._port.cancel(link, lambda: self._cancelled(link, following))
        held_back = link.session is None and not link.cleaning and not link.closed
        if not link.cancels and held_back:
            self._clean(link)


def _taken(link: Link, wanted: Settings, done: Unit) -> None:
    """The link has the wanted settings; those that servers report they have reported."""
    if done.sqlstate:
        link.dirt = 2
    else:
        unreported = {name: wanted.value(name) for name in link.asked}
        link.settings = Settings(link.settings.with_values(unreported).values, wanted.extra)
