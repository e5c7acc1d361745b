"""The users that the configuration names: how they prove who they are, and who they are on the nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from secrets import token_bytes

from heliosproxy.auth.scram import ScramKeys
from heliosproxy.auth.secrets import ScramSecret
from heliosproxy.config.access import User
from heliosproxy.config.model import Pool


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
    """Users by name. Secrets of users with a plain password are computed once, when they are first needed."""

    def __init__(self, users: Iterable[User]) -> None:
        self._users = {user.name: user for user in users}
        self._secrets: dict[str, ScramSecret] = {}
        self._mock_key = token_bytes(32)

    def secret(self, name: str) -> ScramSecret:
        """The user's secret; one that no password fits, if there is no such user."""
        secret = self._secrets.get(name)
        if secret is not None:
            return secret
        user = self._users.get(name)
        if user is None:
            return ScramSecret.mock(name, self._mock_key)
        if user.secret is not None:
            secret = ScramSecret.parse(user.secret)
        else:
            secret = ScramSecret.from_password(user.password or "")
        self._secrets[name] = secret
        return secret

    def on_nodes(self, name: str, pool: Pool) -> ServerLogin:
        """Who the user is on the nodes: as configured for the user, else for the pool; else the same name, for a user
        let in by trust without a password."""
        user = self._users.get(name) or User(name)
        if user.server_user is None and pool.server_user is not None:
            return ServerLogin(pool.server_user, pool.server_password)
        return ServerLogin(user.server_user or name, user.server_password or user.password)
