"""Prepared statements, virtualised: a client's names are its session's, a link's names are the proxy's.

A statement that many clients prepared with the same text, parameter types and settings has one name on every link
(L7), and a link learns it when it is first needed there.
"""

from __future__ import annotations

import re
import struct
from collections import OrderedDict
from hashlib import blake2b
from itertools import count

from heliosproxy.sql.facts import Facts
from heliosproxy.switch.settings import Settings
from heliosproxy.wire.errors import ProtocolError
from heliosproxy.wire.framing import first_message

OUR_NAMES = "helios_"
"""Names of statements on links begin so."""
UNKNOWN_TYPE = 0xFFFFFFFF
"""Stands for a parameter's type that was given by name: of no object, so that nothing is proven of it."""
LONGEST_SEARCHED = 16_384
"""Bytes of a text beyond which any of these words in it counts, whatever stands around it: a search takes 80 ns a
byte, which for a megabyte is time in which others wait."""
LONG_TEXT = 256
"""Bytes of a text beyond which its digest is kept in the table of names."""
FIRST_OWN_OID = 16384
"""FirstNormalObjectId: what initdb made is below it."""

_MOMENTS = (b"now", b"today", b"tomorrow", b"yesterday", b"allballs", b"epoch")
_MOMENTARY = re.compile(rb"\b(?:" + b"|".join(_MOMENTS) + rb")\b(?!\s*\()", re.IGNORECASE)
"""Words that, in a literal of whatever quotes, are another value each time they are parsed (L7). Where they are no
literal, nothing is lost but that the statement is shared."""


class Prepared:
    """A statement as one session prepared it. Compared by identity."""

    __slots__ = (
        "_may_name", "changed", "described", "named_under", "own_types", "parameters", "private", "rewritten", "salt",
        "sent", "server_name", "shape", "sql", "text", "types",
    )  # fmt: skip

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
        """The settings under which it was parsed, and is wherever a link must learn it."""
        self.own_types = own_types(types)
        self.server_name = b""
        """Its name on links; empty for an unnamed statement."""
        self.sql = b""
        """The PREPARE that prepared it; then its name on links is its client's. Empty: it was a Parse message."""
        self.described = b""
        """The type of its rows as its client was told; empty if it never was."""
        self.parameters = b""
        """The ParameterDescription that a server has sent for it, where it was examined."""
        self.rewritten = False
        """What nodes are given was decided by a plugin, which may decide otherwise the next time."""
        self.changed = False
        """Its rows are of another type by now: until its client prepares it again, it is refused."""
        self._may_name: bool | None = None
        self.salt = 0
        """The session's when it was prepared by SQL."""
        self.private = False
        """Its text names statements, which are its session's: it is shared with nobody."""


    def may_name(self, facts: Facts) -> bool:
        """As `may_name`, found once: whatever the facts, they are of its text."""
        if self._may_name is None:
            self._may_name = may_name(facts, self.text)
        return self._may_name

    def was_described(self, message: bytes) -> None:
        """Its client gets this RowDescription or NoData."""
        self.described = row_type(message)


_WORDS = (b"execute", b"deallocate", b"prepare")


def may_name(facts: Facts, text: bytes) -> bool:
    """Whether a text that could not be read, or the code in it, may name prepared statements."""
    if facts.kind not in ("unknown", "do"):
        return False
    lowered = text.lower()
    return any(word in lowered for word in _WORDS)


def row_type(messages: bytes) -> bytes:
    """What the first RowDescription or NoData in a stream of messages says of names and types, whatever the formats."""
    message = first_message(messages, b"Tn")
    if message[:1] != b"T":
        return message[:1]
    position, parts = 7, [message[5:7]]
    for _ in range(int.from_bytes(parts[0], "big")):
        name = message.index(0, position)
        parts += (message[position : name + 1], message[name + 7 : name + 17])
        position = name + 19
    return b"".join(parts)


def is_momentary(text: bytes) -> bool:
    """Whether the text may mean something else each time it is parsed (L7). A long one is not looked at closely."""
    if len(text) > LONGEST_SEARCHED:
        lowered = text.lower()
        return any(word in lowered for word in _MOMENTS)
    return _MOMENTARY.search(text) is not None


def own_types(types: bytes) -> tuple[int, ...]:
    """The parameter types that are not PostgreSQL's own: a domain among them has a CHECK, which the text does not show.

    Raises ProtocolError if the count and the oids are not what a Parse message has.
    """
    count = int.from_bytes(types[:2], "big")
    if len(types) != 2 + 4 * count:
        short = len(types) < 2 + 4 * count
        raise ProtocolError("insufficient data left in message" if short else "invalid message format")
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
        if is_momentary(text):
            return self.new()
        key = (text if len(text) <= LONG_TEXT else blake2b(text, digest_size=32).digest(), types, meaning)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self.new()
            if len(self._names) > self._limit:
                self._names.popitem(last=False)
        else:
            self._names.move_to_end(key)
        return name

    def new(self) -> bytes:
        """A name that no other statement has."""
        return OUR_NAMES.encode() + str(next(self._numbers)).encode()
