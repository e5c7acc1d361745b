"""From the contract's dataclasses to componentize-py's generated binding classes: what hooks answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from helios_sdk import contract
from helios_sdk.contract import Answer, Directive, Flush, Manifest, Route, Selector
from helios_sdk.plugin import Directives, Effects


def enum_members(enum: Any) -> dict[str, Any]:
    """The contract's spelling of each case to the generated member."""
    return {member.name.lower().replace("_", "-"): member for member in enum}


class Lower:
    """Converts answers, effects and manifests. Raises TypeError naming the value that is no part of the contract."""

    def __init__(self, types: Any) -> None:
        self._types = types
        self._enums: dict[str, dict[str, Any]] = {
            name: enum_members(getattr(types, name))
            for name in (
                "Role", "SyncMode", "Consistency", "Severity", "CacheMode", "Priority", "PoolMode", "Hook",
                "FailurePolicy",
            )
        }  # fmt: skip
        self._actions = self._action_table()
        self._selectors = self._selector_table()
        self._nothing = types.Answer([], None)

    def answer(self, given: Directives) -> Any:
        """What on_connect, on_parse or on_route returned, as the binding's `Answer`."""
        if given is None:
            return self._nothing
        if isinstance(given, Answer):
            return self._types.Answer([self._directive(one) for one in given.directives], given.ttl_ms)
        if isinstance(given, Directive):
            return self._types.Answer([self._directive(given)], None)
        return self._types.Answer([self._directive(one) for one in _iterate(given, "directives")], None)

    def effects(self, given: Effects) -> list[Any]:
        """What on_result or on_tick returned, as the binding's effects."""
        if given is None:
            return []
        if isinstance(given, Flush):
            return [self._effect(given)]
        return [self._effect(one) for one in _iterate(given, "effects")]

    def manifest(self, given: Manifest) -> Any:
        """A manifest, as the binding's."""
        types = self._types
        hooks = [
            types.HookSpec(
                self._enum("Hook", spec.hook),
                list(spec.reads),
                list(spec.only_with),
                self._enum("FailurePolicy", spec.on_failure),
            )
            for spec in given.hooks
        ]
        return types.Manifest(
            given.name, given.version, given.summary, given.contract, given.stage, hooks, list(given.capabilities),
            list(given.tables), given.schema,
        )  # fmt: skip

    def _effect(self, effect: object) -> Any:
        if not isinstance(effect, Flush):
            raise TypeError(f"{effect!r} is no effect: an observer returns Flush(…)")
        return self._types.Effect_Flush(effect.relation)

    def _directive(self, directive: object) -> Any:
        if not isinstance(directive, Directive):
            raise TypeError(f"{directive!r} is no Directive: return Directive(action, reason)")
        convert = self._actions.get(type(directive.action))
        if convert is None:
            raise TypeError(f"{directive.action!r} is no action")
        return self._types.Directive(convert(directive.action), directive.reason)

    def _enum(self, name: str, value: str) -> Any:
        try:
            return self._enums[name][value]
        except KeyError:
            raise TypeError(f"{value!r} is not one of {', '.join(self._enums[name])}") from None

    def _option(self, name: str, value: str | None) -> Any:
        return None if value is None else self._enum(name, value)

    def _route(self, route: Route) -> Any:
        return self._types.Route(
            [self._selector(one) for one in route.select],
            [self._selector(one) for one in route.otherwise],
            self._option("Consistency", route.consistency),
            route.max_lag_ms,
            [self._selector(one) for one in route.prefer],
            route.sticky,
            route.database,
        )

    def _selector(self, selector: Selector) -> Any:
        if not isinstance(selector, Selector) or selector.case not in self._selectors:
            raise TypeError(f"{selector!r} is no Selector")
        return self._selectors[selector.case](selector.value)

    def _selector_table(self) -> dict[str, Callable[[Any], Any]]:
        types = self._types
        simple_any, local = types.Selector_Any(), types.Selector_Local()
        return {
            "any": lambda _: simple_any,
            "local": lambda _: local,
            "role": lambda value: types.Selector_Role(self._enum("Role", value)),
            "sync-mode": lambda value: types.Selector_SyncMode(self._enum("SyncMode", value)),
            "label": types.Selector_Label,
            "node": types.Selector_Node,
        }

    def _action_table(self) -> dict[type, Callable[[Any], Any]]:
        types = self._types
        wait_replay = types.Action_WaitReplay()
        return {
            contract.Route: lambda it: types.Action_Route(self._route(it)),
            contract.Rewrite: types.Action_Rewrite,
            contract.Reject: types.Action_Reject,
            contract.Notice: lambda it: types.Action_Notice(
                types.Notice(self._enum("Severity", it.severity), it.sqlstate, it.message, it.hint, it.position)
            ),
            contract.Rows: lambda it: types.Action_Answer(
                types.Rows(list(it.columns), [list(row) for row in it.rows], it.command_tag)
            ),
            contract.Limit: lambda it: types.Action_Limit(
                types.Limit(it.bucket, float(it.rate), it.burst, it.concurrency, it.wait_ms)
            ),
            contract.Cache: lambda it: types.Action_Cache(
                types.Cache(
                    self._enum("CacheMode", it.mode), it.ttl_ms, list(it.depends_on), it.stale_while_revalidate_ms
                )
            ),
            contract.Timeout: lambda it: types.Action_Timeout(it.ms),
            contract.Retry: lambda it: types.Action_Retry(it.attempts),
            contract.Priority: lambda it: types.Action_Priority(self._enum("Priority", it.level)),
            contract.Pool: lambda it: types.Action_Pool(self._enum("PoolMode", it.mode)),
            contract.Settings: lambda it: types.Action_Settings(list(it.values)),
            contract.Mask: types.Action_Mask,
            contract.Tag: types.Action_Tag,
            contract.WaitReplay: lambda _: wait_replay,
        }


def _iterate(given: object, what: str) -> Iterable[object]:
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return given
    raise TypeError(f"a hook returned {given!r}, which is no {what}")
