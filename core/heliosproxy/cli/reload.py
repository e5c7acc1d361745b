"""`helios reload`: have the running proxy read its file again."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from heliosproxy.cli import output
from heliosproxy.cli.asking import asking
from heliosproxy.cli.client import Target, post
from heliosproxy.control.shapes import ReloadShown


def run_reload(config: Path | None, *, json: bool) -> int:
    """The command; the exit code."""

    def ask(target: Target) -> None:
        done = cast(ReloadShown, post(target, "/reload", {}))
        if json:
            output.print_json(done)
            return
        changed = ", ".join(done["changed"])
        output.console().print(f"changed: {changed}" if changed else "nothing in the file has changed", markup=False)
        if done["needs_restart"]:
            output.say(f"a restart is needed for {', '.join(done['needs_restart'])}")

    return asking(config, ask)
