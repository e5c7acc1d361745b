"""The frame of the commands that ask a running proxy: its errors become one line and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from heliosproxy.cli import output
from heliosproxy.cli.client import MISCONFIGURED, NoProxy, Refused, Target, find
from heliosproxy.config.errors import ConfigErrors


def asking(config: Path | None, ask: Callable[[Target], None]) -> int:
    """Call `ask` with the proxy in question; the exit code."""
    try:
        ask(find(config))
    except NoProxy as error:
        output.say(str(error))
        return output.UNREACHABLE
    except Refused as error:
        output.say(str(error))
        return output.CONFIGURATION if error.status == MISCONFIGURED else output.FAILURE
    except ConfigErrors as errors:
        output.say(errors.render())
        return output.CONFIGURATION
    return output.OK
