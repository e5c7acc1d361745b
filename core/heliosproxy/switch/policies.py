"""What `[pool]` and `[[pools]]` say of each pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliosproxy.config.model import Pool, PoolFor

if TYPE_CHECKING:
    from heliosproxy.config.model import Config


class Policies:
    """The keys that hold for a database and a user, and for a database as a whole."""

    def __init__(self, config: Config) -> None:
        self.learn(config)

    def learn(self, config: Config) -> None:
        """Go by this configuration from now on. What was given out before is as it was."""
        self._default = config.pool
        self._entries = config.pools
        self._roles = {user.name: user.server_user for user in config.auth.users if user.server_user is not None}

    def of(self, database: str, user: str) -> Pool:
        """The first entry of `[[pools]]` that matches, else `[pool]`."""
        for entry in self._entries:
            if entry.database in (None, database) and entry.user in (None, user):
                return entry
        return self._default

    def role(self, database: str, user: str) -> str:
        """Who a user is on the nodes: as the user's own `server_user` says, else the pool's; else the same name."""
        return self._roles.get(user) or self.of(database, user).server_user or user

    def roles(self, database: str, user: str) -> tuple[str, ...]:
        """Who a user of this database may be on the nodes, whichever database a statement is sent to."""
        databases = (database, *(entry.database for entry in self._entries if entry.database is not None))
        return tuple(self.role(each, user) for each in databases)

    def database_limit(self, database: str) -> int | None:
        """`max_database_connections`, which only an entry without a user may give for a database; None: no limit."""
        for entry in self._entries:
            if entry.user is None and entry.database == database:
                return entry.max_database_connections
        return self._default.max_database_connections


def section(policy: Pool) -> str:
    """Where the keys of a pool stand, in the words of the file."""
    if not isinstance(policy, PoolFor):
        return "[pool]"
    named = (("database", policy.database), ("user", policy.user))
    return "[[pools]] for " + ", ".join(f'{key} "{value}"' for key, value in named if value is not None)
