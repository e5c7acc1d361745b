"""What a server reports to a client with given start-up settings, found out by logging in as that client would.

Once for each combination; then it is remembered for a while, so that ALTER ROLE … SET and a server's new configuration
show after that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import TypeAlias

import trio

from heliosproxy.switch.opening import Opened

AGE = 30.0
"""Seconds for which a greeting is remembered."""
MOST = 1000
"""Different combinations of database, user and start-up settings whose greeting is remembered."""

Greeting: TypeAlias = tuple[dict[str, str], dict[str, str], bytes]
"""The settings that the server reports, those of the tracked ones that it does not, and the notices of its login."""
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
                self._known[key] = monotonic(), (opened.parameters, opened.asked, opened.notices)
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
