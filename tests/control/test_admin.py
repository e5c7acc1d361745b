"""The admin API's answers, without sockets. With servers and over HTTP: tests/cluster/test_admin.py."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from functools import partial

import pytest
import trio
from starlette.applications import Starlette

from heliosproxy.config.kinds import Address
from heliosproxy.config.model import Config
from heliosproxy.control.admin import open_listener, serve_admin
from heliosproxy.control.guard import LONGEST_BODY, LONGEST_QUERY
from heliosproxy.control.reload import Reloader
from heliosproxy.sandbox import Plugin, Sandbox
from heliosproxy.switch.proxy import Proxy
from tests.control.support import call

JSON = {"content-type": "application/json"}


async def test_livez_answers_while_the_process_does(app: Starlette) -> None:
    answered = await call(app, "/livez")
    assert (answered.status, answered.json) == (200, {"alive": True})


async def test_readyz_says_why_it_is_not_ready(app: Starlette, proxy: Proxy) -> None:
    answered = await call(app, "/readyz")
    assert answered.status == 503
    assert answered.json == {"ready": False, "reasons": ["away is down: connection refused"]}
    proxy.stop()
    assert (await call(app, "/readyz")).json["reasons"][0] == "the proxy is stopping"


async def test_status_shows_nodes_flows_and_plugins(app: Starlette, proxy: Proxy) -> None:
    status = (await call(app, "/status")).json
    assert status["listen"] == str(proxy.address)
    assert [(node["name"], node["healthy"], node["reason"]) for node in status["nodes"]] == [
        ("away", False, "connection refused")
    ]
    assert status["flows"]["size"] == 0
    assert status["proxy"]["clients"] == 0
    assert [(plugin["name"], plugin["state"]) for plugin in status["plugins"]] == [("hints", "enabled")]


async def test_plugins_shows_manifest_and_counters(app: Starlette) -> None:
    await call(app, "/routing/explain?sql=select%201")
    (hints,) = (await call(app, "/plugins")).json["plugins"]
    hooks = {hook["hook"]: hook for hook in hints["hooks"]}
    assert (hints["name"], hints["stage"], hints["origin"], hints["state"]) == ("hints", "hints", "bundled", "enabled")
    assert hooks["on-parse"]["only_with"] == ["hints"]
    assert "tables" in hooks["on-route"]["reads"]
    assert hooks["on-route"]["calls"] == 1
    assert hooks["on-route"]["microseconds_per_call"] > 0
    assert hints["remembered"] is None  # no statement was seen: explaining is none
    assert hints["memory"] > 0


async def test_a_disabled_plugin_is_shown_with_its_reason(app: Starlette, plugins: Sequence[Plugin]) -> None:
    plugins[0].disable("it was tried")
    (hints,) = (await call(app, "/plugins")).json["plugins"]
    assert (hints["state"], hints["reason"]) == ("disabled", "it was tried")
    assert (await call(app, "/routing/hints")).json == {"hints": []}


async def test_hints_are_listed_with_the_aliases_as_routes(app: Starlette) -> None:
    hints = {hint["name"]: hint["values"] for hint in (await call(app, "/routing/hints")).json["hints"]}
    assert hints["route"] == ["primary", "standby", "sync", "semisync", "async", "any", "local", "analytics"]
    assert hints["consistency"] == ["strong", "bounded", "eventual"]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "ten", "", "1e3", "٣", "9" * 5000])
async def test_a_limit_that_is_none_is_refused(app: Starlette, limit: str) -> None:
    answered = await call(app, f"/routing/decisions?limit={limit}")
    assert answered.status == 400
    assert answered.error.startswith("limit is ")


async def test_decisions_are_none_before_the_first_statement(app: Starlette) -> None:
    assert (await call(app, "/routing/decisions")).json == {"decisions": []}


async def test_explain_answers_get_and_post_alike(app: Starlette) -> None:
    got = await call(app, "/routing/explain?sql=select%20%27private%27&user=bob&application_name=bi")
    body = json.dumps({"sql": "select 'private'", "user": "bob", "application_name": "bi"}).encode()
    posted = await call(app, "/routing/explain", "POST", JSON, [body[:10], body[10:]])
    assert got.status == posted.status == 200
    for shown in (got.json, posted.json):
        for step in shown["hooks"]:
            step["microseconds"] = 0
    assert {**got.json, "hooks": []} == {**posted.json, "hooks": []}
    assert got.json["query"] == "select ?"
    assert (got.json["user"], got.json["database"]) == ("bob", "shop")
    assert "private" not in got.text


async def test_explain_says_when_the_catalogue_is_not_known(app: Starlette) -> None:
    shown = (await call(app, "/routing/explain?sql=select%20*%20from%20t&database=elsewhere")).json
    assert shown["note"].startswith("the catalogue of database elsewhere is not known")
    assert not shown["read_only"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[]", "the body must be an object of texts"),
        (b'{"sql": 1}', "the body must be an object of texts"),
        (b"{}", "there is no statement to explain"),
        (b'{"sql": "select 1", "user": "\\ud800"}', "a text in the body is no Unicode"),
        (b'{"sql": "select \\u0000"}', "there is no statement to explain"),
    ],
)
async def test_a_body_without_sense_is_refused(app: Starlette, body: bytes, message: str) -> None:
    answered = await call(app, "/routing/explain", "POST", JSON, [body])
    assert answered.status == 400
    assert answered.error.startswith(message)


@pytest.mark.parametrize("sql", ["select 'é", "select " + "(" * 20_000, ";;", "$$", "select 1; select 2"])
async def test_whatever_text_is_explained(app: Starlette, sql: str) -> None:
    answered = await call(app, "/routing/explain", "POST", JSON, [json.dumps({"sql": sql}).encode()])
    assert answered.status == 200
    assert answered.json["node"] == ""


async def test_a_body_that_is_too_long_is_refused_before_it_has_come(app: Starlette) -> None:
    pieces = [b"x" * 65536] * (LONGEST_BODY // 65536 + 2)
    answered = await call(app, "/routing/explain", "POST", JSON, pieces)
    assert answered.status == 413
    assert answered.error == f"the body is longer than {LONGEST_BODY} bytes"


async def test_a_url_that_is_too_long_is_refused(app: Starlette) -> None:
    answered = await call(app, "/routing/explain?sql=" + "x" * LONGEST_QUERY)
    assert (answered.status, answered.error) == (414, f"the URL is longer than {LONGEST_QUERY} bytes")


async def test_a_form_of_a_web_page_is_refused(app: Starlette) -> None:
    answered = await call(app, "/routing/explain", "POST", {"content-type": "text/plain"}, [b'{"sql": "select 1"}'])
    assert (answered.status, answered.error) == (415, "the body must be application/json")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "", "10.0.0.1", "[::2]"]
)
async def test_another_host_is_refused(app: Starlette, host: str) -> None:
    answered = await call(app, "/status", headers={"host": host})
    assert answered.status == 403
    assert "is not known as" in answered.error


@pytest.mark.parametrize("host", ["localhost", "localhost:9090", "127.0.0.1", "127.1.2.3:1", "[::1]:9090", "LOCALHOST"])
async def test_loopback_by_any_of_its_names_is_served(app: Starlette, host: str) -> None:
    assert (await call(app, "/livez", headers={"host": host})).status == 200


async def test_a_page_from_elsewhere_is_refused(app: Starlette) -> None:
    assert (await call(app, "/status", headers={"origin": "https://evil.example"})).status == 403
    assert (await call(app, "/status", headers={"origin": "null"})).status == 403
    assert (await call(app, "/status", headers={"origin": "http://localhost:3000"})).status == 200


@pytest.mark.parametrize(("path", "method", "status"), [("/nothing", "GET", 404), ("/status", "DELETE", 405)])
async def test_errors_of_every_kind_are_json(app: Starlette, path: str, method: str, status: int) -> None:
    answered = await call(app, path, method)
    assert answered.status == status
    assert answered.error


@pytest.mark.parametrize(
    "path", ["/status", "/plugins", "/routing/hints", "/routing/decisions", "/routing/explain?sql=select%201"]
)
async def test_no_answer_holds_a_password(app: Starlette, path: str) -> None:
    answered = await call(app, path)
    assert answered.status == 200
    assert "s3cret" not in answered.text


async def test_the_listener_answers_http_and_is_closed_at_the_end(
    proxy: Proxy, sandbox: Sandbox, config: Config
) -> None:
    listener = open_listener(Address("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            await nursery.start(partial(serve_admin, listener, proxy, sandbox, config, Reloader(proxy)))
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b"".join([part async for part in stream])
        nursery.cancel_scope.cancel()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b'{"alive":true}')
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_taken_address_is_an_error_at_once() -> None:
    with open_listener(Address("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        open_listener(Address("127.0.0.1", taken.getsockname()[1]))
