"""How the commands talk: data on stdout, everything else on stderr, colour on terminals only; and their exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
CONFIGURATION: Final = 3
UNREACHABLE: Final = 4

_PIPE_WIDTH = 200


def console() -> Console:
    """For data. What is not a terminal gets long lines instead of wrapped ones."""
    wide = sys.stdout.isatty()
    return Console(highlight=False) if wide else Console(highlight=False, width=_PIPE_WIDTH, color_system=None)


def say(message: str) -> None:
    """One line of talk."""
    print(message, file=sys.stderr)


def print_json(value: object) -> None:
    """Data for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(columns: Iterable[str], rows: Iterable[Sequence[object]], title: str = "") -> Table:
    """A plain table; None and empty cells are a dash. Cells are text, not markup."""
    made = Table(*columns, box=None, pad_edge=False, title=title or None, title_justify="left", title_style="bold")
    for row in rows:
        made.add_row(*(escape(cell(each)) for each in row))
    return made


def cell(value: object) -> str:
    """A value as people read it."""
    match value:
        case None | "" | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.1f}"
        case list():
            return ", ".join(map(str, value))
    return str(value)


def share(value: float | None) -> str:
    """A share of 1 as a percentage."""
    return "-" if value is None else f"{value:.1%}"
