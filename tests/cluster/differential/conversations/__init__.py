"""All conversations, an area a file."""

from __future__ import annotations

from dataclasses import replace

from tests.cluster.differential.conversations import (
    calls,
    cancels,
    copying,
    cursors,
    errors,
    extended,
    framing,
    large,
    notifications,
    pipelines,
    settings,
    simple,
    startup,
    state,
    transactions,
)
from tests.cluster.differential.vocabulary import Conversation

AREAS = (
    startup, simple, extended, errors, pipelines, transactions, copying, calls, cursors, notifications, settings, state,
    large, cancels, framing,
)  # fmt: skip

ALL: tuple[Conversation, ...] = tuple(
    replace(conversation, area=area.AREA) for area in AREAS for conversation in area.CONVERSATIONS
)
