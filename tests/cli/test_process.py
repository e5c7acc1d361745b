"""What the process asks of the operating system, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from heliosproxy.demo.processes import environment

SCRIPT = """
import ctypes, logging, pathlib, resource
from heliosproxy.cli.process import prepare_process
from heliosproxy.config.access import ClientLimits
from heliosproxy.config.model import Config

logging.basicConfig(level=logging.INFO, format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 300))
limits = ClientLimits(max_client_connections={clients}, max_logins=10)
prepare_process(Config(pathlib.Path("x"), (), client_limits=limits))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(resource.RLIMIT_CORE)[0])
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def run(clients: int) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(clients=clients)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True, env=environment()
    )


def test_it_may_open_all_files_that_the_system_allows_and_leaves_no_memory_on_disk() -> None:
    done = run(50)
    assert done.stdout.split() == ["300", "0", "0"]
    assert done.stderr == ""


def test_too_few_open_files_are_reported() -> None:
    said = run(1000).stderr
    assert said.startswith("the system allows 300 open files, and 1000 clients need more than 1210: raise the limit")
