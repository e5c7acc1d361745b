"""`helios check --connect`: each node asked, and its answer held against the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import trio
import trio_asyncio

from heliosproxy.cli.survey import Login, Server, Standby, SurveyError, survey
from heliosproxy.config.errors import KeyPath
from heliosproxy.config.model import Config, NodeConfig

MODES = {"sync": "sync", "quorum": "semisync", "potential": "async", "async": "async"}
"""pg_stat_replication.sync_state in the words of hints and nodes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth saying. `path`: the key it speaks of. The level decides the exit code; a warning has none."""

    level: Literal["unreachable", "configuration", "failure", "warning"]
    node: str
    path: KeyPath
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A node with what it said, or why it said nothing."""

    index: int
    node: NodeConfig
    server: Server | None
    error: SurveyError | None = None


async def ask_all(config: Config) -> tuple[Answer, ...]:
    """Every node at once, in the order of the file. Takes no longer than `pool.connect_timeout`."""
    health = config.health
    login = Login(health.user, health.password, health.database, config.pool.connect_timeout)
    answers: dict[int, Answer] = {}

    async def ask(index: int, node: NodeConfig) -> None:
        try:
            answers[index] = Answer(index, node, await survey(node.address, login, node.tls))
        except SurveyError as error:
            answers[index] = Answer(index, node, None, error)

    async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
        for index, node in enumerate(config.nodes):
            nursery.start_soon(ask, index, node)
    return tuple(answers[index] for index in sorted(answers))


def judge(config: Config, answers: Sequence[Answer]) -> tuple[Finding, ...]:
    """What is wrong or doubtful, in the order of the file."""
    findings: list[Finding] = []
    for answer in answers:
        if answer.error is not None and answer.error.kind != "refused":
            findings.append(_no_answer(answer, answer.error))
        elif answer.server is not None:
            findings += _role(answer, answer.server)
            findings += _replication(answer, answer.server, answers)
            findings += _connections(config, answer, answer.server)
        findings += _unenforced(answer)
    return (*_refused(answers), *findings, *_cluster(answers), *_blind(config, answers))


def mode_of(answer: Answer, answers: Sequence[Answer]) -> str | None:
    """A standby's sync mode as its primary sees it; None if it does not say."""
    row = _row(answer.node, answers)
    return MODES.get(row["sync_state"] or "") if row else None


def _no_answer(answer: Answer, error: SurveyError) -> Finding:
    path: KeyPath = ("nodes", answer.index, "address")
    level: Literal["unreachable", "failure"] = "unreachable" if error.kind == "unreachable" else "failure"
    return Finding(level, answer.node.name, path, f"{answer.node.name}: {error}")


def _refused(answers: Sequence[Answer]) -> Iterator[Finding]:
    """One finding for each reason, whatever the number of nodes: one wrong password is one mistake."""
    nodes: dict[str, list[str]] = {}
    for answer in answers:
        if answer.error is not None and answer.error.kind == "refused":
            nodes.setdefault(answer.error.reason, []).append(answer.node.name)
    for reason, names in nodes.items():
        yield Finding("configuration", names[0], ("health", "password"), f"{', '.join(names)}: {reason}")


def _blind(config: Config, answers: Sequence[Answer]) -> Iterator[Finding]:
    """A role without pg_monitor sees that there are standbys, and nothing of them."""
    if any(row["state"] is None for answer in answers if answer.server for row in answer.server["standbys"]):
        user = config.health.user
        message = f'{user} may not see the state of replication; grant pg_monitor to "{user}"'
        yield Finding("warning", "", ("health", "user"), message)


def _unenforced(answer: Answer) -> Iterator[Finding]:
    """What asyncpg cannot do for the proxy's own connections."""
    node = answer.node
    keys = {"channel_binding": node.tls.channel_binding == "require", "require_auth": bool(node.require_auth)}
    if set_here := " and ".join(key for key, is_set in keys.items() if is_set):
        safe = node.tls.sslmode == "verify-full" or node.address.host.startswith("/")
        if not safe:
            message = f"{node.name}: the proxy's own connections ([health]) do not observe {set_here}"
            hint = "sslmode verify-full keeps their password from somebody in the middle"
            yield Finding("warning", node.name, ("nodes", answer.index, "name"), f"{message}; {hint}")


def _role(answer: Answer, server: Server) -> Iterator[Finding]:
    role = "standby" if server["in_recovery"] else "primary"
    if answer.node.role not in ("auto", role):
        message = f"{answer.node.name} is a {role}, not a {answer.node.role}; it would be left out"
        yield Finding("failure", answer.node.name, ("nodes", answer.index, "role"), message)


def _replication(answer: Answer, server: Server, answers: Sequence[Answer]) -> Iterator[Finding]:
    name = answer.node.name
    here: KeyPath = ("nodes", answer.index, "name")
    if not server["in_recovery"]:
        yield from _durability(answer, server, answers)
        return
    upstream = server["upstream"]
    if upstream is None:
        yield Finding("warning", name, here, f"{name} receives nothing from a primary; its lag will grow")
    elif upstream["status"] not in (None, "streaming"):
        yield Finding("warning", name, here, f"{name} is {upstream['status']}, not streaming")
    if not any(other.server and not other.server["in_recovery"] for other in answers):
        return
    mode = mode_of(answer, answers)
    if _row(answer.node, answers) is None and answer.node.sync == "auto":
        message = f'no standby of the primary has the application_name "{name}"; set it, or sync'
        yield Finding("warning", name, here, message)
    elif mode is not None and answer.node.sync not in ("auto", mode):
        message = f"{name} is {mode} to the primary, not {answer.node.sync}; the configuration wins"
        yield Finding("warning", name, ("nodes", answer.index, "sync"), message)


def _durability(answer: Answer, server: Server, answers: Sequence[Answer]) -> Iterator[Finding]:
    name, commit = answer.node.name, server["synchronous_commit"]
    here: KeyPath = ("nodes", answer.index, "name")
    if commit == "off":
        message = f"{name} has synchronous_commit = off: acknowledged writes can be lost in a crash"
        yield Finding("warning", name, here, message)
    elif commit == "local" and server["synchronous_standby_names"]:
        message = f"{name} has synchronous_commit = local: it does not wait for its synchronous standbys"
        yield Finding("warning", name, here, message)
    wanted = [other.node.name for other in answers if other.node.sync in ("sync", "semisync")]
    if wanted and not server["synchronous_standby_names"]:
        message = f"{name} has no synchronous_standby_names, though {', '.join(wanted)} is configured as synchronous"
        yield Finding("warning", name, here, message)


def _connections(config: Config, answer: Answer, server: Server) -> Iterator[Finding]:
    free = headroom(server)
    if free < config.pool.size:
        name = answer.node.name
        message = f"{name} has room for {max(free, 0)} more connections; one user's pool takes up to {config.pool.size}"
        yield Finding("warning", name, ("pool", "size"), message)


def headroom(server: Server) -> int:
    """Connections that ordinary roles can still open."""
    return server["max_connections"] - server["reserved"] - server["in_use"]


def _cluster(answers: Sequence[Answer]) -> Iterator[Finding]:
    answered = [answer for answer in answers if answer.server]
    primaries = [answer for answer in answered if answer.server and not answer.server["in_recovery"]]
    if len(answered) == len(answers) and not primaries:
        yield Finding("failure", "", ("nodes",), "none of the nodes is a primary: nothing can be written")
    for extra in primaries[1:]:
        message = f"{extra.node.name} is a primary too, beside {primaries[0].node.name}"
        yield Finding("failure", extra.node.name, ("nodes", extra.index, "address"), message)
    system = answered[0].server["system"] if answered and answered[0].server else ""
    for other in answered[1:]:
        if other.server and other.server["system"] != system:
            message = f"{other.node.name} belongs to another cluster than {answered[0].node.name}"
            yield Finding("failure", other.node.name, ("nodes", other.index, "address"), message)


def _row(node: NodeConfig, answers: Sequence[Answer]) -> Standby | None:
    rows = (row for answer in answers if answer.server for row in answer.server["standbys"])
    return next((row for row in rows if row["name"] == node.name), None)
