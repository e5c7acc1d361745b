"""Runs one server and ends it when whoever started the cluster is gone. A script: `python -I -S guard.py …`.

The starter holds the other end of our standard input and never writes to it. When the starter ends, however it ends
(`kill -9` included), the kernel closes that pipe and we shut the server down and delete the directory we were told to.
Should we be killed ourselves, Linux sends the server SIGQUIT, which is PostgreSQL's immediate shutdown. A death signal
from the starter directly would not do: it fires when the starting *thread* ends, and the starter uses threads.

Arguments: uid and gid to run as (-1: ours), directory to delete (empty: none), then the command line.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading

GRACE = 5.0
"""Seconds for an immediate shutdown, after which the server is killed."""
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """In the child, after its user was set (which would clear it): SIGQUIT when our parent's thread ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def end_with_starter(server: subprocess.Popen[bytes], remove: str, orphaned: threading.Event) -> None:
    """Wait for the end of standard input, then shut the server down and delete `remove`."""
    while os.read(0, 4096):
        pass
    orphaned.set()
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if remove:
        shutil.rmtree(remove, ignore_errors=True)


def main(uid: int, gid: int, remove: str, command: list[str]) -> int:
    """Run `command`; its exit code, as a shell would give it."""
    account = {} if uid < 0 else {"user": uid, "group": gid, "extra_groups": []}
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, **account)  # type: ignore[call-overload]
    orphaned = threading.Event()
    watcher = threading.Thread(target=end_with_starter, args=(server, remove, orphaned), daemon=True)
    watcher.start()
    code = int(server.wait())
    if orphaned.is_set():
        watcher.join()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
