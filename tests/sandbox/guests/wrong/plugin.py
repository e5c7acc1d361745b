"""Plugins whose manifests are wrong, each in one way: they replace what the SDK would derive, which checks it."""

from __future__ import annotations

import dataclasses

from helios_sdk import HookSpec, Manifest, Plugin, hook


class Base(Plugin):
    """A manifest with something else in it."""

    name = ""
    version = "1.0"
    stage = "rules"
    change: dict[str, object] = {}

    @classmethod
    def manifest(cls) -> Manifest:
        return dataclasses.replace(super().manifest(), **cls.change)  # type: ignore[arg-type]

    @hook()
    def on_tick(self, milliseconds: int) -> None:
        return None


class Name(Base):
    name = "wrong-name"
    change = {"name": "somebody-else"}


class Contract(Base):
    name = "wrong-contract"
    change = {"contract": "9.0"}


class Stage(Base):
    name = "wrong-stage"
    change = {"stage": "whenever"}


class Capability(Base):
    name = "wrong-capability"
    change = {"capabilities": ("everything",)}


class Fact(Base):
    name = "wrong-fact"
    change = {"hooks": (HookSpec("on-parse", ("password",)),)}


class Condition(Base):
    name = "wrong-condition"
    change = {"hooks": (HookSpec("on-parse", (), ("user",)),)}


class Twice(Base):
    name = "wrong-twice"
    change = {"hooks": (HookSpec("on-tick"), HookSpec("on-tick"))}


class Hookless(Base):
    name = "wrong-hookless"
    change = {"hooks": ()}


class Table(Base):
    name = "wrong-table"
    change = {"tables": ("pool",)}


class NoJson(Base):
    name = "wrong-json"
    change = {"schema": "{"}


class Schema(Base):
    name = "wrong-schema"
    change = {"schema": '{"type": "thing"}'}


class Property(Base):
    name = "wrong-property"
    change = {"schema": '{"type": "object", "properties": {"auth": {}}}'}


class Remote(Base):
    name = "wrong-remote"
    change = {"schema": '{"$ref": "http://127.0.0.1:9/schema.json"}'}
