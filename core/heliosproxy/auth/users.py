"""Users: what they prove who they are with, and who they are on the nodes."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import trio

from heliosproxy.auth.answers import Answers, Lookup
from heliosproxy.auth.known import Crowd, Known, Proof, Strangers
from heliosproxy.auth.scram import ScramKeys, shown
from heliosproxy.config.access import Auth, User
from heliosproxy.config.model import Pool

log = logging.getLogger("heliosproxy.auth")

PROOFS_MOST = 10_000
"""Users whose keys are remembered; least recently used out."""


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """What the proxy logs in to a node with: the first of these that is there and that the node takes."""

    user: str
    password: str | None = field(default=None, repr=False)
    keys: ScramKeys | None = field(default=None, repr=False)
    """What the client has proved: for SCRAM, where the node's secret is the same one."""
    md5: str | None = field(default=None, repr=False)
    """The secret as pg_authid keeps it, which is enough for MD5."""


class Users:
    """Those of the configuration, and those whom `lookup` finds on the nodes where `auth_query` is set.

    Secrets of passwords in plain text take 2 ms each to compute. `prepare` does that ahead, so that a user's first
    login takes no longer than that of a stranger.
    """

    def __init__(self, auth: Auth, lookup: Lookup | None = None, *, strangers: Strangers | None = None) -> None:
        self._strangers = strangers or Strangers()
        self._auth = auth
        self._listed = {user.name: user for user in auth.users}
        self._known = {user.name: known for user in auth.users if (known := _stored(user)) is not None}
        self._crowd = Crowd(self._known.values())
        self._proofs: OrderedDict[str, Proof] = OrderedDict()
        self._gone: set[str] = set()
        """Whom a configuration before this one had a secret of: only by logging in do they show who they are now."""
        self._answers: Answers | None = None
        if auth.auth_query is not None and lookup is not None:
            keep, keep_negative = auth.auth_cache, auth.auth_negative_cache
            self._answers = Answers(lookup, keep, keep_negative, self._read)

    @property
    def strangers(self) -> Strangers:
        """What names are checked against that nobody has: like most users, as far as they are known by now."""
        self._strangers.resemble(self._crowd, *(() if self._answers is None else (self._answers.crowd,)))
        return self._strangers

    def replaced(self, auth: Auth, lookup: Lookup | None = None) -> Self:
        """The users of a new configuration, with all that is still true of what this one has computed and learned.

        Strangers look as they did. `prepare` computes what is new.
        """
        new = type(self)(auth, lookup, strangers=self.strangers.copy())
        same = (name for name, user in new._listed.items() if user.password and name in self._known)
        new._learn({name: self._known[name] for name in same if new._is_password_of(name, self._known[name])})
        new._proofs = self._proofs
        new._gone = self._gone | self._known.keys()
        if self._answers is not None and lookup is not None and _asks(auth) == _asks(self._auth):
            new._answers = self._answers.replaced(lookup, auth.auth_cache, auth.auth_negative_cache)
        return new

    async def prepare(self) -> None:
        """Compute the secrets of all passwords in plain text, in a thread, before the first login.

        What it has not done yet is done by the logins themselves.
        """
        missing = [name for name in self._listed if self._is_unprepared(name)]
        self._learn(await trio.to_thread.run_sync(self._computed, missing))

    async def find(self, name: str) -> Known | None:
        """The user of that name; None: there is none, or one without anything to check a password with.

        Listed users come first; for others a node is asked, or was. Raises PeerError (58000) if none can be asked.
        Whoever asks says how it ended, by `proved` or by `failed`.
        """
        if self._is_unprepared(name):
            self._learn(await trio.to_thread.run_sync(self._computed, [name]))
        known = self._known.get(name)
        if known is None and self._answers is not None:
            known = await self._answers.get(name)
            if known is None:
                self._proofs.pop(name, None)
            else:
                self._gone.discard(name)
        return known

    def failed(self, name: str) -> None:
        """A login with this name did not succeed, be it that it was given up: the node is asked anew at the next one.

        That is so for users and strangers alike, or one could tell by the time that it takes; no oftener than once a
        second for each name.
        """
        if self._answers is not None:
            self._answers.failed(name)

    def proved(self, name: str, proof: Proof) -> None:
        """This user has logged in: what it has shown may be used in its place, as long as its secret is the same."""
        if proof == Proof():
            return
        self._proofs[name] = proof
        self._proofs.move_to_end(name)
        if len(self._proofs) > PROOFS_MOST:
            self._proofs.popitem(last=False)

    def on_nodes(self, name: str, pool: Pool) -> ServerLogin:
        """Who a user is on the nodes, and with what the proxy logs in there.

        The user's own `server_user` and `server_password` come before the pool's. Who has neither is itself, with the
        password or MD5 secret that is known, or the keys that it has last logged in with.
        """
        user = self._listed.get(name) or User(name)
        role = user.server_user or pool.server_user or name
        password = user.server_password
        if password is None:
            password = pool.server_password if user.server_user is None else user.password
        if password is not None or role != name:
            return ServerLogin(role, password)
        return self._as_itself(name)

    def _as_itself(self, name: str) -> ServerLogin:
        known, proof = self._current(name), self._proofs.get(name, Proof())
        if known is None and self._may_still_be(name):
            return ServerLogin(name, proof.password, proof.keys)
        if known is None:
            self._proofs.pop(name, None)
            return ServerLogin(name)
        if known.password is not None:
            return ServerLogin(name, known.password)
        if not proof.fits(known):
            self._proofs.pop(name, None)
            proof = Proof()
        return ServerLogin(name, proof.password, proof.keys, known.md5)

    def _may_still_be(self, name: str) -> bool:
        """Whether a user who is not known is one whom auth_query has found, which is only not remembered."""
        return self._answers is not None and name not in self._gone

    def _current(self, name: str) -> Known | None:
        known = self._known.get(name)
        if known is None and self._answers is not None:
            return self._answers.peek(name)
        return known

    def _is_unprepared(self, name: str) -> bool:
        user = self._listed.get(name)
        return user is not None and bool(user.password) and name not in self._known

    def _is_password_of(self, name: str, known: Known) -> bool:
        return known.password == self._listed[name].password

    def _computed(self, names: Sequence[str]) -> dict[str, Known]:
        """In a thread: it looks at nothing that the others change, and changes nothing."""
        return {name: self._read(name, self._listed[name].password or "") for name in names}

    def _read(self, name: str, secret: str) -> Known:
        """In a thread, as `_computed`."""
        return Known.of(name, secret, self._strangers.salt(name))

    def _learn(self, users: Mapping[str, Known]) -> None:
        for name, known in users.items():
            self._crowd.remove(self._known.get(name))
            self._crowd.add(known)
            self._known[name] = known


def _stored(user: User) -> Known | None:
    """A user with a secret; None: one without, or with a password, which is to be computed first."""
    if user.secret is None:
        return None
    try:
        return Known.of(user.name, user.secret)
    except ValueError as error:
        log.warning('user "%s" cannot log in with a password: %s', shown(user.name), error)
        return Known(user.name)


def _asks(auth: Auth) -> tuple[str | None, str | None, str | None]:
    """What decides the answers."""
    return auth.auth_query, auth.auth_user, auth.auth_dbname
