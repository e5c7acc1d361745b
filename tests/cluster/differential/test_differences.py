"""What may differ is listed, documented, and does differ; and the neighbours are where they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.differential.conversations import ALL
from tests.cluster.differential.differences import APART, DIFFERENCES, Comparison, Difference, compare
from tests.cluster.differential.neighbours import Turns
from tests.cluster.differential.stage import Stage
from tests.cluster.differential.talking import Heard
from tests.cluster.differential.test_conversations import MODES, NOT_EQUAL
from tests.cluster.differential.vocabulary import C, Conversation, Q

PAGE = Path(__file__).parents[3] / "docs" / "compatibility.md"
BY_NAME = {conversation.name: conversation for conversation in ALL}


def heard(stage: Stage, conversation: Conversation, mode: str) -> Comparison:
    return compare(stage.said_by_the_server(conversation), stage.said_by_the_proxy(conversation, mode))


@pytest.mark.parametrize("entry", DIFFERENCES, ids=lambda entry: entry.name)
def test_what_may_differ_does_differ(stage: Stage, entry: Difference) -> None:
    found = heard(stage, BY_NAME[entry.witness], "transaction")
    assert not found.problem
    assert entry.name in found.listed, "it masks nothing: take it off the list"


@pytest.mark.parametrize(("name", "mode"), sorted(NOT_EQUAL))
def test_what_goes_another_way_does_so(stage: Stage, name: str, mode: str) -> None:
    assert heard(stage, BY_NAME[name], mode).problem, "it is equal: take it off the list"


def test_the_page_says_what_may_differ() -> None:
    page = " ".join(PAGE.read_text().split())
    for entry in DIFFERENCES:
        assert f"| {entry.name} | {entry.what} | {entry.why} | {entry.masked} |" in page
    for apart in APART:
        assert f"| {apart.what} | {apart.why} | {', '.join(apart.modes)} |" in page
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and not line.startswith("|--")]
    headings = 2
    assert len(rows) == len(DIFFERENCES) + len(APART) + headings


def test_a_difference_that_is_not_listed_is_seen() -> None:
    one, other = Heard("D", b"\0\1\0\0\0\0011"), Heard("D", b"\0\1\0\0\0\0012")
    assert not compare({"": [one]}, {"": [one]}).problem
    assert compare({"": [one]}, {"": [other]}).problem
    assert compare({"": [one]}, {"": [one, one]}).problem
    assert compare({"": [one, one]}, {"": [one]}).problem
    assert compare({"": [one]}, {}).problem


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "session"])
def test_the_neighbours_get_the_link_that_the_conversation_has_left(stage: Stage, mode: str) -> None:
    if not stage.known(mode):
        pytest.skip(f"the configuration knows no {mode} mode")
    stage.place(mode)
    neighbours = stage.neighbours[mode]
    neighbours.turns, neighbours.measured = Turns(), True
    try:
        assert not heard(stage, C("a long one", Q(*["select 1"] * 150)), mode).problem
    finally:
        neighbours.measured = False
    assert neighbours.turns.taken > 70
    assert neighbours.turns.on_the_same_link > 0.9 * neighbours.turns.taken
    assert neighbours.turns.away > 10


def test_a_conversation_meets_each_of_its_neighbours_links(stage: Stage) -> None:
    """What the neighbours do is done on links that the conversation's statements then run on."""
    conversation = C("where it runs", Q(*["select pg_backend_pid()"] * 40))
    said = stage.said_by_the_proxy(conversation, "transaction")[""]
    pids = {each.body for each in said if each.tag == "D" and each.body.startswith(b"\0\1")}
    assert len(pids) > 1
