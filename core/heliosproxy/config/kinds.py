"""The types of keys: what a value may be, how it is written, and what it must not be shown as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True)
class Duration:
    """Marks a number of seconds, written with a unit in the file: "10s", "500ms". Always more than nothing."""


@dataclass(frozen=True, slots=True)
class Size:
    """Marks a number of bytes, written with a unit in the file: "64MB"."""


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Marks the least value of a number, or the least port of an address."""

    least: int


@dataclass(frozen=True, slots=True)
class Secret:
    """Marks text that is never shown, and that `<key>_file` may name a file for."""

    stored: bool = False
    """It has a form of pg_authid.rolpassword."""


@dataclass(frozen=True, slots=True)
class Name:
    """Marks a name that hints, labels and metrics can carry: letters, digits, `.`, `_`, `-`; 63 at most."""


class Address(NamedTuple):
    """Where a server or a listener is. `host` starting with `/`: the directory of a Unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


Seconds: TypeAlias = Annotated[float, Duration()]
Bytes: TypeAlias = Annotated[int, Size()]
Count: TypeAlias = Annotated[int, AtLeast(1)]
Natural: TypeAlias = Annotated[int, AtLeast(0)]
Password: TypeAlias = Annotated[str, Secret()]
PasswordSecret: TypeAlias = Annotated[str, Secret(stored=True)]
NodeName: TypeAlias = Annotated[str, Name()]
ServerAddress: TypeAlias = Annotated[Address, AtLeast(1)]
