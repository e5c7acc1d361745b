"""Pipelines that nobody thought of: any messages of the extended protocol in any order, over few names."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, given, note, settings

from tests.cluster.differential.differences import compare
from tests.cluster.differential.stage import Stage
from tests.cluster.differential.test_conversations import MODES
from tests.cluster.differential.vocabulary import (
    FLUSH,
    SYNC,
    C,
    Go,
    Steps,
    bind,
    close,
    describe,
    execute,
    parse,
    query,
    run,
)

EXAMPLES = 40
STATEMENTS = ("", "s", "p")
PORTALS = ("", "a")
TEXTS = (
    "select 1", "select n, s from t order by n", "select $1::int", "insert into w values ($1) returning n",
    "select n from w order by n", "select 1 / ($1::int - 1)", "selectt", "select * from nowhere",
    "set timezone = 'Asia/Tokyo'", "set search_path = decoy", "reset all", "show timezone",
)  # fmt: skip
BLOCKS = ("begin", "commit", "rollback", "savepoint x", "rollback to x")
QUERIES = (
    "select s from t where n = 1", "insert into w values (7)", "select 1/0", "deallocate all", "discard all",
    "reset timezone",
)  # fmt: skip

statements, portals = st.sampled_from(STATEMENTS), st.sampled_from(PORTALS)
values = st.lists(st.sampled_from(("1", "2", "x", None)), max_size=2)
rows = st.sampled_from((0, 1, 2))


def messages(texts: tuple[str, ...]) -> st.SearchStrategy[bytes]:
    """One message of the extended protocol, or a few that make sense together."""
    text = st.sampled_from(texts)
    return st.one_of(
        st.builds(parse, text, statements),
        st.builds(lambda given, name, portal: bind(*given, name=name, portal=portal), values, statements, portals),
        st.builds(describe, statements),
        st.builds(lambda portal: describe(portal, "P"), portals),
        st.builds(execute, rows, portals),
        st.builds(close, statements),
        st.builds(lambda portal: close(portal, "P"), portals),
        st.just(FLUSH),
        st.builds(lambda sql, given: run(sql, *given), text, values),
        st.builds(lambda sql, name: parse(sql, name) + bind(name=name) + execute(), text, statements),
    )


def pipelines(texts: tuple[str, ...], queries: tuple[str, ...]) -> st.SearchStrategy[list[Steps]]:
    """Some pipelines after each other; each is sent at once and consists of units and Queries.

    A Query stands behind a Sync only, so that it is certain how often ReadyForQuery comes.
    """
    unit = st.lists(messages(texts), max_size=6).map(lambda parts: b"".join(parts) + SYNC)
    piece = st.one_of(unit, unit, unit, st.sampled_from(queries).map(query))
    return st.lists(st.lists(piece, min_size=1, max_size=4).map(lambda pieces: Go(*pieces)), min_size=1, max_size=4)


def check(stage: Stage, steps: list[Steps], modes: tuple[str, ...], blocks: bool) -> None:
    conversation = C(f"generated {hash(repr(steps))}", *steps, blocks=blocks)
    direct = stage.said_by_the_server(conversation, remember=False)
    for mode in modes:
        problem = compare(direct, stage.said_by_the_proxy(conversation, mode)).problem
        if problem:
            note("\n".join(map(repr, conversation.steps)))
            raise AssertionError(f"{mode} mode: {problem}")


bounded = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None,
    phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
)  # fmt: skip


@bounded
@given(steps=pipelines(TEXTS, QUERIES))
def test_pipelines_without_transaction_blocks(stage: Stage, steps: list[Steps]) -> None:
    check(stage, steps, stage.known(*MODES), blocks=False)


@bounded
@given(steps=pipelines(TEXTS + 2 * BLOCKS, QUERIES + BLOCKS))
def test_pipelines_with_transaction_blocks(stage: Stage, steps: list[Steps]) -> None:
    check(stage, steps, stage.known("transaction", "session"), blocks=True)
