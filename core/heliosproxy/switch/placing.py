"""Where a unit runs: the node that its flows, its session and what is still to come of it allow. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliosproxy.switch.loss import IDLE, flows_of
from heliosproxy.switch.resolving import EXECUTE

if TYPE_CHECKING:
    from heliosproxy.cluster.node import Node
    from heliosproxy.cluster.registry import Cluster
    from heliosproxy.switch.link import Link
    from heliosproxy.switch.planner import Planner
    from heliosproxy.switch.session import Session
    from heliosproxy.switch.unit import Unit


def place(session: Session, unit: Unit, planner: Planner, cluster: Cluster) -> tuple[Node | None, str | None]:
    """The node for a unit, None where none qualifies now; and the database, where a plugin names one."""
    flows = flows_of(unit)
    if not flows:
        return cluster.primary, None
    first = flows[0]
    database = first.verdict.database
    if unit.to_primary or session.primary_only or (session.mode == "session" and not session.hints):
        return cluster.primary, database
    if len(flows) == 1 and (unit.complete or not unit.executes or not first.read_only):
        return planner.choose(first, unit.lost_on), database
    # Several statements run where all of them may; what may still grow into a write runs on the primary.
    if unit.complete and all(flow.read_only for flow in flows):
        sets = [planner.candidates(flow).nodes for flow in flows]
        common = [node for node in sets[0] if all(node in nodes for nodes in sets) and node is not unit.lost_on]
        if common:
            return planner.balancer.choose(common, first.verdict.sticky), database
    return cluster.primary, database


def must_move(session: Session, unit: Unit, link: Link) -> bool:
    """Whether it has begun on a standby, and now comes a write (R3), or an Execute whose unit may still grow into one:
    what was executed could not be taken along."""
    if link.node.role == "primary" or session.status != IDLE or session.pins or unit.began:
        return False
    if not unit.complete and any(step.tag == EXECUTE for step in unit.steps):
        return True
    return any(step.flow is not None and not step.flow.read_only and step.asks_server for step in unit.steps)
