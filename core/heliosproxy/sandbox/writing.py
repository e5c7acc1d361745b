"""Writers of component values: the parameters of a call, laid out in memory as wasmtime's C API wants them.

A component value is 32 bytes: its kind, and a payload of three words. Strings, list elements and record fields live
elsewhere and are pointed to. The code that lays out one export's parameters is made from their types, as `dataclasses`
makes `__init__`: interpreting the types for each call took four times as long. Only attribute names of the contract's
dataclasses and integers go into the source.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from ctypes import addressof, c_char
from types import MappingProxyType
from typing import Any, TypeAlias

from heliosproxy.sandbox.plan import Blank, Enum, Keyed, List, Option, Plan, PlanError, Record, Scalar, Text

KINDS: Mapping[str, int] = MappingProxyType(
    {"bool": 0, "u32": 6, "u64": 8, "f64": 10, "string": 12, "list": 13, "record": 14, "enum": 17, "option": 18}
)
"""Numbers of the kinds of values that are written."""
Names: TypeAlias = tuple[str, str, str]
"""Python expressions of a value's three words."""

_NOTHING: Names = ("0", "0", "0")
_EMPTY: Names = ("0", "8", "0")
"""An empty string or list. Rust wants a pointer that is not null and aligned, also where nothing is behind it."""
_FIRST_SIZE = 16 * 1024


class Buffer:
    """Memory that grows to what a call needs, and is given back after an unusually large one."""

    def __init__(self) -> None:
        self.reserve(_FIRST_SIZE)

    def reserve(self, size: int) -> None:
        """Replace the memory by `size` bytes of new memory."""
        self.size = size
        self._memory = (c_char * size)()
        self.view = memoryview(self._memory).cast("B")
        self.address = addressof(self._memory)


class Writing:
    """Lays out the parameters of one export, at `address`. What was laid out before is overwritten."""

    def __init__(self, parameters: Sequence[Plan]) -> None:
        self._values = (c_char * max(32, 32 * len(parameters)))()
        self.address = addressof(self._values)
        self._strings, self._entries = Buffer(), Buffer()
        source = _Source()
        self._lay_out = source.function(parameters)
        self._pinned = source.pinned
        self._pack = struct.Struct("<" + "B7xQQQ" * len(parameters)).pack_into

    def write(self, *values: Any) -> None:
        """Lay out one call's values."""
        strings, entries = self._strings, self._entries
        words, text, data = self._lay_out(strings.address, entries.address, *values)
        if len(text) > strings.size or len(data) > entries.size:
            self._grow(len(text), len(data))
            words, text, data = self._lay_out(strings.address, entries.address, *values)
        strings.view[: len(text)] = text
        entries.view[: len(data)] = data
        self._pack(self._values, 0, *words)

    def _grow(self, text: int, data: int) -> None:
        self._strings.reserve(max(_FIRST_SIZE, text))
        self._entries.reserve(max(_FIRST_SIZE, data))


def kind(plan: Plan) -> int:
    """The kind of a value of this type."""
    match plan:
        case Scalar(name):
            return KINDS[name]
        case Text():
            return KINDS["string"]
        case List():
            return KINDS["list"]
        case Record():
            return KINDS["record"]
        case Enum():
            return KINDS["enum"]
        case Option():
            return KINDS["option"]
        case Blank(inner) | Keyed(inner):
            return kind(inner)
        case _:
            raise PlanError(f"{type(plan).__name__} is not passed to a guest")


class _Source:
    """The source of one `lay_out(S, E, *values) -> (words, strings, entries)`.

    `S` and `E` are where the strings and the entries will be; `s` and `e` collect them, `n` and `m` count their bytes.
    """

    def __init__(self) -> None:
        self.pinned: list[Any] = []
        """Memory of names, which never changes."""
        self._lines: list[str] = []
        self._indent = 1
        self._count = 0
        self._scope: dict[str, Any] = {"pack_value": struct.Struct("<B7xQQQ").pack, "join": b"".join}

    def function(self, parameters: Sequence[Plan]) -> Callable[..., tuple[tuple[int, ...], bytes, bytes]]:
        """Make the function."""
        names = [f"p{at}" for at in range(len(parameters))]
        self._line("s = []; e = []; n = m = 0; add = s.append; put = e.append")
        words: list[str] = []
        for name, plan in zip(names, parameters, strict=True):
            words += [str(kind(plan)), *self._value(plan, name)]
        self._line(f"return ({', '.join([*words, ''])}), join(s), join(e)" if words else "return (), b'', b''")
        source = "\n".join([f"def lay_out({', '.join(['S', 'E', *names])}):", *self._lines])
        exec(source, self._scope)
        made: Callable[..., tuple[tuple[int, ...], bytes, bytes]] = self._scope["lay_out"]
        return made

    def _line(self, text: str) -> None:
        self._lines.append("    " * self._indent + text)

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def _global(self, value: object) -> str:
        name = f"g{self._name()}"
        self._scope[name] = value
        return name

    def _pin(self, data: bytes) -> int:
        memory = (c_char * max(8, len(data))).from_buffer_copy(data.ljust(8, b"\0"))
        self.pinned.append(memory)
        return addressof(memory)

    def _value(self, plan: Plan, value: str) -> Names:
        """Emit what lays out the value of the expression `value`; the expressions of its words."""
        match plan:
            case Scalar("f64"):
                pack = self._global(lambda number: int.from_bytes(struct.pack("<d", number), "little"))
                return f"{pack}({value})", "0", "0"
            case Scalar():
                return value, "0", "0"
            case Text():
                return self._text(value)
            case Enum():
                return self._enum(plan, value)
            case Option(inner):
                return self._option(inner, value)
            case List(inner):
                return self._list(inner, value)
            case Record():
                return self._record(plan, value)
            case Blank(inner):
                return self._blank(inner)
            case Keyed(inner, keys):
                return self._list(inner.inner, f"[each for each in {value} if each.key in {self._global(keys)}]")
            case _:
                raise PlanError(f"{type(plan).__name__} is not passed to a guest")

    def _text(self, value: str) -> Names:
        name = self._name()
        self._line(f"{name} = {value}.encode('utf-8', 'replace'); add({name}); {name}a = S + n; n += len({name})")
        return f"len({name})", f"{name}a", "0"

    def _enum(self, plan: Enum, value: str) -> Names:
        words = {name: (len(name), self._pin(name.encode())) for name in plan.names}
        table = self._global(words if plan.other is None else _Fallback(words, words[plan.other]))
        name = self._name()
        self._line(f"{name}, {name}a = {table}[{value}]")
        return name, f"{name}a", "0"

    def _put(self, data: str, size: str) -> str:
        """Emit what puts entries; the name of their address."""
        name = self._name()
        self._line(f"put({data}); {name} = E + m; m += {size}")
        return name

    def _option(self, inner: Plan, value: str) -> Names:
        name = self._name()
        self._line(f"{name} = {value}; {name}p = 0")
        self._line(f"if {name} is not None:")
        self._indent += 1
        words = ", ".join(self._value(inner, name))
        address = self._put(f"pack_value({kind(inner)}, {words})", "32")
        self._line(f"{name}p = {address}")
        self._indent -= 1
        return f"{name}p", "0", "0"

    def _list(self, inner: Plan, value: str) -> Names:
        name = self._name()
        self._line(f"{name} = {value}; {name}p = 8")
        self._line(f"if {name}:")
        self._indent += 1
        self._line(f"{name}l = []")
        self._line(f"for {name}i in {name}:")
        self._indent += 1
        words = ", ".join(self._value(inner, f"{name}i"))
        self._line(f"{name}l.append(pack_value({kind(inner)}, {words}))")
        self._indent -= 1
        address = self._put(f"join({name}l)", f"32 * len({name}l)")
        self._line(f"{name}p = {address}")
        self._indent -= 1
        return f"len({name})", f"{name}p", "0"

    def _record(self, plan: Record, value: str) -> Names:
        name, size = self._name(), len(plan.fields)
        self._line(f"{name} = {value}")
        entries: list[str] = []
        for field, attribute, each in plan.fields:
            entries += [str(len(field)), str(self._pin(field.encode())), str(kind(each))]
            entries += self._value(each, f"{name}.{attribute}")
        pack = self._global(struct.Struct("<" + "QQB7xQQQ" * size).pack)
        address = self._put(f"{pack}({', '.join(entries)})", str(48 * size))
        return str(size), address, "0"

    def _blank(self, plan: Plan) -> Names:
        """Words of an empty value, in memory that stays."""
        match plan:
            case Text() | List():
                return _EMPTY
            case Enum(names, other):
                name = other or names[0]
                return str(len(name)), str(self._pin(name.encode())), "0"
            case Record(fields, _):
                data = b"".join(self._blank_field(name, each) for name, _, each in fields)
                return str(len(fields)), str(self._pin(data)), "0"
            case _:
                return _NOTHING

    def _blank_field(self, name: str, plan: Plan) -> bytes:
        words = map(int, self._blank(plan))
        return struct.pack("<QQB7xQQQ", len(name), self._pin(name.encode()), kind(plan), *words)


class _Fallback(dict[str, tuple[int, int]]):
    """Words of an enumeration's names; what a component does not know is written as its `unknown`."""

    def __init__(self, words: Mapping[str, tuple[int, int]], other: tuple[int, int]) -> None:
        super().__init__(words)
        self._other = other

    def __missing__(self, name: str) -> tuple[int, int]:
        return self._other
