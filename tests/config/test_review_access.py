"""What an adversarial review of the way in has found in what the file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.load import load

BASE = '[[nodes]]\nname = "a"\naddress = "127.0.0.1:1"\n[[auth.users]]\nname = "u"\npassword = "p"\n'


def mistakes(directory: Path, text: str, base: str = BASE) -> ConfigErrors:
    file = directory / "heliosproxy.toml"
    file.touch(0o600)
    file.write_text(base + text)
    with pytest.raises(ConfigErrors) as raised:
        load(file, {})
    return raised.value


@pytest.mark.parametrize(
    "keys",
    [
        """user = ["+banned"]""",
        """user = ["@file"]""",
        """database = ["samerole"]""",
        """address = ["fe80::1%eth0"]""",
        """address = []""",
        """user = []""",
    ],
)
def test_a_rule_that_would_not_mean_what_pg_hba_conf_means_is_a_mistake(tmp_path: Path, keys: str) -> None:
    others = '[[auth.rules]]\nmethod = "scram-sha-256"\n'
    errors = mistakes(tmp_path, f'[[auth.rules]]\nmethod = "reject"\n{keys}\n{others}')
    assert "auth.rules" in str([error.path for error in errors.errors])


@pytest.mark.parametrize(
    "line",
    [
        'password = "a\\"hunter2" x',
        "password = '''hunter2''' x",
        'password: "hunter2"',
        'pwd = "hunter2"',
        'passphrase = "hunter2"',
    ],
)
def test_S_no_password_is_shown_with_the_mistake_in_its_line(tmp_path: Path, line: str) -> None:
    assert "hunter2" not in mistakes(tmp_path, f'[[auth.users]]\nname = "v"\n{line}\n').render()
