"""`helios route`. With nodes that answer: tests/cluster/test_admin.py."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.support import helios


def test_route_explains_each_step_without_nodes(served: Path) -> None:
    done = helios("route", "/*helios:route=async,lag=10s*/ select 'private'", "--config", served)
    assert done.returncode == 0, done.stderr
    assert "route=async (position 10)" in done.stdout
    assert "hints on-route" in done.stdout
    assert "away: not seen yet, down" in done.stdout
    assert "no node: Hint: route=async" in done.stdout
    assert "there is no primary" in done.stdout
    assert "private" not in done.stdout


def test_route_names_the_client_it_is_asked_for(served: Path) -> None:
    arguments = ("--user", "bob", "--database", "shop", "--application-name", "bi", "--hints", "route=primary")
    found = json.loads(helios("route", "select 1", *arguments, "--json", "--config", served).stdout)
    assert (found["user"], found["database"]) == ("bob", "shop")
    assert found["hints"] == [{"key": "route", "value": "primary", "at": 0}]


def test_the_first_user_is_the_default(served: Path) -> None:
    assert json.loads(helios("route", "select 1", "--json", "--config", served).stdout)["user"] == "alice"


def test_a_refused_statement_says_with_what(served: Path) -> None:
    done = helios("route", "/*helios:route=async,consistency=strong*/ select 1", "--config", served)
    assert "refused with 42601" in done.stdout
    assert "no server is asked" in done.stdout


def test_an_empty_statement_is_a_failure(served: Path) -> None:
    done = helios("route", "", "--config", served)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'there is no statement to explain (give one as "sql")\n'


def test_a_missing_statement_is_a_usage_error() -> None:
    assert helios("route").returncode == 2
