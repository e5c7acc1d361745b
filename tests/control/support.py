"""The admin API's application, called without a socket, in front of a proxy whose one node is not there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp, Message

from heliosproxy.config.access import Auth, User
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Config, Health, NodeConfig, Proxy

CLOSED = Address("127.0.0.1", 1)
"""Nobody listens there."""


def configuration(**tables: object) -> Config:
    """A configuration with these tables."""
    return Config(
        Path("h.toml"),
        (NodeConfig("away", CLOSED),),
        proxy=Proxy(listen=Address("127.0.0.1", 0), shutdown_timeout=1.0),
        auth=Auth(users=(User("alice", password="s3cret"),)),
        health=Health(password="s3cret", database="shop", timeout=1.0),
        tables=tables,  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class Answered:
    """A response. `text` is the body as it was sent."""

    status: int
    text: str

    @property
    def json(self) -> dict:  # type: ignore[type-arg]
        """The body's object."""
        return dict(json.loads(self.text))

    @property
    def error(self) -> str:
        """The message of an error, which always has a hint too, if an empty one."""
        assert set(self.json["error"]) == {"message", "hint"}
        return str(self.json["error"]["message"])


async def call(
    app: ASGIApp,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: Sequence[bytes] = (b"",),
) -> Answered:
    """One request, its body in pieces."""
    path, _, query = path.partition("?")
    given = {"host": "127.0.0.1:9090", **(headers or {})}
    pieces = list(body)
    sent: list[Message] = []

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "root_path": "", "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 9090),
    }  # fmt: skip
    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return Answered(int(sent[0]["status"]), content.decode())
