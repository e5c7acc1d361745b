"""Settings that follow a client from link to link.

Two kinds: those that PostgreSQL reports (ParameterStatus), so that the proxy always knows their value, and the others
that the client named at start-up (`options=-c …`, unreported ones such as extra_float_digits). Any other SET pins the
session to its link.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

TRACKED = (
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
"""Settings that PostgreSQL reports and a client may change (protocol chapter, "Asynchronous Operations")."""

_MEANINGLESS = {"application_name", "scram_iterations"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Values in force on a link or wanted by a session, as (name, value); `reported` is sorted by name."""

    reported: tuple[tuple[str, str], ...] = ()
    extra: tuple[tuple[str, str], ...] = ()

    def with_reported(self, name: str, value: str) -> Settings:
        """The same with one reported value changed; self if the name is not tracked."""
        if name not in TRACKED:
            return self
        return replace(self, reported=tuple(sorted({**dict(self.reported), name: value}.items())))

    @property
    def meaning(self) -> tuple[tuple[str, str], ...]:
        """What may change what a statement means (L7, S4)."""
        return tuple(item for item in self.reported if item[0] not in _MEANINGLESS) + self.extra

    def follows(self, name: str) -> bool:
        """Whether a SET of this name is followed by ParameterStatus. What is reported depends on the server's version:
        search_path is from 18 on."""
        return any(key.lower() == name.lower() for key, _ in self.reported)

    def value(self, name: str) -> str:
        """A reported setting's value; empty if it was never reported."""
        return next((value for key, value in self.reported if key == name), "")


def from_parameters(parameters: Mapping[str, str], named: Mapping[str, str] | None = None) -> Settings:
    """The tracked settings among what a server reported at login, and those of `named`, a client's own, that it did
    not report."""
    found = Settings(tuple(sorted((name, value) for name, value in parameters.items() if name in TRACKED)))
    extra = tuple(item for item in (named or {}).items() if not found.follows(item[0]))
    return replace(found, extra=extra)


def change(current: Settings, wanted: Settings) -> str:
    """SQL that takes a link from one to the other; empty if there is nothing to do.

    `set_config` rather than SET: it takes a list value such as search_path's as it was reported.
    """
    if current == wanted:
        return ""
    have = dict(current.reported)
    changes = [(name, value) for name, value in wanted.reported if have.get(name) != value]
    changes += [item for item in wanted.extra if item not in current.extra]
    named = {name for name, _ in wanted.extra}
    resets = [f"RESET {quote_name(name)};" for name, _ in current.extra if name not in named]
    calls = ", ".join(f"pg_catalog.set_config({quote(n)}, {quote(v)}, false)" for n, v in changes)
    return "".join(resets) + (f"SELECT {calls}" if calls else "")


def quote(text: str) -> str:
    """A string literal that reads the same whatever standard_conforming_strings is."""
    quoted = text.replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in quoted else f"'{quoted}'"


def quote_name(name: str) -> str:
    """A setting's name, each of its parts quoted."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def startup_options(options: str) -> list[tuple[str, str]]:
    """The settings in a start-up packet's `options`: `-c name=value` and `--name=value`.

    Blanks separate arguments, a backslash escapes the character after it (libpq's `options`). Raises ValueError for
    anything else: PostgreSQL's other switches make no sense through a proxy.
    """
    settings: list[tuple[str, str]] = []
    arguments = iter(_split(options))
    for argument in arguments:
        if argument == "-c":
            argument = next(arguments, "")
        elif argument.startswith("-c"):
            argument = argument[2:]
        elif argument.startswith("--"):
            argument = argument[2:].replace("-", "_") if "=" not in argument else _dashes(argument[2:])
        else:
            raise ValueError(f"option {argument!r} is not -c name=value")
        name, equals, value = argument.partition("=")
        if not equals or not name:
            raise ValueError(f"option {argument!r} has no name=value")
        settings.append((name.strip(), value))
    return settings


def _dashes(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return name.replace("-", "_") + equals + value


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
