"""What must hold between keys. Works on what could be read, so that these mistakes show beside the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from heliosproxy.config.access_checks import UNPROVEN
from heliosproxy.config.errors import ConfigError, KeyPath
from heliosproxy.config.kinds import Address
from heliosproxy.config.sections import Reader
from heliosproxy.config.users import ListedUser
from heliosproxy.config.values import is_loopback


def check(reader: Reader, document: dict[str, object], listed: Sequence[ListedUser]) -> Iterator[ConfigError]:
    """The mistakes of a whole document whose sections `reader` has read; `listed` are the users file's users."""
    yield from _nodes(reader, document)
    yield from _listeners(reader)
    yield from _users(reader, document, listed)
    yield from _plugins(reader)


def _nodes(reader: Reader, document: dict[str, object]) -> Iterator[ConfigError]:
    nodes = document.get("nodes", [])
    if nodes == []:
        message, hint = "no node is configured", 'add [[nodes]] with name = "…" and address = "host:port"'
        yield reader.positions.error(("nodes",), message, hint, at_key=True)
    yield from _unique(reader, "nodes", "name", lambda value: str(value))
    yield from _unique(reader, "nodes", "address", lambda value: str(value).lower())


def _unique(reader: Reader, array: str, key: str, same: Callable[[object], str]) -> Iterator[ConfigError]:
    first: dict[str, KeyPath] = {}
    for path, value in reader.found.items():
        if not (path[0] == array and path[2:] == (key,)):
            continue
        if same(value) in first:
            line, _ = reader.positions.value(first[same(value)])
            yield reader.positions.error(path, f'{key} "{value}" is already taken by the node on line {line}')
        first.setdefault(same(value), path)


def _listeners(reader: Reader) -> Iterator[ConfigError]:
    admin = reader.found.get(("proxy", "admin"))
    listen = reader.found.get(("proxy", "listen"))
    if isinstance(admin, Address) and not is_loopback(admin.host):
        hint = 'it has no authentication; use "127.0.0.1:9090"'
        yield reader.positions.error(("proxy", "admin"), f"{admin.host} is not a loopback address", hint)
    if isinstance(admin, Address) and admin == listen and admin.port:
        yield reader.positions.error(("proxy", "admin"), "the same address as listen", "give it another port")


def _users(reader: Reader, document: dict[str, object], listed: Sequence[ListedUser]) -> Iterator[ConfigError]:
    auth = document.get("auth", {})
    if not isinstance(auth, dict):
        return
    # A method that is wrong or not given is scram-sha-256; one that is wrong was reported as such.
    found = [value for path, value in reader.found.items() if path[0] == "auth" and path[-1] == "method"]
    trust = any(method in UNPROVEN for method in found)
    users = auth.get("users", [])
    if not trust and not users and not auth.keys() & {"users_file", "auth_query"}:
        message = "nobody can log in: there is no user"
        hint = "add [[auth.users]] with name and password, a users_file, or an auth_query"
        yield reader.positions.error(("auth",), message, hint, at_key=True)
    lines: dict[str, int] = {}
    for index, user in enumerate(users if isinstance(users, list) else []):
        path: KeyPath = ("auth", "users", index)
        if isinstance(user, dict):
            yield from _proof(reader, path, user, trust=trust)
            yield from _name_once(reader, path, lines)
    yield from _listed_twice(reader, lines, listed)


def _proof(reader: Reader, path: KeyPath, user: dict[str, object], *, trust: bool) -> Iterator[ConfigError]:
    password = next((key for key in ("password", "password_file") if key in user), None)
    secret = next((key for key in ("secret", "secret_file") if key in user), None)
    if password and secret:
        yield reader.positions.error((*path, secret), f'"{password}" and "{secret}" exclude each other', at_key=True)
    if not password and not secret and not trust:
        yield reader.positions.error(path, "the user has neither password nor secret", at_key=True)


def _name_once(reader: Reader, path: KeyPath, lines: dict[str, int]) -> Iterator[ConfigError]:
    here = (*path, "name")
    name = reader.found.get(here)
    if not isinstance(name, str):
        return
    if not name:
        yield reader.positions.error(here, "a user's name must not be empty")
    if name in lines:
        yield reader.positions.error(here, f'user "{name}" is already on line {lines[name]}')
    lines.setdefault(name, reader.positions.value(here)[0])


def _listed_twice(reader: Reader, lines: dict[str, int], listed: Sequence[ListedUser]) -> Iterator[ConfigError]:
    for each in listed:
        if each.user.name in lines:
            message = f'user "{each.user.name}" is in the users file too (line {each.line})'
            yield reader.positions.error(("auth", "users_file"), message, "name each user once")


def _plugins(reader: Reader) -> Iterator[ConfigError]:
    seen: set[object] = set()
    for path, value in reader.found.items():
        if path[:2] == ("plugins", "enabled") and len(path) == 3:
            if value in seen:
                yield reader.positions.error(path, f'plugin "{value}" is named twice')
            seen.add(value)
        if path[:2] == ("plugins", "path") and len(path) == 3 and not _is_folder(value):
            yield reader.positions.error(path, f"{value} is not a directory")


def _is_folder(value: object) -> bool:
    return isinstance(value, Path) and value.is_dir()
