"""What every request to the admin API must pass: who may be asked, by whom, and how long a request may be.

The listener is on loopback, but browsers on this machine visit strangers' pages. A page of a name that was made to
point here (DNS rebinding) shows in `Host`; one that posts here from elsewhere shows in `Origin`.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LONGEST_BODY = 256 * 1024
"""Bytes of a request's body."""
LONGEST_QUERY = 32 * 1024
"""Bytes of the part of a URL after the question mark."""


def failure(status: int, message: str, hint: str = "") -> JSONResponse:
    """The one form of every error."""
    return JSONResponse({"error": {"message": message, "hint": hint}}, status_code=status)


class Guard:
    """ASGI middleware: lets HTTP requests for this machine, from this machine, through to `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            app = _refusal(scope) or self._app
            await app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


def _refusal(scope: Scope) -> JSONResponse | None:
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if not is_loopback_name(host):
        return failure(403, f"the admin API is not known as {host!r}", "ask 127.0.0.1, [::1] or localhost")
    origin = headers.get("origin")
    if origin is not None and not _is_loopback_origin(origin):
        return failure(403, f"pages of {origin!r} may not use the admin API")
    if len(scope.get("query_string", b"")) > LONGEST_QUERY:
        return failure(414, f"the URL is longer than {LONGEST_QUERY} bytes", "use POST with a JSON body")
    return None


def is_loopback_name(authority: str) -> bool:
    """Whether a Host header, `name` or `name:port`, names this machine's loopback."""
    try:
        name = urlsplit(f"//{authority}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _is_loopback_origin(origin: str) -> bool:
    try:
        return is_loopback_name(urlsplit(origin).netloc)
    except ValueError:
        return False


async def read_body(request: Request) -> bytes:
    """The request's body. Raises HTTPException where it is too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            raise HTTPException(413, f"the body is longer than {LONGEST_BODY} bytes")
    return bytes(body)
