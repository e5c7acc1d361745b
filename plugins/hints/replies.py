"""What the client is told: an error for a bad hint or a notice, as `[routing.hints] on_error` has it."""

from __future__ import annotations

from helios_sdk import Directive, Hint, Notice, Reject

from .settings import OnError
from .spelling import short
from .vocabulary import Problem


def reply(problem: Problem, hint: Hint, on_error: OnError) -> list[Directive]:
    """The directive that a bad hint brings, if any: 42601 with its position (none for a session's hint)."""
    if on_error == "ignore":
        return []
    reason = short(f"Bad hint: {hint.key}={hint.value}")
    at = hint.at or None
    if on_error == "reject":
        return [Directive(Reject("42601", problem.message, hint=problem.help, position=at), reason)]
    message = f"{problem.message}; the hint is ignored"
    return [Directive(Notice("notice", "42601", message, hint=problem.help, position=at), reason)]


def notice(message: str, hint: Hint, reason: str) -> Directive:
    """Something that the client should know although its hint is well formed: 01000."""
    return Directive(Notice("notice", "01000", message, position=hint.at or None), reason)
