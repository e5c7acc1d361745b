"""How deep a statement's tree can get, found by scanning its text once (SAFETY S5).

pglast is native code that recurses, and so does the JSON reader behind it. A text is therefore measured before it is
parsed. The measure is an upper bound, never an estimate from below:

- A bracket (parentheses, square brackets, CASE … END) costs `BRACKET` levels: the nodes between a sub-select and the
  one inside it. Symbolic operators and casts cost one level each, and their count starts afresh at a comma, AND and
  OR, which every symbolic operator binds tighter than.
- UNION, JOIN, NOT, IS and the like can nest across commas, AND and OR (`x IS NULL BETWEEN 1 AND 2 IS NULL …`), so
  their count never starts afresh within a bracket.

Measured with libpg_query 18 on a thread's stack of 512 KB, where the parser gives in first: 256 nested sub-selects,
304 nested WITH, 384 nested pairs of parentheses with AND and OR, 512 CASE, 768 operators, joins or NOTs, 1,536 casts.
`MAX_DEPTH` keeps a factor of four or more from each of them.
"""

from __future__ import annotations

import re

BRACKET = 3
"""Levels that a bracket costs."""
MAX_DEPTH = 192
"""Texts that may be deeper than this are not parsed."""
SHORT = 512
"""Texts of up to so many characters cannot get deep enough to matter (256 operators), and are not scanned."""
MAX_REPEATED = 65_536
"""Characters that `SET (a, b, …) = (…)` may add to the tree: the parser repeats the source for every column."""

_TOKEN = re.compile(
    r"""
      (?P<skip>   --[^\n\r]* | '(?:[^']|'')*' | "(?:[^"]|"")*" | [0-9.]+ )
    | (?P<escape> [eE]'(?:[^'\\]|\\.|'')*' )
    | (?P<dollar> \$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$ )
    | (?P<comment>/\*)
    | (?P<word>   [A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]* | \$[0-9]+ )
    | (?P<open>   [(\[] )
    | (?P<close>  [)\]] )
    | (?P<comma>  [,] )
    | (?P<end>    ; )
    | (?P<bad>    ['"] )
    | (?P<op>     (?: (?!--|/\*) [-+*/<>=~!@#%^&|`?:] )+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_OPERATORS = re.compile(r"[-+*/<>=~!@#%^&|`?:]")
_DEEPENS = re.compile(
    r"[(\[]|\b(?:case|join|union|intersect|except|not|is|isnull|notnull|between|in|like|ilike|similar|collate|at|operator"
    r"|overlaps|set)\b",
    re.IGNORECASE,
)
_ASSIGNS_MANY = re.compile(r"\)(?:\s*=|\s*--|\s*/\*)")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_CONTINUED = re.compile(r"(?:\s|--[^\n\r]*+)*+'")
_SPINE = frozenset((
    "join", "union", "intersect", "except", "not", "is", "isnull", "notnull", "between", "in", "like", "ilike",
    "similar", "collate", "at", "operator", "overlaps", "set",
))  # fmt: skip
_RESTART = frozenset(("and", "or"))


def shallow(text: str) -> bool:
    """Whether the statement's tree is certainly no deeper than `MAX_DEPTH` and not swollen.

    Most texts have too few operators and brackets for a deep tree, wherever they stand; only the others are scanned.
    """
    if len(text) <= SHORT:
        return True
    most = len(_DEEPENS.findall(text)) * BRACKET + len(_OPERATORS.findall(text))
    if most <= MAX_DEPTH and not _ASSIGNS_MANY.search(text):
        return True
    found = depth(text)
    return found is not None and found <= MAX_DEPTH


class _Level:
    """A bracket that is open: what nests in it so far."""

    __slots__ = ("case", "chain", "commas", "deepest", "inner", "spine")

    def __init__(self, case: bool = False) -> None:
        self.case = case
        self.commas = self.chain = self.inner = self.deepest = self.spine = 0

    def restart(self) -> None:
        """A separator: operators to its left no longer nest with those to its right."""
        self.deepest = max(self.deepest, self.chain + self.inner)
        self.chain = self.inner = 0

    def total(self) -> int:
        self.restart()
        return self.deepest + self.spine


def depth(text: str) -> int | None:
    """An upper bound for the depth of the statement's tree in levels; None: the text cannot be judged.

    None for an unterminated literal or comment, brackets that do not match, an E'' literal that continues on another
    line (what follows it is read differently), and multiple assignments that would swell the tree. Takes time linear
    in the text's length.
    """
    return _Scan(text).run()


class _Scan:
    __slots__ = ("after_close", "commas", "deepest", "levels", "repeated", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.levels = [_Level()]
        self.deepest = 0
        self.after_close = False
        self.commas = 0
        self.repeated = 0

    def run(self) -> int | None:
        text, at, match = self.text, 0, _TOKEN.search
        while token := match(text, at):
            at = token.end()
            kind = token.lastgroup
            if kind == "skip":
                continue
            if kind in ("dollar", "comment", "escape", "bad"):
                at = self._past(kind, token.group(), at)
                if at < 0:
                    return None
            elif not self._structure(kind, token.group()):
                return None
            if kind != "comment":
                self.after_close = kind == "close"
        if len(self.levels) != 1 or self.repeated > MAX_REPEATED:
            return None
        return max(self.deepest, self.levels[0].total())

    def _structure(self, kind: str | None, word: str) -> bool:
        level = self.levels[-1]
        if kind == "word":
            return self._word(level, word.lower())
        if kind == "open":
            self.levels.append(_Level())
        elif kind == "close":
            return self._close(case=False)
        elif kind == "comma":
            level.commas += 1
            level.restart()
        elif kind == "end":
            self.deepest = max(self.deepest, level.total())
            level.spine = level.deepest = 0
        else:
            level.chain += len(word)
            if self.after_close and word[0] == "=":
                self.repeated += (self.commas + 1) * len(self.text) if self.commas else 0
        return True

    def _word(self, level: _Level, word: str) -> bool:
        if word in _RESTART:
            level.restart()
        elif word in _SPINE:
            level.spine += 1
        elif word == "case":
            self.levels.append(_Level(case=True))
        elif word == "end" and level.case:
            return self._close(case=True)
        return True

    def _close(self, case: bool) -> bool:
        level = self.levels.pop()
        if level.case is not case or not self.levels:
            return False
        self.commas = level.commas
        outer = self.levels[-1]
        outer.inner = max(outer.inner, level.total() + BRACKET)
        return True

    def _past(self, kind: str, token: str, at: int) -> int:
        """Where the comment or literal ends; -1 if it does not, or if that is doubtful."""
        if kind == "comment":
            return self._past_comment(at)
        if kind == "dollar":
            found = self.text.find(token, at)
            return found + len(token) if found >= 0 else -1
        if kind == "escape" and not _CONTINUED.match(self.text, at):
            return at
        return -1

    def _past_comment(self, at: int) -> int:
        nested = 1
        while nested:
            edge = _COMMENT_EDGE.search(self.text, at)
            if edge is None:
                return -1
            nested += 1 if edge.group() == "/*" else -1
            at = edge.end()
        return at
