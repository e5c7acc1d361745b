"""What may differ between PostgreSQL and the proxy, each with its reason; everything else must be equal, byte for byte.

docs/compatibility.md says the same; test_differences.py compares the two, and shows each entry to be needed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TypeAlias

from tests.cluster.differential.talking import Heard, fields, shown

Transcript: TypeAlias = Mapping[str, Sequence[Heard]]
"""What each client of a conversation has heard."""
Mask: TypeAlias = Callable[[Heard, Heard], tuple[Heard, Heard]]
"""PostgreSQL's message and the proxy's, to the two without what may differ."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that may differ."""

    name: str
    what: str
    why: str
    masked: str
    """How the comparison is done nevertheless."""
    mask: Mask
    witness: str
    """A conversation in which it does differ."""


def _both(change: Callable[[Heard], Heard]) -> Mask:
    return lambda direct, proxied: (change(direct), change(proxied))


def _key(heard: Heard) -> Heard:
    return Heard("K", b"*" * len(heard.body)) if heard.tag == "K" else heard


def _nonce(heard: Heard) -> Heard:
    if heard.tag != "R" or heard.body[:4] not in (struct.pack("!I", 11), struct.pack("!I", 12)):
        return heard
    return Heard("R", re.sub(rb"(?<=[rsv]=)[^,]+", b"*", heard.body))


def _notifier(heard: Heard) -> Heard:
    return Heard("A", b"****" + heard.body[4:]) if heard.tag == "A" else heard


def _placeholder(direct: Heard, proxied: Heard) -> tuple[Heard, Heard]:
    if direct.tag != "D" or proxied.tag != "D" or not direct.body.startswith(b"\0\x03\0\0\0\x06custom"):
        return direct, proxied
    return _unset(direct), _unset(proxied)


def _unset(heard: Heard) -> Heard:
    null = b"\xff\xff\xff\xff"
    return Heard("D", heard.body[:-4] + bytes(4)) if heard.body.endswith(null) else heard


def _source(direct: Heard, proxied: Heard) -> tuple[Heard, Heard]:
    if direct.tag not in ("E", "N") or direct.tag != proxied.tag:
        return direct, proxied
    return _without_source(direct, set("FLR") - fields(proxied.body).keys()), proxied


def _without_source(heard: Heard, names: AbstractSet[str] = frozenset("FLR")) -> Heard:
    kept = [name.encode() + value + b"\0" for name, value in fields(heard.body).items() if name not in names]
    return Heard(heard.tag, b"".join(kept) + b"\0")


def _prepared_late(direct: Heard, proxied: Heard) -> tuple[Heard, Heard]:
    if direct.tag != "E" or proxied.tag != "E" or fields(proxied.body).get("R") != b"exec_parse_message":
        return direct, proxied
    return _without_source(direct), _without_source(proxied)


def _version(heard: Heard) -> Heard:
    return Heard(heard.tag, re.sub(rb"(?<=unsupported frontend protocol \d\.\d).*?(?=\0)", b"", heard.body))


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "cancel keys",
        "the process id and the secret of BackendKeyData",
        "A client has no process of its own on the server. The key is one of the proxy's, so that a cancel request"
        " finds the client and never whoever has its link by then.",
        "the body is blanked, its length is compared",
        _both(_key),
        "startup: as plain as can be",
    ),
    Difference(
        "SCRAM's random parts",
        "nonce, salt and server signature in AuthenticationSASLContinue and -Final",
        "Each side makes its own; no two logins are equal.",
        "the values are blanked; the attributes, their order and the number of iterations are compared",
        _both(_nonce),
        "startup: as plain as can be",
    ),
    Difference(
        "who notifies",
        "the process id in NotificationResponse",
        "It is the process of the link over which the NOTIFY went, which PostgreSQL tells and the proxy passes on.",
        "the number is blanked, channel and payload are compared",
        _both(_notifier),
        "notifications: one's own, at once",
    ),
    Difference(
        "custom settings that another client has used",
        "`current_setting('app.x', true)` of a custom setting that is not set may be empty instead of NULL, or NULL"
        " instead of empty",
        "PostgreSQL keeps the name of a custom setting until the connection ends: after RESET and DISCARD ALL it is"
        " empty, not unknown. The connection may have served another client before, or another one this client. Nothing"
        " of the value is left.",
        "only in the query that ends each conversation, where one says NULL and the other empty",
        _placeholder,
        "settings: a custom one that another client has used",
    ),
    Difference(
        "source positions",
        "the fields F, L and R (file, line and routine) of an error or notice of the proxy's own",
        "They name a place in PostgreSQL's source code. What the proxy says itself comes from none.",
        "those of them that the proxy's message does not have are taken from PostgreSQL's; all else is compared",
        _source,
        "errors: Bind of a statement that is not there",
    ),
    Difference(
        "source positions of what is prepared late",
        "the fields F, L and R of an error that the server finds while a link is told of a statement",
        "A prepared statement is the client's. The link that its Bind or Describe comes to may have to be told of it"
        " first, and that a transaction is aborted, say, is noticed a message earlier.",
        "only where the proxy's message comes from Parse F, L and R are left out on both sides; all else is compared",
        _prepared_late,
        "transactions: prepared before, closed for others since, used in the aborted state",
    ),
    Difference(
        "versions of the protocol",
        "the text of the refusal of a protocol version, which says which ones are spoken",
        "The proxy speaks 3.0 and 3.2, whatever the server behind it does.",
        "what follows the refused version's number is blanked",
        _both(_version),
        "startup: protocol 4.0",
    ),
)


@dataclass(frozen=True, slots=True)
class Apart:
    """Conversations that go another way."""

    what: str
    why: str
    conversations: tuple[str, ...]
    modes: tuple[str, ...] = ("transaction", "statement")
    """Where they do; elsewhere they are as any other."""


APART: tuple[Apart, ...] = (
    Apart(
        "Describe of a prepared statement that has become invalid: PostgreSQL sends ParameterDescription before the"
        " error, the proxy the error alone",
        "The link has to prepare the statement first, and the error is found then.",
        ("extended: a table that is gone is described",),
    ),
    Apart(
        "A prepared statement whose columns have changed since, and for whose columns the client has never asked: an"
        " error from PostgreSQL, the new columns from the proxy",
        "What nobody was told is not kept. A client that has asked gets PostgreSQL's error.",
        ("extended: a result's type changes, and nobody has asked for it", "state: a table changes under EXECUTE"),
    ),
    Apart(
        "`currval` and `lastval` in a later transaction than `nextval`: an error from the proxy",
        "Keeping the value would keep every client that inserts into a serial column on a link of its own;"
        ' `[pool] sequence_values = "pin"` does.',
        (
            "state: values of sequences",
            "state: a value of a sequence that is set",
            "state: a value of an identity column",
            "state: values of sequences, extended",
            "state: values of sequences outlive a rollback",
        ),
    ),
    Apart(
        "Messages without a Sync or Flush behind them, and then the end: PostgreSQL runs them, says what is wrong with"
        " them, and hangs up; the proxy only hangs up",
        "A statement is sent to a server once it is known to be whole. What has no Sync is never committed.",
        (
            "cancels: a goodbye behind an error",
            "framing: an unknown type in a unit",
            "framing: an unknown type after an error",
        ),
        ("transaction", "session", "statement"),
    ),
    Apart(
        "`pg_prepared_statements` shows the statements of the link, under the link's names",
        "Prepared statements are the client's; a link has those that its clients have needed there.",
        ("state: what is prepared, as the server shows it",),
        ("transaction", "session", "statement"),
    ),
)


@dataclass(slots=True)
class Comparison:
    """The differences of two transcripts: those that are listed, by name, and the first one that is not."""

    listed: set[str] = field(default_factory=set)
    problem: str = ""


def compare(direct: Transcript, proxied: Transcript) -> Comparison:
    """Compare what PostgreSQL said with what the proxy said."""
    found = Comparison()
    for client in direct:
        for number, pair in enumerate(zip_longest(direct[client], proxied.get(client, ()))):
            if pair[0] != pair[1] and not _explained(pair, found):
                found.problem = _report(client, number, direct[client], proxied.get(client, ()))
                return found
    return found


def _explained(pair: tuple[Heard | None, Heard | None], found: Comparison) -> bool:
    direct, proxied = pair
    if direct is None or proxied is None or not direct.tag:
        return False
    for entry in DIFFERENCES:
        masked = entry.mask(direct, proxied)
        if masked != (direct, proxied):
            found.listed.add(entry.name)
            direct, proxied = masked
        if direct == proxied:
            return True
    return False


def _report(client: str, at: int, direct: Sequence[Heard], proxied: Sequence[Heard]) -> str:
    lines = [f"message {at} that the client{f' {client!r}' if client else ''} hears is another one:"]
    for number in range(max(0, at - 3), at + 5):
        one = direct[number] if number < len(direct) else None
        two = proxied[number] if number < len(proxied) else None
        if one is None and two is None:
            break
        if one == two or _explained((one, two), Comparison()):
            lines.append(f"     {number:3} {shown(one)}")
        else:
            lines += [f"  pg {number:3} {shown(one, 2000)}", f"  us {number:3} {shown(two, 2000)}"]
        if number == at and one and two and one.tag == two.tag and len(one.body) > 200:
            lines.append(f"         first at byte {_first(one.body, two.body)}: {_around(one.body, two.body)}")
    return "\n".join(lines)


def _first(one: bytes, two: bytes) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _around(one: bytes, two: bytes) -> str:
    at = max(0, _first(one, two) - 20)
    return f"{one[at : at + 60]!r} / {two[at : at + 60]!r}"
