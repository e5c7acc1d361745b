"""Answers of plugins, checked before the kernel sees them: types are the component model's matter, sense is ours."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from helios_sdk import contract
from helios_sdk.contract import Answer, Selector

from heliosproxy.sandbox.faults import GuestLost

MAX_DIRECTIVES = 100
MAX_REASON = 1_000
MAX_MESSAGE = 10_000
MAX_NAME = 1_000
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_$.]{0,254}")


def check_answer(answer: Answer) -> None:
    """Raise GuestLost naming the first thing in the answer that makes no sense."""
    if len(answer.directives) > MAX_DIRECTIVES:
        raise GuestLost(f"malformed answer: {len(answer.directives)} directives")
    for directive in answer.directives:
        if len(directive.reason) > MAX_REASON:
            raise GuestLost("malformed answer: a reason is too long")
        for problem in _CHECKS[type(directive.action)](directive.action):
            raise GuestLost(f"malformed answer: {problem}")


def _route(route: contract.Route) -> Iterable[str]:
    if not route.select:
        yield "a route selects nothing"
    for selector in (*route.select, *route.otherwise, *route.prefer):
        yield from _selector(selector)
    for name in (route.sticky, route.database):
        if name is not None and not 0 < len(name) <= MAX_NAME:
            yield "a name in a route is empty or too long"


def _selector(selector: Selector) -> Iterable[str]:
    value = selector.value
    text = value.key if isinstance(value, contract.Pair) else value
    if text is not None and not 0 < len(text) <= MAX_NAME:
        yield "a selector names nothing, or something too long"


def _rewrite(rewrite: contract.Rewrite) -> Iterable[str]:
    if not rewrite.text.strip():
        yield "a rewrite to nothing"


def _reject(reject: contract.Reject) -> Iterable[str]:
    yield from _message(reject.sqlstate, reject.message, reject.detail, reject.hint, reject.position)
    if reject.sqlstate[:2] in ("00", "01", "02"):
        yield f"SQLSTATE {reject.sqlstate} is no error's"


def _notice(notice: contract.Notice) -> Iterable[str]:
    yield from _message(notice.sqlstate, notice.message, None, notice.hint, notice.position)


def _message(sqlstate: str, message: str, detail: str | None, hint: str | None, position: int | None) -> Iterable[str]:
    if not _SQLSTATE.fullmatch(sqlstate):
        yield f"{sqlstate[:20]!r} is no SQLSTATE"
    if not message or max(map(len, (message, detail or "", hint or ""))) > MAX_MESSAGE:
        yield "a message is empty or too long"
    if position == 0:
        yield "a position is 0; they count from 1"


def _rows(rows: contract.Rows) -> Iterable[str]:
    if not 0 < len(rows.columns) <= 1_664:
        yield f"rows of {len(rows.columns)} columns"
    if any(len(row) != len(rows.columns) for row in rows.rows):
        yield "rows of different lengths"
    if len(rows.command_tag) > 60:
        yield "a command tag is too long"


def _limit(limit: contract.Limit) -> Iterable[str]:
    if not 0 < len(limit.bucket) <= MAX_NAME:
        yield "a bucket's name is empty or too long"
    if not (math.isfinite(limit.rate) and 0 < limit.rate <= 1e9):
        yield f"a bucket of {limit.rate} tokens a second"
    if limit.burst < 1:
        yield "a bucket without tokens"


def _cache(cache: contract.Cache) -> Iterable[str]:
    if not all(0 < len(name) <= MAX_NAME for name in cache.depends_on):
        yield "a relation's name is empty or too long"


def _timeout(timeout: contract.Timeout) -> Iterable[str]:
    if timeout.ms < 1:
        yield "a timeout of 0"


def _retry(retry: contract.Retry) -> Iterable[str]:
    if retry.attempts > 100:
        yield f"{retry.attempts} retries"


def _settings(settings: contract.Settings) -> Iterable[str]:
    for pair in settings.values:
        if not _SETTING.fullmatch(pair.key):
            yield f"{pair.key[:60]!r} is no setting"
        if len(pair.value) > MAX_MESSAGE:
            yield "a setting is too long"


def _mask(mask: contract.Mask) -> Iterable[str]:
    if not all(0 < len(text) <= MAX_MESSAGE for text in (mask.table, mask.column, mask.expression)):
        yield "a mask with an empty or too long part"


def _tag(tag: contract.Tag) -> Iterable[str]:
    if not 0 < len(tag.key) <= 63:
        yield "a tag's key is empty or too long"
    if len(tag.value) > MAX_MESSAGE:
        yield "a tag is too long"


def _fine(_: object) -> Iterable[str]:
    return ()


_CHECKS: Mapping[type, Callable[[Any], Iterable[str]]] = MappingProxyType(
    {
        contract.Route: _route,
        contract.Rewrite: _rewrite,
        contract.Reject: _reject,
        contract.Notice: _notice,
        contract.Rows: _rows,
        contract.Limit: _limit,
        contract.Cache: _cache,
        contract.Timeout: _timeout,
        contract.Retry: _retry,
        contract.Priority: _fine,
        contract.Pool: _fine,
        contract.Settings: _settings,
        contract.Mask: _mask,
        contract.Tag: _tag,
        contract.WaitReplay: _fine,
    }
)
