"""`helios init postgres://…`: looks at a server, finds its cluster, writes a heliosproxy.toml for it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, unquote, urlsplit

import tomlkit
import trio
import trio_asyncio
import typer

from heliosproxy.cli.discover import Found, Member, discover
from heliosproxy.cli.survey import Login, SurveyError
from heliosproxy.config.kinds import Address
from heliosproxy.config.values import BadValue, address

EXIT_OK, EXIT_FAILURE, EXIT_USAGE, EXIT_UNREACHABLE = 0, 1, 2, 4
PASSWORD_VARIABLE = "HELIOS_HEALTH_PASSWORD"  # a name, no password

_FILE = """\
# HeliosProxy, in front of {name} (PostgreSQL {version}). Written by `helios init`.
# Every further key, with its default: docs/configuration.md

[proxy]
listen = "127.0.0.1:6432"           # where clients connect
admin = "127.0.0.1:9090"            # the admin API; loopback only

# The role of each node, and a standby's sync mode, are asked of the servers and followed.

{nodes}

[pool]
mode = "transaction"
size = 20                           # links at most, per node, database and user

[auth]
method = "scram-sha-256"

# Who may log in to the proxy; the same name and password log in to the nodes. Add one for each of your users.
[[auth.users]]
name = {user}
password = "${{{variable}}}"

# The proxy's own connections to the nodes.
[health]
user = {user}  # best one with the role pg_monitor
password = "${{{variable}}}"
database = {database}

[plugins]
enabled = ["hints"]

[routing]
default_read_target = {reads}
"""


class BadUrl(ValueError):
    """A server's URL that cannot be used; the message never holds its password."""


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """A postgres:// URL, read. `password` is None where it has none."""

    address: Address
    user: str
    password: str | None = field(repr=False)
    database: str


def init(
    url: Annotated[str, typer.Argument(help="postgres://user:password@host:port/database; or PGPASSWORD.")],
    output: Annotated[Path, typer.Option("--output", help="The file to write.")] = Path("heliosproxy.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite it if it is there.")] = False,
    standby: Annotated[list[str] | None, typer.Option("--standby", help="host:port of a standby; repeatable.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for each server.")] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="What was found, as JSON on standard output.")] = False,
) -> None:
    """Write a heliosproxy.toml for a running server and its standbys.

    Exit codes: 0 written, 1 not written, 2 a bad URL or address, 4 the server cannot be reached.
    """
    raise typer.Exit(run_init(url, output, os.environ, force=force, standbys=standby or (), timeout=timeout, json=json))


def run_init(
    url: str,
    output: Path,
    environ: Mapping[str, str],
    *,
    force: bool = False,
    standbys: Sequence[str] = (),
    timeout: float = 5.0,
    json: bool = False,
) -> int:
    """The command; returns the exit code. The password goes to the servers and nowhere else."""
    try:
        server = parse_url(url, environ)
        further = [address(text) for text in standbys]
    except (BadUrl, BadValue) as error:
        return _fail(str(error), EXIT_USAGE)
    if output.exists() and not force:
        return _fail(f"{output} exists; --force overwrites it", EXIT_FAILURE)
    login = Login(server.user, server.password, server.database, timeout)
    found = trio.run(_discover, server.address, login, further)
    if isinstance(found, SurveyError):
        return _fail(str(found), EXIT_UNREACHABLE if found.kind == "unreachable" else EXIT_FAILURE)
    try:
        _write(output, compose(found, server), force=force)
    except OSError as error:
        return _fail(f"cannot write {output}: {error.strerror}", EXIT_FAILURE)
    _report(found, server, output, json=json)
    return EXIT_OK


async def _discover(start: Address, login: Login, further: Sequence[Address]) -> Found | SurveyError:
    """The error is returned, since trio_asyncio's loop would wrap a raised one into groups."""
    async with trio_asyncio.open_loop():
        try:
            return await discover(start, login, further)
        except SurveyError as error:
            return error


def parse_url(url: str, environ: Mapping[str, str]) -> ServerUrl:
    """A URL as libpq writes them, one host only. What it lacks comes from PGUSER and PGPASSWORD or is PostgreSQL's
    default. Raises BadUrl.
    """
    if "," in url.partition("?")[0].rpartition("@")[2]:
        raise BadUrl("name one server in the URL; --standby names others")
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:
        raise BadUrl("the port of the URL is not a number up to 65535") from None
    if parts.scheme not in ("postgres", "postgresql"):
        raise BadUrl("the URL must begin with postgres:// or postgresql://")
    query = parse_qs(parts.query)
    host = unquote(parts.hostname or "") or query.get("host", ["localhost"])[0]
    user = unquote(parts.username or "") or environ.get("PGUSER") or "postgres"
    password = unquote(parts.password) if parts.password else environ.get("PGPASSWORD")
    return ServerUrl(Address(host, port), user, password, unquote(parts.path[1:]) or user)


def compose(found: Found, server: ServerUrl) -> str:
    """The file's text. No password is in it."""
    return _FILE.format(
        name=found.members[0].address,
        version=found.version,
        nodes="\n\n".join(_node(member) for member in found.members),
        user=_quoted(server.user),
        database=_quoted(server.database),
        variable=PASSWORD_VARIABLE,
        reads=_reads(found),
    )


def _reads(found: Found) -> str:
    """Where reads go that have no hint: to standbys, where there is one that can be reached."""
    standbys = any(member.mode != "primary" and member.address is not None for member in found.members)
    return '"standby"' if standbys else '"primary"  # "standby", once there is one'



def _node(member: Member) -> str:
    now = "the primary" if member.mode == "primary" else f"a standby{', ' if member.mode else ''}{member.mode}"
    where = member.address or f"{member.host}:PORT"
    lines = ["[[nodes]]", f'name = "{member.name}"  # now {now}', f"address = {_quoted(str(where))}"]
    if member.mode in ("sync", "semisync", "async") and not member.matched:
        # Its mode could not be followed by the name, so it is written down as it is now.
        lines.append(f'sync = "{member.mode}"')
    if member.address is not None:
        return "\n".join(lines)
    why = f"A standby streams from {member.host}, but not even the primary knows the port it listens on. Put it in:"
    return "\n".join(f"# {line}" for line in [why, *lines])


def _quoted(text: str) -> str:
    """A TOML string that the loader reads as this text: a $ before a brace would name a variable, so it is doubled."""
    return tomlkit.string(text.replace("${", "$${")).as_string()


def _write(output: Path, text: str, *, force: bool) -> None:
    with output.open("w" if force else "x", encoding="utf-8") as stream:
        stream.write(text)


def _report(found: Found, server: ServerUrl, output: Path, *, json: bool) -> None:
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if json:
        typer.echo(_as_json(found, output))
        return
    for member in found.members:
        where = member.address or f"somewhere on {member.host} (commented out: its port is not known)"
        typer.echo(f"found {member.name}, {member.mode or 'standby'}, at {where}")
    typer.echo(f"wrote {output}\n\nNext:")
    if any(member.address is None for member in found.members):
        typer.echo("  give the ports of the standbys commented out, there or here as --standby HOST:PORT")
    typer.echo(f"  export {PASSWORD_VARIABLE}=…      # the password of {server.user}")
    typer.echo(f"  helios check --config {output} --connect")
    typer.echo(f"  helios run --config {output}")
    typer.echo(f"  psql -h 127.0.0.1 -p 6432 -U {server.user} {server.database}")


def _as_json(found: Found, output: Path) -> str:
    nodes = [
        {"name": each.name, "address": str(each.address) if each.address else None, "mode": each.mode}
        for each in found.members
    ]
    return json.dumps({"file": str(output), "nodes": nodes, "notes": list(found.notes)}, indent=2)


def _fail(message: str, code: int) -> int:
    typer.echo(message, err=True)
    return code
