"""The demo's heliosproxy.toml."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import tomlkit

from heliosproxy.config.kinds import Address
from heliosproxy.demo.local import LocalCluster, LocalNode

_FILE = """\
# Written by `helios demo`; it goes when the demo ends. Every key: docs/configuration.md

[proxy]
listen = "{listen}"
admin = "{admin}"
region = "local"

{nodes}

[auth]
method = "scram-sha-256"

[[auth.users]]
name = "{user}"
password = "{password}"

[health]
user = "{superuser}"
password = "{password}"
database = "{database}"

[plugins]
enabled = {plugins}
"""
_NODE = """\
[[nodes]]
name = "{name}"
address = "{address}"
labels = {{ region = "local" }}"""


def compose(cluster: LocalCluster, listen: Address, admin: Address, plugins: Sequence[str]) -> str:
    """The file's text: the cluster's nodes and generated password, the plugins enabled, all else by default."""
    return _FILE.format(
        listen=listen,
        admin=admin,
        nodes="\n\n".join(map(_node, cluster.nodes)),
        user=cluster.user,
        superuser=cluster.superuser,
        password=cluster.password,
        database=cluster.database,
        plugins=tomlkit.item(list(plugins)).as_string(),
    )


def _node(node: LocalNode) -> str:
    return _NODE.format(name=node.name, address=node.address)


def write_private(file: Path, text: str) -> None:
    """Write `file`, readable by us only, at once or not at all: whoever sees it sees it whole. Raises OSError."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(text)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
