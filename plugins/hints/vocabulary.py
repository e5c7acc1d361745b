"""What a hint's key and value mean: each pair becomes a `Value`, once, with its directives ready to be handed out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from helios_sdk import (
    ANY,
    LOCAL,
    PRIMARY,
    STANDBY,
    Action,
    Cache,
    Consistency,
    Directive,
    Pool,
    PoolMode,
    Priority,
    PriorityLevel,
    Retry,
    Route,
    Selector,
    Tag,
    Timeout,
    WaitReplay,
)

from .durations import milliseconds
from .nodesets import Select
from .spelling import near, short

ROUTES: Final[Mapping[str, Select]] = {
    "primary": (PRIMARY,),
    "standby": (STANDBY,),
    "sync": (Selector("sync-mode", "sync"),),
    "semisync": (Selector("sync-mode", "semisync"),),
    "async": (Selector("sync-mode", "async"),),
    "any": (ANY,),
    "local": (LOCAL,),
}
LEVELS: Final[tuple[Consistency, ...]] = get_args(Consistency)
POOL_MODES: Final[tuple[PoolMode, ...]] = get_args(PoolMode)
PRIORITIES: Final[tuple[PriorityLevel, ...]] = get_args(PriorityLevel)
TAGS: Final = ("tool", "workflow", "prefetch", "agent")
KEYS: Final = (
    "route", "node", "consistency", "lag", "pool", "cache", "timeout", "priority", "retry", "branch", "twr", *TAGS,
)  # fmt: skip
"""Every key with a meaning of its own, and the tags that the documentation names. Any other key is a tag too."""

ROUTING: Final = frozenset(("route", "node", "consistency", "lag", "branch", "twr"))
"""Keys that say where a statement runs."""

DURATION_HELP: Final = "Write a number with a unit: ms, s, min or h."
MOST_RETRIES: Final = 100
RULE, SESSION, COMMENT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a hint was written. Of two that contradict each other the one with the higher rank stands."""

    rank: int
    before: str
    after: str = ""

    def reason(self, text: str) -> str:
        """The decision log's words for a directive: `Hint: route=standby`."""
        return f"{self.before}{text}{self.after}"


FROM_COMMENT = Origin(COMMENT, "Hint: ")
FROM_SESSION = Origin(SESSION, "Session: ")


@dataclass(frozen=True, slots=True)
class Problem:
    """A bad hint: what is wrong and what would be right."""

    message: str
    help: str


@dataclass(frozen=True, slots=True)
class Value:
    """What one `key=value` means. With a `problem` it means nothing else."""

    key: str
    text: str
    """`key=value` in canonical spelling."""
    rank: int = 0
    act: Directive | None = None
    """For keys that have nothing to do with nodes."""
    route: Directive | None = None
    """For keys that name nodes: the Route of a read. Of twr=true: WaitReplay."""
    select: Select = ()
    """The nodes that the key's value names; of twr=true: STANDBY."""
    remark: str = ""
    """Something to tell the client although nothing is wrong."""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """`[routing.consistency.<level>]`. `max_lag_ms`: None: no limit."""

    name: Consistency
    select: Select
    max_lag_ms: int | None

    @property
    def action(self) -> Route:
        """The level as a requirement: without `otherwise`."""
        return Route(self.select, consistency=self.name, max_lag_ms=self.max_lag_ms)


@dataclass(frozen=True, slots=True)
class Branch:
    """`[routing.branches] <name>`: the nodes that hold it (none named: any), and the database it is in."""

    select: Select
    database: str | None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that the configuration allows. `read` is the only way from text to meaning."""

    aliases: Mapping[str, Select]
    levels: Mapping[str, Level]
    branches: Mapping[str, Branch]
    default_read: str
    allow_node_hints: bool = True

    @property
    def default(self) -> Route:
        """The default read target."""
        select = self.target(self.default_read)
        return Route(select, otherwise=() if select in ((PRIMARY,), (ANY,)) else (PRIMARY,))

    def target(self, name: str) -> Select:
        """The nodes of a route value; empty if there is no such value."""
        return ROUTES.get(name) or self.aliases.get(name, ())

    def routes(self) -> tuple[str, ...]:
        """Every value of `route`."""
        return (*ROUTES, *(alias for alias in self.aliases if alias not in ROUTES))

    def read(self, key: str, value: str, origin: Origin) -> Value:
        """The meaning of one hint."""
        reader = _READERS.get(key)
        if not key or not value:
            return _bad(key, value, f"hint {key} has no value" if key else "a hint needs a key", "Write key=value.")
        if reader is None:
            return _tag(key, value, origin)
        return reader(self, value, origin)

    def hinted(self, select: Select) -> Route:
        """A Route that falls back on the default read target, and on that one's fallback where it is the same."""
        default = self.default
        if select == (ANY,):
            return Route(select)
        return Route(select, otherwise=default.otherwise if select == default.select else default.select)


def parse(text: str) -> list[tuple[str, str]]:
    """Keys and values of a rule's `use`, as in a comment: `route=async, lag=10s`."""
    pairs = (item.partition("=") for item in text.split(","))
    return [(key.strip().lower(), value.strip()) for key, _, value in pairs]


def _bad(key: str, value: str, message: str, help: str) -> Value:
    return Value(key, short(f"{key}={value}"), problem=Problem(short(message), help))


def _unknown(key: str, value: str, words: Sequence[str]) -> Value:
    # Branches are told apart by case: there the right letters in the wrong case are worth a suggestion too.
    meant = next((word for word in words if word.lower() == value.lower()), None) or near(value.lower(), words)
    legal = f"Values: {', '.join(words)}." if words else f"None is configured in [routing.{key}es]."
    help = f"Did you mean {meant}? {legal}" if meant else legal
    return _bad(key, value, f"unknown value in hint {key}={value}", help)


def _act(key: str, value: str, action: Action, origin: Origin, remark: str = "") -> Value:
    text = short(f"{key}={value}")
    return Value(key, text, origin.rank, act=Directive(action, origin.reason(text)), remark=remark)


def _where(key: str, value: str, route: Route, origin: Origin, select: Select | None = None) -> Value:
    text = short(f"{key}={value}")
    directive = Directive(route, origin.reason(text))
    return Value(key, text, origin.rank, route=directive, select=route.select if select is None else select)


def _tag(key: str, value: str, origin: Origin) -> Value:
    meant = None if key in TAGS else near(key, KEYS)
    remark = f"hint {key} is taken as a tag; did you mean {meant}?" if meant else ""
    return _act(key, value, Tag(key, value), origin, remark)


def _route(words: Vocabulary, value: str, origin: Origin) -> Value:
    name = value.lower()
    select = words.target(name)
    if not select:
        return _unknown("route", value, words.routes())
    return _where("route", name, words.hinted(select), origin)


def _node(words: Vocabulary, value: str, origin: Origin) -> Value:
    if not words.allow_node_hints and origin.rank > RULE:
        return _bad("node", value, f"hint node={value}: node hints are switched off", "Use route= instead.")
    return _where("node", value, words.hinted((Selector("node", value),)), origin)


def _consistency(words: Vocabulary, value: str, origin: Origin) -> Value:
    level = words.levels.get(value.lower())
    if level is None:
        return _unknown("consistency", value, LEVELS)
    return _where("consistency", level.name, level.action, origin)


def _lag(words: Vocabulary, value: str, origin: Origin) -> Value:
    ms = milliseconds(value.lower())
    if ms is None:
        return _bad("lag", value, f"unknown duration in hint lag={value}", DURATION_HELP)
    return _where("lag", value.lower(), Route((ANY,), max_lag_ms=ms), origin)


def _branch(words: Vocabulary, value: str, origin: Origin) -> Value:
    branch = words.branches.get(value)
    if branch is None:
        return _unknown("branch", value, tuple(words.branches))
    # Only these nodes hold the branch, so nothing stands in for them; the default target is a preference among them.
    prefer = words.default.select if branch.select and words.default.select != (ANY,) else ()
    route = Route(branch.select or (ANY,), prefer=prefer, database=branch.database)
    return _where("branch", value, route, origin, branch.select)


def _twr(words: Vocabulary, value: str, origin: Origin) -> Value:
    flag = value.lower()
    if flag not in ("true", "false"):
        return _unknown("twr", value, ("true", "false"))
    text = f"twr={flag}"
    if flag == "false":
        return Value("twr", text, origin.rank)
    return Value("twr", text, origin.rank, route=Directive(WaitReplay(), origin.reason(text)), select=(STANDBY,))


def _pool(words: Vocabulary, value: str, origin: Origin) -> Value:
    mode = next((mode for mode in POOL_MODES if mode == value.lower()), None)
    return _act("pool", mode, Pool(mode), origin) if mode else _unknown("pool", value, POOL_MODES)


def _priority(words: Vocabulary, value: str, origin: Origin) -> Value:
    level = next((level for level in PRIORITIES if level == value.lower()), None)
    return _act("priority", level, Priority(level), origin) if level else _unknown("priority", value, PRIORITIES)


def _timeout(words: Vocabulary, value: str, origin: Origin) -> Value:
    ms = milliseconds(value.lower())
    if not ms:
        help = f"{DURATION_HELP} It must be more than 0."
        return _bad("timeout", value, f"unknown duration in hint timeout={value}", help)
    return _act("timeout", value.lower(), Timeout(ms), origin)


def _cache(words: Vocabulary, value: str, origin: Origin) -> Value:
    word = value.lower()
    if word == "skip" or word == "refresh":
        return _act("cache", word, Cache("skip" if word == "skip" else "refresh"), origin)
    name, _, ttl = (part.strip() for part in word.partition("="))
    ms = milliseconds(ttl, bare="s") if name == "ttl" else None
    if not ms:
        return _unknown("cache", value, ("skip", "refresh", "ttl=60", "ttl=60s"))
    return _act("cache", f"ttl={ttl}", Cache("store", ttl_ms=ms), origin)


def _retry(words: Vocabulary, value: str, origin: Origin) -> Value:
    word = value.lower()
    number = {"true": 2, "false": 0}.get(word)
    if number is None and word.isascii() and word.isdigit() and len(word) <= 3:
        number = int(word)
    if number is None or number > MOST_RETRIES:
        return _unknown("retry", value, ("true", "false", f"0 to {MOST_RETRIES}"))
    return _act("retry", word, Retry(number), origin)


_READERS: Final[Mapping[str, Callable[[Vocabulary, str, Origin], Value]]] = {
    "route": _route, "node": _node, "consistency": _consistency, "lag": _lag, "branch": _branch, "twr": _twr,
    "pool": _pool, "priority": _priority, "timeout": _timeout, "cache": _cache, "retry": _retry,
}  # fmt: skip
