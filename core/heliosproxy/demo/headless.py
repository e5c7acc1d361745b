"""What the demo tells the world once everything answers: one JSON object in a file, or a few lines on a terminal."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TypedDict

import asyncpg
import trio
import trio_asyncio

from heliosproxy.config.kinds import Address
from heliosproxy.control.serve import Addresses
from heliosproxy.demo.local import LocalCluster

DEADLINE = 20.0
"""Seconds within which a statement through the proxy must be answered."""
_ANYTHING = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, trio.TooSlowError)


class NotAnswering(Exception):
    """The proxy was started and does not answer."""


class ReadyNode(TypedDict):
    """A node; `sync` is empty for the primary."""

    name: str
    address: str
    role: str
    sync: str


class Ready(TypedDict):
    """The ready file. Addresses are "host:port"; `psql` is a command line for a shell."""

    proxy: str
    admin: str
    user: str
    password: str
    database: str
    nodes: list[ReadyNode]
    psql: str


def ready(cluster: LocalCluster, addresses: Addresses) -> Ready:
    """The demo's access data."""
    return {
        "proxy": str(addresses.proxy),
        "admin": str(addresses.admin),
        "user": cluster.user,
        "password": cluster.password,
        "database": cluster.database,
        "nodes": [
            {"name": node.name, "address": str(node.address), "role": node.role, "sync": node.sync or ""}
            for node in cluster.nodes
        ],
        "psql": psql_line(cluster, addresses.proxy),
    }


def psql_line(cluster: LocalCluster, proxy: Address) -> str:
    """A psql command to paste; the demo's own psql where none is installed."""
    program = "psql" if shutil.which("psql") else shlex.quote(str(Path(cluster.programs, "psql")))
    return (
        f"PGPASSWORD={cluster.password} {program} -h {proxy.host} -p {proxy.port} -U {cluster.user} {cluster.database}"
    )


async def wait_answering(cluster: LocalCluster, proxy: Address) -> None:
    """Return once the proxy has answered a statement. Raises NotAnswering."""
    # The error is kept aside, since trio_asyncio's loop would wrap a raised one into groups.
    error: Exception | None = None
    async with trio_asyncio.open_loop():
        try:
            with trio.fail_after(DEADLINE):
                await _ask(cluster, proxy)
        except _ANYTHING as raised:
            error = raised
    if error is not None:
        raise NotAnswering(f"the proxy at {proxy} does not answer: {error or type(error).__name__}")


async def _ask(cluster: LocalCluster, proxy: Address) -> None:
    link: asyncpg.Connection = await trio_asyncio.aio_as_trio(asyncpg.connect)(
        host=proxy.host, port=proxy.port, user=cluster.user, password=cluster.password, database=cluster.database
    )
    try:
        await trio_asyncio.aio_as_trio(link.fetchval)("select 1")
    finally:
        link.terminate()


def welcome(access: Ready, config: Path) -> str:
    """What a person at a terminal is told."""
    nodes = "\n".join(
        f"  {node['name']:<17} {node['address']:<17} {node['role']}{', ' * bool(node['sync'])}{node['sync']}"
        for node in access["nodes"]
    )
    return f"""\
HeliosProxy is in front of a PostgreSQL cluster of three nodes:
{nodes}

Connect through the proxy at {access["proxy"]}:
  {access["psql"]}

and try, for instance:
  select current_setting('cluster_name');
  /*helios:route=primary*/ select current_setting('cluster_name');
  /*helios:node=standby-async-1*/ select current_setting('cluster_name');
  show helios.last_decision;

In another terminal:
  helios status
  helios plugins list
  helios route "/*helios:route=async,lag=10s*/ select 1"

The admin API is at http://{access["admin"]}/status, the configuration in
  {config}
Ctrl-C ends the demo and deletes everything it made."""
