"""Compiled components on disk: compiling one takes seconds, loading the result tens of milliseconds.

A compiled component is native code that runs unsandboxed, so a file is used only if it is a regular file that belongs
to us and that nobody else may write, in a directory of which the same holds. That is what protects against others on
the machine. The digest beside the code protects against damage only: who can write the file can write the digest.
What does not pass is compiled afresh and replaced. A cache that cannot be written is no error: it is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import stat
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component

_MAGIC = b"heliosproxy compiled component 1\n"
_HEAD = len(_MAGIC) + hashlib.sha256().digest_size


def default_directory() -> Path:
    """`$XDG_CACHE_HOME/heliosproxy`, else `~/.cache/heliosproxy`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "heliosproxy"


class CompileCache:
    """Compiles components, and remembers them in `directory`."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory

    def component(self, engine: Engine, wasm: bytes) -> Component:
        """The component, compiled for this engine. Raises WasmtimeError if `wasm` is not one."""
        file = None if self._directory is None else self._directory / f"{_key(wasm)}.cwasm"
        if file is not None and (code := read_trusted(file)) is not None:
            with contextlib.suppress(WasmtimeError):
                return Component.deserialize(engine, code)
        component = Component(engine, wasm)
        if file is not None:
            with contextlib.suppress(OSError):
                write_private(file, bytes(component.serialize()))
        return component


def _key(wasm: bytes) -> str:
    """What the compiled code depends on."""
    digest = hashlib.sha256(wasm)
    digest.update(f"{version('wasmtime')} {sys.platform} {platform.machine()} {platform.node()}".encode())
    return digest.hexdigest()


def read_trusted(file: Path) -> bytes | None:
    """The code in `file`; None if there is none, if anybody else could have written it, or if it is damaged."""
    try:
        if not _ours(os.lstat(file.parent)):
            return None
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _ours(status):
            return None
        data = opened.read()
    head, code = data[:_HEAD], data[_HEAD:]
    return code if head == _MAGIC + hashlib.sha256(code).digest() else None


def _ours(status: os.stat_result) -> bool:
    """It belongs to us and nobody else may write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def write_private(file: Path, code: bytes) -> None:
    """Replace `file` at once or not at all; readable by us only. Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _ours(os.lstat(file.parent)):
        return
    descriptor, partial = tempfile.mkstemp(dir=file.parent, prefix=".partial-")
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(_MAGIC + hashlib.sha256(code).digest())
            opened.write(code)
        os.replace(partial, file)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise
