"""How messages lie in the stream of bytes, and what is no message."""

from __future__ import annotations

import struct

from tests.cluster.differential.vocabulary import (
    DONE,
    FLUSH,
    SYNC,
    C,
    Closed,
    Go,
    Login,
    Q,
    Ready,
    Send,
    Until,
    X,
    bind,
    close,
    data,
    describe,
    execute,
    message,
    parse,
    query,
    run,
)

AREA = "framing"
UNIT = b"".join((
    parse("select $1::int, 'x'", "s"), describe("s"), bind("1", name="s", portal="p"), describe("p", "P"),
    execute(1, "p"), close("p", "P"), close("s"),
))  # fmt: skip
MIXED = b"".join((
    query("select 1"), UNIT, SYNC, query("select 2; select 3"), run("select 1/0"), run("select 4"), SYNC, query(""),
))  # fmt: skip

CONVERSATIONS = (
    *(C(f"in pieces of {size}", Go(MIXED, piece=size), Q("select 'after'")) for size in (1, 2, 3, 4, 5, 6, 7, 11, 64)),
    C("byte by byte: COPY", Send(query("copy w from stdin"), 1), Until("G"),
      Send(data("1\tone\n") + data("2\ttwo\n") + DONE, 1), Ready(), Q("select * from w order by n")),
    C("byte by byte: a transaction",
      Go(query("begin") + run("insert into w values (1)") + SYNC + query("commit") + query("select n from w"),
      piece=1), blocks=True),
    C("byte by byte: an error's rest", Go(parse("selectt") + UNIT + SYNC + query("select 1"), piece=1)),
    *(C(f"cut {at} bytes before the end", Send(MIXED[:-at]), Send(MIXED[-at:]), Ready(4)) for at in (1, 3, 5, 6, 8,
      20)),
    C("a message in two segments", Send(query("select 1")[:7]), Go(query("select 1")[7:] + query("select 2"), ready=2)),
    C("a header apart from its body", Send(query("select 1")[:5]), Send(query("select 1")[5:]), Ready()),
    C("a tag apart from its length", Send(b"Q"), Send(query("select 1")[1:]), Ready()),
    C("everything in one segment", Go(MIXED, MIXED, MIXED)),
    C("a large message in pieces", Send(query("select length('" + "x" * 40_000 + "')"), 997), Ready()),
    C("start-up and query at once", Login(), Q("select 1")),
    *(C(f"an unknown type: {name}", Send(message(tag)), Closed(), Login(), Q("select 1"))
      for name, tag in (("y", "y"), ("zero", "\0"), ("R", "R"), ("Z", "Z"), ("1", "1"), ("T", "T"))),
    C("an unknown type in a unit", Send(parse("select 1") + message("y")), Closed()),
    C("an unknown type after an error", Send(parse("selectt") + message("y") + SYNC), Closed()),
    C("an unknown type in a transaction", Q("begin", "insert into w values (1)"), Send(message("y")), Closed(),
      Login(), Q("select count(*) from w"), blocks=True),
    C("a password after the login", Send(message("p", b"secret\0")), Closed()),
    *(C(f"a length of {length}", Send(b"Q" + struct.pack("!i", length) + b"select 1\0"), Closed(), Login(),
      Q("select 1")) for length in (0, 3, -1, -(2**31))),
    C("a length that is too large", Send(b"Q" + struct.pack("!i", 0x7FFFFFFF) + b"select 1\0"), Closed()),
    C("a length that is too large for its type", Send(b"S" + struct.pack("!i", 100_000)), Closed()),
    C("a Sync that is too long", Send(message("S", bytes(20_000))), Closed()),
    C("a good query, then no message", Send(query("select 1") + b"\xff" * 20), Closed()),
    C("HTTP", Send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), Closed()),
    C("Flush before anything", Send(FLUSH), Q("select 1")),
    C("Sync in the middle of nothing", Go(SYNC, SYNC, SYNC), X("select 1")),
    C("Terminate with a body", Send(message("X", b"what")), Closed(), Login(), Q("select 1")),
    C("Flush with a body", Send(message("H", b"what")), Go(SYNC), Q("select 1")),
    C("CopyFail without its NUL", Send(query("copy w from stdin")), Until("G"), Send(message("f", b"why")), Ready(),
      Q("select 1")),
    C("CopyDone with a body", Send(query("copy w from stdin")), Until("G"), Send(message("c", b"why")), Ready(),
      Q("select 1")),
)
