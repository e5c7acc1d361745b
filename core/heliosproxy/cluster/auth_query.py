"""Asks a node what it keeps of a user's password: `[auth] auth_query`, by asyncpg under trio-asyncio.

One task and one kept connection: questions come from logins, which may be given up at any moment, and one that is given
up must not cost the next one the connection. The name is a parameter of the statement, never part of its text.

*Error handling*: what goes wrong is told to who asked, and to nobody else. Where no node can be reached, or none
answers, the questions of the next second are refused at once instead of each waiting in turn. What the statement itself
refuses is about one name, which anybody may have made up: the connection and the other questions go on. Of what the
server says to that only the SQLSTATE is told: a function that asks for secrets may have put one into the words.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import asyncpg
import trio
import trio_asyncio
from asyncpg.prepared_stmt import PreparedStatement
from trio_asyncio import aio_as_trio

from heliosproxy.cluster.connect import ANYTHING, connect, describe, drop
from heliosproxy.cluster.node import Node
from heliosproxy.cluster.registry import Cluster
from heliosproxy.config.access import Auth
from heliosproxy.config.model import Health

log = logging.getLogger("heliosproxy.cluster")

PATIENCE = 10.0
"""Seconds for which a question waits, those before it included."""
NAME_LENGTH = 63
"""Bytes of the longest name that a role can have."""
BACK_OFF = 1.0
"""Seconds for which nothing is asked after no node has answered."""


class AuthQueryError(Exception):
    """There is no answer; the text says why, for the log."""


@dataclass(slots=True)
class _Question:
    name: str
    secret: str | None = field(default=None, repr=False)
    error: AuthQueryError | None = field(default_factory=lambda: AuthQueryError("nobody answers questions"))
    given_up: bool = False
    done: trio.Event = field(default_factory=trio.Event)


class AuthQuery:
    """Calling it with a user's name gives what the node keeps of its password; None: no such user, or no password.

    `run` must be running. Primary first; any healthy node while there is none.
    """

    def __init__(self, cluster: Cluster, auth: Auth, health: Health) -> None:
        self._cluster = cluster
        self._auth, self._health = auth, health
        self._questions, self._asked = trio.open_memory_channel[_Question](0)
        self._node: Node | None = None
        self._link: asyncpg.Connection | None = None
        self._statement: PreparedStatement | None = None
        self._outdated = False
        self._trouble: tuple[float, AuthQueryError] | None = None
        self._warned: set[str] = set()

    async def __call__(self, name: str) -> str | None:
        """Raises AuthQueryError. May be called from anywhere in trio, and be cancelled."""
        if not _can_be_a_role(name):
            return None
        question = _Question(name)
        try:
            with trio.fail_after(PATIENCE):
                await self._questions.send(question)
                await question.done.wait()
        except (trio.TooSlowError, trio.BrokenResourceError) as error:
            raise AuthQueryError("nobody answers questions") from error
        finally:
            question.given_up = True
        if question.error is not None:
            raise question.error
        return question.secret

    def configure(self, auth: Auth, health: Health) -> None:
        """Ask as these say from the next question on, on a new connection."""
        self._auth, self._health = auth, health
        self._trouble, self._outdated = None, True

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; once."""
        async with trio_asyncio.open_loop(), self._asked:
            task_status.started()
            try:
                async for question in self._asked:
                    if not question.given_up:
                        await self._answer(question)
            finally:
                self._drop()

    async def _answer(self, question: _Question) -> None:
        try:
            self._refuse_again()
            with trio.fail_after(self._health.timeout):
                question.secret = await self._ask(question.name)
            question.error = None
        except AuthQueryError as error:
            question.error = error
        except trio.TooSlowError:
            question.error = self._unreachable(f"no answer within {self._health.timeout:g} s")
        except ANYTHING as error:
            goes_on, reason = self._goes_on(error), self._reason(error)
            question.error = AuthQueryError(reason) if goes_on else self._unreachable(reason)
        finally:
            question.done.set()

    async def _ask(self, name: str) -> str | None:
        node = self._choose()
        if self._statement is not None and node is self._node and not self._outdated:
            try:
                return await self._look_up(name)
            except ANYTHING as error:
                if isinstance(error, AuthQueryError) or self._goes_on(error):
                    raise
                # It was cut while nobody looked, or what it was prepared for has changed.
        self._drop()
        await self._connect(node)
        return await self._look_up(name)

    def _reason(self, error: BaseException) -> str:
        if self._statement is not None and isinstance(error, asyncpg.PostgresError):
            return f"{error.sqlstate} ({type(error).__name__})"
        return describe(error)

    def _goes_on(self, error: BaseException) -> bool:
        """Whether the statement was refused, and the connection is as good as before."""
        if self._link is None or self._statement is None or self._link.is_closed():
            return False
        return isinstance(error, asyncpg.PostgresError) and not isinstance(error, asyncpg.InvalidCachedStatementError)

    def _choose(self) -> Node:
        node = self._cluster.primary or next((node for node in self._cluster.nodes if node.healthy), None)
        if node is None:
            raise AuthQueryError("no healthy node to ask")
        return node

    async def _connect(self, node: Node) -> None:
        auth, health, self._outdated = self._auth, self._health, False
        if auth.auth_user is not None or auth.auth_password is not None:
            health = replace(health, user=auth.auth_user or health.user, password=auth.auth_password)
        database, contexts = auth.auth_dbname or health.database, self._cluster.contexts
        self._link = await connect(node, health, contexts, database=database, statement_timeout=health.timeout)
        self._node = node
        statement: PreparedStatement = await aio_as_trio(self._link.prepare)(auth.auth_query or "")
        parameters, columns = len(statement.get_parameters()), len(statement.get_attributes())
        if parameters != 1 or columns not in (1, 2):
            self._drop()
            raise AuthQueryError(
                f"it has {parameters} parameters and {columns} columns, not $1 for the name, and name and secret"
            )
        self._statement = statement

    async def _look_up(self, name: str) -> str | None:
        assert self._statement is not None
        try:
            rows: Sequence[Sequence[object]] = await aio_as_trio(self._statement.fetch)(name)
        except asyncpg.DataError as error:
            self._warn(f"a name that it cannot take counts as unknown: {type(error).__name__}")
            return None
        if len(rows) > 1:
            raise AuthQueryError(f"it gives {len(rows)} rows, not one")
        return self._secret(name, rows[0]) if rows else None

    def _secret(self, name: str, row: Sequence[object]) -> str | None:
        *found, secret = row
        if not isinstance(secret, str | None):
            raise AuthQueryError(f"its last column is of type {type(secret).__name__}, not text")
        if found and found[0] != name:
            # The secret of somebody else, where names are compared without regard to case.
            self._warn("it gives another name than it was asked for, which counts as none")
            return None
        return secret

    def _refuse_again(self) -> None:
        if self._trouble is not None and trio.current_time() - self._trouble[0] < BACK_OFF:
            raise self._trouble[1]

    def _unreachable(self, reason: str) -> AuthQueryError:
        self._drop()
        error = AuthQueryError(reason)
        self._trouble = trio.current_time(), error
        return error

    def _warn(self, text: str) -> None:
        """Once: names are anybody's to make up."""
        if text not in self._warned:
            self._warned.add(text)
            log.warning("auth_query: %s", text)

    def _drop(self) -> None:
        drop(self._link)
        self._link = self._node = self._statement = None


def _can_be_a_role(name: str) -> bool:
    """Not if it is too long, nor if it was not UTF-8 on the wire."""
    try:
        return len(name.encode()) <= NAME_LENGTH
    except UnicodeEncodeError:
        return False
