"""Manifests and plugins' configurations, checked when plugins are loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import jsonschema
from helios_sdk.contract import CONTRACT, Manifest
from helios_sdk.plugin import CAPABILITIES, CONDITIONS, FACTS, STAGES
from referencing import Registry
from referencing.exceptions import Unresolvable

from heliosproxy.config.kinds import Json
from heliosproxy.config.model import Config
from heliosproxy.sandbox.faults import Problem

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")
_RESERVED = ("proxy", "nodes", "pool", "auth", "health", "plugins")
_CONTRACT_VERSIONS: tuple[str, ...] = (CONTRACT,)
_VALUE_ERROR = re.compile(r"(?:ValueError: )?([\w-]+(?:\.[\w-]+)*): (.+)", re.DOTALL)


def manifest_problems(manifest: Manifest, name: str) -> list[str]:
    """What is wrong with the manifest that a component gave for its plugin `name`."""
    return [*_identity_problems(manifest, name), *_hook_problems(manifest), *_table_problems(manifest)]


def _identity_problems(manifest: Manifest, name: str) -> Iterable[str]:
    if manifest.contract not in _CONTRACT_VERSIONS:
        known = ", ".join(_CONTRACT_VERSIONS)
        yield f"it was built against contract {manifest.contract!r}; this proxy speaks {known}"
    if manifest.name != name:
        yield f"its manifest calls it {manifest.name!r}"
    if not _NAME.fullmatch(name):
        yield "its name is not made of lower-case letters, digits, - and _"
    if not _VERSION.fullmatch(manifest.version):
        yield f"its version {manifest.version!r} is none"
    if len(manifest.summary) > 200 or not manifest.summary.isprintable():
        yield "its summary is not one line of at most 200 characters"
    if manifest.stage not in STAGES:
        yield f"its stage {manifest.stage!r} is not one of {', '.join(STAGES)}"
    for capability in manifest.capabilities:
        if capability not in CAPABILITIES:
            yield f"it asks for the capability {capability!r}; there are {', '.join(CAPABILITIES)}"


def _hook_problems(manifest: Manifest) -> Iterable[str]:
    hooks = [spec.hook for spec in manifest.hooks]
    if not hooks:
        yield "it has no hook"
    for hook in sorted({hook for hook in hooks if hooks.count(hook) > 1}):
        yield f"it names the hook {hook} twice"
    for spec in manifest.hooks:
        for fact in spec.reads:
            if not _is_fact(fact, FACTS):
                yield f"{spec.hook} reads {fact!r}, which is no fact"
        for fact in spec.only_with:
            if not _is_fact(fact, CONDITIONS):
                yield f"{spec.hook} has only-with {fact!r}, which is none"


def _is_fact(fact: str, known: Iterable[str]) -> bool:
    prefix, colon, key = fact.partition(":")
    return fact in known or (prefix in ("tag", "comment") and bool(colon and key) and len(key) <= 63)


def _table_problems(manifest: Manifest) -> Iterable[str]:
    for table in manifest.tables:
        if table.split(".")[0] in _RESERVED:
            yield f"it claims the configuration table [{table}], which is the proxy's"
        elif not _NAME.fullmatch(table):
            yield f"it claims a configuration table {table!r}"
    try:
        schema = json.loads(manifest.schema)
        jsonschema.Draft202012Validator.check_schema(schema)
    except (ValueError, RecursionError) as error:
        yield f"its schema is no JSON: {error}"
    except jsonschema.SchemaError as error:
        yield f"its schema is wrong at {'.'.join(map(str, error.absolute_path)) or 'its root'}: {error.message[:200]}"
    else:
        yield from _property_problems(manifest, schema)


def _property_problems(manifest: Manifest, schema: object) -> Iterable[str]:
    if not isinstance(schema, dict):
        yield "its schema is no object"
        return
    properties = schema.get("properties", {})
    for table in properties if isinstance(properties, dict) else ():
        if table not in (*manifest.tables, "plugin"):
            yield f"its schema describes {table!r}, which it does not own"


def ownership_problems(manifests: Iterable[Manifest]) -> list[Problem]:
    """Configuration tables that two plugins claim."""
    owners: dict[str, str] = {}
    problems = []
    for manifest in manifests:
        for table in manifest.tables:
            owner = owners.setdefault(table, manifest.name)
            if owner != manifest.name:
                problems.append(Problem(manifest.name, None, f"the table [{table}] belongs to plugin {owner} already"))
    return problems


def plugin_config(manifest: Manifest, config: Config) -> Mapping[str, Json]:
    """What the configuration says to this plugin: a table per owned name, and `plugin`; absent ones are left out."""
    tables = {table: config.tables[table] for table in manifest.tables if table in config.tables}
    own = config.tables.get(f"plugins.{manifest.name}")
    return MappingProxyType({**tables, **({} if own is None else {"plugin": own})})


def config_problems(manifest: Manifest, config: Mapping[str, Json]) -> list[Problem]:
    """Where the configuration is not as the manifest's schema says."""
    validator = jsonschema.Draft202012Validator(json.loads(manifest.schema), registry=Registry())
    try:
        errors = sorted(validator.iter_errors(dict(config)), key=lambda error: list(map(str, error.absolute_path)))
    except (Unresolvable, RecursionError) as error:
        return [Problem(manifest.name, None, f"its schema cannot be used: {error}")]
    return [_config_problem(manifest, error) for error in errors]


def _config_problem(manifest: Manifest, error: Any) -> Problem:
    path = list(error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        extra = [key for key in error.instance if key not in known]
        if len(extra) == 1:
            return Problem(manifest.name, file_path(manifest, (*path, extra[0])), "unknown key")
    return Problem(manifest.name, file_path(manifest, tuple(path)), error.message[:300])


def file_path(manifest: Manifest, path: tuple[str | int, ...]) -> tuple[str | int, ...] | None:
    """A path within a plugin's configuration as a path within the file."""
    if not path:
        return None
    return ("plugins", manifest.name, *path[1:]) if path[0] == "plugin" else path


def refusal_problem(manifest: Manifest, message: str) -> Problem:
    """What `configured` raised: `table.key: what is wrong` points into the file."""
    match = _VALUE_ERROR.fullmatch(message)
    if match:
        path = tuple(match[1].split("."))
        if path[0] in (*manifest.tables, "plugin"):
            return Problem(manifest.name, file_path(manifest, path), match[2])
    return Problem(manifest.name, None, f"it refused its configuration: {message.removeprefix('ValueError: ')}")
