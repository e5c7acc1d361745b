"""A heliosproxy.toml, read whole: the way in for `helios run`, `check` and reload.

Nothing is taken over by halves: either a Config, or every mistake at once.
"""

from __future__ import annotations

import dataclasses
import re
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from helios_sdk.contract import Manifest

from heliosproxy.config.access import Auth, ClientLimits, ClientTls, ServerTls
from heliosproxy.config.access_checks import check_access, only_listed
from heliosproxy.config.checks import check
from heliosproxy.config.errors import ConfigError, ConfigErrors, did_you_mean, hide_values, in_file_order
from heliosproxy.config.kinds import Json
from heliosproxy.config.model import Config, Health, Plugins, Pool, Proxy
from heliosproxy.config.nodes import read_nodes
from heliosproxy.config.pools import check_pools, read_pools
from heliosproxy.config.positions import Positions
from heliosproxy.config.secrets import read_text, require_private
from heliosproxy.config.sections import Reader
from heliosproxy.config.tables import check_tables
from heliosproxy.config.users import ListedUser, parse_users
from heliosproxy.config.values import BadValue

T = TypeVar("T")

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
MOST_USERS = 64 * 1024 * 1024
"""Bytes of a users file."""
_SECTIONS = (
    "proxy", "client_tls", "nodes", "server_tls", "pool", "pools", "client_limits", "auth", "health", "plugins",
)  # fmt: skip
_PLUGIN_KEYS = frozenset(field.name for field in dataclasses.fields(Plugins))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, where everything in it stands, and what is worth a word though it is no mistake."""

    config: Config
    positions: Positions
    warnings: tuple[ConfigError, ...] = ()


def load(
    file: Path,
    environ: Mapping[str, str],
    manifests: Callable[[Config], Sequence[Manifest]] | None = None,
) -> Loaded:
    """Reads a file and what it names (secrets, users). Blocks; touches nothing else.

    `manifests` tells which plugins a configuration finds; with it the tables that plugins own are checked too.
    Without it they are read as they are, and `check_tables` is the caller's to call.
    Raises ConfigErrors with every mistake in the order of the file.
    """
    try:
        return _load(file, environ, manifests)
    except RecursionError:
        raise ConfigErrors([ConfigError(file, 0, 0, "", "nested too deeply")]) from None


def _load(file: Path, environ: Mapping[str, str], manifests: Callable[[Config], Sequence[Manifest]] | None) -> Loaded:
    text = _read(file)
    document = _parse(file, text)
    loaded, errors = _Loading(file, text, document, environ).run()
    if manifests is not None:
        reported = {(error.line, error.column) for error in errors}
        found = check_tables(loaded.config, manifests(loaded.config), loaded.positions)
        # A value that could not even be read violates its schema too; once is enough.
        errors += (error for error in found if (error.line, error.column) not in reported)
    if errors:
        raise ConfigErrors(in_file_order(errors, file), loaded)
    return loaded


def _read(file: Path) -> str:
    """The file's text, without a byte order mark."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigErrors([ConfigError(file, 0, 0, "", f"cannot read it: {error.strerror}")]) from None
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(errors="replace")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        raise ConfigErrors([ConfigError(file, line, column, "", "this is not UTF-8 text")]) from None


def _parse(file: Path, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and int()'s refusal of very long numbers
        raise ConfigErrors([_syntax_error(file, text, str(error))]) from None


def _syntax_error(file: Path, text: str, message: str) -> ConfigError:
    lines = text.split("\n")
    match = _AT.search(message)
    if match and match[1]:
        line, column = int(match[1]), int(match[2])
    else:
        line, column = len(lines), len(lines[-1]) + 1
    said = _AT.sub("", message)
    source = hide_values(lines[line - 1].rstrip("\r"))
    return ConfigError(file, line, column, "", f"not valid TOML: {said}", source=source)


class _Loading:
    """One reading of one document."""

    def __init__(self, file: Path, text: str, document: dict[str, object], environ: Mapping[str, str]) -> None:
        self._file = file
        self._document = document
        self._positions = Positions.scan(file, text)
        self._reader = Reader(self._positions, environ)

    def run(self) -> tuple[Loaded, list[ConfigError]]:
        tables = self._tables()
        auth = self._section(Auth, "auth")
        listed, elsewhere = self._users_file(auth.users_file)
        pool = self._section(Pool, "pool")
        server_tls = self._section(ServerTls, "server_tls")
        config = Config(
            file=self._file,
            nodes=read_nodes(self._reader, self._document.get("nodes", []), server_tls),
            proxy=self._section(Proxy, "proxy"),
            pool=pool,
            pools=read_pools(self._reader, self._document.get("pools", []), pool),
            auth=dataclasses.replace(auth, users=auth.users + tuple(each.user for each in listed)),
            client_tls=self._section(ClientTls, "client_tls"),
            server_tls=server_tls,
            client_limits=self._section(ClientLimits, "client_limits"),
            health=self._section(Health, "health"),
            plugins=self._section(Plugins, "plugins", self._plugin_keys()),
            tables=tables,
        )
        errors = [*self._reader.errors, *elsewhere, *check(self._reader, self._document, listed)]
        errors += check_access(self._reader, config)
        users_known = bool(config.auth.users) and not elsewhere and only_listed(config.auth)
        errors += check_pools(self._reader, config, self._document.get("pools"), users_known=users_known)
        return Loaded(config, self._positions, self._warnings()), errors

    def _section(self, cls: type[T], name: str, table: object = None) -> T:
        """The section, or its defaults where it is not there or unusable. Every one of them has defaults throughout."""
        given = self._document.get(name, {}) if table is None else table
        return self._reader.section(cls, given, (name,)) or cls()

    def _plugin_keys(self) -> object:
        """`[plugins]` without the tables in it, which are the plugins' own."""
        table = self._document.get("plugins", {})
        if not isinstance(table, dict):
            return table
        return {key: value for key, value in table.items() if key in _PLUGIN_KEYS or not isinstance(value, dict)}

    def _tables(self) -> dict[str, Json]:
        """The tables that no section names."""
        tables: dict[str, Json] = {}
        for key, value in self._document.items():
            if key in _SECTIONS:
                continue
            if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
                tables[key] = self._reader.plain(value, (key,))
            else:
                hint = "every key is in a section" if not (near := did_you_mean(key, _SECTIONS)) else near
                self._reader.errors.append(
                    self._positions.error((key,), f'unknown key "{key}" outside of any section', hint, at_key=True)
                )
        plugins = self._document.get("plugins", {})
        for key, value in plugins.items() if isinstance(plugins, dict) else ():
            if key not in _PLUGIN_KEYS and isinstance(value, dict):
                tables[f"plugins.{key}"] = self._reader.plain(value, ("plugins", key))
        return tables

    def _users_file(self, file: Path | None) -> tuple[list[ListedUser], list[ConfigError]]:
        if file is None:
            return [], []
        try:
            require_private(file)
            return parse_users(file, read_text(file, MOST_USERS))
        except BadValue as bad:
            return [], [self._positions.error(("auth", "users_file"), bad.message, bad.hint)]

    def _warnings(self) -> tuple[ConfigError, ...]:
        """Passwords written into a file that everyone can read."""
        if not self._reader.plain_secrets or not self._file.stat().st_mode & stat.S_IROTH:
            return ()
        hint = f"chmod 600 {self._file}, or use ${{VARIABLE}} or a _file key"
        message = "a password in plain text, in a file that everyone on this machine can read"
        return tuple(self._positions.error(path, message, hint) for path in self._reader.plain_secrets)
