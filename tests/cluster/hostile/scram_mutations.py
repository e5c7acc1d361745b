"""What a client that speaks SCRAM may say wrong. None of it may be let in."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable, Iterator
from random import Random

from tests.cluster.differential.talking import MECHANISM
from tests.cluster.differential.vocabulary import message, zero

Change = Callable[[bytes], bytes]
"""The honest message to the one that is sent."""
NONCES = (b"", b",", b"\0", b"\x7f", b"\xff\xfe", b"a" * 9_000, b" ", b"=", "é".encode(), b"r=r=", b"\n")
HEADERS = (
    b"", b"n", b"n,", b"y,,", b"p=,,", b"p=tls-server-end-point,,", b"p=tls-unique,,", b"P=tls-server-end-point,,",
    b"p=" + b"x" * 5_000 + b",,", b"n,a=root,", b"n,a=,", b"n,=,", b"N,,", b"z,,", b"n,,,", b",,", b"n,,m=x,", b"\0,,",
)  # fmt: skip
BINDINGS = (
    b"", b"eSws", b"cD10bHMtc2VydmVyLWVuZC1wb2ludCws", b"bi", b"biws====", b"!!!!", b"b iws", b"A" * 9_000,
)  # fmt: skip
PROOFS = (
    b"", b"=", b"====", b"A", b"AA==", b"A" * 43, b"A" * 45, b"!" * 44, b"A" * 8_000, b"A" * 43 + b"\0", b" " * 44,
    b64encode(bytes(32)), b64encode(bytes(31)), b64encode(bytes(33)), b64encode(b"\xff" * 32), b64encode(bytes(5_000)),
)  # fmt: skip
MECHANISMS = (
    b"", b"SCRAM-SHA-1", b"SCRAM-SHA-256-PLUS", b"scram-sha-256", b"SCRAM-SHA-256 ", b"X" * 9_000, b"\xff", b"GSSAPI",
    b"%s%n", b"PLAIN",
)  # fmt: skip
SIZES = (0, 1, 2, 0x7FFF, 9_999, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


BARE = (
    b"", b"n=", b"r=abc", b"r=abc,n=", b"n=,r=abc,r=def", b"n==,r=a", b"n=a=2Cb,r=a", b"n=,m=x,r=a", b"n,r", b",,,,",
)  # fmt: skip


def split_first(honest: bytes) -> bytes:
    """The client-first-message in the honest SASLInitialResponse."""
    return honest[5 + len(MECHANISM) + 1 + 4 :]


def initial(first: bytes, mechanism: bytes = MECHANISM.encode(), size: int | None = None) -> bytes:
    """A SASLInitialResponse."""
    return message("p", zero(mechanism), struct.pack("!I", len(first) if size is None else size), first)


def _resized(first: bytes, off: int) -> bytes:
    return initial(first, size=len(first) + off)


def of_first(random: Random, flips: int) -> Iterator[tuple[str, Change]]:
    """Changes of the SASLInitialResponse, with a name each."""
    for name in MECHANISMS:
        yield f"mechanism {name[:20]!r}", lambda honest, name=name: initial(split_first(honest), name)
    for size in SIZES:
        yield f"size {size}", lambda honest, size=size: initial(split_first(honest), size=size)
    for off in (-1, 1, 2, 100):
        yield f"size off by {off}", lambda honest, off=off: _resized(split_first(honest), off)
    for header in HEADERS:
        yield f"header {header[:30]!r}", lambda honest, header=header: initial(header + split_first(honest)[3:])
    for nonce in NONCES:
        yield f"nonce {nonce[:20]!r}", lambda honest, nonce=nonce: initial(b"n,,n=,r=" + nonce)
    for bare in BARE:
        yield f"bare {bare!r}", lambda honest, bare=bare: initial(b"n,," + bare)
    yield "extensions by the thousand", lambda honest: initial(split_first(honest) + b",x=y" * 2_000)
    yield "as long as it may be", lambda honest: initial(b"n,,n=" + b"u" * 9_900 + b",r=abc")
    yield "longer", lambda honest: initial(b"n,,n=" + b"u" * 20_000 + b",r=abc")
    yield "nothing", lambda honest: message("p")
    yield "a name alone", lambda honest: message("p", zero(MECHANISM))
    yield "a name without an end", lambda honest: message("p", MECHANISM.encode())
    yield "a password", lambda honest: message("p", zero("secret"))
    yield "twice", lambda honest: honest + honest
    yield from _random(random, flips, start=5 + len(MECHANISM) + 5)


def of_final(random: Random, flips: int) -> Iterator[tuple[str, Change]]:
    """Changes of the SASLResponse with the proof, with a name each."""
    for binding in BINDINGS:
        yield f"binding {binding[:20]!r}", lambda honest, binding=binding: _final(honest, binding=binding)
    for nonce in NONCES:
        yield f"nonce {nonce[:20]!r}", lambda honest, nonce=nonce: _final(honest, nonce=nonce)
    for proof in PROOFS:
        yield f"proof {proof[:12]!r} of {len(proof)}", lambda honest, proof=proof: _final(honest, proof=proof)
    yield "a nonce cut short", lambda honest: _final(honest, nonce=_parts(honest)[1][:-1])
    yield "a nonce that goes on", lambda honest: _final(honest, nonce=_parts(honest)[1] + b"x")
    yield "its own nonce alone", lambda honest: _final(honest, nonce=_parts(honest)[1][:24])
    yield "no proof", lambda honest: message("p", honest[5:].partition(b",p=")[0])
    yield "the proof first", lambda honest: message("p", b",".join(reversed(honest[5:].split(b","))))
    yield "the proof twice", lambda honest: message("p", honest[5:] + b",p=" + _parts(honest)[2])
    yield "an extension not proved", lambda honest: message("p", honest[5:].replace(b",p=", b",x=1,p="))
    yield "something behind the proof", lambda honest: message("p", honest[5:] + b",x=1")
    yield "a NUL behind the proof", lambda honest: message("p", honest[5:] + b"\0")
    yield "nothing", lambda honest: message("p")
    yield "commas", lambda honest: message("p", b"," * 9_000)
    yield "the first message again", lambda honest: initial(b"n,,n=,r=abc")
    yield from _random(random, flips, start=5)


def _parts(honest: bytes) -> tuple[bytes, bytes, bytes]:
    binding, nonce, proof = honest[5:].split(b",")
    return binding[2:], nonce[2:], proof[2:]


def _final(
    honest: bytes, *, binding: bytes | None = None, nonce: bytes | None = None, proof: bytes | None = None
) -> bytes:
    given = zip(_parts(honest), (binding, nonce, proof), strict=True)
    parts = [old if new is None else new for old, new in given]
    return message("p", b"c=%b,r=%b,p=%b" % tuple(parts))


def _random(random: Random, flips: int, start: int) -> Iterator[tuple[str, Change]]:
    """One byte of the message's text is another, or is not there."""
    for number in range(flips):
        seed = random.random()

        def change(honest: bytes, seed: float = seed, drops: bool = number % 4 == 0) -> bytes:
            own = Random(seed)
            # The last two characters of a base64 text hold bits that nobody reads.
            at = own.randrange(start, len(honest) - 2)
            if drops:
                return message("p", honest[5:at] + honest[at + 1 :])
            other = own.choice([byte for byte in range(256) if byte != honest[at]])
            return honest[:at] + bytes((other,)) + honest[at + 1 :]

        yield f"{'a byte less' if number % 4 == 0 else 'another byte'} ({number})", change
