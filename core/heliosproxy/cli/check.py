"""`helios check`: the configuration read, its plugins' tables too, and with --connect every node tried."""

from __future__ import annotations

import json as json_module
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import trio
import typer
from rich.console import Console
from rich.table import Table

from heliosproxy.cli.connect import Answer, Finding, ask_all, headroom, judge, mode_of
from heliosproxy.cli.loading import InstalledPlugins, Plugins, load_with_plugins
from heliosproxy.config.errors import ConfigError, ConfigErrors
from heliosproxy.config.load import Loaded
from heliosproxy.config.model import Config
from heliosproxy.sandbox import Sandbox

EXIT_OK, EXIT_FAILURE, EXIT_CONFIGURATION, EXIT_UNREACHABLE = 0, 1, 3, 4


def check(
    config: Annotated[Path, typer.Option("--config", help="The file to check.")] = Path("heliosproxy.toml"),
    connect: Annotated[bool, typer.Option("--connect", help="Also try each node.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Check a configuration: every mistake at once, each with line and column.

    Exit codes: 0 all well, 1 a node is not what the file says, 3 the file has mistakes or a node refuses the login,
    4 a node cannot be reached.
    """
    with Sandbox() as sandbox:
        code = run_check(config, connect=connect, json=json, plugins=InstalledPlugins(sandbox))
    raise typer.Exit(code)


def run_check(file: Path, *, connect: bool, json: bool, plugins: Plugins) -> int:
    """The command with its collaborators given; returns the exit code. Data on stdout, talk on stderr."""
    try:
        loaded = load_with_plugins(file, os.environ, plugins)
    except ConfigErrors as errors:
        _report_mistakes(file, errors, json=json)
        return EXIT_CONFIGURATION
    answers = trio.run(ask_all, loaded.config) if connect else ()
    findings = judge(loaded.config, answers) if connect else ()
    code = _exit_code(findings)
    if json:
        _print_json(loaded, answers, findings)
    else:
        _print(loaded, answers, findings, code)
    return code


def _exit_code(findings: Sequence[Finding]) -> int:
    """The gravest: what cannot be reached may hide everything else."""
    codes = {"unreachable": EXIT_UNREACHABLE, "configuration": EXIT_CONFIGURATION, "failure": EXIT_FAILURE}
    return max((codes.get(finding.level, EXIT_OK) for finding in findings), default=EXIT_OK)


def _report_mistakes(file: Path, errors: ConfigErrors, *, json: bool) -> None:
    if json:
        _dump({"ok": False, "file": str(file), "errors": _as_json(errors.errors), "warnings": []})
        return
    typer.echo(errors.render(), err=True)
    count = len(errors.errors)
    typer.echo(f"{count} mistake{'s' if count > 1 else ''} in {file}", err=True)


def _as_json(errors: Sequence[ConfigError]) -> list[dict[str, str | int]]:
    return [error.as_json() for error in errors]


def _located(loaded: Loaded, finding: Finding) -> ConfigError:
    return loaded.positions.error(finding.path, finding.message)


def _print_json(loaded: Loaded, answers: Sequence[Answer], findings: Sequence[Finding]) -> None:
    graded = [(finding.level, _located(loaded, finding)) for finding in findings]
    result: dict[str, object] = {
        "ok": _exit_code(findings) == EXIT_OK,
        "file": str(loaded.config.file),
        "errors": [{"level": level, **error.as_json()} for level, error in graded if level != "warning"],
        "warnings": _as_json(loaded.warnings) + [error.as_json() for level, error in graded if level == "warning"],
    }
    if answers:
        result["nodes"] = [_node_json(answer, answers) for answer in answers]
    _dump(result)


def _node_json(answer: Answer, answers: Sequence[Answer]) -> dict[str, object]:
    server = answer.server
    facts: dict[str, object] = {"name": answer.node.name, "address": str(answer.node.address)}
    if server is None:
        return {**facts, "reachable": False, "error": str(answer.error)}
    return {
        **facts,
        "reachable": True,
        "version": server["version"],
        "role": _role(answer),
        "sync": mode_of(answer, answers),
        "max_connections": server["max_connections"],
        "in_use": server["in_use"],
        "headroom": headroom(server),
    }


def _dump(value: object) -> None:
    typer.echo(json_module.dumps(value, indent=2))


def _print(loaded: Loaded, answers: Sequence[Answer], findings: Sequence[Finding], code: int) -> None:
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if answers:
        Console(soft_wrap=True).print(_table(answers))
    for finding in findings:
        prefix = "warning: " if finding.level == "warning" else ""
        typer.echo(f"{prefix}{_located(loaded, finding)}", err=True)
    if code == EXIT_OK:
        typer.echo(f"{loaded.config.file}: ok ({_summary(loaded.config)})")


def _summary(config: Config) -> str:
    counts = ((len(config.nodes), "node"), (len(config.auth.users), "user"), (len(config.plugins.enabled), "plugin"))
    return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts)


def _table(answers: Sequence[Answer]) -> Table:
    table = Table("node", "address", "PostgreSQL", "role", "sync", "connections", "free", box=None, pad_edge=False)
    for answer in answers:
        server = answer.server
        cells = ["-", "no answer", "-", "-", "-"]
        if server is not None:
            used = f"{server['in_use']} of {server['max_connections']}"
            cells = [server["version"], _role(answer), mode_of(answer, answers) or "-", used, str(headroom(server))]
        table.add_row(answer.node.name, str(answer.node.address), *cells)
    return table


def _role(answer: Answer) -> str:
    return "standby" if answer.server and answer.server["in_recovery"] else "primary"
