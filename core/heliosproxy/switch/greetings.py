"""What a server reports to a client with given start-up settings, found out by logging in as that client would.

Once for each combination; then it is remembered for a while, so that ALTER ROLE … SET and a server's new configuration
show after that. These logins are beside all pools and their caps: few are under way at a time, fewer of one user, so
that nobody takes a server's connections from others by asking for ever new settings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from time import monotonic
from typing import TypeAlias

import trio

from heliosproxy.switch.opening import Opened
from heliosproxy.switch.settings import Settings, from_parameters
from heliosproxy.wire import builders
from heliosproxy.wire.errors import PeerError, notice_response

AGE = 30.0
"""Seconds for which a greeting is remembered."""
REFUSAL_AGE = 1.0
"""Seconds for which it is remembered that the server refuses."""
AT_ONCE = 8
"""Logins under way to find a greeting out."""
AT_ONCE_OF_ONE = 2
"""Of them, those of one user to one database."""
MOST = 1000
"""Different combinations of database, user and start-up settings whose greeting is remembered."""
NAME_LENGTH = 63
"""Bytes of the longest name that PostgreSQL keeps."""

NAMES = 100
"""Different names of applications for which one greeting is kept ready."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """What one client is told and what is known of it from then on."""

    settings: Settings
    said: bytes
    """Notices and ParameterStatus messages."""


class Greeting:
    """What all clients with equal start-up settings are told, but for the name of the application."""

    def __init__(self, opened: Opened, settings: Mapping[str, str]) -> None:
        """`opened`: a login with these start-up settings, which do not name the application."""
        self._parameters = {**opened.parameters, "application_name": ""}
        self._settings = from_parameters(self._parameters, settings, opened.asked)
        self._notices = opened.notices
        self._ready: dict[str, Greeted] = {}

    def to(self, application: str) -> Greeted:
        """The greeting of a client that calls its application so."""
        ready = self._ready.get(application)
        if ready is None:
            if len(self._ready) >= NAMES:
                self._ready.clear()
            ready = self._ready[application] = self._made(application)
        return ready

    def _made(self, application: str) -> Greeted:
        name, notice = application_name(application, self._parameters.get("server_version", ""))
        parameters = {**self._parameters, "application_name": name}
        statuses = b"".join(builders.parameter_status(*each) for each in parameters.items())
        return Greeted(self._settings.with_reported("application_name", name), self._notices + notice + statuses)


Look: TypeAlias = Callable[[str, str, Mapping[str, str]], Awaitable[Opened]]
"""Logs in to a database as a client's user, with these settings; raises PeerError."""


@dataclass(slots=True)
class _Turns:
    """Of one user to one database."""

    wanted: int = 0
    semaphore: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(AT_ONCE_OF_ONE))


class Greetings:
    """The greetings that were found out, least recently found out first."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._known: OrderedDict[tuple[object, ...], tuple[float, Greeting | PeerError]] = OrderedDict()
        self._asking: dict[tuple[object, ...], trio.Event] = {}
        self._all = trio.Semaphore(AT_ONCE)
        self._one: dict[tuple[str, str], _Turns] = {}

    async def of(self, database: str, user: str, settings: Mapping[str, str]) -> Greeting:
        """The greeting, which also shows that a server lets this user in with these settings.

        application_name is nobody's business. Raises PeerError, as the server put it.
        """
        wanted = {name: value for name, value in settings.items() if name != "application_name"}
        key = (database, user, tuple(sorted(wanted.items())))
        while (found := self._remembered(key)) is None:
            asking = self._asking.get(key)
            if asking is not None:  # somebody like this client has asked already
                await asking.wait()
                continue
            self._asking[key] = trio.Event()
            try:
                self._known[key] = monotonic(), await self._found_out(database, user, wanted)
            finally:
                self._asking.pop(key).set()
            self._known.move_to_end(key)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        if isinstance(found, PeerError):
            raise PeerError(found.message, found.sqlstate, detail=found.detail, hint=found.hint)
        return found

    async def _found_out(self, database: str, user: str, wanted: Mapping[str, str]) -> Greeting | PeerError:
        """The greeting, or the server's refusal. Raises PeerError if there is no server to ask."""
        key = (database, user)
        turns = self._one.setdefault(key, _Turns())
        turns.wanted += 1
        try:
            async with turns.semaphore, self._all:
                opened = await self._look(database, user, wanted)
        except PeerError as error:
            if error.sqlstate[:2] not in _ABOUT_THE_QUESTION:
                raise
            return error
        finally:
            turns.wanted -= 1
            if not turns.wanted:
                del self._one[key]
        opened.close()
        return Greeting(opened, wanted)

    def forget(self) -> None:
        """Who is who on the nodes may have changed."""
        self._known.clear()

    def _remembered(self, key: tuple[object, ...]) -> Greeting | PeerError | None:
        since, found = self._known.get(key, (0.0, None))
        age = REFUSAL_AGE if isinstance(found, PeerError) else AGE
        return found if monotonic() - since < age else None


_ABOUT_THE_QUESTION = frozenset(("22", "3D", "42"))
"""Classes of refusals that are about the database and the settings. Others are about the server's state, or about a
password that may be put right at any moment."""


def application_name(name: str, server_version: str) -> tuple[str, bytes]:
    """application_name as a server of this version keeps it, and the notice that it sends if the name is too long.

    63 bytes, then printable ASCII: other bytes become `\\xab` from version 16 on, a question mark before.
    """
    raw = name.encode("utf-8", "surrogateescape")
    kept, notice = raw[:NAME_LENGTH], b""
    if len(raw) > NAME_LENGTH:
        while kept and (raw[len(kept)] & 0xC0) == 0x80:  # not in the middle of a character
            kept = kept[:-1]
        long, short = (text.decode("utf-8", "replace") for text in (raw, kept))
        notice = notice_response("NOTICE", "42622", f'identifier "{long}" will be truncated to "{short}"')
    digits = "".join(takewhile(str.isdigit, server_version))
    escapes = bool(digits) and int(digits) >= 16
    return "".join(chr(c) if 32 <= c <= 126 else f"\\x{c:02x}" if escapes else "?" for c in kept), notice
