"""What a server reports to a client with given start-up settings, found out by logging in as that client would.

Once for each combination; then it is remembered for a while, so that ALTER ROLE … SET and a server's new configuration
show after that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from time import monotonic
from typing import TypeAlias

import trio

from heliosproxy.switch.opening import Opened
from heliosproxy.switch.settings import Settings, from_parameters
from heliosproxy.wire import builders
from heliosproxy.wire.errors import notice_response

AGE = 30.0
"""Seconds for which a greeting is remembered."""
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


class Greetings:
    """The greetings that were found out, least recently found out first."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._known: OrderedDict[tuple[object, ...], tuple[float, Greeting]] = OrderedDict()
        self._asking: dict[tuple[object, ...], trio.Event] = {}

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
                opened = await self._look(database, user, wanted)
                opened.close()
                self._known[key] = monotonic(), Greeting(opened, wanted)
            finally:
                self._asking.pop(key).set()
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        return found

    def forget(self) -> None:
        """Who is who on the nodes may have changed."""
        self._known.clear()

    def _remembered(self, key: tuple[object, ...]) -> Greeting | None:
        since, greeting = self._known.get(key, (0.0, None))
        return greeting if monotonic() - since < AGE else None


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
