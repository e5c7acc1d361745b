"""What docs/security.md shows of configurations: whole files without a mistake; and that its tables are whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from heliosproxy.config.load import load
from heliosproxy.config.model import Config
from heliosproxy.switch.admission import Reason
from tests.certificates import Issuer

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
BLOCKS = dict(re.findall(r"<!-- toml: ([\w -]+) -->\n```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
SECRETS = ("app.password", "auth.password", "health.password", "reporting.password")
SOCKETS = "/run/heliosproxy"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the configurations name."""
    made = tmp_path_factory.mktemp("security")
    issuer = Issuer(made)
    for name in ("proxy", "proxy-to-nodes"):
        issued = issuer.issue(f"{name}.example.net")
        issued.certificate.rename(made / f"{name}.crt")
        issued.key.rename(made / f"{name}.key")
    for name in ("nodes-ca.crt", "clients-ca.crt"):
        (made / name).write_bytes(issuer.file.read_bytes())
    issuer.revoke(issuer.issue("gone.example.net")).rename(made / "clients.crl")
    for name in SECRETS:
        private(made / name, "a password\n")
    private(made / "userlist.txt", '"app" "a password"\n')
    (made / "sockets").mkdir()
    return made


def private(file: Path, text: str) -> Path:
    file.touch(0o600)
    file.write_text(text)
    return file


def loaded(folder: Path, name: str, text: str) -> Config:
    """Raises ConfigErrors. Nothing is left of the folder that this machine may not have."""
    text = text.replace(SOCKETS, str(folder / "sockets"))
    found = load(private(folder / f"{name.replace(' ', '-')}.toml", text), {})
    assert found.warnings == ()
    return found.config


def test_each_way_to_log_in_is_shown() -> None:
    assert set(BLOCKS) == {"limits", "pass-through", "rules", "users file", "auth_query"}
    assert PAGE.count("```toml") == len(BLOCKS), "a block of TOML is not marked, and so not checked"


@pytest.mark.parametrize("name", BLOCKS)
def test_a_configuration_that_is_shown_has_no_mistake(folder: Path, name: str) -> None:
    assert loaded(folder, name, BLOCKS[name]).nodes


def test_the_one_without_a_password_has_none(folder: Path) -> None:
    config = loaded(folder, "pass-through", BLOCKS["pass-through"])
    assert config.health.password is None
    assert [(user.password, bool(user.secret)) for user in config.auth.users] == [(None, True)]


def test_the_expressions_let_in_whom_they_are_meant_for(folder: Path) -> None:
    maps = {entry.map: entry for entry in loaded(folder, "rules", BLOCKS["rules"]).auth.maps}
    people = re.compile(maps["people"].system_user.removeprefix("/"))
    assert people.search("alice@example.net")
    assert not people.search("eve@example.net.attacker.org")
    assert maps["people"].database_user == r"\1"


def test_each_reason_for_which_a_client_is_refused_is_explained() -> None:
    section = PAGE.partition("\n## Limits and time-outs\n")[2].partition("\n## ")[0]
    assert [reason for reason in get_args(Reason) if f"`{reason}`" not in section] == []
