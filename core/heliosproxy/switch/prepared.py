"""Prepared statements, virtualised: a client's names are its session's, a link's names are the proxy's.

A statement that many clients prepared with the same text, parameter types and settings has one name on every link
(L7), and a link learns it when it is first needed there.
"""

from __future__ import annotations

import re
import struct
from collections import OrderedDict
from itertools import count

from heliosproxy.switch.settings import Settings
from heliosproxy.wire.errors import ProtocolError

FIRST_OWN_OID = 16384
"""FirstNormalObjectId: what initdb made is below it."""

_MOMENTARY = re.compile(rb"\b(?:now|today|tomorrow|yesterday|allballs|epoch)\b(?!\s*\()", re.IGNORECASE)
"""Words that, in a literal of whatever quotes, are another value each time they are parsed (L7). Where they are no
literal, nothing is lost but that the statement is shared."""


class Prepared:
    """A statement as one session prepared it. Compared by identity."""

    __slots__ = ("named_under", "own_types", "sent", "server_name", "shape", "text", "types")

    def __init__(self, text: bytes, types: bytes, shape: bytes | None) -> None:
        self.text = text
        """As the client sent it."""
        self.types = types
        """The Parse message's count of parameter types and their oids, as on the wire."""
        self.shape = shape
        """Its shape; None where it must not be shaped (S3)."""
        self.sent = b""
        """The text that nodes are given: hints blanked, or rewritten."""
        self.named_under: Settings | None = None
        """The settings under which `server_name` was given."""
        self.own_types = own_types(types)
        self.server_name = b""
        """Its name on links; empty for an unnamed statement."""


def own_types(types: bytes) -> tuple[int, ...]:
    """The parameter types that are not PostgreSQL's own: a domain among them has a CHECK, which the text does not show.

    Raises ProtocolError if the count and the oids are not what a Parse message has.
    """
    count = int.from_bytes(types[:2], "big")
    if len(types) != 2 + 4 * count:
        raise ProtocolError("malformed Parse message: its parameter types do not end with it")
    if not count:
        return ()
    return tuple(oid for (oid,) in struct.iter_unpack("!I", types[2:]) if oid >= FIRST_OWN_OID)


class StatementNames:
    """Names for the statements on links: equal for equal text, types and settings. At most `limit` are remembered."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: OrderedDict[tuple[bytes, bytes, object], bytes] = OrderedDict()
        self._numbers = count(1)

    def name(self, text: bytes, types: bytes, meaning: object) -> bytes:
        """The server-side name of a statement under these settings."""
        if _MOMENTARY.search(text):
            return self._new()
        key = (text, types, meaning)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self._new()
            if len(self._names) > self._limit:
                self._names.popitem(last=False)
        else:
            self._names.move_to_end(key)
        return name

    def _new(self) -> bytes:
        return b"helios_%d" % next(self._numbers)
