"""The contract's vocabulary as Python dataclasses: what a hook is given and what it answers.

One class per record of ``helios.wit``, same names, same fields (``-`` written ``_``). Enumerations are plain strings,
since a closed ``Literal`` is checked by a type checker and costs nothing at run time. The proxy's kernel uses these
classes too, so there is one vocabulary; `tests/sdk/test_contract.py` compares it with the WIT file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "select", "insert", "update", "delete", "merge", "copy", "call", "do",
    "begin", "commit", "rollback", "savepoint", "prepare-transaction", "commit-prepared",
    "set", "reset", "show", "discard", "prepare", "execute", "deallocate",
    "declare", "fetch", "close", "listen", "unlisten", "notify", "lock",
    "explain", "ddl", "utility", "multi", "empty", "unknown",
]  # fmt: skip
Role: TypeAlias = Literal["primary", "standby"]
SyncMode: TypeAlias = Literal["sync", "semisync", "async"]
Consistency: TypeAlias = Literal["strong", "bounded", "eventual"]
Severity: TypeAlias = Literal["warning", "notice", "info"]
CacheMode: TypeAlias = Literal["store", "skip", "refresh"]
PriorityLevel: TypeAlias = Literal["low", "normal", "high", "critical"]
PoolMode: TypeAlias = Literal["session", "transaction", "statement"]
FailurePolicy: TypeAlias = Literal["open", "closed"]
Hook: TypeAlias = Literal["on-connect", "on-parse", "on-route", "on-result", "on-tick"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

CONTRACT = "0.1"
"""The contract's version, as manifests name it."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A hint: from a comment (`at` > 0, a position in characters from 1) or from the session (`at` = 0)."""

    key: str
    value: str
    at: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """A key with its text: a tag, a label, a setting."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Client:
    """Who is asking. A fact that the hook does not read is an empty string."""

    user: str = ""
    database: str = ""
    application_name: str = ""
    address: str = ""
    tenant: str = ""
    authentication: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement before it is sent. Facts that the hook does not read are empty."""

    kind: Kind
    read_only: bool = False
    text: str = ""
    shape: str = ""
    hints: tuple[Hint, ...] = ()
    tables: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    tags: tuple[Pair, ...] = ()
    comments: tuple[Pair, ...] = ()
    parameters: tuple[str | None, ...] = ()
    client: Client = Client()


@dataclass(frozen=True, slots=True)
class Node:
    """A configured server, as far as it changes only with the topology."""

    name: str
    role: Role
    sync_mode: SyncMode | None = None
    labels: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class Selector:
    """One way to name nodes. `case` and what goes with it: any, role, sync-mode, label, node, local.

    `value` is a str, or a Pair for a label; None for any and local. Use the constructors below.
    """

    case: Literal["any", "role", "sync-mode", "label", "node", "local"]
    value: str | Pair | None = None

    def __str__(self) -> str:
        if isinstance(self.value, Pair):
            return f"label {self.value.key}={self.value.value}"
        if self.value is None or self.case == "node":
            return f"{self.case} {self.value or ''}".strip()
        return self.value


ANY = Selector("any")
LOCAL = Selector("local")
PRIMARY = Selector("role", "primary")
STANDBY = Selector("role", "standby")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a statement may run: a node qualifies if one of `select` names it. Several routes intersect."""

    select: tuple[Selector, ...]
    otherwise: tuple[Selector, ...] = ()
    consistency: Consistency | None = None
    max_lag_ms: int | None = None
    prefer: tuple[Selector, ...] = ()
    sticky: str | None = None
    database: str | None = None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Text to send instead. Literals that are kept must keep their order."""

    text: str


@dataclass(frozen=True, slots=True)
class Reject:
    """An ERROR instead of an answer. `position` is in characters from 1."""

    sqlstate: str
    message: str
    detail: str | None = None
    hint: str | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """A NoticeResponse ahead of the answer."""

    severity: Severity
    sqlstate: str
    message: str
    hint: str | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows without asking a server, all of type text. An empty `command_tag` stands for `SELECT n`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    command_tag: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: `rate` tokens a second, up to `burst`; at most `concurrency` at once (0: no limit)."""

    bucket: str
    rate: float
    burst: int
    concurrency: int = 0
    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Cache:
    """How the answer may be kept."""

    mode: CacheMode
    ttl_ms: int | None = None
    depends_on: tuple[str, ...] = ()
    stale_while_revalidate_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Timeout:
    """Whole time in the proxy and on the server; then SQLSTATE 57014."""

    ms: int


@dataclass(frozen=True, slots=True)
class Retry:
    """At most this many re-executions."""

    attempts: int


@dataclass(frozen=True, slots=True)
class Priority:
    """The statement's place in the pool's queue and in limits."""

    level: PriorityLevel


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool mode for this statement (`session`: from here on)."""

    mode: PoolMode


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings in force while the statement runs."""

    values: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Mask:
    """Mask a column's values in the answer."""

    table: str
    column: str
    expression: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A fact for plugins that run later (`tag:<key>`), the decision log and observers."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class WaitReplay:
    """Acknowledge the write only when the node it is routed to has replayed it."""


Action: TypeAlias = (
    Route | Rewrite | Reject | Notice | Rows | Limit | Cache | Timeout | Retry | Priority | Pool | Settings | Mask
    | Tag | WaitReplay
)  # fmt: skip
"""What is to be done: `variant action` of the contract."""


@dataclass(frozen=True, slots=True)
class Directive:
    """An action and why, for the decision log."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A hook's answer. `ttl_ms`: None: as long as what the hook reads does not change; 0: not remembered."""

    directives: tuple[Directive, ...] = ()
    ttl_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A statement that ended. `sqlstate` is empty where there was no error."""

    shape: str
    user: str
    database: str
    node: str
    microseconds: int
    rows: int
    bytes: int
    sqlstate: str = ""
    tags: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class Flush:
    """Forget remembered verdicts of statements that name this relation; None: all."""

    relation: str | None = None


Effect: TypeAlias = Flush
"""What an observer may cause: `variant effect` of the contract."""


@dataclass(frozen=True, slots=True)
class HookSpec:
    """A hook that a plugin has, and what it reads."""

    hook: Hook
    reads: tuple[str, ...] = ()
    only_with: tuple[str, ...] = ()
    on_failure: FailurePolicy = "open"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a plugin says of itself. `schema` is a JSON Schema document."""

    name: str
    version: str
    summary: str
    contract: str
    stage: str
    hooks: tuple[HookSpec, ...] = ()
    capabilities: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    schema: str = field(default="{}", repr=False)
