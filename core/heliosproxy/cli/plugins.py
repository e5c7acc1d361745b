"""`helios plugins list|inspect|build`."""

from __future__ import annotations

import json as json_module
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from helios_sdk.contract import HookSpec
from rich.console import Console, RenderableType
from rich.markup import escape

from heliosproxy.cli import output
from heliosproxy.cli.client import DEFAULT_FILE, NoProxy, Refused, find, get
from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.load import load
from heliosproxy.config.model import Config
from heliosproxy.control.shapes import PluginShown, PluginsShown
from heliosproxy.control.views import found_plugin
from heliosproxy.sandbox import BUNDLED, Found, Sandbox


def run_list(config: Path | None, *, json: bool) -> int:
    """The plugins of the running proxy; without one, those installed, as is said on stderr. The exit code."""
    try:
        found = cast(PluginsShown, get(find(config), "/plugins"))["plugins"]
    except (NoProxy, Refused) as error:
        output.say(f"{error}; listing what is installed")
        try:
            found = [found_plugin(each) for each in _installed(config)]
        except ConfigErrors as errors:
            return _mistakes(errors)
    except ConfigErrors as errors:
        return _mistakes(errors)
    if json:
        output.print_json({"plugins": found})
    else:
        output.console().print(_table(found))
    return output.OK


def _mistakes(errors: ConfigErrors) -> int:
    output.say(errors.render())
    return output.CONFIGURATION


def _table(plugins: Sequence[PluginShown]) -> RenderableType:
    columns = ("plugin", "version", "hooks", "reads", "capabilities", "state", "calls", "remembered", "µs/call")
    rows = [
        (
            each["name"],
            each.get("version"),
            "\n".join(hook["hook"] for hook in each["hooks"]),
            "\n".join(", ".join(hook["reads"]) or "-" for hook in each["hooks"]),
            each.get("capabilities"),
            each["state"] + (f": {each['reason']}" if each["reason"] else ""),
            "\n".join(str(hook["calls"]) for hook in each["hooks"] if "calls" in hook),
            output.share(each.get("remembered")),
            "\n".join(output.cell(hook["microseconds_per_call"]) for hook in each["hooks"] if "calls" in hook),
        )
        for each in plugins
    ]
    return output.table(columns, rows) if rows else "no plugin is installed"


def run_inspect(name: str, config: Path | None, *, json: bool) -> int:
    """All that is known of an installed plugin, enabled or not. The exit code."""
    try:
        installed = {found.name: found for found in _installed(config)}
    except ConfigErrors as errors:
        return _mistakes(errors)
    found = installed.get(name)
    if found is None:
        output.say(f"no plugin {name!r} is installed; there are: {', '.join(installed) or 'none'}")
        return output.FAILURE
    if json:
        output.print_json(_inspected(found))
    else:
        _print_inspected(found, output.console())
    return output.FAILURE if found.problems else output.OK


def _file(found: Found) -> Path:
    return BUNDLED if found.origin == "bundled" else Path(found.origin)


def _inspected(found: Found) -> dict[str, object]:
    shown: dict[str, object] = {"name": found.name, "origin": found.origin, "file": str(_file(found))}
    shown["size"] = _file(found).stat().st_size
    if found.manifest is not None:
        shown |= {**asdict(found.manifest), "schema": json_module.loads(found.manifest.schema)}
    return {**shown, "problems": list(found.problems)}


def _print_inspected(found: Found, console: Console) -> None:
    size = f"{_file(found).stat().st_size / 2**20:.1f} MiB"
    rows = [("name", found.name), ("origin", found.origin), ("file", str(_file(found))), ("size", size)]
    manifest = found.manifest
    if manifest is not None:
        rows += [("version", manifest.version), ("summary", manifest.summary), ("contract", manifest.contract)]
        rows += [("stage", manifest.stage), ("capabilities", ", ".join(manifest.capabilities))]
        rows += [("tables", ", ".join(manifest.tables))]
        rows += [(spec.hook, _hook(spec)) for spec in manifest.hooks]
    for name, value in [*rows, *(("problem", problem) for problem in found.problems)]:
        console.print(f"{name:<13}{escape(value or '-')}", soft_wrap=True)
    if manifest is not None:
        schema = json_module.dumps(json_module.loads(manifest.schema), indent=2)
        console.print(f"\nThe schema of its configuration:\n{escape(schema)}")


def _hook(spec: HookSpec) -> str:
    only = f"; only with {', '.join(spec.only_with)}" if spec.only_with else ""
    return f"reads {', '.join(spec.reads) or 'nothing'}{only}; fails {spec.on_failure}"


def _installed(config: Path | None) -> Sequence[Found]:
    """What a configuration finds; without any, what is bundled. Raises ConfigErrors."""
    with Sandbox() as sandbox:
        return sandbox.installed(_configuration(config))


def _configuration(file: Path | None) -> Config:
    """As far as it says where plugins are; other mistakes of the file are not this command's business."""
    if file is None and not DEFAULT_FILE.exists():
        return Config(DEFAULT_FILE, ())
    try:
        return load(file or DEFAULT_FILE, os.environ).config
    except ConfigErrors as errors:
        if errors.loaded is None or any(error.path.startswith("plugins.path") for error in errors.errors):
            raise
        return errors.loaded.config


def run_build(directories: Sequence[Path], target: Path | None) -> int:
    """Build Python plugins into one component. The exit code."""
    from helios_sdk.build import BuildError, build

    target = target or Path(f"{directories[0].resolve().name}.wasm")
    talk = Console(stderr=True, highlight=False)
    try:
        with talk.status(f"building {escape(str(target))}; this takes some seconds"):
            build(directories, target)
    except (BuildError, OSError) as error:
        output.say(str(error))
        return output.FAILURE
    output.say(f"built, {target.stat().st_size / 2**20:.1f} MiB; enable it with [plugins] path and enabled")
    print(target)
    return output.OK
