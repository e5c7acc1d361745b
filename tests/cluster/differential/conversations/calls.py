"""FunctionCall."""

from __future__ import annotations

import struct

from tests.cluster.differential.vocabulary import SYNC, C, Go, Q, X, call, counted, int16s, message, parse, run

AREA = "function calls"
INT4PL, LENGTH, RANDOM_OID, UPPER, NOW_PLUS = 177, 1317, 999_999, 871, 1
ABS, DIV = 1397, 154


def int4(number: int) -> bytes:
    return struct.pack("!i", number)


CONVERSATIONS = (
    C("binary", Go(call(INT4PL, int4(1), int4(2), formats=[1], result=1))),
    C("text", Go(call(INT4PL, "40", "2"))),
    C("mixed", Go(call(INT4PL, "40", int4(2), formats=[0, 1], result=1))),
    C("a NULL for a strict function", Go(call(INT4PL, None, "1"))),
    C("too few arguments", Go(call(INT4PL, "1")), Q("select 1")),
    C("too many arguments", Go(call(ABS, "1", "2")), Q("select 1")),
    C("too many formats", Go(call(INT4PL, "1", "2", formats=[0, 0, 0])), Q("select 1")),
    C("a function that is not there", Go(call(RANDOM_OID)), Q("select 1")),
    C("an error inside", Go(call(DIV, "1", "0")), Q("select 1")),
    C("a value that is none", Go(call(ABS, "x")), Q("select 1")),
    C("a format that does not exist", Go(call(ABS, "1", result=7)), Q("select 1")),
    C("text results", Go(call(UPPER, "small")), Go(call(LENGTH, "five"))),
    C("two in one go", Go(call(ABS, "-1"), call(ABS, "-2"))),
    C("in a transaction", Q("begin"), Go(call(ABS, "-1")), Go(call(DIV, "1", "0")), Go(call(ABS, "-1")), Q("rollback"),
      blocks=True),
    C("after messages without a Sync", Go(parse("select 1"), call(ABS, "-3"), SYNC), X("select 2")),
    C("after an error without a Sync", Go(parse("selectt"), call(ABS, "-3"), SYNC, ready=1), X("select 2")),
    C("among a pipeline", Go(run("select 1"), SYNC, call(ABS, "-4"), run("select 2"), SYNC)),
    C("a message that ends early", Go(message("F", struct.pack("!I", ABS), int16s([]), b"\0\1\0\0\0\x09x")),
      Q("select 1")),
    C("a message with a rest", Go(message("F", struct.pack("!I", ABS), int16s([]), counted(["-1"]), b"\0\0rest")),
      Q("select 1")),
)
