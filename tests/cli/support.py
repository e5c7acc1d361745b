"""The command `helios` as a process, for tests that want the real thing."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

DEADLINE = 60.0

COMMAND = [sys.executable, "-m", "heliosproxy"]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Returns once the condition holds; fails the test after the deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.01)


def helios(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. HELIOS_CONFIG is what `environment` says, or absent."""
    inherited = {key: value for key, value in os.environ.items() if key != "HELIOS_CONFIG"}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@contextlib.contextmanager
def started(*arguments: str | Path, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs until it is told to end; killed at the latest when the context ends."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], stdout=stream, stderr=stream, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE)


def fetch(admin: str, path: str) -> tuple[int, dict[str, object]]:
    """Status and JSON of a GET. Raises OSError where nobody listens."""
    connection = http.client.HTTPConnection(admin, timeout=DEADLINE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, cast("dict[str, object]", json.loads(answer.read()))
    finally:
        connection.close()


def answers(admin: str, path: str) -> bool:
    """Whether a GET succeeds."""
    try:
        return fetch(admin, path)[0] == 200
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
