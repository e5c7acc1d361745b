"""`[pool]` and `[[pools]]`: what an entry leaves out, and entries that contradict themselves or never match."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliosproxy.config.model import Pool, PoolFor
from tests.config.test_load import ENVIRON, NODE, USER, file, mistakes, read

__all__ = ["file"]

REPORTS = '[[pools]]\ndatabase = "reports"\n'
"""Lines 1 and 2 of a file."""


def test_an_entry_takes_what_it_leaves_out_from_pool(file: Path) -> None:
    text = f'{REPORTS}size = 3\nmode = "session"\n[pool]\nsize = 50\nreserve = 5\nidle_timeout = "1min"\n{NODE}{USER}'
    config = read(file, text).config
    assert config.pool == Pool(size=50, reserve=5, idle_timeout=60.0)
    assert config.pools == (
        PoolFor(database="reports", size=3, mode="session", reserve=5, idle_timeout=60.0),
    )


def test_every_key_of_pool_may_be_given_for_a_database_and_a_user(file: Path) -> None:
    keys = """\
mode = "statement"
size = 9
min_size = 2
reserve = 3
reserve_after = "2s"
wait_timeout = "4s"
priority_ageing = "500ms"
connect_timeout = "6s"
idle_timeout = "7s"
max_lifetime = "8s"
prepared_statements = 10
"""
    config = read(file, f'{REPORTS}user = "u"\n{keys}{NODE}{USER}').config
    assert config.pools == (
        PoolFor(
            mode="statement", size=9, min_size=2, reserve=3, reserve_after=2.0, wait_timeout=4.0, priority_ageing=0.5,
            connect_timeout=6.0, idle_timeout=7.0, max_lifetime=8.0, prepared_statements=10,
            database="reports", user="u",
        ),
    )  # fmt: skip


def test_caps_are_read(file: Path) -> None:
    text = f"[pool]\nmax_database_connections = 30\n{NODE}max_connections = 80\n{REPORTS}max_database_connections = 5\n"
    config = read(file, text + USER).config
    assert (config.pool.max_database_connections, config.nodes[0].max_connections) == (30, 80)
    assert config.pools[0].max_database_connections == 5


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (f"{REPORTS}sise = 3\n", '3:1: unknown key "sise" in [[pools]] (did you mean "size"?)'),
        ("[pools]\nsize = 3\n", "1:2: must be a list of tables, not a table (write [[pools]])"),
        ("[[pools]]\nsize = 3\n", "1:3: it names neither a database nor a user (what is to"),
        (f"{REPORTS}mode = \"sesion\"\n", '3:8: "sesion" is not one of'),
        ("[pool]\nmin_size = 21\n", "2:12: min_size is 21 and size only 20"),
        ("[pool]\nmin_size = 5\nsize = 4\n", "2:12: min_size is 5 and size only 4"),
        ("[pool]\nmin_size = 5\nmax_database_connections = 4\n", "2:12: min_size is 5 and max_data"),
        ('[pool]\nreserve = 2\nreserve_after = "1min"\n', "3:17: nobody waits longer than wait_timeout, 30 s"),
        (f"[pool]\nmin_size = 5\n{REPORTS}size = 4\n", "5:8: min_size is 5 and size only 4"),
        (f'{REPORTS}user = "u"\nmax_database_connections = 4\n', "4:1: it counts the links of all users of a database"),
        (f'{REPORTS}user = "v"\n', '3:8: no user "v" can log in, so that this entry never matches'),
        (f"{REPORTS}{REPORTS}", "3:3: this entry never matches: the one on line 1 covers all"),
        (f'{REPORTS}[[pools]]\ndatabase = "reports"\nuser = "u"\n', "3:3: this entry never matches: the one on line 1"),
        (f'[[pools]]\nuser = "u"\n{REPORTS}user = "u"\n', "3:3: this entry never matches: the one on line 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_where_it_is(file: Path, text: str, mistake: str) -> None:
    found = mistakes(file, text + NODE + USER)
    assert len(found) == 1
    assert found[0].startswith(mistake)


def test_a_contradiction_is_reported_where_it_was_made(file: Path) -> None:
    text = f"[pool]\nsize = 4\nmin_size = 5\n{REPORTS}idle_timeout = \"1s\"\n{NODE}{USER}"
    assert mistakes(file, text) == ["3:12: min_size is 5 and size only 4"]


def test_min_size_must_fit_every_node(file: Path) -> None:
    text = f"[pool]\nmin_size = 5\n{NODE}max_connections = 4\n{USER}"
    assert mistakes(file, text) == ["2:12: min_size is 5 and max_connections of node a only 4"]


@pytest.mark.parametrize(
    "entries",
    [
        f'{REPORTS}user = "u"\n{REPORTS}',
        f'{REPORTS}[[pools]]\ndatabase = "app"\n[[pools]]\nuser = "u"\n',
        f'{REPORTS}[[pools]]\nuser = "u"\n',
    ],
)
def test_the_special_before_the_general_is_no_mistake(file: Path, entries: str) -> None:
    assert len(read(file, entries + NODE + USER).config.pools) == entries.count("[[pools]]")


def test_anyone_may_be_named_where_anyone_may_log_in(file: Path) -> None:
    text = f'{REPORTS}user = "anyone"\n{NODE}[auth]\nmethod = "trust"\n'
    assert read(file, text, ENVIRON).config.pools[0].user == "anyone"


def test_users_of_a_file_that_could_not_be_read_are_not_called_unknown(file: Path) -> None:
    text = f'{REPORTS}user = "listed"\n{NODE}[auth]\nusers_file = "away"\n{USER}'
    found = mistakes(file, text)
    assert len(found) == 1
    assert "away" in found[0]
