"""What nodes have said of users (`auth_query`), remembered for a while.

An answer that has expired is asked for again by the next login; others who want the same name then wait for that one
question. Where nobody answers, what was said last still holds for a time: that nodes are away must not lock everyone
out who comes in by this proxy's other ways.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import trio

from heliosproxy.auth.known import Crowd, Known
from heliosproxy.auth.scram import shown
from heliosproxy.wire.errors import PeerError

log = logging.getLogger("heliosproxy.auth")

Lookup: TypeAlias = Callable[[str], Awaitable[str | None]]
"""A name to what pg_authid.rolpassword holds; None: no such user, or one without a password. May raise anything."""

USERS_MOST = 10_000
"""Users remembered; least recently used out."""
STRANGERS_MOST = 1_000
"""Names remembered that no user has. Kept apart, so that making up names drives out no user."""
AT_ONCE = 8
"""Questions under way."""
RETRY = 1.0
"""Seconds for which an answer holds that a failed login has cast doubt on."""
COMPLAIN = 60.0
"""Seconds until the same trouble is logged again. Answers in between do not count: names are anybody's to make up, and
some may be in trouble where others are not."""
TROUBLES_MOST = 100
"""Troubles that are told apart; more than so many are not logged."""
OLD_AT_MOST = 3600.0
"""Seconds for which an answer may stand in for one that cannot be had."""


@dataclass(slots=True)
class _Answer:
    known: Known | None
    asked: float
    doubtful: bool = False


@dataclass(slots=True)
class _Question:
    done: trio.Event = field(default_factory=trio.Event)
    failed: bool = False


class Answers:
    """The answers by name. Times are trio's."""

    def __init__(
        self,
        lookup: Lookup,
        keep: float,
        keep_negative: float,
        read: Callable[[str, str], Known] = Known.of,
    ) -> None:
        """keep, keep_negative: seconds for which it is remembered that there is a user, and that there is none. `read`
        makes a user of a name and a secret, in a thread; ValueError: the secret cannot be used."""
        self._lookup = lookup
        self._read = read
        self._keep, self._keep_negative = keep, keep_negative
        self.crowd = Crowd()
        """The users that are remembered, counted."""
        self._users: OrderedDict[str, _Answer] = OrderedDict()
        self._strangers: OrderedDict[str, _Answer] = OrderedDict()
        self._asking: dict[str, _Question] = {}
        self._turns = trio.Semaphore(AT_ONCE)
        self._troubles: dict[str, float] = {}

    def replaced(self, lookup: Lookup, keep: float, keep_negative: float) -> Self:
        """The same answers, shared with this one, under new settings."""
        new = type(self)(lookup, keep, keep_negative, self._read)
        new.crowd = self.crowd
        new._users, new._strangers, new._asking, new._turns = self._users, self._strangers, self._asking, self._turns
        return new

    async def get(self, name: str) -> Known | None:
        """The user of that name; None: there is none.

        Raises PeerError (58000) if nobody can say and nobody has said. Others who wait go on if this call is cancelled.
        """
        while not self._holds(name):
            question = self._asking.get(name)
            if question is None:
                question = self._asking[name] = _Question()
                try:
                    await self._ask(name, question)
                finally:
                    del self._asking[name]
                    question.done.set()
                return self._settled(name, question)
            await question.done.wait()
            if question.failed:
                return self._settled(name, question)
        return self._said(name)

    def peek(self, name: str) -> Known | None:
        """What was last said of a user, however long ago."""
        answer = self._users.get(name)
        if answer is None:
            return None
        self._users.move_to_end(name)
        return answer.known

    def failed(self, name: str) -> None:
        """A login with this name has not succeeded: the password may have been changed, or the user just been made."""
        for answers in (self._users, self._strangers):
            if name in answers:
                answers[name].doubtful = True

    def _holds(self, name: str) -> bool:
        answer = self._users.get(name) or self._strangers.get(name)
        if answer is None:
            return False
        keep = self._keep_negative if answer.known is None else self._keep
        return trio.current_time() - answer.asked < (min(keep, RETRY) if answer.doubtful else keep)

    def _said(self, name: str) -> Known | None:
        for answers in (self._users, self._strangers):
            if name in answers:
                answers.move_to_end(name)
                return answers[name].known
        return None

    async def _ask(self, name: str, question: _Question) -> None:
        async with self._turns:
            began = trio.current_time()
            try:
                secret = await self._lookup(name)
                # In a thread, since a password in plain text is to be made a SCRAM secret.
                known = None if secret is None else await trio.to_thread.run_sync(self._known, name, secret)
            except Exception as error:
                question.failed = True
                self._complain(f"{type(error).__name__}: {error}")
                return
        self._remember(name, _Answer(known, began))

    def _known(self, name: str, secret: str) -> Known:
        try:
            return self._read(name, secret)
        except ValueError as error:
            log.warning('auth_query: what it says of user "%s" lets nobody in: %s', shown(name), error)
            return Known(name)

    def _settled(self, name: str, question: _Question) -> Known | None:
        if not question.failed:
            return self._said(name)
        answer = self._users.get(name)
        if answer is not None and trio.current_time() - answer.asked < OLD_AT_MOST:
            return answer.known
        raise PeerError(f'user "{shown(name)}" cannot be checked now', "58000", hint="Try again later.")

    def _complain(self, trouble: str) -> None:
        """Once in a while, not at every login."""
        now = trio.current_time()
        self._troubles = {text: when for text, when in self._troubles.items() if now - when < COMPLAIN}
        if trouble not in self._troubles and len(self._troubles) < TROUBLES_MOST:
            self._troubles[trouble] = now
            log.warning("auth_query: no answer, so that what was said last is to do where there is that: %s", trouble)

    def _remember(self, name: str, answer: _Answer) -> None:
        kept, most = (self._users, USERS_MOST) if answer.known is not None else (self._strangers, STRANGERS_MOST)
        for answers in (self._users, self._strangers):
            if (before := answers.pop(name, None)) is not None:
                self.crowd.remove(before.known)
        kept[name] = answer
        self.crowd.add(answer.known)
        if len(kept) > most:
            self.crowd.remove(kept.popitem(last=False)[1].known)
