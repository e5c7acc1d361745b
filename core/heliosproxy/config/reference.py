"""The reference of all keys, as Markdown, from `model.py` itself: `python -m heliosproxy.config.reference`.

docs/configuration.md holds it; a test keeps the two the same.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

from heliosproxy.config import access, model
from heliosproxy.config.kinds import Address, AtLeast, Duration, Name, Secret, Size

SECTIONS = (
    model.Proxy, access.ClientTls, model.NodeConfig, access.ServerTls, model.Pool, model.PoolFor, access.ClientLimits,
    access.Auth, access.Rule, access.NameMap, access.User, model.Health, model.Plugins,
)  # fmt: skip
"""Every section's class, in the order of the reference."""

_WORDS: Mapping[object, str] = types.MappingProxyType(
    {str: "text", int: "number", bool: "true or false", Address: "address", Path: "path"}
)
_UNITS = {"duration": (("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3)), "size": (("GB", 1 << 30), ("MB", 1 << 20))}


def reference() -> str:
    """A heading and a table of keys for each section."""
    return "\n".join(_section(cls) for cls in SECTIONS)


def _section(cls: type[object]) -> str:
    title, _, text = (cls.__doc__ or "").partition(":")
    rows = "".join(f"| {' | '.join(cells)} |\n" for cells in _rows(cls))
    return f"### {title}\n\n{_sentence(text)}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n{rows}"


def _rows(cls: type[object]) -> Iterator[tuple[str, str, str, str]]:
    meanings = field_docs(cls)
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # every section is a dataclass
        if field.name not in cls.__annotations__:
            continue  # of the section that it extends, where it is described
        takes = _takes(hints[field.name])
        yield f"`{field.name}`", takes, _default(field, takes), _sentence(meanings[field.name]).replace("|", "\\|")


def field_docs(cls: type[object]) -> dict[str, str]:
    """The docstring under each field of a class, by the field's name; empty where there is none."""
    bases = [base for base in cls.__bases__ if dataclasses.is_dataclass(base)]
    inherited = [field_docs(base) for base in bases]
    return {name: text for docs in (*inherited, _own_docs(cls)) for name, text in docs.items()}


def _own_docs(cls: type[object]) -> dict[str, str]:
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            docs[statement.target.id] = _docstring(following)
    return docs


def _docstring(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return inspect.cleandoc(str(statement.value.value))
    return ""


def _takes(hint: object) -> str:
    """A type in the words of the manual."""
    if get_origin(hint) in (Union, types.UnionType):
        return _takes(next(part for part in get_args(hint) if part is not type(None)))
    if get_origin(hint) is Annotated:
        return _marked(*get_args(hint))
    if get_origin(hint) is Literal:
        return ", ".join(f'`"{choice}"`' for choice in get_args(hint))
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        return "tables" if dataclasses.is_dataclass(item) else f"list of {_takes(item)}s".replace("texts", "names")
    return _WORDS.get(hint, "table of texts")


def _marked(base: object, *marks: object) -> str:
    for mark in marks:
        if isinstance(mark, Secret):
            return "SCRAM or MD5 secret" if mark.stored else "secret"
        if isinstance(mark, AtLeast) and base is int:
            return f"number from {mark.least}"
    words = {Duration(): "duration", Size(): "size", Name(): "name"}
    return next((words[mark] for mark in marks if mark in words), _WORDS.get(base, ""))


def _default(field: dataclasses.Field[object], takes: str) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return ""
    if field.default is dataclasses.MISSING:
        return "required"
    if field.default is None or field.default == ():
        return ""
    if takes in _UNITS and isinstance(field.default, (int, float)):
        return f'`"{_with_unit(field.default, takes)}"`'
    if isinstance(field.default, tuple) and not isinstance(field.default, Address):
        return f"`{json.dumps(field.default)}`"
    return f"`{field.default}`" if isinstance(field.default, int) else f'`"{field.default}"`'


def _with_unit(value: float, takes: str) -> str:
    unit, factor = next((unit, factor) for unit, factor in _UNITS[takes] if value >= factor)
    return f"{value / factor:g}{unit}"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    print(reference(), end="")
