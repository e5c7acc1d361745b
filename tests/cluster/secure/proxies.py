"""Proxies, as `helios run` starts them, in front of the server with TLS."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.certificates import Issued
from tests.cluster.proxies import RunningProxy, started, wait_for
from tests.cluster.secure.server import SecureServer


@contextmanager
def running(
    server: SecureServer, directory: Path, text: str, *, proxy: str = "", node: str = "", health: str = ""
) -> Iterator[RunningProxy]:
    """A proxy in front of the server, its only node. `text`: any further sections, as TOML; `proxy`, `node` and
    `health`: keys of these sections that are added to those below."""
    whole = written(server, text, proxy=proxy, node=node, health=health)
    with started(server.cluster, server.cluster.database, directory, whole) as it:
        yield it


def written(server: SecureServer, text: str, *, proxy: str = "", node: str = "", health: str = "") -> str:
    """The whole heliosproxy.toml of `running`."""
    known = {"user": server.cluster.superuser, "password": server.cluster.password, "interval": "200ms"}
    defaults = "".join(f'{key} = "{value}"\n' for key, value in known.items() if f"{key} =" not in health)
    where = "" if "address =" in node else f'address = "{server.node.address}"\n'
    return (
        f'[proxy]\nlisten = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\nshutdown_timeout = "2s"\n{proxy}\n'
        f'[health]\ndatabase = "{server.cluster.database}"\n{defaults}{health}\n'
        f'[[nodes]]\nname = "primary"\nrole = "primary"\n{where}{node}\n'
        f"{text}"
    )


def reloaded(proxy: RunningProxy, text: str | None = None) -> str:
    """Have the proxy read its file again, after writing `text` into it, and what it has said to that.

    Returns once it has done so, or has said that it will not.
    """
    if text is not None:
        fresh = proxy.file.with_name("fresh.toml")
        fresh.touch(0o600)
        fresh.write_text(text)
        fresh.replace(proxy.file)
    before = len(proxy.log.read_text())
    proxy.process.send_signal(signal.SIGHUP)
    done = re.compile(r"was read again; .*|has mistakes, and nothing was changed")
    wait_for(lambda: done.search(proxy.log.read_text()[before:]), "the proxy to read its file again")
    return proxy.log.read_text()[before:]


def keys(**values: object) -> str:
    """Keys as TOML; an Issued gives `cert_file` and `key_file` whatever its name, None is left out."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Issued):
            lines += [f'cert_file = "{value.certificate}"', f'key_file = "{value.key}"']
        elif value is not None:
            lines.append(f"{key} = {_value(value)}")
    return "".join(f"{line}\n" for line in lines)


def section(table: str, /, **values: object) -> str:
    """A table of keys."""
    return f"[{table}]\n{keys(**values)}"


def entry(table: str, /, **values: object) -> str:
    """A table of a list."""
    return f"[[{table}]]\n{keys(**values)}"


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_value(inner)}' for key, inner in value.items())} }}"
    if isinstance(value, bool | int):
        return str(value).lower()
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
