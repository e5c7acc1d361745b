"""How much work a text would make for PostgreSQL's parser and for what reads its tree, found by scanning it once (S5).

Two things are bounded beside length and depth. Nodes: a name, a bracket or an operator costs about 5 µs to parse and to
walk, a literal a third of that, so that 16 KB of `f(),f(),…` would hold everybody up for 50 ms. And characters of
operators that follow each other: where a comment starts in such a run, PostgreSQL's scanner reads the run to its end
and then goes back, so that `/**//**//**/…` takes time quadratic in its length: 130 ms for 16 KB.
"""

from __future__ import annotations

import re

SHORT = 2048
"""Texts of up to so many characters are never too much."""
MAX_WORK = 13_000
"""A literal is one, a name, a bracket or an operator three or four."""
MAX_RUN = 512
"""Characters of operators and comments' edges in a row."""

_SKIPPED = re.compile(r"""'[^']*+'|"[^"]*+"|--[^\n\r]*+|/\*(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/""")
# What is left where one of these ended elsewhere than it seems to: then what is in them counts as well.
_DOUBT = re.compile(r"""['"]|/\*|\$(?![0-9])""")
_ESCAPES = re.compile(r"[eE]'")
_NUMBER = re.compile(r"\$?\b[0-9]\w*")
_NAME = re.compile(r"\b[^\W0-9]\w*|\"")
_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|`?:]")
_BRACKET = re.compile(r"[(\[]")
_RUN = re.compile(r"[-+*/<>=~!@#%^&|`?]+")


def modest(text: str) -> bool:
    """Whether the text is certainly no more than a tree may be built of. Takes time linear in its length."""
    if len(text) <= SHORT:
        return True
    if max(map(len, _RUN.findall(text)), default=0) > MAX_RUN:
        return False
    left, skipped = _SKIPPED.subn(" ", text)
    if _DOUBT.search(left) or ("\\" in text and _ESCAPES.search(text)):
        left = text
    skipped += 3 * (text.count('"') // 2)
    work = skipped + len(_NUMBER.findall(left)) + 4 * (len(_NAME.findall(left)) + len(_BRACKET.findall(left)))
    return work + 3 * len(_OPERATOR.findall(left)) <= MAX_WORK
