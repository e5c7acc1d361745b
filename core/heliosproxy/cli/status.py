"""`helios status`: nodes, pools, plugins and flows of a running proxy."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from rich.console import Console, RenderableType

from heliosproxy.cli import output
from heliosproxy.cli.asking import asking
from heliosproxy.cli.client import Target, get
from heliosproxy.control.shapes import StatusShown


def run_status(config: Path | None, *, json: bool) -> int:
    """The command; the exit code."""

    def ask(target: Target) -> None:
        found = cast(StatusShown, get(target, "/status"))
        if json:
            output.print_json(found)
        else:
            _print(found, output.console())

    return asking(config, ask)


def _print(status: StatusShown, console: Console) -> None:
    proxy = status["proxy"]
    console.print(
        f"HeliosProxy {status['version']} at {status['listen']}, up {duration(status['uptime'])}: "
        f"{proxy['clients']} clients, {proxy['statements']} statements"
    )
    if proxy["refused"]:
        reasons = sorted(proxy["refused"].items(), key=lambda item: -item[1])
        console.print("refused: " + ", ".join(f"{reason} {count}" for reason, count in reasons))
    for part in (_nodes(status), _pools(status), _plugins(status)):
        console.print()
        console.print(part)
    flows = status["flows"]
    console.print(
        f"\n[bold]flows[/bold]  {flows['size']} of {flows['limit']} remembered; "
        f"{output.share(flows['remembered'])} of {flows['hits'] + flows['misses']} statements needed no plugin"
    )


def _nodes(status: StatusShown) -> RenderableType:
    columns = ("node", "address", "role", "sync", "state", "lag", "round trip", "in flight", "PostgreSQL")
    rows = [
        (
            node["name"],
            node["address"],
            node["role"],
            node["sync"],
            "up" if node["healthy"] else f"down: {node['reason']}",
            milliseconds(node["lag_ms"]),
            milliseconds(node["round_trip_ms"]),
            node["in_flight"],
            node["server_version"],
        )
        for node in status["nodes"]
    ]
    return output.table(columns, rows, "nodes")


def _pools(status: StatusShown) -> RenderableType:
    columns = ("node", "database", "user", "mode", "links", "idle", "active", "opening", "waiting", "longest wait",
               "timed out", "problem")  # fmt: skip
    rows = [
        (
            pool["node"],
            pool["database"],
            pool["user"],
            pool["mode"],
            f"{pool['idle'] + pool['active']} of {pool['size']}" + (f"+{pool['reserve']}" if pool["reserve"] else ""),
            pool["idle"],
            pool["active"],
            pool["opening"],
            pool["waiting"],
            milliseconds(pool["longest_wait"] * 1000),
            pool["timed_out"],
            pool["problem"],
        )
        for pool in status["pools"]
    ]
    return output.table(columns, rows, "pools") if rows else "[bold]pools[/bold]  none yet"


def _plugins(status: StatusShown) -> RenderableType:
    rows = [(each["name"], each["version"], each["state"], each["reason"]) for each in status["plugins"]]
    return output.table(("plugin", "version", "state", "reason"), rows, "plugins") if rows else "no plugins"


def milliseconds(value: float | None) -> str:
    """A time in ms, or a dash."""
    return "-" if value is None else f"{value:.1f} ms"


def duration(seconds: float) -> str:
    """A time as people say it, in its two largest units."""
    whole = int(seconds)
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    said = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(said[:2]) or "0 s"
