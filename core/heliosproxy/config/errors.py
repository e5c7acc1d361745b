"""A mistake in a configuration: where it is, what it is, what to do about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from heliosproxy.config.load import Loaded

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value is in the file: ("nodes", 1, "address")."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# A line is shown with its mistake; what may be a secret on it is not. The length stays, for the caret's sake.
_SENSITIVE = re.compile(r"(?i)pas+w|passphrase|\bpwd\b|secret|token|credential|\busers\b|:[^\s@]+@")
_TEXT = re.compile(r"""(?P<variable>"\$\{\w+\}")|"{3}.*|'{3}.*|"(?:[^"\\]|\\.)*+(?:"|$)|'[^']*+(?:'|$)""")
_BARE = re.compile(r"""(?i)((?:pas+w|passphrase|\bpwd\b|secret|token|credential)[\w-]*\s*[=:]\s*)([^\s"',}\]*]+)""")


def dotted(path: KeyPath) -> str:
    """The path as people write it: nodes[1].address."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _BARE_KEY.fullmatch(part) else f'"{part}"'
            text += f".{key}" if text else key
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the nearest of the known words; empty if none is near."""
    by_folded = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=0.6)
    return f'did you mean "{by_folded[near[0]]}"?' if near else ""


def hide_secrets(line: str) -> str:
    """The line with all its texts starred out if anything on it sounds secret, every column where it was."""
    if not _SENSITIVE.search(line):
        return line
    line = _TEXT.sub(lambda match: match["variable"] or "*" * len(match[0]), line)
    return _BARE.sub(lambda match: match[1] + "*" * len(match[2]), line)


def hide_values(line: str) -> str:
    """The line with whatever may be a value starred out, every column where it was: for lines that are not TOML, of
    which nobody can say what is what."""
    key, mark, rest = re.fullmatch(r"([^=:]*)([=:]?)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    if not mark:
        return re.sub(r"\w", "*", line)
    return key + mark + re.sub(r"[^\s\[\]{}]", "*", rest)


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One mistake, or one warning. Lines and columns count from 1, columns in characters; line 0: the whole file.

    `path` is the key path as `dotted` writes it, `hint` says what to do, `source` is the line it points into.
    """

    file: Path
    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    source: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else str(self.file)
        return f"{where}: {self.message}" + (f" ({self.hint})" if self.hint else "")

    def render(self) -> str:
        """The mistake, and under it the line it is in with a caret under its column."""
        if not self.source:
            return str(self)
        # Tabs are kept in the margin, so that the caret stands right whatever their width.
        margin = "".join("\t" if character == "\t" else " " for character in self.source[: self.column - 1])
        return f"{self}\n    {hide_secrets(self.source)}\n    {margin}^"

    def as_json(self) -> dict[str, str | int]:
        """The mistake as plain values, for `--json` and the admin API."""
        return {
            "file": str(self.file),
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
        }


class ConfigErrors(Exception):
    """All mistakes of a configuration, in the order of the file.

    `loaded` is what could be read, with defaults in place of what could not; None if the file is not TOML. It serves
    to look for further mistakes, never to run with.
    """

    def __init__(self, errors: Iterable[ConfigError], loaded: Loaded | None = None) -> None:
        self.errors = tuple(errors)
        self.loaded = loaded
        super().__init__("\n".join(map(str, self.errors)))

    def render(self) -> str:
        """Every mistake with its line and caret."""
        return "\n".join(error.render() for error in self.errors)


def in_file_order(errors: Iterable[ConfigError], first: Path) -> tuple[ConfigError, ...]:
    """Sorted by position, those of the file `first` before those of files it names."""
    return tuple(sorted(errors, key=lambda error: (error.file != first, str(error.file), error.line, error.column)))
