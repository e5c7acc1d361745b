"""The file is read again: what holds at once, what needs a restart, and that a mistake changes nothing."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from helios_sdk.contract import Client
from starlette.applications import Starlette

from heliosproxy.config.errors import ConfigErrors
from heliosproxy.config.load import load
from heliosproxy.control.admin import application
from heliosproxy.control.reload import Reloaded, Reloader
from heliosproxy.switch.proxy import Proxy
from heliosproxy.switch.session import Session
from heliosproxy.switch.settings import from_parameters
from heliosproxy.wire.errors import parse_fields
from tests.control.support import call

BEFORE = """\
[proxy]
listen = "127.0.0.1:0"
[pool]
size = 5
[health]
timeout = "1s"
[[nodes]]
name = "away"
address = "127.0.0.1:1"
[[auth.users]]
name = "alice"
password = "first-secret"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "heliosproxy.toml"
    made.touch(0o600)
    made.write_text(BEFORE)
    return made


@pytest.fixture
async def proxy(file: Path) -> AsyncIterator[Proxy]:
    made = Proxy(load(file, {}).config, ())
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            await nursery.start(made.run)
        yield made
        made.stop()


@pytest.fixture
async def app(proxy: Proxy) -> Starlette:
    return application(proxy, [], proxy.config, Reloader(proxy))


async def test_a_file_that_says_the_same_changes_nothing(proxy: Proxy) -> None:
    assert await Reloader(proxy).reload() == Reloaded((), ())


async def test_who_may_come_in_holds_at_once(proxy: Proxy, file: Path) -> None:
    rules = '[[auth.rules]]\nmethod = "scram-sha-256"\naddress = ["10.0.0.0/8"]\n[client_limits]\nmax_logins = 3\n'
    file.write_text(BEFORE.replace("first-secret", "another-secret") + rules)
    assert await Reloader(proxy).reload() == Reloaded(("[auth]", "[client_limits]"), ())
    assert proxy.users.on_nodes("alice", proxy.config.pool).password == "another-secret"
    assert proxy.config.client_limits.max_logins == 3
    assert len(proxy.config.auth.rules) == 1


async def test_how_a_node_is_spoken_to_holds_at_once(proxy: Proxy, file: Path) -> None:
    file.write_text(BEFORE.replace("[[nodes]]", '[[nodes]]\ntls = { sslmode = "require" }\nrequire_auth = ["md5"]'))
    assert await Reloader(proxy).reload() == Reloaded(("[[nodes]]",), ())
    (node,) = proxy.cluster.nodes
    assert (node.config.tls.sslmode, node.config.require_auth) == ("require", ("md5",))


async def test_who_a_user_is_on_the_nodes_holds_at_once(proxy: Proxy, file: Path) -> None:
    (node,) = proxy.cluster.nodes
    before = proxy.switch.links.pool(node, "db", "alice")
    file.write_text(BEFORE + 'server_user = "app"\n')
    assert await Reloader(proxy).reload() == Reloaded(("[auth]",), ())
    after = proxy.switch.links.pool(node, "db", "alice")
    assert (before.user, after.user) == ("alice", "app")


async def test_what_needs_a_restart_is_named_and_does_not_hold(proxy: Proxy, file: Path) -> None:
    changed = BEFORE.replace("size = 5", "size = 6").replace('"127.0.0.1:1"', '"127.0.0.1:2"')
    file.write_text(changed + '[plugins]\nenabled = []\n[routing]\ndefault_read_target = "any"\n')
    done = await Reloader(proxy).reload()
    assert done.changed == ()
    assert set(done.needs_restart) == {"[pool]", "[[nodes]]", "[plugins]", "tables of plugins"}
    assert proxy.config.pool.size == 5
    assert proxy.config.nodes[0].address.port == 1


async def test_a_file_with_a_mistake_changes_nothing(
    proxy: Proxy, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(BEFORE.replace("first-secret", "other-secret") + "[client_tls]\nsslmode = 'require'\n")
    before = proxy.config
    with caplog.at_level(logging.ERROR), pytest.raises(ConfigErrors, match="there is no certificate"):
        await Reloader(proxy).reload()
    assert proxy.config is before
    assert proxy.users.on_nodes("alice", proxy.config.pool).password == "first-secret"
    assert "nothing was changed" in caplog.text
    assert "other-secret" not in caplog.text


async def test_it_is_asked_for_by_http(app: Starlette, file: Path) -> None:
    json = {"content-type": "application/json"}
    file.write_text(BEFORE.replace("first-secret", "another-secret"))
    done = await call(app, "/reload", "POST", json, [b"{}"])
    assert (done.status, done.json) == (200, {"changed": ["[auth]"], "needs_restart": []})
    file.write_text("nonsense")
    refused = await call(app, "/reload", "POST", json, [b"{}"])
    assert refused.status == 422
    assert "not valid TOML" in refused.error


async def test_a_page_cannot_ask_for_it_by_a_form(app: Starlette) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert (await call(app, "/reload", "POST", form, [b"a=b"])).status >= 400
    assert (await call(app, "/reload")).status == 405


async def test_who_clients_are_on_the_nodes_and_time_outs_hold_at_once(proxy: Proxy, file: Path) -> None:
    (node,) = proxy.cluster.nodes
    before = proxy.switch.links.pool(node, "db", "alice")
    file.write_text(BEFORE.replace("size = 5", 'size = 5\nstatement_timeout = "3s"'))
    assert await Reloader(proxy).reload() == Reloaded(("[pool]",), ())
    assert proxy.switch.links.pool(node, "db", "alice") is before
    assert (before.policy.size, before.policy.statement_timeout) == (5, 3.0)
    file.write_text(BEFORE.replace("size = 5", 'size = 6\nserver_user = "app"\nserver_password = "app-secret"'))
    assert await Reloader(proxy).reload() == Reloaded(("[pool]",), ("[pool]",))
    after = proxy.switch.links.pool(node, "db", "alice")
    assert (after.user, after.policy.size) == ("app", 5)
    assert proxy.users.on_nodes("alice", after.policy).password == "app-secret"


async def test_the_proxys_own_login_holds_at_once(proxy: Proxy, file: Path) -> None:
    file.write_text(BEFORE.replace("[health]", '[health]\nuser = "watcher"\npassword = "watching"'))
    assert await Reloader(proxy).reload() == Reloaded(("[health]",), ())
    assert (proxy.cluster.health.user, proxy.cluster.health.password) == ("watcher", "watching")


async def test_other_entries_of_pools_need_a_restart(proxy: Proxy, file: Path) -> None:
    file.write_text(BEFORE + '[[pools]]\ndatabase = "reports"\nstatement_timeout = "1s"\n')
    assert await Reloader(proxy).reload() == Reloaded((), ("[[pools]]",))


async def test_who_becomes_somebody_else_on_the_nodes_is_sent_away(
    proxy: Proxy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, bytes] = {}
    monkeypatch.setattr(proxy, "to_client", lambda session, data: told.update({session.client.user: data}))
    for number, user in enumerate(("alice", "bob"), start=1):
        session = Session(number, (number, b"key!"), Client(user, "db"), from_parameters({}))
        proxy.switch.add_session(session)
    file.write_text(BEFORE + 'server_user = "app"\n')
    await Reloader(proxy).reload()
    assert told.keys() == {"alice"}
    assert parse_fields(told["alice"][5:])["C"] == "57P01"
    assert [session.client.user for session in proxy.switch.sessions.values()] == ["bob"]
