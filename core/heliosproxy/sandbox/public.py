"""The same calls through wasmtime's public API: what is used where `frame` cannot be, and what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wasmtime import Store, WasmtimeError
from wasmtime.component import Func
from wasmtime.component import Record as WasmRecord
from wasmtime.component import Variant as WasmVariant

from heliosproxy.sandbox.faults import GuestError, GuestLost
from heliosproxy.sandbox.plan import (
    Blank,
    Enum,
    Keyed,
    List,
    Option,
    Plan,
    PlanError,
    Record,
    Result,
    Scalar,
    Text,
    Variant,
)
from heliosproxy.sandbox.reading import MAX_TEXT

_CONVERSION = 4


class PublicCall:
    """One export of one instance. Same contract as `frame.Frame`, but for time.

    wasmtime converts the values while the deadline runs, and takes longer for that than most hooks: the guest is
    given four times the ticks. An answer is converted whole before its size is checked.
    """

    def __init__(self, store: Store, func: Func, parameters: Sequence[Plan], result: Plan) -> None:
        self._store, self._func = store, func
        self._parameters, self._result = parameters, result

    def call(self, ticks: int, *values: object) -> Any:
        """Call it; it may run for `ticks` epochs. The contract's value, else GuestError, GuestLost."""
        given = [write(plan, value) for plan, value in zip(self._parameters, values, strict=True)]
        self._store.set_epoch_deadline(ticks * _CONVERSION)
        try:
            answer = self._func(self._store, *given)
        except WasmtimeError as error:
            raise GuestLost(str(error)) from None
        return read(self._result, answer)


def write(plan: Plan, value: Any) -> Any:
    """A value of the contract as wasmtime's public API takes it."""
    match plan:
        case Scalar():
            return value
        case Text():
            return value.encode("utf-8", "replace").decode()
        case Enum(names, other):
            if value not in names and other is None:
                raise GuestError(f"the component does not know {value!r}")
            return value if value in names else other
        case Option(inner):
            return None if value is None else write(inner, value)
        case List(inner):
            return [write(inner, item) for item in value]
        case Record(fields, _):
            return _record({name: write(each, getattr(value, attribute)) for name, attribute, each in fields})
        case Blank(inner):
            return _blank(inner)
        case Keyed(inner, keys):
            return write(inner, [pair for pair in value if pair.key in keys])
        case _:
            raise PlanError(f"{type(plan).__name__} is not passed to a guest")


def _record(fields: dict[str, Any]) -> WasmRecord:
    record = WasmRecord()
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def _blank(plan: Plan) -> Any:
    match plan:
        case Text():
            return ""
        case List():
            return []
        case Scalar(kind):
            return {"bool": False, "f64": 0.0}.get(kind, 0)
        case Enum(names, other):
            return other or names[0]
        case Record(fields, _):
            return _record({name: _blank(each) for name, _, each in fields})
        case _:
            return None


def read(plan: Plan, value: Any) -> Any:
    """What wasmtime's public API returned, as the contract's value."""
    match plan:
        case Text():
            return _text(value)
        case Scalar() | Enum():
            return value
        case Option(inner):
            return None if value is None else read(inner, value)
        case List(inner):
            return tuple(read(inner, item) for item in value)
        case Record(fields, build):
            return build(**{attribute: read(each, getattr(value, name)) for name, attribute, each in fields})
        case Variant():
            return _read_variant(plan, value)
        case Result():
            return _read_result(plan, value)
        case _:
            raise PlanError(f"{type(plan).__name__} is not read from a guest")


def _text(value: str) -> str:
    if len(value) > MAX_TEXT:
        raise GuestLost(f"the answer holds a string of {len(value)} characters")
    if "\0" in value:
        raise GuestLost("the answer holds a NUL")
    return value


def _read_variant(plan: Variant, value: Any) -> Any:
    """The public API leaves the case out where the payload's Python type tells it."""
    if isinstance(value, WasmVariant):
        payload, build = plan.cases[value.tag]
        return build() if payload is None else build(read(payload, value.payload))
    for payload, build in plan.cases.values():
        if payload is None and value is None:
            return build()
        if payload is not None and _fits(payload, value):
            return build(read(payload, value))
    raise GuestLost("the answer holds an unknown case")


def _read_result(plan: Result, value: Any) -> Any:
    if isinstance(value, WasmVariant):
        is_ok, value = value.tag == "ok", value.payload
    else:
        is_ok = value is None if plan.ok is None else _fits(plan.ok, value)
    if is_ok:
        return None if plan.ok is None else read(plan.ok, value)
    fault = read(plan.err, value) if plan.err is not None else None
    raise GuestError(fault.message, fault.traceback) if fault else GuestError("")


def _fits(plan: Plan, value: Any) -> bool:
    match plan:
        case Scalar("bool"):
            return isinstance(value, bool)
        case Scalar():
            return isinstance(value, int | float)
        case Text() | Enum():
            return isinstance(value, str)
        case Option(inner):
            return value is None or _fits(inner, value)
        case List():
            return isinstance(value, list)
        case Record():
            return isinstance(value, WasmRecord)
        case _:
            return isinstance(value, WasmVariant)
