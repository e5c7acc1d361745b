"""Where one statement runs: its hints and the rule that matched, held against each other and against the nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from helios_sdk import ANY, PRIMARY, STANDBY, Directive, Hint, Route

from .nodesets import Nodes, disjoint, find, only_primary, without_primary
from .replies import notice, reply
from .settings import OnError
from .vocabulary import COMMENT, RULE, Problem, Value

PLACES: Final = ("node", "route")
"""Keys that name a target."""


class Decision:
    """The values that still stand, by key, and what the client is told about those that do not.

    Each check takes out what cannot be obeyed. `told` holds directives for the client; once one of them rejects the
    statement, nothing else matters (`rejected`).
    """

    __slots__ = ("_hints", "_nodes", "_on_error", "rejected", "told", "values")

    def __init__(self, values: dict[str, Value], hints: Mapping[str, Hint], nodes: Nodes, on_error: OnError) -> None:
        self.values = values
        self.told: list[Directive] = []
        self.rejected = False
        self._hints = hints
        self._nodes = nodes
        self._on_error = on_error

    def check(self) -> None:
        """Take out unknown nodes and contradictions."""
        values = self.values
        if "node" in values:
            self._check_node(values["node"])
        if "branch" in values:
            self._check_against("branch", PLACES)
        if "node" in values and "route" in values:
            self._check_against("route", ("node",))
        if "consistency" in values:
            self._check_consistency()
        if "lag" in values and self._names_primary("route"):
            self._clash("lag", "route")
        if "twr" in values:
            self._check_twr()

    def check_read(self, allow_primary: bool) -> None:
        """Take out what a read cannot have: twr, and the primary where that is switched off."""
        twr = self.values.pop("twr", None)
        if twr and twr.select and twr.rank == COMMENT:
            self._problem(twr, Problem("hint twr=true contradicts a statement that only reads", "Leave twr out."))
        if allow_primary:
            return
        for key in PLACES:
            if self._names_primary(key) and self.values[key].rank > RULE:
                self._ignored(self.values.pop(key), "reads from the primary are switched off")

    def read(self, default: Directive, required: Directive | None) -> list[Directive]:
        """A read's directives. `default`: the default target; `required`: the default consistency, if it asks for
        anything."""
        values = self.values
        places = [values[key] for key in PLACES if key in values]
        branch = values.get("branch")
        out = self.told
        out += _routes(places)
        if not places and not (branch and branch.select):
            out.append(default)
        level = values["consistency"].route if "consistency" in values else required
        if level and not self._met_by_primary(level, places):
            out.append(level)
        out += _routes(values[key] for key in ("lag", "branch") if key in values)
        return out

    def write(self, default: Directive | None) -> list[Directive]:
        """The directives of what is not proven to be read-only: it runs on the primary, whatever was asked for."""
        twr, branch = self.values.get("twr"), self.values.get("branch")
        if branch and branch.route:
            self._branch_of_write(branch, branch.route)
        if twr and twr.route:
            return [*self.told, self._replaying(twr), twr.route]
        for key in PLACES:
            value = self.values.get(key)
            if value and value.rank > RULE and without_primary(value.select, self._nodes):
                self._ignored(value, "only the primary runs what is not proven to be read-only")
            elif value and value.route and self._names_primary(key):
                default = Directive(Route((PRIMARY,)), value.route.reason)
        return self.told if default is None else [*self.told, default]

    def _replaying(self, twr: Value) -> Directive:
        """The Route that says which standby has to replay the write. It is a promise: nothing stands in for it."""
        value = self.values.get("node") or self.values.get("route") or twr
        reason = value.route.reason if value.route else ""
        return Directive(Route((STANDBY,) if value.select == (ANY,) else value.select), reason)

    def _branch_of_write(self, branch: Value, directive: Directive) -> None:
        route = directive.action
        select = branch.select
        if select and without_primary(select, self._nodes):
            self._ignored(branch, "only the primary runs what is not proven to be read-only", "the nodes of hint ")
            select = ()
        if isinstance(route, Route) and (select or route.database):
            self.told.append(Directive(Route(select or (ANY,), database=route.database), directive.reason))

    def _check_node(self, node: Value) -> None:
        name = str(node.select[0].value)
        if node.rank > RULE and find(name, self._nodes) is None:
            names = ", ".join(known.name for known in self._nodes)
            self._problem(self.values.pop("node"), Problem(f"unknown node in hint {node.text}", f"Nodes: {names}."))

    def _check_against(self, wider: str, keys: Iterable[str]) -> None:
        for key in keys:
            value = self.values.get(key)
            against = self.values.get(wider)
            if value and against and against.select and disjoint(value.select, against.select, self._nodes):
                self._clash(key, wider)

    def _check_consistency(self) -> None:
        """A target that allows none of the level's nodes, except the primary: that meets every level."""
        for key in PLACES:
            if not self._names_primary(key):
                self._check_against("consistency", (key,))

    def _check_twr(self) -> None:
        for key in PLACES:
            twr = self.values.get("twr")
            if twr and twr.select and self._names_primary(key):
                self._clash("twr", key)

    def _names_primary(self, key: str) -> bool:
        value = self.values.get(key)
        return value is not None and only_primary(value.select, self._nodes)

    def _met_by_primary(self, level: Directive, places: list[Value]) -> bool:
        """Whether the level's nodes leave out the primary although the target is the primary, which meets it."""
        route = level.action
        asked = any(only_primary(place.select, self._nodes) for place in places)
        return asked and isinstance(route, Route) and without_primary(route.select, self._nodes)

    def _clash(self, weaker: str, stronger: str) -> None:
        """Two hints that contradict each other: of two written in one place the first is the bad one; otherwise the
        one of lower rank goes. A consistency is never given up for a target: with no node left the switch falls back
        to one that meets it. A branch neither, since without it other data would be read."""
        value, against = self.values[weaker], self.values[stronger]
        if value.rank > against.rank and stronger == "consistency":
            return
        if value.rank > against.rank and stronger != "branch":
            del self.values[stronger]
            return
        del self.values[weaker]
        if value.rank >= against.rank:
            self._problem(value, Problem(f"hint {value.text} contradicts {against.text}", "Leave out one of them."))

    def _problem(self, value: Value, problem: Problem) -> None:
        """Tell the client of a hint that was taken out. A rule's is the administrator's, not the client's."""
        if value.rank == RULE or self.rejected:
            return
        self.told += reply(problem, self._hints[value.key], self._on_error)
        self.rejected = self._on_error == "reject"

    def _ignored(self, value: Value, why: str, what: str = "hint ") -> None:
        if value.rank > RULE:
            reason = value.route.reason if value.route else value.text
            self.told.append(notice(f"{what}{value.text} ignored: {why}", self._hints[value.key], reason))


def _routes(values: Iterable[Value]) -> list[Directive]:
    return [value.route for value in values if value.route]
