"""Regular expressions of rules and maps: what they mean in pg_hba.conf and pg_ident.conf, in bounded time.

Whoever can reach the proxy chooses the name that an expression is held against, before it has proved anything. Python's
`re` tries one way after another, and there may be 2^63 of them. Here all ways are followed at once (Thompson's method,
with Pike's priorities), so that no name costs more than its length times the expression's. PostgreSQL's expressions
are as harmless, and people take them over from there.

Of several ways to match, the group is that of the first one in Perl's order: alternatives from the left, repeats as
long as they can be. PostgreSQL's may be another one where alternatives overlap or the group itself is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from heliosproxy.auth.expressions_read import Capture, Chars, Choice, ExpressionError, Node, Place, Repeat, Row, read

SIZE_MOST = 500
"""Steps of an expression, its repeats written out."""
LENGTH_MOST = 1024
"""Characters of a text; longer ones match nothing. Users' names have 63 bytes, those in certificates any number."""


@dataclass(frozen=True, slots=True)
class _Fork:
    """Go on at `first`, and where that leads nowhere at `second`."""

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class _Mark:
    """Here the group begins, or ends."""

    ends: bool


@dataclass(frozen=True, slots=True)
class _End:
    """All has matched."""


_Step: TypeAlias = Chars | Place | _Fork | _Mark | _End
_Way: TypeAlias = tuple[int, int, int]
"""The step that comes next; where the group begins and ends, or -1."""


@dataclass(frozen=True, slots=True)
class Found:
    """An expression fits."""

    group: str | None
    """What its first group matched; None if it has none, or that one was not part of the match."""


class Expression:
    """A regular expression, ready for use."""

    def __init__(self, text: str) -> None:
        """Raises ExpressionError if it is none, is too large, or holds what is not understood."""
        steps: list[_Step] = []
        _write(read(text), steps)
        _emit(steps, _End())
        self._steps = tuple(steps)
        self._anchored = steps[0] == Place(end=False)
        self._captures = any(isinstance(step, _Mark) for step in steps)

    @property
    def size(self) -> int:
        """Its steps: what a character costs at the most."""
        return len(self._steps)

    def search(self, text: str) -> Found | None:
        """The first place in `text` where it fits; None: nowhere."""
        if len(text) > LENGTH_MOST:
            return None
        ways: list[_Way] = []
        found: Found | None = None
        for at in range(len(text) + 1):
            if found is None and not (at and self._anchored):
                ways.append((0, -1, -1))
            elif not ways:
                break
            waiting, ended = self._follow(ways, at, len(text))
            if ended is not None:
                found = Found(text[ended[1] : ended[2]] if ended[2] >= 0 else None)
            if at == len(text) or (found is not None and not self._captures):
                break
            ways = [(step + 1, begin, end) for step, begin, end, chars in waiting if chars.holds(text[at])]
        return found

    def _follow(self, ways: list[_Way], at: int, length: int) -> tuple[list[tuple[int, int, int, Chars]], _Way | None]:
        """As far as they lead without another character, each step at most once: those that want one, best first; and
        the one that has reached the end, behind which nothing counts."""
        waiting: list[tuple[int, int, int, Chars]] = []
        seen: set[int] = set()
        ways.reverse()
        while ways:
            number, begin, end = ways.pop()
            if number in seen:
                continue
            seen.add(number)
            step = self._steps[number]
            if isinstance(step, Chars):
                waiting.append((number, begin, end, step))
            elif isinstance(step, _Fork):
                ways += ((step.second, begin, end), (step.first, begin, end))
            elif isinstance(step, _Mark):
                ways.append((number + 1, begin, at) if step.ends else (number + 1, at, -1))
            elif isinstance(step, Place):
                if at == (length if step.end else 0):
                    ways.append((number + 1, begin, end))
            else:
                return waiting, (number, begin, end)
        return waiting, None


def _emit(steps: list[_Step], step: _Step) -> int:
    """Write a step; its number."""
    if len(steps) >= SIZE_MOST:
        raise ExpressionError(f"it is too large: more than {SIZE_MOST} steps", "repeat less often, or say it in parts")
    steps.append(step)
    return len(steps) - 1


def _write(node: Node, steps: list[_Step]) -> None:
    if isinstance(node, Chars | Place):
        _emit(steps, node)
    elif isinstance(node, Row):
        for part in node.parts:
            _write(part, steps)
    elif isinstance(node, Capture):
        _emit(steps, _Mark(ends=False))
        _write(node.body, steps)
        _emit(steps, _Mark(ends=True))
    elif isinstance(node, Choice):
        _write_choice(node, steps)
    else:
        _write_repeat(node, steps)


def _write_choice(node: Choice, steps: list[_Step]) -> None:
    leave: list[int] = []
    for branch in node.branches[:-1]:
        fork = _emit(steps, _End())
        _write(branch, steps)
        leave.append(_emit(steps, _End()))
        steps[fork] = _Fork(fork + 1, len(steps))
    _write(node.branches[-1], steps)
    for step in leave:
        steps[step] = _Fork(len(steps), len(steps))


def _write_repeat(node: Repeat, steps: list[_Step]) -> None:
    for _ in range(node.least):
        _write(node.body, steps)
    fork = partial(_fork, greedy=node.greedy)
    if node.most is None:
        again = _emit(steps, _End())
        _write(node.body, steps)
        _emit(steps, _Fork(again, again))
        steps[again] = fork(again + 1, len(steps))
        return
    leave: list[int] = []
    for _ in range(node.most - node.least):
        leave.append(_emit(steps, _End()))
        _write(node.body, steps)
    for step in leave:
        steps[step] = fork(step + 1, len(steps))


def _fork(again: int, further: int, *, greedy: bool) -> _Step:
    return _Fork(again, further) if greedy else _Fork(further, again)
