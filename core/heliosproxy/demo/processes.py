"""Small things of the operating system that the local cluster needs: signals for a whole server, ports, directories."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from heliosproxy.demo.binaries import Account, ClusterError

PORTS = range(17_000, 32_000)
"""Below the range from which systems give ports to outgoing connections, so that a stopped node finds its own again."""


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`: from /proc, or from ps where there is none."""
    if not Path("/proc/self/stat").exists():
        output = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid="], text=True, timeout=10)
        pairs = (line.split() for line in output.splitlines())
        return [int(child) for child, parent in pairs if int(parent) == pid]
    return [child for child in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(child) == pid]


def _parent(pid: int) -> int:
    try:
        # pid (name) state ppid: the name may hold blanks and parentheses.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it ended meanwhile
        return 0


def signal_tree(pid: int, number: signal.Signals) -> None:
    """Send `number` to `pid` and its children. The parent is stopped first, so that it starts no more of them."""
    os.kill(pid, signal.SIGSTOP)
    for member in [*children(pid), pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, number)


def free_port(host: str) -> int:
    """A TCP port of `PORTS` that could be bound a moment ago. Raises ClusterError where none of 100 could."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.bind((host, port))
            return port
    raise ClusterError(f"no free port between {PORTS.start} and {PORTS.stop} on {host}")


def temporary_directory(account: Account) -> Path:
    """The directory for temporary files, or /tmp where `account` cannot enter that one (a user's own, from TMPDIR)."""
    configured = Path(tempfile.gettempdir())
    return configured if traversable(configured, account) else Path("/tmp")


def traversable(directory: Path, account: Account) -> bool:
    """Whether `account` can enter the directory. Tried, since every parent's mode and access list has a say."""
    command = ["/bin/sh", "-c", 'cd "$0"', str(directory)]
    done = subprocess.run(command, capture_output=True, cwd="/", timeout=10, **account.popen())  # type: ignore[call-overload]
    return bool(done.returncode == 0)


def environment(**more: str) -> dict[str, str]:
    """Ours and `more`, without what changes a server's or psql's behaviour (PGPORT, PGOPTIONS, LC_MESSAGES, …)."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C", **more}


def until(seconds: float) -> Iterator[None]:
    """Yields every 10 ms until `seconds` have passed, at least once."""
    end = time.monotonic() + seconds
    yield
    while time.monotonic() < end:
        time.sleep(0.01)
        yield


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
