"""What enemies do, as data: thousands of cases from one seed."""

from __future__ import annotations

import string
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, TypeAlias

from tests.cluster.differential.talking import Place
from tests.cluster.differential.vocabulary import message, query, startup, zero
from tests.cluster.hostile import scram_mutations
from tests.cluster.hostile.mutations import GOOD, cut, flipped, framed, resized, wrong_inside, wrong_length
from tests.cluster.hostile.talking import AFTER, BEFORE, GSS_REQUEST, SSL_REQUEST

Ends: TypeAlias = Literal["at once", "with us", "probed"]
"""How the connection comes to its end. `at once`: nothing more can be said, it is shown out before the login has taken
too long. `with us`: we close our side. `probed`: what was sent is whole; either the connection ends, or a query that
follows is answered."""

CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(range(32)) + b"\x20" + bytes(32) + b"\0\4\x13\1\x13\2"
KNOWN = "QPBDECHSdcfFXp"
BIG = 1 << 20
BODIES = (
    b"", b"\0", b"\0\0", b"user", b"user\0", b"user\0\0", b"user\0\0\0", b"user\0a", b"user\0a\0", b"user\0a\0b",
    b"user\0a\0b\0", b"user\0a\0\0x", b"user\0a\0\0\0", b"user\0a\0user\0b\0\0", b"USER\0a\0\0", b"database\0a\0\0",
    b"\0user\0a\0\0", b"user\0\xff\xfe\0\0", b"user\0a\0database\0\xff\0\0", b"user\0" + b"u" * 9_900 + b"\0\0",
    b"user\0a\0database\0" + b"d" * 9_900 + b"\0\0", b"user\0a\0replication\0true\0\0",
    b"user\0a\0replication\0maybe\0\0", b"user\0a\0options\0" + b"-c " * 3_000 + b"\0\0",
    b"user\0a\0client_encoding\0\xff\0\0", b"user\0' or 1=1 --\0\0", b"user\0a\nb\x1b[31m\0\0", b"user\0%s%n%x\0\0",
    b"user\0{password}\0\0", b"user\0../../etc/passwd\0\0",
)  # fmt: skip
"""Lists of parameters that are none, or that nobody should send."""
IN_TLS = 600
"""Cases that are tried through TLS as well."""
NOT_IN_TLS = frozenset(("refused encryption", "offered TLS"))


@dataclass(frozen=True, slots=True)
class Case:
    """One connection of an enemy."""

    group: str
    name: str
    state: str
    """Where in the conversation it is when the bytes come: a key of `talking.STATES`."""
    change: Callable[[bytes], bytes]
    """The message that an honest client would send there, or nothing, to what is sent."""
    ends: Ends = "with us"
    tls: Literal["", "good", "broken"] = ""
    """Whether TLS is spoken; `broken`: and what is sent is none."""

    def __str__(self) -> str:
        return f"{self.group}: {self.state}{f' in {self.tls} TLS' if self.tls else ''}: {self.name}"


def case(group: str, name: str, state: str, data: bytes, ends: Ends = "with us") -> Case:
    """One whose bytes do not depend on the conversation."""
    return Case(group, name, state, lambda honest: data, ends)


def every(place: Place, seed: int) -> list[Case]:
    """All of them, in an order that the seed decides."""
    random = Random(seed)
    groups = (
        _noise(random), _startups(place, random), _encryption(random), _scram(random), _types(random),
        _messages(random), _lengths(), _settings(place, random),
    )  # fmt: skip
    found = [each for group in groups for each in group]
    clear = [each for each in found if each.group != "encryption" and each.state not in NOT_IN_TLS]
    found += [replace(each, tls="good") for each in random.sample(clear, IN_TLS)]
    found += _records(random)
    random.shuffle(found)
    return found


def _records(random: Random) -> Iterator[Case]:
    """What is no TLS, from clients that speak it."""
    for number in range(80):
        kind, size = random.choice((20, 21, 22, 23, 24, 0, 255)), random.choice((0, 1, 2, 40, 16_384, 20_000, 65_535))
        record = struct.pack("!BHH", kind, random.choice((0x0303, 0x0301, 0)), size)
        data = random.choice((random.randbytes(300), record + random.randbytes(min(size, 40)), record * 500))
        state = random.choice(("asked for SCRAM", "idle", "in a transaction", "in COPY in"))
        yield replace(case("records", f"{number}", state, data), tls="broken")


def _noise(random: Random) -> Iterator[Case]:
    """Bytes that mean nothing."""
    for number in range(250):
        data = random.randbytes(random.choice((1, 3, 4, 5, 8, 20, 200, 2_000, 12_000)))
        if number % 2:  # a length that may be, so that what follows is looked at
            data = struct.pack("!I", random.randrange(8, 10_000)) + data
        yield case("noise", f"{number}", random.choice(("connected", "refused encryption", "offered TLS")), data)
    for number in range(150):
        state = random.choice(("asked for SCRAM", "challenged by SCRAM"))
        yield case("noise", f"{number}", state, random.randbytes(200))
    for number in range(150):
        size = random.choice((1, 4, 5, 6, 300))
        yield case("noise", f"{number}", random.choice(list(AFTER)), random.randbytes(size))
    texts = (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-2.0-x\r\n", b"\r\n", bytes(10_000), b"\xff" * 10_000)
    for text in texts:
        for state in BEFORE:
            yield case("noise", f"{text[:8]!r}", state, text)


def _startups(place: Place, random: Random) -> Iterator[Case]:
    """Packets before the first message with a tag."""
    good = place.fill(startup())
    for data in cut(good):
        yield case("start-up", f"the first {len(data)} bytes", "connected", data)
    for data in wrong_length(good, at=0):
        yield case("start-up", f"length {data[:4].hex()}", "connected", data)
    for length in (0, 1, 4, 7, 10_001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        yield case("start-up", f"length {length} alone", "connected", struct.pack("!I", length), "at once")
    for version in (0, 1, 2 << 16, 3 << 16 | 1, 3 << 16 | 0xFFFF, 4 << 16, 1234 << 16, 1234 << 16 | 5681, 0xFFFFFFFF):
        yield case("start-up", f"version {version:08x}", "connected", place.fill(startup(version=version)))
    for number, data in enumerate(flipped(good, random, 150)):
        yield case("start-up", f"flipped ({number})", "connected", data)
    for name, body in _parameters(random):
        packet = struct.pack("!II", len(body) + 8, 3 << 16) + body
        yield case("start-up", name, "connected", packet)
    for pid, key in ((0, b""), (1, b"abc"), (1, b"abcd"), (0xFFFFFFFF, b"\xff" * 4), (1, b"k" * 256), (1, b"k" * 257)):
        packet = struct.pack("!III", 12 + len(key), 80877102, pid) + key
        yield case("start-up", f"a cancel with a key of {len(key)} bytes", "connected", packet, "at once")
    yield case("start-up", "a cancel without a process", "connected", struct.pack("!II", 8, 80877102), "at once")


def _parameters(random: Random) -> Iterator[tuple[str, bytes]]:
    user = b"user\0helios\0"
    yield "a million parameters", user + b"".join(b"p%d\0x\0" % number for number in range(10**6)) + b"\0"
    yield "as many parameters as go in", user + b"".join(zero(name) * 2 for name in _names(random, 1_900)) + b"\0"
    yield "one parameter, over and over", user + b"a\0b\0" * 2_400 + b"\0"
    options = b"".join(b"_pq_.%d\0\0" % number for number in range(900))
    yield "as many protocol options as go in", user + options + b"\0"
    for body in BODIES:
        yield f"{body[:30]!r} of {len(body)}", body


def _names(random: Random, count: int) -> list[bytes]:
    return [bytes(random.choices(string.ascii_letters.encode(), k=2)) for _ in range(count)]


def _encryption(random: Random) -> Iterator[Case]:
    """Requests for encryption that are no beginning of it."""
    for number in range(60):
        data = b"".join(random.choice((SSL_REQUEST, GSS_REQUEST)) for _ in range(random.choice((3, 4, 10, 1_000))))
        yield case("encryption", f"asked for over and over ({number})", "connected", data, "at once")
    for state in ("connected", "refused encryption", "offered TLS"):
        for data in cut(CLIENT_HELLO):
            yield case("encryption", f"{len(data)} bytes of a ClientHello", state, data)
    for data in flipped(CLIENT_HELLO, random, 50):
        yield case("encryption", "a bad ClientHello", "connected", data)
    for data in (SSL_REQUEST + CLIENT_HELLO, SSL_REQUEST[:-1], SSL_REQUEST + b"\0", GSS_REQUEST + b"\x60\x82"):
        yield case("encryption", f"{len(data)} bytes", "connected", data)


def _scram(random: Random) -> Iterator[Case]:
    """SCRAM that is not quite."""
    for name, change in scram_mutations.of_first(random, 120):
        yield Case("SCRAM", name, "asked for SCRAM", change)
    for name, change in scram_mutations.of_final(random, 220):
        yield Case("SCRAM", name, "challenged by SCRAM", change)


def _types(random: Random) -> Iterator[Case]:
    """Every type of message in every state."""
    for state in BEFORE:
        for tag in (*KNOWN, *(chr(each) for each in random.sample(range(256), 20))):
            for body in (b"", random.randbytes(20)):
                yield case("types", f"{tag!r} with {len(body)} bytes", state, framed(tag.encode("latin-1"), body))
    for state in AFTER:
        for good in GOOD:
            yield case("types", f"{good[:12]!r}", state, good, "probed")
        for tag in KNOWN:
            for body in (b"", b"\0", random.randbytes(20), random.randbytes(300) + b"\0"):
                yield case("types", f"{tag!r} with {body[:8].hex()}", state, framed(tag.encode(), body), "probed")
    for tag in range(256):
        if chr(tag) not in KNOWN:
            yield case("types", f"{tag}", random.choice(list(AFTER)), framed(bytes((tag,)), b"\0\0\0\0"), "probed")


def _messages(random: Random) -> Iterator[Case]:
    """Good messages made bad, from a client that has logged in."""
    for good in GOOD:
        tag = chr(good[0])
        for state in ("idle", "in a transaction", "in COPY in"):
            for data in random.sample(list(cut(good)), min(5, len(good) - 1)):
                yield case("messages", f"{len(data)} bytes of {tag}", state, data)
        for data in (*wrong_inside(good, random, 14), *resized(good, random, 14)):
            yield case("messages", f"{tag} contradicts itself", random.choice(list(AFTER)), data, "probed")
        for data in flipped(good, random, 8):
            yield case("messages", f"{tag} flipped", random.choice(list(AFTER)), data)


def _lengths() -> Iterator[Case]:
    """Length words that are not true."""
    for good in GOOD:
        for number, data in enumerate(wrong_length(good)):
            state = ("idle", "in a transaction", "in COPY in", "in a unit")[number % 4]
            yield case("lengths", f"{data[:5].hex()}", state, data)
    for state in BEFORE:
        for good in GOOD[-1:]:
            for data in wrong_length(good):
                yield case("lengths", f"{data[:5].hex()}", state, data)
    for state in ("asked for SCRAM", "challenged by SCRAM"):
        for length in (0, 3, 10_001, 0x7FFFFFFF, 0xFFFFFFFF):
            yield case("lengths", f"{length} alone", state, b"p" + struct.pack("!I", length), "at once")
    yield case("lengths", "a megabyte of a password", "asked for SCRAM", message("p", bytes(BIG)), "at once")


def _settings(place: Place, random: Random) -> Iterator[Case]:
    """Settings of a client that knows the password, in its session."""
    for number in range(40):
        name = "".join(random.choices(string.printable[:95], k=random.choice((1, 5, 60, 500))))
        text = f"set \"{name.replace(chr(34), '')}\" = '{random.randrange(9)}'"
        yield case("settings", f"{number}", "idle", query(text), "probed")
        hint = "".join(random.choices(string.printable[:95], k=20)).replace("*/", "")
        yield case("settings", f"hint {number}", "idle", query(f"/*helios:{hint}*/ select 1"), "probed")
