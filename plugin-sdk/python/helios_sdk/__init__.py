"""The SDK for HeliosProxy plugins in Python: subclass `Plugin`, mark hooks with `hook`, return directives.

    from helios_sdk import PRIMARY, Directive, Plugin, Route, Statement, hook

    class Reports(Plugin):
        \"\"\"Sends reports to the primary.\"\"\"

        name = "reports"
        version = "1.0.0"
        stage = "routing"

        @hook(reads=("tables",), only_with=("tables",))
        def on_parse(self, statement: Statement):
            if "reports" in statement.tables:
                yield Directive(Route((PRIMARY,)), "reports read their own writes")

The module imports nothing but the standard library, natively as in a component.
"""

from __future__ import annotations

from helios_sdk.capabilities import CapabilityError, Clock, Log
from helios_sdk.contract import (
    ANY,
    CONTRACT,
    LOCAL,
    PRIMARY,
    STANDBY,
    Action,
    Answer,
    Cache,
    CacheMode,
    Client,
    Consistency,
    Directive,
    Effect,
    FailurePolicy,
    Flush,
    Hint,
    Hook,
    HookSpec,
    Kind,
    Limit,
    LogLevel,
    Manifest,
    Mask,
    Node,
    Notice,
    Outcome,
    Pair,
    Pool,
    PoolMode,
    Priority,
    PriorityLevel,
    Reject,
    Retry,
    Rewrite,
    Role,
    Route,
    Rows,
    Selector,
    Settings,
    Severity,
    Statement,
    SyncMode,
    Tag,
    Timeout,
    WaitReplay,
)
from helios_sdk.plugin import CAPABILITIES, FACTS, HOOKS, STAGES, Directives, Effects, Plugin, hook

__all__ = [
    "ANY",
    "CAPABILITIES",
    "CONTRACT",
    "FACTS",
    "HOOKS",
    "LOCAL",
    "PRIMARY",
    "STAGES",
    "STANDBY",
    "Action",
    "Answer",
    "Cache",
    "CacheMode",
    "CapabilityError",
    "Client",
    "Clock",
    "Consistency",
    "Directive",
    "Directives",
    "Effect",
    "Effects",
    "FailurePolicy",
    "Flush",
    "Hint",
    "Hook",
    "HookSpec",
    "Kind",
    "Limit",
    "Log",
    "LogLevel",
    "Manifest",
    "Mask",
    "Node",
    "Notice",
    "Outcome",
    "Pair",
    "Plugin",
    "Pool",
    "PoolMode",
    "Priority",
    "PriorityLevel",
    "Reject",
    "Retry",
    "Rewrite",
    "Role",
    "Route",
    "Rows",
    "Selector",
    "Settings",
    "Severity",
    "Statement",
    "SyncMode",
    "Tag",
    "Timeout",
    "WaitReplay",
    "hook",
]
