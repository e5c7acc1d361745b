"""Proxies of this user that can be found without a configuration: each keeps a small file that says where it answers.

The file is locked as long as its proxy lives, however that ends; the lock of a file that was left behind can be had,
which tells it from a living one's whatever process has its number meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

_PREFIX = "heliosproxy-"
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that runs. Addresses are "host:port"; `config` is its heliosproxy.toml; `demo`: it is a demo's."""

    pid: int
    admin: str
    proxy: str
    config: str
    demo: bool


def directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the files are: $XDG_RUNTIME_DIR if it is there, else the directory for temporary files."""
    given = environ.get("XDG_RUNTIME_DIR", "")
    return Path(given) if given.startswith("/") and Path(given).is_dir() else Path(tempfile.gettempdir())


@contextlib.contextmanager
def registered(running: Running, folder: Path | None = None) -> Iterator[Path]:
    """Let others find it while the context lasts. Raises OSError where no file can be made."""
    folder = folder or directory()
    descriptor, partial = tempfile.mkstemp(prefix=f".{_PREFIX}", dir=folder)  # mode 0600
    file = Path(partial)
    try:
        with os.fdopen(descriptor, "w") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            json.dump(asdict(running), opened)
            opened.flush()
            file = file.rename(folder / f"{_PREFIX}{os.geteuid()}-{running.pid}.json")
            yield file
            file.unlink(missing_ok=True)  # before the lock goes: nobody must take it for one left behind
    finally:
        file.unlink(missing_ok=True)


def find(*, config: Path | None = None, folder: Path | None = None) -> Running | None:
    """The proxy that runs with this configuration; without one, the demo started last. Removes files left behind."""
    found = sorted(_all(folder or directory()), key=lambda pair: pair[0], reverse=True)
    for _, running in found:
        if running.demo if config is None else running.config == str(config.resolve()):
            return running
    return None


def _all(folder: Path) -> Iterator[tuple[float, Running]]:
    for file in folder.glob(f"{_PREFIX}{os.geteuid()}-*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if (found := _read(file)) is not None:
                yield found


def _read(file: Path) -> tuple[float, Running] | None:
    """The file's time and content; None if its proxy is gone, or the file is not ours. Raises OSError, ValueError …"""
    # Not blocking: what is not a file could be a pipe.
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as opened:
        status = os.fstat(opened.fileno())
        # The directory may be everyone's: only what we wrote tells us whom to ask.
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            return None
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            file.unlink(missing_ok=True)
            return None
        return status.st_mtime, Running(**json.loads(opened.read(_LONGEST)))
