"""What the process asks of the operating system before it serves: enough open files, and no memory left on disk."""

from __future__ import annotations

import ctypes
import logging
import resource
import sys

from heliosproxy.config.model import Config

log = logging.getLogger("heliosproxy")

OTHER_FILES = 200
"""Open files beside those of clients and links: listeners, the admin API, plugins, the proxy's own connections."""
_PR_SET_DUMPABLE = 4


def prepare_process(config: Config) -> None:
    """Allow as many open files as the system lets, and say so if that is too few; write no core dump.

    The memory holds passwords and keys: a crash must not put it into a file, and no other process of this user is to
    read it (prctl PR_SET_DUMPABLE, on Linux).
    """
    _raise_file_limit(config)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _raise_file_limit(config: Config) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limits = config.client_limits
    needed = limits.max_client_connections + limits.max_logins + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning(
            "the system allows %d open files, and %d clients need more than %d: raise the limit (ulimit -n, "
            "LimitNOFILE), or lower max_client_connections in [client_limits]",
            hard, limits.max_client_connections, needed,
        )  # fmt: skip
