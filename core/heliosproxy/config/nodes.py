"""`[[nodes]]`: the entries completed with what `[server_tls]` says for all of them."""

from __future__ import annotations

import dataclasses

from heliosproxy.config.access import ServerTls
from heliosproxy.config.model import NodeConfig
from heliosproxy.config.sections import Reader


def read_nodes(reader: Reader, tables: object, tls: ServerTls) -> tuple[NodeConfig, ...]:
    """The nodes that could be read; the keys of `tls` that a node leaves out are as in `tls`."""
    if not isinstance(tables, list):
        return reader.sections(NodeConfig, tables, ("nodes",))  # says so
    read = ((index, reader.section(NodeConfig, table, ("nodes", index))) for index, table in enumerate(tables))
    return tuple(
        dataclasses.replace(node, tls=reader.completed(node.tls, ("nodes", index, "tls"), tls))
        for index, node in read
        if node is not None
    )
