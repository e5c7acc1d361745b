"""Who may come in from where, and how: `[[auth.rules]]` and `[[auth.maps]]`, compiled.

Sources: PostgreSQL's chapters "The pg_hba.conf File" and "User Name Maps". The first rule that matches decides. Where
they differ: `trust` without an address is for loopback only, and there are no groups and files of names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self, TypeAlias

from heliosproxy.auth.expressions import Expression
from heliosproxy.auth.interfaces import Interface, read_interfaces
from heliosproxy.auth.scram import shown
from heliosproxy.config.access import Auth, NameMap, Rule
from heliosproxy.wire.errors import PeerError

_IP: TypeAlias = IPv4Address | IPv6Address
_Matches: TypeAlias = "Callable[[Attempt], bool]"
_From: TypeAlias = Callable[[_IP], bool]
_Maps: TypeAlias = Callable[[str, str], bool]
_MAPPED = 96
"""Bits before an IPv4 address within an IPv6 one."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A client that wants in, as far as it is known before it has proved anything."""

    local: bool
    """It came through the Unix socket."""
    tls: bool
    address: str
    """Its IP address as text; anything if it is local."""
    database: str
    user: str


class Rules:
    """The rules in their order. `interfaces` says which addresses this machine has, asked when a rule turns on it."""

    def __init__(
        self,
        rules: Sequence[Rule],
        maps: Sequence[NameMap] = (),
        interfaces: Callable[[], Sequence[Interface]] = read_interfaces,
    ) -> None:
        self._interfaces = interfaces
        self._rules = [(rule, _types(rule), _names(rule), self._addresses(rule)) for rule in rules]
        self._maps: dict[str, list[_Maps]] = {}
        for entry in maps:
            self._maps.setdefault(entry.map, []).append(_mapping(entry))

    @classmethod
    def of(cls, auth: Auth) -> Self:
        """The rules of `[auth]`; where there are none, its `method` for everyone."""
        everyone = (Rule(auth.method, "local"), Rule(auth.method))
        return cls(auth.rules or everyone, auth.maps)

    def match(self, attempt: Attempt) -> Rule | None:
        """The first rule that matches; None: nobody has said that it may come in.

        An address that cannot be read is let in by no rule.
        """
        address = None if attempt.local else _read(attempt.address)
        if address is None and not attempt.local:
            return None
        for rule, of_type, of_name, of_address in self._rules:
            if of_type(attempt) and of_name(attempt) and (address is None or of_address(address)):
                return rule
        return None

    def mapped(self, rule: Rule, system_user: str, user: str) -> bool:
        """Whether who is `system_user` by its certificate or process may log in as `user` by this rule.

        Without a map: if the names are equal.
        """
        if rule.map is None:
            return system_user == user
        return any(maps(system_user, user) for maps in self._maps.get(rule.map, ()))

    def _addresses(self, rule: Rule) -> _From:
        if not rule.address:
            return _is_loopback if rule.method == "trust" else _anywhere
        tests = [self._address(text) for text in rule.address]
        return lambda address: any(test(address) for test in tests)

    def _address(self, text: str) -> _From:
        if text == "all":
            return _anywhere
        if text == "samehost":
            return lambda address: any(address == each.ip for each in self._interfaces())
        if text == "samenet":
            return lambda address: any(_within(address, each.network) for each in self._interfaces())
        network = network_of(text)
        return lambda address: _within(address, network)


def refusal(attempt: Attempt, rule: Rule | None) -> PeerError:
    """What a client is told that no rule lets in, or that one rejects. It says nothing of whether there is a user."""
    host = "[local]" if attempt.local else attempt.address
    encryption = "SSL encryption" if attempt.tls else "no encryption"
    who = f'host "{host}", user "{shown(attempt.user)}", database "{shown(attempt.database)}", {encryption}'
    if rule is None:
        return PeerError(f"no rule of [[auth.rules]] for {who}", "28000")
    return PeerError(f"a rule of [[auth.rules]] rejects connection for {who}", "28000")


def _read(text: str) -> _IP | None:
    """An address without its scope; that of an IPv4 client that came through an IPv6 socket is its IPv4 one."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def network_of(text: str) -> IPv4Network | IPv6Network:
    """A network as a rule writes it; one of IPv4 addresses within IPv6 (`::ffff:192.0.2.0/120`) is the IPv4 one, as
    with the addresses of clients. Raises ValueError, also for such a one that is not only of them, and for one with
    a scope (`fe80::1%eth0`), since that is not looked at."""
    if "%" in text:
        raise ValueError(f"{text} has a scope")
    network = ip_network(text, strict=False)
    if not isinstance(network, IPv6Network):
        return network
    start = IPv6Address(text.partition("/")[0]).ipv4_mapped
    if start is None:
        return network
    if network.prefixlen < _MAPPED:
        raise ValueError(f"of {text} IPv6 addresses would be part, too")
    return ip_network((start, network.prefixlen - _MAPPED), strict=False)


def _anywhere(address: _IP) -> bool:
    return True


def _is_loopback(address: _IP) -> bool:
    return address.is_loopback


def _within(address: _IP, network: IPv4Network | IPv6Network) -> bool:
    return address.version == network.version and address in network


def _types(rule: Rule) -> _Matches:
    if rule.type == "local":
        return lambda attempt: attempt.local
    if rule.type == "host":
        return lambda attempt: not attempt.local
    encrypted = rule.type == "hostssl"
    return lambda attempt: not attempt.local and attempt.tls is encrypted


def _names(rule: Rule) -> _Matches:
    databases = [_database(text) for text in rule.database]
    users = [_name(text) for text in rule.user]
    return lambda attempt: (
        any(matches(attempt) for matches in databases) and any(matches(attempt.user) for matches in users)
    )


def _database(text: str) -> _Matches:
    if text == "sameuser":
        return lambda attempt: attempt.database == attempt.user
    matches = _name(text)
    return lambda attempt: matches(attempt.database)


def _name(text: str) -> Callable[[str], bool]:
    if text == "all":
        return lambda name: True
    if text.startswith("/"):
        expression = Expression(text[1:])
        return lambda name: expression.search(name) is not None
    return lambda name: name == text


def _mapping(entry: NameMap) -> _Maps:
    """What takes the place of `\\1` is a name, whatever it looks like: somebody called `all` is not everybody."""
    anyone, to = entry.database_user == "all", entry.database_user
    if not entry.system_user.startswith("/"):
        return lambda system_user, user: system_user == entry.system_user and (anyone or user == to)
    expression = Expression(entry.system_user[1:])
    if "\\1" not in to:
        return lambda system_user, user: expression.search(system_user) is not None and (anyone or user == to)

    def maps(system_user: str, user: str) -> bool:
        found = expression.search(system_user)
        return found is not None and found.group is not None and user == to.replace("\\1", found.group, 1)

    return maps
