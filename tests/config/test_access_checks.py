"""What `[[auth.rules]]` and `[[auth.maps]]` may say: what means something else in PostgreSQL's files is a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.load import load

HEAD = '[[nodes]]\nname = "a"\naddress = "db1:5432"\n[[auth.users]]\nname = "u"\npassword = "${PW}"\n'


def mistakes(tmp_path: Path, text: str) -> list[str]:
    """Where in the rule or map, what, and the hint."""
    file = tmp_path / "heliosproxy.toml"
    file.write_text(HEAD + text)
    try:
        load(file, {"PW": "p"})
    except ConfigErrors as errors:
        return [f"{error.path}: {error.message} [{error.hint}]" for error in errors.errors]
    return []


def rule(**keys: str) -> str:
    return "[[auth.rules]]\nmethod = 'reject'\n" + "".join(f"{key} = ['{value}']\n" for key, value in keys.items())


def name_map(system_user: str, database_user: str) -> str:
    return f"[[auth.maps]]\nmap = 'm'\nsystem_user = '{system_user}'\ndatabase_user = '{database_user}'\n"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (rule(user="+banned"), 'rules[0].user[0]: groups are not looked up [list the users; "/^[+]" begins'),
        (rule(user="@banned"), "rules[0].user[0]: files of names are not read [list the names;"),
        (rule(database="@some"), "rules[0].database[0]: files of names are not read [list the names;"),
        (rule(database="samerole"), "rules[0].database[0]: groups are not looked up [take sameuser, or a rule"),
        (rule(database="samegroup"), "rules[0].database[0]: groups are not looked up [take sameuser, or a rule"),
        (rule(database="replication"), "rules[0].database[0]: no connection for replication goes through the proxy ["),
        (rule(user="alice,bob"), 'rules[0].user[0]: a comma in a name [write "a", "b" for two;'),
        (rule(user="/^(.*)(?=x)"), "rules[0].user[0]: not a regular expression that is taken: invalid perl operator"),
        (rule(database="/[[:digits:]]"), "rules[0].database[0]: not a regular expression that is taken: invalid char"),
        (name_map("@file", "bob"), "maps[0].system_user: files of names are not read ["),
        (name_map("/(", "bob"), "maps[0].system_user: not a regular expression that is taken: missing ): ("),
        (name_map("x", "+admins"), "maps[0].database_user: groups are not looked up [add an entry for each user]"),
        (name_map("x", "@file"), "maps[0].database_user: files of names are not read [add an entry for each user]"),
        (name_map("x", "/^app_"), "maps[0].database_user: a regular expression is for system_user only ["),
        (rule(address="::ffff:10.0.0.0/8"), "rules[0].address[0]: ::ffff:10.0.0.0/8 is no address or network [clients "
         'that come by IPv4 are known by their IPv4 addresses: as in "10.0.0.0/8"]'),
        (rule(address="fe80::1%eth0"), "rules[0].address[0]: fe80::1%eth0 is no address or network [which interface a"),
        (rule() + "address = []\n", "rules[0].address: the list is empty, so that nobody is meant [leave the rule out"),
        (rule() + "user = []\n", "rules[0].user: the list is empty, so that nobody is meant [leave the rule out,"),
        (rule() + "database = []\n", "rules[0].database: the list is empty, so that nobody is meant [leave the rule"),
        (rule(address="db.example"), 'rules[0].address[0]: db.example is no address or network [as in "10.0.0.0/8"'),
    ],
)  # fmt: skip
def test_what_would_not_mean_what_it_means_in_postgresql_is_a_mistake(tmp_path: Path, text: str, mistake: str) -> None:
    (found,) = mistakes(tmp_path, text)
    assert found.startswith(f"auth.{mistake}")


@pytest.mark.parametrize(
    "text",
    [
        rule(user="/^[+]banned$", database="/^replication$"),
        rule(user="replication", database="+x"),
        rule(user="samerole", database="sameuser"),
        rule(user="/^[[:alpha:]_]{1,3},(a|b)+$"),
        rule(user="/^(\\w+\\.?)+$"),
        rule(user="a+b", database="a@b"),
        rule(address="::ffff:10.0.0.0/104"),
        rule(address="::ffff:10.0.0.1"),
        name_map("a,b+@", "bob"),
        name_map("/^CN=(.*),O=Example$", "\\1"),
        name_map("x", "all"),
    ],
)
def test_what_means_the_same_is_taken(tmp_path: Path, text: str) -> None:
    assert mistakes(tmp_path, text) == []
