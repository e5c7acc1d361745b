"""Readers of component values: what a guest answered, read where wasmtime's C API left it.

A component value is 32 bytes: its kind, and a payload of three words. What a word means follows from the declared
type, so a reader is made once per type and takes words.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from ctypes import string_at
from typing import Any, TypeAlias

from heliosproxy.sandbox.faults import GuestError, GuestLost
from heliosproxy.sandbox.plan import Enum, Fault, List, Option, Plan, PlanError, Record, Result, Scalar, Text, Variant

Reader: TypeAlias = Callable[[int, int, int], Any]

VALUE_SIZE, ENTRY_SIZE = 32, 48
"""Bytes of a value, and of a record's field (name and value)."""
WORDS = struct.Struct("<8xQQQ")
"""The payload of a value."""
MAX_TEXT = 16 * 1024 * 1024
"""Longest string taken from a guest, in bytes."""
MAX_ITEMS = 200_000
"""Most list elements in one answer."""


class Reading:
    """Makes readers of words. `budget[0]`: list elements that the answer may still have."""

    def __init__(self) -> None:
        self.budget = [MAX_ITEMS]

    def reader(self, plan: Plan) -> Reader:
        """A function of the three words of a value of this type."""
        match plan:
            case Scalar(kind):
                return _SCALARS[kind]
            case Text():
                return _read_text
            case Enum(names, _):
                return self._enum(names)
            case Option(inner):
                return self._option(inner)
            case List(inner):
                return self._list(inner)
            case Record():
                return self._record(plan)
            case Variant():
                return self._variant(plan)
            case Result(ok, err):
                return self._result(ok, err)
            case _:
                raise PlanError(f"{type(plan).__name__} is not read from a guest")

    def _pointed(self, plan: Plan) -> Callable[[int], Any]:
        """Reads a value behind a pointer."""
        read, unpack = self.reader(plan), WORDS.unpack
        return lambda address: read(*unpack(string_at(address, VALUE_SIZE)))

    def _enum(self, names: Sequence[str]) -> Reader:
        known = {name.encode(): name for name in names}
        return lambda size, address, _: known[string_at(address, size)]

    def _option(self, inner: Plan) -> Reader:
        pointed = self._pointed(inner)
        return lambda address, b, c: pointed(address) if address else None

    def _list(self, inner: Plan) -> Reader:
        read, unpack, budget = self.reader(inner), WORDS.iter_unpack, self.budget

        def read_list(size: int, address: int, _: int) -> tuple[object, ...]:
            if not size:
                return ()
            budget[0] -= size
            if budget[0] < 0:
                raise GuestLost(f"the answer has more than {MAX_ITEMS} elements")
            return tuple([read(a, b, c) for a, b, c in unpack(string_at(address, size * VALUE_SIZE))])

        return read_list

    def _record(self, plan: Record) -> Reader:
        size, build = len(plan.fields), plan.build
        unpack = struct.Struct("<" + "24xQQQ" * size).unpack
        readers = tuple((3 * at, attribute, self.reader(each)) for at, (_, attribute, each) in enumerate(plan.fields))

        def read_record(_: int, address: int, __: int) -> object:
            words = unpack(string_at(address, size * ENTRY_SIZE))
            return build(**{name: read(words[at], words[at + 1], words[at + 2]) for at, name, read in readers})

        def read_whole(_: int, address: int, __: int) -> object:
            words = unpack(string_at(address, size * ENTRY_SIZE))
            return build(*[read(words[at], words[at + 1], words[at + 2]) for at, _, read in readers])

        if plan.whole:
            return read_whole
        return read_record

    def _variant(self, plan: Variant) -> Reader:
        cases = {
            name.encode(): (None if payload is None else self._pointed(payload), build)
            for name, (payload, build) in plan.cases.items()
        }

        def read_variant(size: int, address: int, payload: int) -> object:
            read, build = cases[string_at(address, size)]
            return build() if read is None else build(read(payload))

        return read_variant

    def _result(self, ok: Plan | None, err: Plan | None) -> Reader:
        read_ok = None if ok is None else self._pointed(ok)
        read_err = None if err is None else self._pointed(err)

        def read_result(is_ok: int, payload: int, _: int) -> object:
            if is_ok & 0xFF:
                return None if read_ok is None else read_ok(payload)
            fault = Fault("") if read_err is None else read_err(payload)
            raise GuestError(fault.message, fault.traceback)

        return read_result


def _read_text(size: int, address: int, _: int) -> str:
    if not size:
        return ""
    if size > MAX_TEXT:
        raise GuestLost(f"the answer holds a string of {size} bytes")
    data = string_at(address, size)
    if 0 in data:
        raise GuestLost("the answer holds a NUL")
    return data.decode()


_SCALARS: dict[str, Reader] = {
    "bool": lambda word, b, c: bool(word & 0xFF),
    "u32": lambda word, b, c: word & 0xFFFFFFFF,
    "u64": lambda word, b, c: word,
    "f64": lambda word, b, c: struct.unpack("<d", word.to_bytes(8, "little"))[0],
}
