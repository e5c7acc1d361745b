"""The users file, in the format of PgBouncer's userlist.txt: `"name" "password or secret"`, a line each.

A quote inside quotes is written twice. Lines that are empty or begin with `;` or `#` are comments.
Source: https://www.pgbouncer.org/config.html#authentication-file-format
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heliosproxy.config.access import User
from heliosproxy.config.errors import ConfigError
from heliosproxy.config.secrets import looks_stored, stored_secret
from heliosproxy.config.values import BadValue

_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True, slots=True)
class ListedUser:
    """A user and the line that names it."""

    user: User
    line: int


def parse_users(file: Path, text: str) -> tuple[list[ListedUser], list[ConfigError]]:
    """The users of a file's text, and a mistake for each line that is none. `file` is for the mistakes only."""
    users: list[ListedUser] = []
    errors: list[ConfigError] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if not line.strip() or line.lstrip()[0] in ";#":
            continue
        try:
            users.append(ListedUser(_parse_line(line), number))
        except _BadLine as bad:
            errors.append(ConfigError(file, number, bad.column, "", bad.message, bad.hint))
    return users, errors + list(_duplicates(file, users))


class _BadLine(BadValue):
    def __init__(self, column: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.column = column


def _parse_line(line: str) -> User:
    name, after_name = _quoted(line, 0, "the user's name")
    start = after_name + len(line[after_name:]) - len(line[after_name:].lstrip())
    secret, end = _quoted(line, after_name, "the password")
    if line[end:].strip():
        column = end + len(line[end:]) - len(line[end:].lstrip()) + 1
        raise _BadLine(column, "nothing may follow the password", 'a quote inside quotes is written ""')
    if not name:
        raise _BadLine(line.index('"') + 1, "the user's name is empty")
    if not secret:
        raise _BadLine(start + 1, "the password is empty")
    if not looks_stored(secret):
        return User(name=name, password=secret)
    try:
        return User(name=name, secret=stored_secret(secret))
    except BadValue as bad:
        raise _BadLine(start + 1, bad.message, bad.hint) from None


def _quoted(line: str, start: int, what: str) -> tuple[str, int]:
    at = start + len(line[start:]) - len(line[start:].lstrip())
    match = _QUOTED.match(line, at)
    if match is None:
        problem = "has no closing quote" if line[at : at + 1] == '"' else "must be in double quotes"
        raise _BadLine(at + 1, f"{what} {problem}", 'a line is "name" "password or secret"')
    return match[1].replace('""', '"'), match.end()


def _duplicates(file: Path, users: list[ListedUser]) -> Iterator[ConfigError]:
    first: dict[str, int] = {}
    for listed in users:
        name = listed.user.name
        if name in first:
            yield ConfigError(file, listed.line, 1, "", f'user "{name}" is already on line {first[name]}')
        first.setdefault(name, listed.line)
