"""`[pool]` and `[[pools]]`: the entries completed with what they leave out, and what must hold between their keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from heliosproxy.config.errors import ConfigError, KeyPath, did_you_mean
from heliosproxy.config.model import Config, Pool, PoolFor
from heliosproxy.config.sections import Reader


def read_pools(reader: Reader, tables: object, base: Pool) -> tuple[PoolFor, ...]:
    """The entries of `[[pools]]`, each with the keys that it leaves out, or that could not be read, as in `base`."""
    if not isinstance(tables, list):
        return reader.sections(PoolFor, tables, ("pools",))  # says so
    read = (_entry(reader, table, ("pools", index), base) for index, table in enumerate(tables))
    return tuple(entry for entry in read if entry is not None)


def _entry(reader: Reader, table: object, path: KeyPath, base: Pool) -> PoolFor | None:
    entry = reader.section(PoolFor, table, path)
    if entry is None:
        return None
    return reader.completed(entry, path, base)


def check_pools(reader: Reader, config: Config, tables: object, *, users_known: bool) -> Iterator[ConfigError]:
    """The contradictions within `[pool]` and each entry of `[[pools]]`, and the entries that can never match.

    `tables` is what the file has under `pools`. `users_known`: the users of `config` are all that can log in.
    """
    paths: list[KeyPath] = [("pools", at) for at, table in enumerate(_list(tables)) if isinstance(table, dict)]
    entries = dict(zip(paths, config.pools, strict=True))
    yield from _contradictions(reader, ("pool",), config.pool, config)
    for path, entry in entries.items():
        yield from _contradictions(reader, path, entry, config)
        if entry.user is not None and (*path, "max_database_connections") in reader.found:
            here, hint = (*path, "max_database_connections"), "give it in an entry without user"
            yield reader.positions.error(here, "it counts the links of all users of a database", hint, at_key=True)
        if entry.user is not None and users_known:
            yield from _unknown_user(reader, path, entry.user, config)
    yield from _never_match(reader, entries)


def _list(tables: object) -> list[object]:
    return tables if isinstance(tables, list) else []


def _contradictions(reader: Reader, path: KeyPath, pool: Pool, config: Config) -> Iterator[ConfigError]:
    limits = [(("size",), "size", pool.size), (("max_database_connections",), "max_database_connections",
              pool.max_database_connections)]  # fmt: skip
    for keys, name, limit in limits:
        here = _given(reader, path, "min_size", *keys)
        if here and limit is not None and pool.min_size > limit:
            yield reader.positions.error(here, f"min_size is {pool.min_size} and {name} only {limit}")
    here = _given(reader, path, "min_size")
    for node in config.nodes if here else ():
        if here and node.max_connections is not None and pool.min_size > node.max_connections:
            message = f"min_size is {pool.min_size} and max_connections of node {node.name} only {node.max_connections}"
            yield reader.positions.error(here, message)
    here = _given(reader, path, "reserve_after", "wait_timeout", "reserve")
    if here and pool.reserve and pool.reserve_after >= pool.wait_timeout:
        message = f"nobody waits longer than wait_timeout, {pool.wait_timeout:g} s: the reserve would never be opened"
        yield reader.positions.error(here, message, "reserve_after must be shorter")


def _given(reader: Reader, path: KeyPath, *names: str) -> KeyPath | None:
    """The first of these keys that the section gives itself; what it took from elsewhere is reported there."""
    return next(((*path, name) for name in names if (*path, name) in reader.found), None)


def _unknown_user(reader: Reader, path: KeyPath, user: str, config: Config) -> Iterator[ConfigError]:
    known = [each.name for each in config.auth.users]
    if user not in known:
        message = f'no user "{user}" can log in, so that this entry never matches'
        yield reader.positions.error((*path, "user"), message, did_you_mean(user, known))


def _never_match(reader: Reader, entries: Mapping[KeyPath, PoolFor]) -> Iterator[ConfigError]:
    earlier: list[tuple[KeyPath, PoolFor]] = []
    for path, entry in entries.items():
        covering = next((there for there, other in earlier if _covers(other, entry)), None)
        if not entry.database and not entry.user:
            hint = "what is to hold for all pools belongs in [pool]"
            yield reader.positions.error(path, "it names neither a database nor a user", hint, at_key=True)
            continue
        if covering is not None:
            line, _ = reader.positions.value(covering)
            message = f"this entry never matches: the one on line {line} covers all that it names"
            yield reader.positions.error(path, message, "the first entry that matches counts", at_key=True)
        earlier.append((path, entry))


def _covers(one: PoolFor, other: PoolFor) -> bool:
    return one.database in (None, other.database) and one.user in (None, other.user)
