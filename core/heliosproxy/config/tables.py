"""The tables that plugins own, checked against the schemas in their manifests, every violation where it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast

import jsonschema
from helios_sdk.contract import Manifest
from referencing import Registry
from referencing.exceptions import Unresolvable

from heliosproxy.config.errors import ConfigError, KeyPath, did_you_mean
from heliosproxy.config.kinds import Json
from heliosproxy.config.model import Config
from heliosproxy.config.positions import Positions

_SECTIONS = ("proxy", "nodes", "pool", "pools", "auth", "health", "plugins")
_TYPES = {
    "string": "text in quotes", "integer": "a whole number", "number": "a number", "boolean": "true or false",
    "array": "a list", "object": "a table", "null": "nothing",
}  # fmt: skip


def check_tables(config: Config, manifests: Sequence[Manifest], positions: Positions) -> list[ConfigError]:
    """The mistakes in tables that no section of the kernel names, given the manifests of all installed plugins.

    A table is legal if an installed plugin owns it, enabled or not; what is enabled must be installed.
    Each manifest's schema must be a valid JSON Schema document.
    """
    errors = list(_not_installed(config, manifests, positions))
    errors += _unowned(config, manifests, positions)
    for manifest in manifests:
        errors += check_plugin(config, manifest, positions)
    return errors


def plugin_config(config: Config, manifest: Manifest) -> dict[str, Json]:
    """What a plugin is configured with: each table it owns, and `plugin`; those not in the file are left out."""
    tables = {name: config.table(table) for name, table in _tables(manifest).items()}
    return {name: value for name, value in tables.items() if value is not None}


def check_plugin(config: Config, manifest: Manifest, positions: Positions) -> Iterator[ConfigError]:
    """The violations of one plugin's schema. Of a plugin that is not enabled, only in tables that are there."""
    paths = {name: tuple(table.split(".", 1 if name == "plugin" else -1)) for name, table in _tables(manifest).items()}
    schema = cast(Mapping[str, Json], json.loads(manifest.schema))
    # An empty registry: a schema must not make us fetch another from the network.
    validator = jsonschema.Draft202012Validator(schema, registry=Registry())
    try:
        for violation in validator.iter_errors(plugin_config(config, manifest)):
            if violation.absolute_path:
                yield from _explain(_most_precise(violation), paths, positions)
            elif manifest.name in config.plugins.enabled:
                yield _whole(violation, manifest, paths, positions)
    except Unresolvable as error:
        yield positions.error(
            _enabled(config, manifest.name), f"the schema of plugin {manifest.name} refers to {error.ref}"
        )


class Problem(Protocol):
    """Why a plugin cannot be loaded, as the sandbox says it; `path` is the place in the configuration, if it is one."""

    @property
    def plugin(self) -> str: ...
    @property
    def path(self) -> KeyPath | None: ...
    @property
    def message(self) -> str: ...


def locate(config: Config, problems: Sequence[Problem], positions: Positions) -> tuple[ConfigError, ...]:
    """The sandbox's problems where they stand: at their path, else where the plugin is named.

    A plugin may report several at once, a line each, as `routing.rules[0].use: what is wrong`.
    """
    return tuple(error for problem in problems for error in _located(config, problem, positions))


def _located(config: Config, problem: Problem, positions: Positions) -> Iterator[ConfigError]:
    path = problem.path or _enabled(config, problem.plugin)
    for line in problem.message.splitlines():
        name, _, rest = line.partition(": ")
        own = re.sub(r"^plugin\b", f"plugins.{problem.plugin}", name)
        named = positions.named(own)
        message = line if named is None else rest
        yield positions.error(path if named is None else named, f"plugin {problem.plugin}: {message}")


def _enabled(config: Config, plugin: str) -> KeyPath:
    """Where the plugin is enabled. One that is not was found on the path."""
    if plugin in config.plugins.enabled:
        return ("plugins", "enabled", config.plugins.enabled.index(plugin))
    return ("plugins", "path") if config.plugins.path else ("plugins", "enabled")


def _tables(manifest: Manifest) -> dict[str, str]:
    """The names that the schema uses, with those of the file."""
    return {**{table: table for table in manifest.tables}, "plugin": f"plugins.{manifest.name}"}


def _whole(
    violation: jsonschema.ValidationError, manifest: Manifest, paths: Mapping[str, KeyPath], positions: Positions
) -> ConfigError:
    """A violation of no table in particular: one that is not there, mostly."""
    missing = _missing_key(violation)
    if missing in paths:
        table = _tables(manifest)[missing]
        return positions.error(paths[missing], f"[{table}] is missing; plugin {manifest.name} needs it", at_key=True)
    return positions.error(("plugins", "enabled"), f"plugin {manifest.name}: {violation.message}")


def _missing_key(violation: jsonschema.ValidationError) -> str:
    """Of a violation of `required`: jsonschema reports each missing key by itself, in its message alone."""
    if violation.validator != "required":
        return ""
    wanted = cast(list[str], violation.validator_value)
    return next((key for key in wanted if violation.message.startswith(repr(key))), wanted[0])


def _not_installed(config: Config, manifests: Sequence[Manifest], positions: Positions) -> Iterator[ConfigError]:
    names = [manifest.name for manifest in manifests]
    for index, name in enumerate(config.plugins.enabled):
        if name not in names:
            hint = did_you_mean(name, names) or f"installed: {', '.join(sorted(names)) or 'none'}"
            yield positions.error(("plugins", "enabled", index), f'no plugin named "{name}" is installed', hint)


def _unowned(config: Config, manifests: Sequence[Manifest], positions: Positions) -> Iterator[ConfigError]:
    owned = {tuple(table.split(".")) for manifest in manifests for table in manifest.tables}
    names = [manifest.name for manifest in manifests]
    for table, value in config.tables.items():
        if not table.startswith("plugins."):
            yield from _unowned_below((table,), value, owned, positions)
        elif (name := table.removeprefix("plugins.")) not in names:
            message = f'[{table}]: no plugin named "{name}" is installed'
            yield positions.error(("plugins", name), message, did_you_mean(name, names), at_key=True)


def _unowned_below(
    path: tuple[str, ...], value: Json, owned: set[tuple[str, ...]], positions: Positions
) -> Iterator[ConfigError]:
    """An owner may own `a.b` and nobody `a`: then whatever else is in `a` is a mistake."""
    if path in owned:
        return
    beside = (table for table in owned if table[: len(path) - 1] == path[:-1] and len(table) >= len(path))
    siblings = {table[: len(path)] for table in beside}
    if path in siblings and isinstance(value, dict):
        for key, below in value.items():
            yield from _unowned_below((*path, key), below, owned, positions)
        return
    known = [sibling[-1] for sibling in siblings] + (list(_SECTIONS) if len(path) == 1 else [])
    message = f"unknown section [{'.'.join(path)}]: no installed plugin owns it"
    yield positions.error(path, message, did_you_mean(path[-1], known), at_key=True)


def _most_precise(violation: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """For anyOf and oneOf: the violation within the alternative that was nearest, where there is one."""
    if violation.validator not in ("anyOf", "oneOf"):
        return violation
    best: jsonschema.ValidationError | None = jsonschema.exceptions.best_match([violation])
    # Where no alternative has the right type, all of them together say more than any one.
    if best is None or (best.validator == "type" and best.absolute_path == violation.absolute_path):
        return violation
    return best


def _explain(
    violation: jsonschema.ValidationError, paths: Mapping[str, KeyPath], positions: Positions
) -> Iterator[ConfigError]:
    first, *rest = violation.absolute_path
    path: KeyPath = (*paths[str(first)], *rest)
    if violation.validator == "additionalProperties" and isinstance(violation.instance, dict):
        yield from _unknown_keys(violation, path, positions)
    elif missing := _missing_key(violation):
        yield positions.error(path, f'"{missing}" is missing', at_key=True)
    else:
        yield positions.error(path, *_message(violation))


def _unknown_keys(violation: jsonschema.ValidationError, path: KeyPath, positions: Positions) -> Iterator[ConfigError]:
    schema = cast(Mapping[str, Mapping[str, Json]], violation.schema)
    known = schema.get("properties", {})
    keys = jsonschema.Draft202012Validator(_only_keys(schema))
    for key in cast(Mapping[str, Json], violation.instance):
        if keys.is_valid({key: None}):
            continue
        hint = did_you_mean(key, known) or (f"known: {', '.join(known)}" if known else "")
        yield positions.error((*path, key), f'unknown key "{key}" in [{_section(path)}]', hint, at_key=True)


def _only_keys(schema: Mapping[str, Mapping[str, Json]]) -> dict[str, object]:
    """The schema with every value allowed, so that it tells which keys are known."""
    return {
        "properties": dict.fromkeys(schema.get("properties", {}), True),
        "patternProperties": dict.fromkeys(schema.get("patternProperties", {}), True),
        "additionalProperties": False,
    }


def _section(path: KeyPath) -> str:
    return ".".join(str(part) for part in path if isinstance(part, str))


def _message(violation: jsonschema.ValidationError) -> tuple[str, str]:
    """Message and hint, in the words of the other errors."""
    wanted = cast(Json, violation.validator_value)
    choices = wanted if isinstance(wanted, list) else [wanted]
    match violation.validator:
        case "enum":
            hint = did_you_mean(str(violation.instance), map(str, choices))
            return f"{_shown(violation.instance)} is not one of {', '.join(map(_shown, choices))}", hint
        case "type":
            hint = "leave out the quotes" if isinstance(violation.instance, str) else ""
            return f"must be {' or '.join(_TYPES.get(str(each), str(each)) for each in choices)}", hint
        case "const":
            return f"must be {_shown(wanted)}", ""
        case "minimum":
            return f"{violation.instance} is too small", f"it must be at least {wanted}"
        case "maximum":
            return f"{violation.instance} is too large", f"it must be at most {wanted}"
        case "pattern" | "anyOf" | "oneOf":
            description = violation.schema.get("description") if isinstance(violation.schema, dict) else None
            return f"{_shown(violation.instance)} is not allowed here", str(description or "")
        case _:
            return str(violation.message), ""


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
