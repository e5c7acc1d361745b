"""A cluster found from one of its servers: the primary, and the standbys that stream from it.

A primary knows of a standby its application_name and the address it comes from, not the port it listens on. So each
candidate address is asked, and believed only if it says that it is a standby of the same cluster.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from heliosproxy.cli.connect import MODES
from heliosproxy.cli.survey import Login, Server, Standby, SurveyError, survey
from heliosproxy.config.kinds import Address
from heliosproxy.config.values import BadValue, is_loopback, name

_HOPS = 8  # from a cascaded standby up to its primary
_APPLICATION_NAME = re.compile(r"(?:^|\s)(fallback_)?application_name=('(?:[^'\\]|\\.)*'|\S+)")


@dataclass(frozen=True, slots=True)
class Member:
    """A server of the cluster. `address` is None where nobody could tell; `host` is where it streams from, if known."""

    name: str
    address: Address | None
    mode: str
    """primary, sync, semisync, async; empty where the role may not see it."""
    host: str
    matched: bool = True
    """Its name is its application_name, so that its mode can be followed."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, the primary first. `notes` are for the user, a line each."""

    members: tuple[Member, ...]
    version: str
    notes: tuple[str, ...]


async def discover(start: Address, login: Login, further: Sequence[Address] = ()) -> Found:
    """Find the cluster that `start` belongs to. `further` are addresses to try for standbys.

    To be called inside `trio_asyncio.open_loop()`. Raises SurveyError where the start or the primary above it does not
    answer. Each server has the login's time-out.
    """
    address, server, notes = await _primary(start, login)
    rows = sorted(server["standbys"], key=lambda row: (list(MODES).index(row["sync_state"] or "async"), row["name"]))
    if any(row["state"] is None for row in rows):
        notes.append(f'{login.user} may not see the state of replication; grant pg_monitor to "{login.user}"')
    candidates = _candidates(address, start, rows, further)
    standbys, more = await _ask_standbys(candidates, login, server["system"])
    primary = Member(_valid(server["cluster_name"]) or "primary", address, "primary", address.host)
    members = _name_members(primary, _match(rows, standbys, address.host))
    return Found(members, server["version"], (*notes, *more))


async def _primary(start: Address, login: Login) -> tuple[Address, Server, list[str]]:
    address = start
    notes: list[str] = []
    for _ in range(_HOPS):
        server = await survey(address, login)
        if not server["in_recovery"]:
            return address, server, notes
        upstream = server["upstream"]
        if upstream is None or not upstream["host"] or not upstream["port"]:
            raise SurveyError("failed", f"{address} is a standby and does not say whom it follows; name the primary")
        # A socket directory or a loopback address is the standby's own machine, which is where we reached it.
        host = upstream["host"]
        local = host.startswith("/") or is_loopback(host)
        above = Address(address.host if local else host, upstream["port"])
        notes.append(f"{address} is a standby; it follows {above}")
        address = above
    raise SurveyError("failed", f"no primary within {_HOPS} steps above {start}")


def _candidates(
    primary: Address, start: Address, rows: Sequence[Standby], further: Sequence[Address]
) -> tuple[Address, ...]:
    """Where standbys may listen: what was named, and each one's host with the primary's port."""
    guesses = [Address(_host(row, primary.host), primary.port) for row in rows]
    every = dict.fromkeys([start, *further, *guesses])
    every.pop(primary, None)
    return tuple(every)


def _host(row: Standby, primary: str) -> str:
    """The host a standby comes from. Nowhere, or loopback: the primary's own machine."""
    host = row["host"]
    return primary if host is None or is_loopback(host) else host


async def _ask_standbys(
    candidates: Sequence[Address], login: Login, system: str
) -> tuple[dict[Address, Server], list[str]]:
    """Those that are standbys of the cluster, and a note for each that is not."""
    servers: dict[Address, Server] = {}
    notes: dict[Address, str] = {}

    async def ask(address: Address) -> None:
        try:
            server = await survey(address, login)
        except SurveyError as error:
            notes[address] = str(error)
            return
        if server["system"] != system:
            notes[address] = f"{address} belongs to another cluster"
        elif server["in_recovery"]:
            servers[address] = server

    async with trio.open_nursery() as nursery:
        for candidate in candidates:
            nursery.start_soon(ask, candidate)
    in_order = {each: servers[each] for each in candidates if each in servers}
    return in_order, [notes[each] for each in candidates if each in notes]


def application_name(server: Server) -> str:
    """What a standby calls itself to its primary, as libpq chooses it; empty if it may not be seen."""
    upstream = server["upstream"]
    conninfo = (upstream["conninfo"] if upstream else None) or ""
    names = {bool(fallback): _unquoted(value) for fallback, value in _APPLICATION_NAME.findall(conninfo)}
    return names.get(False) or names.get(True) or server["cluster_name"]


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith("'") else value


def _match(rows: Sequence[Standby], standbys: dict[Address, Server], primary_host: str) -> list[Member]:
    """Each row of pg_stat_replication with the server that it is, and servers that have no row (cascaded ones)."""
    left = dict(standbys)
    members = []
    for row in rows:
        host = _host(row, primary_host)
        address = _server_of(row, host, left)
        if address is not None:
            del left[address]
        mode = MODES.get(row["sync_state"] or "", "")
        members.append(Member(row["name"], address, mode, row["host"] or host))
    members += [Member(application_name(server), address, "async", address.host) for address, server in left.items()]
    return members


def _server_of(row: Standby, host: str, servers: dict[Address, Server]) -> Address | None:
    named = [address for address, server in servers.items() if application_name(server) == row["name"]]
    there = [address for address in named if address.host == host]
    if there or len(named) == 1:
        return (there or named)[0]
    at_host = [address for address, server in servers.items() if address.host == host and not application_name(server)]
    return at_host[0] if at_host else None


def _name_members(primary: Member, standbys: Sequence[Member]) -> tuple[Member, ...]:
    """Names made valid and different from each other; `walreceiver` is no name but what PostgreSQL puts for none."""
    taken = {primary.name}
    members = [primary]
    for number, standby in enumerate(standbys, start=1):
        given = _valid(standby.name)
        usable = given and given != "walreceiver" and given not in taken
        chosen = given if usable else next(n for i in range(number, 999) if (n := f"standby-{i}") not in taken)
        taken.add(chosen)
        members.append(Member(chosen, standby.address, standby.mode, standby.host, matched=chosen == standby.name))
    return tuple(members)


def _valid(text: str) -> str:
    try:
        return name(text)
    except BadValue:
        return ""
