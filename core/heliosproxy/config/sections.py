"""TOML tables to the dataclasses of `model.py`, by their annotations. No key is known here by name.

Every mistake is recorded and reading goes on with the key's default, so that one pass finds them all.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from heliosproxy.config import values
from heliosproxy.config.errors import ConfigError, KeyPath, did_you_mean
from heliosproxy.config.kinds import Address, AtLeast, Duration, Json, Name, Secret, Size
from heliosproxy.config.positions import Positions
from heliosproxy.config.secrets import looks_stored, read_secret_file, stored_secret
from heliosproxy.config.values import BadValue

T = TypeVar("T")

_BAD: Final = object()  # what stands for a value that could not be read

_PLAIN: Mapping[object, Callable[[object], object]] = types.MappingProxyType(
    {str: values.text, int: values.whole_number, bool: values.boolean, Address: values.address}
)


class Reader:
    """Reads sections of one file. `errors` gathers the mistakes; `found` what was read, by path, for later checks."""

    def __init__(self, positions: Positions, environ: Mapping[str, str]) -> None:
        self.positions = positions
        self.errors: list[ConfigError] = []
        self.plain_secrets: list[KeyPath] = []
        """Passwords written into the file itself."""
        self.found: dict[KeyPath, object] = {}
        self._environ = environ
        self._folder = positions.file.absolute().parent

    def section(self, cls: type[T], table: object, path: KeyPath) -> T | None:
        """A table as `cls`. None if a key without a default is missing or unusable; the mistakes are recorded."""
        if not isinstance(table, dict):
            what = "[section]" if isinstance(table, list) else "table"
            self._error(path, f"must be one {what}, not {values.kind(table)}", f"write [{path[-1]}]")
            return None
        hints = get_type_hints(cls, include_extras=True)
        self._unknown_keys(hints, table, path)
        arguments: dict[str, object] = {}
        usable = True
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # every section is a dataclass
            value = self._field(field, hints[field.name], table, path)
            if value is not _BAD:
                arguments[field.name] = value
            elif _is_required(field):
                usable = False
        build = cast(Callable[..., T], cls)
        return build(**arguments) if usable else None

    def sections(self, cls: type[T], tables: object, path: KeyPath) -> tuple[T, ...]:
        """An array of tables; those that are unusable are left out."""
        if not isinstance(tables, list):
            message = f"must be a list of tables, not {values.kind(tables)}"
            self._error(path, message, f"write [[{path[-1]}]]", at_key=True)
            return ()
        read = (self.section(cls, table, (*path, index)) for index, table in enumerate(tables))
        return tuple(section for section in read if section is not None)

    def completed(self, section: T, path: KeyPath, base: object) -> T:
        """The section with the keys that it leaves out, or that could not be read, taken from `base`, which has them
        all but those that only the section has."""
        names = [field.name for field in dataclasses.fields(base)]  # type: ignore[arg-type]  # every section is one
        left_out = {name: getattr(base, name) for name in names if (*path, name) not in self.found}
        return dataclasses.replace(section, **left_out)  # type: ignore[type-var]

    def plain(self, value: object, path: KeyPath) -> Json:
        """A value as it is, variables expanded: for tables that plugins own. A mistake reads as null."""
        if isinstance(value, dict):
            return {str(key): self.plain(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.plain(item, (*path, index)) for index, item in enumerate(value)]
        try:
            return values.expand(value, self._environ) if isinstance(value, str) else values.json_value(value)
        except BadValue as bad:
            self._error(path, bad.message, bad.hint)
            return None

    def _unknown_keys(self, hints: Mapping[str, object], table: Mapping[str, object], path: KeyPath) -> None:
        known = {*hints, *(f"{name}_file" for name, hint in hints.items() if _mark(hint, Secret))}
        for key in table:
            if key not in known:
                message = f'unknown key "{key}" in {_section_name(path)}'
                self._error((*path, key), message, did_you_mean(key, known), at_key=True)

    def _field(
        self, field: dataclasses.Field[object], hint: object, table: Mapping[str, object], path: KeyPath
    ) -> object:
        name = field.name
        here = (*path, name)
        if _mark(hint, Secret) and f"{name}_file" in table:
            return self._secret_file(here, hint, table)
        if name in table:
            return self._value(hint, table[name], here)
        if _is_required(field):
            self._error(path, f'"{name}" is missing', at_key=True)
        return _BAD

    def _secret_file(self, here: KeyPath, hint: object, table: Mapping[str, object]) -> object:
        key = f"{here[-1]}_file"
        there = (*here[:-1], key)
        if here[-1] in table:
            self._error(there, f'"{here[-1]}" and "{key}" exclude each other', at_key=True)
            return _BAD
        file = self._value(Path, table[key], there)
        if file is _BAD:
            return _BAD
        return self._attempt(lambda: self._secret(hint, read_secret_file(cast(Path, file))), there, here)

    def _value(self, hint: object, value: object, path: KeyPath) -> object:
        """The value as its annotation says, or _BAD."""
        marks = _marks(hint)
        hint = _without_marks(hint)
        if get_origin(hint) is tuple:
            return self._attempt(lambda: self._array(get_args(hint)[0], value, path), path)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.section(hint, value, path) or _BAD
        if get_origin(hint) in (Mapping, dict):
            return self._attempt(lambda: self._mapping(get_args(hint)[1], value, path), path)
        return self._attempt(lambda: self._scalar(hint, marks, value, path), path)

    def _attempt(self, read: Callable[[], object], path: KeyPath, store: KeyPath | None = None) -> object:
        try:
            result = read()
        except BadValue as bad:
            self._error(path, bad.message, bad.hint)
            return _BAD
        self.found[store or path] = result
        return result

    def _array(self, item: object, value: object, path: KeyPath) -> tuple[object, ...]:
        if dataclasses.is_dataclass(item) and isinstance(item, type):
            return self.sections(item, value, path)
        if not isinstance(value, list):
            raise BadValue(f"must be a list, not {values.kind(value)}", "write [ … ] around it")
        read = (self._value(item, element, (*path, index)) for index, element in enumerate(value))
        return tuple(element for element in read if element is not _BAD)

    def _mapping(self, item: object, value: object, path: KeyPath) -> dict[str, object]:
        if not isinstance(value, dict):
            raise BadValue(f"must be a table, not {values.kind(value)}", 'as in { key = "value" }')
        read = {key: self._value(item, element, (*path, key)) for key, element in value.items()}
        return {key: element for key, element in read.items() if element is not _BAD}

    def _scalar(self, hint: object, marks: tuple[object, ...], value: object, path: KeyPath) -> object:
        secret = next((mark for mark in marks if isinstance(mark, Secret)), None)
        if secret and not secret.stored and isinstance(value, str) and not values.uses_variables(value):
            self.plain_secrets.append(path)
        if isinstance(value, str):
            value = self._expand(value, hint, marks)
        if secret:
            return self._secret(secret, value)
        if Duration() in marks:
            return values.duration(value)
        if Size() in marks:
            return values.size(value)
        if Name() in marks:
            return values.name(value)
        if get_origin(hint) is Literal:
            return values.choice(value, get_args(hint))
        if hint is Path:
            return self._path(value)
        return _at_least(_PLAIN[hint](value), marks)

    def _expand(self, value: str, hint: object, marks: tuple[object, ...]) -> str:
        # Text is taken for a number or a truth only where a variable gave it.
        if hint in (int, bool) and not values.uses_variables(value) and Size() not in marks:
            wanted = "a whole number" if hint is int else "true or false"
            raise BadValue(f"must be {wanted}, not text", "leave out the quotes")
        return values.expand(value, self._environ)

    def _secret(self, hint: object, value: object) -> str:
        mark = hint if isinstance(hint, Secret) else _mark(hint, Secret)
        text = values.text(value)
        if not text:
            raise BadValue("must not be empty")
        if mark and mark.stored:
            return stored_secret(text)
        if looks_stored(text):
            raise BadValue("this is a secret as PostgreSQL stores it, not a password", 'write it as "secret"')
        return text

    def _path(self, value: object) -> Path:
        text = values.text(value)
        if not text:
            raise BadValue("must not be empty")
        try:
            return self._folder / Path(text).expanduser()
        except RuntimeError:
            raise BadValue("there is no such user's home") from None

    def _error(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self.errors.append(self.positions.error(path, message, hint, at_key=at_key))


def _section_name(path: KeyPath) -> str:
    name = ".".join(part for part in path if isinstance(part, str))
    return f"[[{name}]]" if isinstance(path[-1], int) else f"[{name}]"


def _is_required(field: dataclasses.Field[object]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _marks(hint: object) -> tuple[object, ...]:
    """What the model annotates a type with, also where None may stand for it."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(mark for part in get_args(hint) for mark in _marks(part))
    return tuple(get_args(hint)[1:]) if get_origin(hint) is Annotated else ()


def _mark(hint: object, wanted: type[T]) -> T | None:
    return next((mark for mark in _marks(hint) if isinstance(mark, wanted)), None)


def _without_marks(hint: object) -> object:
    if get_origin(hint) in (Union, types.UnionType):
        return _without_marks(next(part for part in get_args(hint) if part is not type(None)))
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _at_least(value: object, marks: tuple[object, ...]) -> object:
    mark = next((mark for mark in marks if isinstance(mark, AtLeast)), None)
    number = value.port if isinstance(value, Address) else value
    if mark and isinstance(number, int) and number < mark.least:
        what = "the port" if isinstance(value, Address) else "it"
        raise BadValue(f"{number} is too small", f"{what} must be at least {mark.least}")
    return value
