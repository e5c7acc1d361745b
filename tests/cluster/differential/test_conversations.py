"""The same conversations with PostgreSQL and with the proxy in front of it: equal, but for what is listed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.differential.conversations import ALL
from tests.cluster.differential.differences import APART, compare
from tests.cluster.differential.stage import Stage
from tests.cluster.differential.talking import Heard
from tests.cluster.differential.vocabulary import Conversation, On, Send, Step

MODES = ("transaction", "session", "statement")
NOT_EQUAL = {(name, mode) for each in APART for name in each.conversations for mode in each.modes}


def makes_sense(conversation: Conversation, mode: str) -> bool:
    return (conversation.name, mode) not in NOT_EQUAL and not (mode == "statement" and conversation.blocks)


def in_block(heard: Heard) -> bool:
    return heard.tag == "Z" and heard.body != b"I"


def tags(step: Step) -> Iterator[str]:
    """The types of the messages that a step sends, as far as they are messages."""
    if isinstance(step, On):
        for each in step.steps:
            yield from tags(each)
    data, position = step.data if isinstance(step, Send) else b"", 0
    while len(data) - position >= 5:
        yield chr(data[position])
        position += 1 + int.from_bytes(data[position + 1 : position + 5], "big")


PLAYED = [(conversation, mode) for mode in MODES for conversation in ALL if makes_sense(conversation, mode)]


def test_every_conversation_has_a_name_of_its_own_and_there_are_enough() -> None:
    assert len({conversation.name for conversation in ALL}) == len(ALL) >= 300


def test_every_message_type_occurs(stage: Stage) -> None:
    sent, heard = set[str](), set[str]()
    for conversation in ALL:
        sent |= {tag for step in conversation.steps for tag in tags(step)}
        heard |= {each.tag for said in stage.said_by_the_server(conversation).values() for each in said}
    assert sent >= set("QPBDECSHFdcfX")
    assert heard >= set("RKSZENTDCI123ntsAGHdcVv")


@pytest.mark.parametrize(
    ("conversation", "mode"), PLAYED, ids=[f"{mode}-{conversation.name}" for conversation, mode in PLAYED]
)
def test_the_proxy_says_what_postgresql_says(stage: Stage, conversation: Conversation, mode: str) -> None:
    if not stage.known(mode):
        pytest.skip(f"the configuration knows no {mode} mode")
    direct = stage.said_by_the_server(conversation)
    assert conversation.blocks or not any(in_block(each) for said in direct.values() for each in said)
    proxied = stage.said_by_the_proxy(conversation, mode)
    problem = compare(direct, proxied).problem
    if problem:
        pytest.fail(f"{conversation.name}, {mode} mode: {problem}", pytrace=False)
