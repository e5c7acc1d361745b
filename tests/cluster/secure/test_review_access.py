"""What an adversarial review of the way in has found, each as the test that fails until it is cured."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest

from tests.cluster.proxies import RunningProxy, wait_for
from tests.cluster.secure.proxies import entry, reloaded, running, section, written
from tests.cluster.secure.server import SecureServer


def user(server: SecureServer, name: str, role: str) -> str:
    return entry(
        "auth.users", name=name, password=f"{name}'s", server_user=role, server_password=server.passwords[role]
    )


def session(proxy: RunningProxy, name: str, **more: object) -> psycopg.Connection:
    login = {"host": proxy.host, "port": proxy.port, "user": name, "password": f"{name}'s", "connect_timeout": 10}
    return psycopg.connect(**login, dbname=proxy.database, autocommit=True, **more)  # type: ignore[arg-type]


def test_a_link_has_the_role_of_its_pool_though_who_asked_for_it_has_another_one_since(
    server: SecureServer, tmp_path: Path
) -> None:
    server.role("rv_app")
    server.role("rv_admin")
    users = {"rv_alice": "rv_app", "rv_carol": "rv_app"}

    def text() -> str:
        return section("pool", size=1) + "".join(user(server, *each) for each in users.items())

    found: list[str] = []
    with running(server, tmp_path, text()) as proxy, contextlib.ExitStack() as stack:
        holder = stack.enter_context(session(proxy, "rv_carol"))
        carol = stack.enter_context(session(proxy, "rv_carol"))
        alice = stack.enter_context(session(proxy, "rv_alice"))
        holder.execute("begin")
        (pid,) = holder.execute("select pg_backend_pid()").fetchone() or (0,)

        def ask(who: psycopg.Connection) -> None:
            try:
                row = who.execute("select current_user").fetchone()
            except psycopg.errors.AdminShutdown:
                found.append("alice was sent away")
                return
            found.append(f"{'carol' if who is carol else 'alice'} is {row[0] if row else None}")

        threads = [threading.Thread(target=ask, args=(who,), daemon=True) for who in (carol, alice)]

        def waiting() -> int:
            import json
            import urllib.request

            admin = proxy.log.read_text().split("the admin API is at ")[1].split()[0]
            with urllib.request.urlopen(f"{admin}/status", timeout=5) as said:
                return sum(pool["waiting"] for pool in json.load(said)["pools"])

        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_for(lambda number=number: waiting() == number, "it to wait")
        users["rv_alice"] = "rv_admin"
        reloaded(proxy, written(server, text()))
        server.cluster.psql(f"select pg_terminate_backend({pid})")
        for thread in threads:
            thread.join(20)
    assert sorted(found) == ["alice was sent away", "carol is rv_app"]


def test_a_reload_that_fails_in_any_way_leaves_the_proxy_as_it_is(server: SecureServer, tmp_path: Path) -> None:
    own = server.issuer.issue("localhost")
    text = section("client_tls", own=own) + user(server, "rv_bob", "s_scram")
    with running(server, tmp_path, text) as proxy, session(proxy, "rv_bob") as bob:
        trusted = subprocess.run(
            ["openssl", "x509", "-in", str(own.certificate), "-trustout"], capture_output=True, check=True
        ).stdout
        own.certificate.write_bytes(trusted)
        before = len(proxy.log.read_text())
        proxy.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(proxy.log.read_text()) > before or proxy.process.poll() is not None, "it to be read")
        assert bob.execute("select 1").fetchone() == (1,)
        with pytest.raises(subprocess.TimeoutExpired):
            proxy.process.wait(1)
