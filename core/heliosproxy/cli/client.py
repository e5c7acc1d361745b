"""Speaking to the admin API of a proxy that runs: which one, and how."""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import quote

from heliosproxy.config.kinds import Address

TIMEOUT = 10.0
"""Seconds for an answer."""
DEFAULT_FILE = Path("heliosproxy.toml")


class NoProxy(Exception):
    """There is no proxy to speak to: none is known, or it does not answer. The message names what was tried."""


MISCONFIGURED = 422
"""HTTP's status where the proxy's file has mistakes."""


class Refused(Exception):
    """The proxy answered with an error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Target:
    """A proxy's admin API. `whose` says how it was found, for messages."""

    address: str
    whose: str


def find(config: Path | None) -> Target:
    """The proxy of the configuration in use (given, or ./heliosproxy.toml), else the demo that runs.

    Raises NoProxy, and ConfigErrors where the file does not even tell the address.
    """
    from heliosproxy.demo import running

    if config is None and DEFAULT_FILE.exists():
        config = DEFAULT_FILE
    if config is not None:
        return _of_configuration(config)
    demo = running.find()
    if demo is None:
        raise NoProxy("there is no ./heliosproxy.toml and no demo is running; name one with --config")
    return Target(demo.admin, f"the demo, process {demo.pid}")


def _of_configuration(file: Path) -> Target:
    from heliosproxy.demo import running

    admin = _admin_of(file)
    if admin.port:
        return Target(str(admin), f"[proxy] admin of {file}")
    found = running.find(config=file)
    if found is None:
        raise NoProxy(f"no proxy runs with {file}, which leaves the admin API's port open")
    return Target(found.admin, f"the proxy of {file}, process {found.pid}")


def _admin_of(file: Path) -> Address:
    """`[proxy] admin`. Other mistakes of the file do not matter here, unset secrets above all."""
    from heliosproxy.config.errors import ConfigErrors
    from heliosproxy.config.load import load

    try:
        return load(file, os.environ).config.proxy.admin
    except ConfigErrors as errors:
        if errors.loaded is None or any(error.path in ("proxy", "proxy.admin") for error in errors.errors):
            raise
        return errors.loaded.config.proxy.admin


def get(target: Target, path: str, **query: str | int) -> object:
    """A GET request's JSON. Raises NoProxy, Refused."""
    parameters = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
    return _ask(target, "GET", path + (f"?{parameters}" if parameters else ""), None)


def post(target: Target, path: str, body: dict[str, str]) -> object:
    """A POST request's JSON. Raises NoProxy, Refused."""
    return _ask(target, "POST", path, json.dumps(body))


def _ask(target: Target, method: str, path: str, body: str | None) -> object:
    # http.client and not urllib.request: proxies in the environment are not for loopback.
    connection = http.client.HTTPConnection(target.address, timeout=TIMEOUT)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        content: object = json.loads(response.read())
    except (OSError, http.client.HTTPException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error or type(error).__name__
        raise NoProxy(f"no proxy answers at http://{target.address} ({target.whose}): {reason}") from None
    except ValueError:
        raise NoProxy(f"what answers at http://{target.address} ({target.whose}) is not HeliosProxy") from None
    finally:
        connection.close()
    if response.status >= 400 and isinstance(content, dict) and isinstance(content.get("error"), dict):
        raise Refused(_message(cast("dict[str, str]", content["error"])), response.status)
    return content


def _message(error: dict[str, str]) -> str:
    hint = error.get("hint")
    return str(error.get("message")) + (f" ({hint})" if hint else "")
