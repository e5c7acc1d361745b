"""Settings that follow a client from link to link.

Three kinds: those that PostgreSQL reports whenever they change (ParameterStatus); those that it does not report and
that the proxy asks for when a statement may have changed them (`[pool] tracked_settings`); and others that the client
named at start-up (`options=-c …`), which stay as they are. Any other SET pins the session to its link.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

REPORTED = (
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "IntervalStyle",
    "scram_iterations",
    "search_path",
    "standard_conforming_strings",
    "TimeZone",
)
"""Settings that PostgreSQL reports and a client may change (protocol chapter, "Asynchronous Operations"); which of
them depends on its version: search_path from 18 on."""

LONG_VALUES = 2048
"""Characters of settings, all of them together, beyond which their digest is kept."""

ALWAYS_TRACKED = ("search_path", "role")
"""What follows a client whatever is configured, since it decides what a statement means and may do."""

_MEANINGLESS = frozenset((
    "application_name", "scram_iterations", "statement_timeout", "lock_timeout", "client_min_messages", "work_mem",
    "idle_in_transaction_session_timeout", "transaction_timeout", "maintenance_work_mem", "synchronous_commit",
))  # fmt: skip
_READING = frozenset(("client_encoding", "DateStyle", "IntervalStyle", "TimeZone", "standard_conforming_strings"))
_CHARACTERISTICS = (
    "default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable",
)  # fmt: skip


def may_mean(name: str) -> bool:
    """Whether a setting may change what a text means. Custom ones, with a dot in their names, are nothing to PostgreSQL
    itself."""
    return "." not in name and name.lower() not in _MEANINGLESS


@dataclass(frozen=True, slots=True)
class Settings:
    """Values in force on a link or wanted by a session, as (name, value). `values` are those that are followed, sorted
    by name; `extra` those that a client named at start-up and nobody follows."""

    values: tuple[tuple[str, str], ...] = ()
    extra: tuple[tuple[str, str], ...] = ()

    def with_reported(self, name: str, value: str) -> Settings:
        """The same with one reported value changed; self if the name is not one that a client may change."""
        return self.with_values({name: value}) if name in REPORTED else self

    def with_values(self, values: Mapping[str, str]) -> Settings:
        """The same with these values changed."""
        return replace(self, values=tuple(sorted({**dict(self.values), **values}.items())))

    @property
    def meaning(self) -> tuple[tuple[str, str], ...]:
        """What may change what a statement means (L7, S4)."""
        return tuple(item for item in self.values if item[0] not in _MEANINGLESS) + self.extra

    @property
    def fingerprint(self) -> object:
        """`meaning` to be kept for comparison."""
        return fingerprint(self.meaning)

    @property
    def reading(self) -> dict[str, str]:
        """Those that decide how the literals of a text read, which PostgreSQL settles when it is parsed."""
        return {name: value for name, value in self.values if name in _READING}

    def followed(self, name: str) -> tuple[str, ...]:
        """The followed settings that a SET of this name, or of `session characteristics`, changes; none if it changes
        one that is not followed."""
        if name == "session characteristics":
            followed = {key for key, _ in self.values}
            return _CHARACTERISTICS if followed.issuperset(_CHARACTERISTICS) else ()
        return next(((key,) for key, _ in self.values if key.lower() == name.lower()), ())

    def value(self, name: str) -> str:
        """A followed setting's value; empty if it is not followed."""
        return next((value for key, value in self.values if key == name), "")


def fingerprint(values: Sequence[tuple[str, str]]) -> object:
    """What stands for settings where they are kept for comparison: they themselves, or a digest of long ones."""
    if sum(len(value) for _, value in values) <= LONG_VALUES:
        return tuple(values)
    return blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=32).digest()


def from_parameters(
    reported: Mapping[str, str], named: Mapping[str, str] | None = None, asked: Mapping[str, str] | None = None
) -> Settings:
    """The settings among what a server reported at login, those that it was `asked` for, and those of `named`, a
    client's own, that are neither."""
    values = {**{name: value for name, value in reported.items() if name in REPORTED}, **(asked or {})}
    found = Settings(tuple(sorted(values.items())))
    extra = tuple(item for item in (named or {}).items() if not found.followed(item[0]))
    return replace(found, extra=extra)


def unreported(tracked: Iterable[str], reported: Iterable[str]) -> tuple[str, ...]:
    """Those of the tracked settings that a server must be asked for."""
    known = {name.lower() for name in reported}
    names = {name.lower(): name for name in (*ALWAYS_TRACKED, *tracked)}
    return tuple(name for lower, name in names.items() if lower not in known)


def question(names: Iterable[str]) -> str:
    """SQL that asks for the values of settings; `answered` reads what it returns.

    In hexadecimal digits of UTF-8, so that neither the client's encoding nor its settings change how they read. A
    setting that does not exist, or does not yet, is empty.
    """
    columns = (f"coalesce(pg_catalog.current_setting({quote(name)}, true), '')" for name in names)
    return "SELECT " + ", ".join(
        f"pg_catalog.encode(pg_catalog.convert_to({column}, 'UTF8'), 'hex')" for column in columns
    )


def answered(names: Iterable[str], row: Iterable[bytes | None]) -> dict[str, str]:
    """The values by name, from the row that `question` returns."""
    texts = (bytes.fromhex((value or b"").decode()).decode("utf-8", "surrogateescape") for value in row)
    return dict(zip(names, texts, strict=True))


def change(current: Settings, wanted: Settings) -> str:
    """SQL that takes a link from one to the other; empty if there is nothing to do.

    `set_config` rather than SET: it takes a list value such as search_path's as it was reported. The role comes last,
    and off first, so that what only the login role may set can be set.
    """
    if current == wanted:
        return ""
    have = dict(current.values)
    changes = [(name, value) for name, value in wanted.values if have.get(name) != value]
    changes += [item for item in wanted.extra if item not in current.extra]
    named = {name for name, _ in wanted.extra}
    resets = [f"RESET {quote_name(name)};" for name, _ in current.extra if name not in named]
    if have.get("role", "none") != "none" and (changes or resets):
        resets.insert(0, "RESET ROLE;")
        changes = [(name, value) for name, value in changes if name != "role"] + [("role", wanted.value("role"))]
    return "".join(resets) + assignment(changes)


def reading_changes(current: Settings, wanted: Settings) -> tuple[str, str]:
    """SQL after which literals read as under the wanted settings, and SQL that takes that back; both empty if they do.

    Nothing but these is touched: what a server does not report, a role above all, may be another by now than is known.
    """
    have = current.reading
    changes = [(name, value) for name, value in wanted.reading.items() if have.get(name) != value]
    return assignment(changes), assignment([(name, have[name]) for name, _ in changes if name in have])


def assignment(values: Sequence[tuple[str, str]]) -> str:
    """SQL that sets these, the role last; empty if there are none."""
    ordered = sorted(values, key=lambda item: item[0] == "role")
    calls = ", ".join(f"pg_catalog.set_config({quote(n)}, {quote(v)}, false)" for n, v in ordered)
    return f"SELECT {calls}" if calls else ""


def quote(text: str) -> str:
    """A string literal of ASCII characters that reads the same whatever standard_conforming_strings and
    client_encoding are."""
    quoted = text.replace("'", "''")
    if quoted.isascii() and "\\" not in quoted:
        return f"'{quoted}'"
    return "E'" + "".join(map(_escaped, quoted)) + "'"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # a byte that was no UTF-8
    if code > 0x7F:
        return f"\\U{code:08x}"
    return "\\\\" if character == "\\" else character


def quote_name(name: str) -> str:
    """A setting's name, each of its parts quoted."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def startup_options(options: str) -> list[tuple[str, str]]:
    """The settings in a start-up packet's `options`: `-c name=value` and `--name=value`, a dash in a name read as an
    underscore, up to an argument `--`.

    Blanks separate arguments, a backslash escapes the character after it (libpq's `options`). Raises ValueError, in
    PostgreSQL's words, for anything else: its other switches make no sense through a proxy.
    """
    settings: list[tuple[str, str]] = []
    arguments = iter(_split(options))
    for argument in arguments:
        if argument == "--":
            break
        if argument == "-c":
            flag, setting = "-c ", next(arguments, "")
        elif argument.startswith(("-c", "--")):
            flag, setting = ("-c " if argument[1] == "c" else "--"), argument[2:]
        else:
            flag, setting = "", ""
        if not setting:
            raise ValueError(_NO_ARGUMENT.format(argument))
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"{flag}{setting} requires a value")
        settings.append((name.strip().replace("-", "_"), value))
    for argument in arguments:
        raise ValueError(_NO_ARGUMENT.format(argument))
    return settings


_NO_ARGUMENT = "invalid command-line argument for server process: {}"


def _split(options: str) -> list[str]:
    words: list[str] = []
    word: list[str] | None = None
    escaped = False
    for character in options:
        if escaped or not (character.isspace() or character == "\\"):
            word = [*(word or ()), character]
            escaped = False
        elif character == "\\":
            escaped = True
        elif word is not None:
            words.append("".join(word))
            word = None
    return words if word is None else [*words, "".join(word)]
