"""A real `helios run`, whose only node is not there: what the commands that ask a proxy need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import answers, free_port, started, wait_until

CONFIG = """\
[proxy]
listen = "127.0.0.1:0"
admin = "127.0.0.1:{admin}"
[[nodes]]
name = "away"
address = "127.0.0.1:{node}"
[[auth.users]]
name = "alice"
password = "${{PASSWORD_THAT_THE_COMMANDS_DO_NOT_HAVE}}"
[routing.aliases]
analytics = ["away"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of a proxy that runs."""
    folder = tmp_path_factory.mktemp("served")
    file, admin = folder / "heliosproxy.toml", free_port()
    file.write_text(CONFIG.format(admin=admin, node=free_port()))
    password = {"PASSWORD_THAT_THE_COMMANDS_DO_NOT_HAVE": "s3cret"}
    with started("run", "--config", file, log=folder / "log", **password):
        wait_until(lambda: answers(f"127.0.0.1:{admin}", "/livez"), "the admin API")
        yield file
