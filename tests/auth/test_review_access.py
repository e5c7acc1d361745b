"""What an adversarial review of the way in has found among users and their secrets."""

from __future__ import annotations

import trio
import trio.testing

from heliosproxy.auth.known import Proof
from heliosproxy.auth.scram import ScramKeys
from heliosproxy.auth.secrets import ScramSecret, client_key, prepare, salted_password
from heliosproxy.auth.users import Users
from heliosproxy.config.access import Auth, User
from heliosproxy.config.model import Pool

SECRET = ScramSecret(4096, b"s" * 16, b"k" * 32, b"v" * 32).format()
ASKS = Auth(auth_query="select $1")


def proof_of(password: str, secret: ScramSecret) -> Proof:
    key = client_key(salted_password(prepare(password), secret.salt, secret.iterations))
    return Proof(ScramKeys(key, secret.server_key, secret.salt, secret.iterations))


async def test_secrets_are_prepared_for_a_reload_while_others_log_in() -> None:
    async def lookup(name: str) -> str | None:
        return SECRET

    users = Users(ASKS, lookup)
    names = [f"u{number}" for number in range(4000)]
    for name in names:
        await users.find(name)
    new = users.replaced(ASKS, lookup)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_in, users, names)
        for _ in range(300):
            await new.prepare()
        nursery.cancel_scope.cancel()


async def log_in(users: Users, names: list[str]) -> None:
    while True:
        for name in names:
            await users.find(name)
            await trio.lowlevel.checkpoint()


async def test_a_user_whose_secret_is_computed_here_shows_one_salt_as_strangers_do(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def lookup(name: str) -> str | None:
        return "a password in plain text"

    users = Users(ASKS, lookup)
    salts = set()
    for _ in range(3):
        known = await users.find("alice")
        assert known is not None
        assert known.scram is not None
        salts.add(known.scram.salt)
        users.failed("alice")
        await trio.sleep(2)
    assert len(salts) == 1


def test_nothing_that_a_user_has_proved_is_left_when_the_user_is_removed() -> None:
    secret = ScramSecret.from_password("correct horse")
    users = Users(Auth(users=(User("alice", secret=secret.format()),)))
    users.proved("alice", proof_of("correct horse", secret))
    assert users.on_nodes("alice", Pool()).keys is not None
    removed = users.replaced(Auth(users=(User("bob", secret=SECRET),)))
    login = removed.on_nodes("alice", Pool())
    assert login.keys is None
    assert login.password is None
