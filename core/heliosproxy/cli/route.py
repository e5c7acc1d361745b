"""`helios route 'SQL'`: what a running proxy would do with a statement, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from rich.console import Console
from rich.markup import escape

from heliosproxy.cli import output
from heliosproxy.cli.asking import asking
from heliosproxy.cli.client import Target, post
from heliosproxy.cli.status import milliseconds
from heliosproxy.control.shapes import CandidateShown, ExplanationShown, StepShown


def run_route(sql: str, config: Path | None, who: dict[str, str], *, json: bool) -> int:
    """The command; the exit code. `who`: user, database, application_name, hints; empty ones are the proxy's to say."""

    def ask(target: Target) -> None:
        asked = {"sql": sql, **{name: value for name, value in who.items() if value}}
        found = cast(ExplanationShown, post(target, "/routing/explain", asked))
        if json:
            output.print_json(found)
        else:
            _print(found, output.console())

    return asking(config, ask)


def _print(found: ExplanationShown, console: Console) -> None:
    for number, (title, lines) in enumerate(_steps(found), 1):
        console.print(f"[bold]{number}. {title}[/bold]")
        for line in lines:
            console.print(f"   {escape(line)}", soft_wrap=True)


def _steps(found: ExplanationShown) -> list[tuple[str, list[str]]]:
    steps = [
        ("The statement", _statement(found)),
        ("Hints", _hints(found)),
        ("Plugins", [line for hook in found["hooks"] for line in _hook(hook)] or ["none is enabled"]),
        (
            "Verdict",
            [f"{field.replace('_', ' ')}: {value}" for field, value in found["verdict"].items()] or ["nothing"],
        ),
    ]
    if found["answered"]:
        return [*steps, ("Answer", [found["answered"], "no server is asked"])]
    return [*steps, ("Nodes", _nodes(found)), ("Destination", _destination(found))]


def _statement(found: ExplanationShown) -> list[str]:
    names = [f"tables: {', '.join(found['tables'])}"] if found["tables"] else []
    names += [f"functions: {', '.join(found['functions'])}"] if found["functions"] else []
    read = "read-only, as the catalogue proves" if found["read_only"] else f"not read-only: {found['proof']}"
    known = "remembered" if found["remembered"] else "not remembered yet"
    lines = [f"{found['query']}", f"shape {found['query_hash']}, {known}", f"{found['kind']}, {read}", *names]
    lines.append(f"from {found['user']} in database {found['database']}")
    return lines + ([f"note: {found['note']}"] if found["note"] else [])


def _hints(found: ExplanationShown) -> list[str]:
    if not found["hints"]:
        return ["none"]
    return [
        f"{hint['key']}={hint['value']} ({'position ' + str(hint['at']) if hint['at'] else 'of the session'})"
        for hint in found["hints"]
    ]


def _hook(hook: StepShown) -> list[str]:
    name = f"{hook['plugin']} {hook['hook']}"
    if hook["skipped"]:
        return [f"{name}: not called, {hook['skipped']}"]
    took = "" if hook["microseconds"] is None else f" ({hook['microseconds']:.1f} µs)"
    said = [f"  {each['action']}, because: {each['reason']}" for each in hook["directives"]]
    return [f"{name}{took}" + ("" if said else ": nothing to say"), *said]


def _nodes(found: ExplanationShown) -> list[str]:
    return [
        f"{'+' if node['qualifies'] else '-'} {node['name']}: {_standing(node)}"
        + (f"; {node['why_not']}" if node["why_not"] else "")
        for node in found["candidates"]
    ]


def _standing(node: CandidateShown) -> str:
    kind = " ".join(part for part in (node["sync"], node["role"] or "not seen yet") if part)
    return f"{kind}, {'up' if node['healthy'] else 'down'}, lag {milliseconds(node['lag_ms'])}"


def _destination(found: ExplanationShown) -> list[str]:
    lines = [f"{found['node'] or 'no node'}: {found['reason']}"]
    if found["fallback"]:
        lines.append(f"fallback: {found['fallback']}")
    equals = [node["name"] for node in found["candidates"] if node["qualifies"]]
    if len(equals) > 1:
        lines.append(f"of {', '.join(equals)} the least busy; equals take turns")
    return [*lines, f"sent: {found['sent']}"]
