"""Calls through wasmtime's C API with a frame that is built once: everything private that we use is in this module.

`component.Func.__call__` asks for the function's type and converts value by value: 150 to 500 µs for a statement.
Here the parameters are laid out in memory of our own by code made for their types (`writing`), and what the result
means was worked out when the frame was built (`reading`). `usable` says whether this wasmtime has the layout that the
module assumes; the sandbox also compares a first call with the public path, and falls back to that if either disagrees.

Ownership: a call copies its parameters, so they live in buffers that the frame's next call reuses. The result is ours:
it is deleted once it has been read, and its slot is marked as a bool, so that the next call finds nothing to drop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import POINTER, addressof, c_size_t, c_uint64, c_void_p, cast, sizeof, string_at
from typing import Any

from wasmtime import Engine, Store, WasmtimeError, _ffi
from wasmtime.component import Func

from heliosproxy.sandbox.faults import GuestLost
from heliosproxy.sandbox.plan import Plan
from heliosproxy.sandbox.reading import ENTRY_SIZE, MAX_ITEMS, VALUE_SIZE, WORDS, Reading
from heliosproxy.sandbox.writing import KINDS, Writing


def usable() -> str:
    """Why the layout of this wasmtime is not the one assumed here; empty if it is."""
    value: Any = _ffi.wasmtime_component_val_t
    entry: Any = _ffi.wasmtime_component_valrecord_entry
    variant: Any = _ffi.wasmtime_component_valvariant_t
    result: Any = _ffi.wasmtime_component_valresult_t
    items: Any = _ffi.wasmtime_component_vallist_t
    offsets = (each.offset for each in (value.kind, value.of, entry.val, variant.val, result.val, items.data))
    found = (sizeof(value), sizeof(entry), *offsets)
    if found != (VALUE_SIZE, ENTRY_SIZE, 0, 8, 16, 16, 8, 8):
        return f"component values are laid out differently: {found}"
    numbers = {kind: getattr(_ffi, f"WASMTIME_COMPONENT_{kind.upper()}").value for kind in KINDS}
    if numbers != KINDS:
        return f"component values are numbered differently: {numbers}"
    return ""


def _handle(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A C function under a handle of our own: no conversion by wasmtime's wrappers. Releases the GIL while it runs."""
    function = _ffi.dll[name]
    function.restype = result
    function.argtypes = list(arguments)
    handle: Callable[..., Any] = function
    return handle


def epoch_increment(engine: Engine) -> tuple[int, int]:
    """Addresses of wasmtime_engine_increment_epoch and of an engine to call it with, from any thread and at any time.

    The engine is a handle of its own that is never deleted (some bytes, once per sandbox), because a timer's last
    tick may come after the timer was deleted.
    """
    function = cast(_ffi.dll["wasmtime_engine_increment_epoch"], c_void_p).value
    handle = cast(_ffi.wasmtime_engine_clone(engine.ptr()), c_void_p).value
    if not function or not handle:
        raise RuntimeError("wasmtime gave no handle of the engine")
    return function, handle


class Frame:
    """One export of one instance, ready to be called. Not for use by two threads at once."""

    def __init__(self, store: Store, func: Func, parameters: Sequence[Plan], result: Plan) -> None:
        self._writing = Writing(parameters)
        self._write = self._writing.write
        reading = Reading()
        self._budget = reading.budget
        self._read = reading.reader(result)
        self._result = _ffi.wasmtime_component_val_t()
        self._result_at = addressof(self._result)
        self._store, self._func = store, func
        self._call = _handle(
            "wasmtime_component_func_call", c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t
        )
        self._delete = _handle("wasmtime_component_val_delete", None, c_void_p)
        self._deadline = _handle("wasmtime_context_set_epoch_deadline", None, c_void_p, c_uint64)
        self._context = cast(store._context(), c_void_p).value
        self._arguments = (
            addressof(func._func), self._context, self._writing.address, len(parameters), self._result_at, 1,
        )  # fmt: skip

    def call(self, ticks: int, *values: Any) -> Any:
        """Call it; it may run for `ticks` epochs. The contract's value, else GuestError, GuestLost."""
        self._write(*values)
        self._deadline(self._context, ticks)
        error = self._call(*self._arguments)
        if error:
            raise GuestLost(str(WasmtimeError._from_ptr(cast(error, POINTER(_ffi.wasmtime_error_t)))))
        self._budget[0] = MAX_ITEMS
        try:
            return self._read(*WORDS.unpack(string_at(self._result_at, VALUE_SIZE)))
        finally:
            self._delete(self._result_at)
            self._result.kind = KINDS["bool"]
