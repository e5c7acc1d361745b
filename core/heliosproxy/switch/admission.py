"""Who may come in by number, sans-IO: connections in all, of a user, of a database, of an address; logins under way.

    arrived → has said what it wants (`begins`) → authenticated (`admitted`) → left
            → ended, because there are too many logins

Each step costs the same however many there are. Nobody is refused before he has said what he wants: a cancel request
is a connection as well, and must get through when everything is full.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from heliosproxy.config.access import ClientLimits
from heliosproxy.wire.errors import PeerError

Reason: TypeAlias = Literal[
    "max_client_connections", "max_user_client_connections", "max_database_client_connections",
    "max_address_client_connections", "max_logins", "login_timeout",
    "authentication", "rules", "protocol", "tls", "plugin", "no_node", "stopping", "gone", "internal_error",
    "lost", "idle_session_timeout", "idle_in_transaction_session_timeout", "statement_timeout", "transaction_timeout",
    "wait_timeout", "max_message", "max_prepared_statements", "max_settings", "max_savepoints", "max_portals",
    "max_before_sync",
]  # fmt: skip
"""Why a client was refused, ended, or denied something. A key of the configuration, where one says so.

login_timeout: it did not finish its login in time. authentication: it is not who it says. rules: none of
`[[auth.rules]]` lets it in. protocol: what it sent is not the protocol. tls: no TLS where it must be, or none that can
be agreed on. plugin: a plugin refused it. no_node: no server could say what it would be greeted with. stopping: the
proxy ends. gone: it left in the middle of its login. internal_error: a bug of ours. lost: the link that held its state
died. The last three are fixed bounds.
"""

LOCAL = "local"
"""The address of all that come by the Unix socket."""
_SUBNET = 64
"""Bits of an IPv6 address that tell one customer from another: whoever has one address has all that share them."""


class LimitError(PeerError):
    """Refused by a limit. `key` is the one of `[client_limits]`; it has been counted."""

    def __init__(self, message: str, key: Reason, limit: int) -> None:
        super().__init__(
            message, "53300", detail=f"{key} is {limit}.", hint=f"Close some, or raise {key} in [client_limits]."
        )
        self.key = key


@dataclass(frozen=True, slots=True)
class AdmissionStatistics:
    """Now, and counters since start."""

    clients: int
    """That have logged in."""
    logins: int
    """Under way."""
    addresses: int
    """That clients and logins come from."""
    arrived: int
    """Connections, cancel requests included."""
    admitted: int
    """Clients that have logged in, since start."""
    refused: Mapping[Reason, int]
    """How often whom something was refused, or who was ended, by reason; reasons that never occurred are left out."""


class Ticket:
    """A connection, from its arrival until it has left. Compared by identity."""

    __slots__ = ("_begun", "address", "database", "end", "refused", "user")

    def __init__(self, address: str, end: Callable[[], None]) -> None:
        self.address = address
        """What counts as one address."""
        self.end = end
        """Called once if its login is ended for another; `refused` then says why."""
        self.refused: LimitError | None = None
        """What to tell the client whose login was ended."""
        self.user: str | None = None
        """Who it has logged in as; None until it has."""
        self.database = ""
        self._begun = False


class _Origin:
    """What there is of an address."""

    __slots__ = ("clients", "logins", "silent")

    def __init__(self) -> None:
        self.clients = 0
        self.logins: OrderedDict[Ticket, None] = OrderedDict()
        """Under way, the oldest first."""
        self.silent: OrderedDict[Ticket, None] = OrderedDict()
        """Those of them that have not said what they want."""

    @property
    def connections(self) -> int:
        return self.clients + len(self.logins)


class Admission:
    """Counts who comes and goes. `limits` may be replaced; whoever is in stays in."""

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self._refused: Counter[Reason] = Counter()
        self._origins: dict[str, _Origin] = {}
        self._ranks: dict[int, OrderedDict[str, None]] = {}
        """Addresses by the number of their logins under way, none empty: who has had so many for longest comes
        first."""
        self._most = 0
        self._logins = self._clients = self._arrived = self._admitted = 0
        self._users: Counter[str] = Counter()
        self._databases: Counter[str] = Counter()

    # --- a connection's way ---------------------------------------------------------------------------------------

    def arrived(self, address: str, end: Callable[[], None]) -> Ticket:
        """A connection was accepted; "local" stands for the Unix socket. Whatever becomes of it, `left` must follow.

        Where it is one too many, another login is ended for it: `end` of its ticket is called, before this returns.
        """
        ticket = Ticket(_counted_as(address), end)
        origin = self._origins.setdefault(ticket.address, _Origin())
        origin.logins[ticket] = origin.silent[ticket] = None
        self._arrived += 1
        self._logins += 1
        self._rank(ticket.address, len(origin.logins) - 1, len(origin.logins))
        self._make_room(ticket, origin)
        return ticket

    def begins(self, ticket: Ticket) -> None:
        """It has said that it wants to log in: its start-up packet is there.

        Raises LimitError (53300) if its address has too many connections, or if there are as many clients as there may
        be, so that nobody proves who he is in vain.
        """
        if ticket.refused is not None:
            raise ticket.refused
        ticket._begun = True
        origin = self._origins[ticket.address]
        origin.silent.pop(ticket, None)
        limit = self.limits.max_address_client_connections
        if limit is not None and ticket.address != LOCAL and origin.connections > limit:
            raise self._refusal(*_too_many_of_address(ticket.address, limit))
        self._check_all()

    def admitted(self, ticket: Ticket, user: str, database: str) -> None:
        """It has proved who it is: from now on it counts as a client, and is not ended for others.

        Raises LimitError (53300) if there are as many clients as there may be, in all, of the user, or of the database;
        it then still counts as a login.
        """
        if ticket.refused is not None:
            raise ticket.refused
        self._check_all()
        limits = self.limits
        if (limit := limits.max_user_client_connections) is not None and self._users[user] >= limit:
            raise self._refusal(f'too many connections for role "{user}"', "max_user_client_connections", limit)
        if (limit := limits.max_database_client_connections) is not None and self._databases[database] >= limit:
            message = f'too many connections for database "{database}"'
            raise self._refusal(message, "max_database_client_connections", limit)
        origin = self._end_login(ticket)
        origin.clients += 1
        self._clients += 1
        self._admitted += 1
        ticket.user, ticket.database = user, database
        self._users[user] += 1
        self._databases[database] += 1

    def left(self, ticket: Ticket) -> None:
        """The connection is closed, in whatever way; called again it does nothing."""
        origin = self._origins.get(ticket.address)
        if origin is None:
            return
        if ticket.user is not None:
            origin.clients -= 1
            self._clients -= 1
            _less(self._users, ticket.user)
            _less(self._databases, ticket.database)
            ticket.user = None
        elif ticket in origin.logins:
            self._end_login(ticket)
        self._forget(ticket.address, origin)

    def count(self, reason: Reason) -> None:
        """Somebody was refused, ended, or denied something, by whoever calls this. A LimitError has been counted."""
        self._refused[reason] += 1

    def statistics(self) -> AdmissionStatistics:
        """Now, and counters since start."""
        return AdmissionStatistics(
            self._clients, self._logins, len(self._origins), self._arrived, self._admitted,
            MappingProxyType(dict(self._refused)),
        )  # fmt: skip

    def clients_of(self, *, user: str | None = None, database: str | None = None) -> int:
        """How many clients have logged in as a user, or to a database."""
        return self._users.get(user, 0) if user is not None else self._databases.get(database or "", 0)

    # --- who must go ----------------------------------------------------------------------------------------------

    def _make_room(self, newcomer: Ticket, origin: _Origin) -> None:
        limit = self.limits.max_address_client_connections
        if limit is not None and newcomer.address != LOCAL and origin.connections > limit:
            first = next(iter(origin.silent))
            if first is not newcomer:
                self._end_for_another(first, *_too_many_of_address(newcomer.address, limit))
                return
        if self._logins > self.limits.max_logins:
            address = next(iter(self._ranks[self._most]))
            oldest = next(iter(self._origins[address].logins))
            self._end_for_another(oldest, "too many logins under way", "max_logins", self.limits.max_logins)

    def _end_for_another(self, ticket: Ticket, message: str, key: Reason, limit: int) -> None:
        ticket.refused = self._refusal(message, key, limit)
        self._forget(ticket.address, self._end_login(ticket))
        ticket.end()

    def _end_login(self, ticket: Ticket) -> _Origin:
        origin = self._origins[ticket.address]
        del origin.logins[ticket]
        origin.silent.pop(ticket, None)
        self._logins -= 1
        self._rank(ticket.address, len(origin.logins) + 1, len(origin.logins))
        return origin

    def _rank(self, address: str, before: int, now: int) -> None:
        """An address has a login more or less than before."""
        if before:
            peers = self._ranks[before]
            del peers[address]
            if not peers:
                del self._ranks[before]
        if now:
            self._ranks.setdefault(now, OrderedDict())[address] = None
        if now > self._most:
            self._most = now
        elif before == self._most and before not in self._ranks:
            self._most = now  # it was the only one with so many, and all others have less

    def _forget(self, address: str, origin: _Origin) -> None:
        if not origin.connections:
            self._origins.pop(address, None)

    def _check_all(self) -> None:
        limit = self.limits.max_client_connections
        if self._clients >= limit:
            raise self._refusal("sorry, too many clients already", "max_client_connections", limit)

    def _refusal(self, message: str, key: Reason, limit: int) -> LimitError:
        self._refused[key] += 1
        return LimitError(message, key, limit)


def _too_many_of_address(address: str, limit: int) -> tuple[str, Reason, int]:
    return f'too many connections from address "{address}"', "max_address_client_connections", limit


def _counted_as(address: str) -> str:
    """What counts as one address: an IPv4 address, written as IPv6 or not; the network of an IPv6 address; "local"."""
    if ":" not in address:
        return address
    full = ipaddress.IPv6Address(address.partition("%")[0])
    if full.ipv4_mapped is not None:
        return str(full.ipv4_mapped)
    return str(ipaddress.IPv6Network((full, _SUBNET), strict=False))


def _less(names: Counter[str], name: str) -> None:
    """One less of a name; a name that nobody has takes no room."""
    names[name] -= 1
    if not names[name]:
        del names[name]
