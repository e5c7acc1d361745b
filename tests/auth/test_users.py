"""Users: those of the configuration and those of the nodes, who they are there, and what a reload keeps of them."""

from __future__ import annotations

import logging
import sys

import pytest
import trio
import trio.testing

from heliosproxy.auth import answers as answers_module
from heliosproxy.auth import known as known_module
from heliosproxy.auth import users as module
from heliosproxy.auth.known import Known, Proof, Strangers
from heliosproxy.auth.md5 import md5_secret
from heliosproxy.auth.scram import ScramKeys
from heliosproxy.auth.secrets import ScramSecret, client_key, salted_password
from heliosproxy.auth.users import ServerLogin, Users
from heliosproxy.config.access import Auth, User
from heliosproxy.config.model import Pool

POOL = Pool()
SECRET = ScramSecret.from_password("pencil", 1, b"salt")
KEYS = ScramKeys(client_key(salted_password(b"pencil", b"salt", 1)), SECRET.server_key, b"salt", 1)
MD5 = md5_secret("bob", "pencil")


class Node:
    """Answers with the secrets it is given, and counts."""

    def __init__(self, **secrets: str) -> None:
        self.secrets = secrets
        self.asked: list[str] = []

    async def __call__(self, name: str) -> str | None:
        self.asked.append(name)
        return self.secrets.get(name)


def listed(*users: User, query: str | None = None) -> Auth:
    return Auth(users=users, auth_query=query)


# --- who is known ---------------------------------------------------------------------------------------------------


async def test_listed_users_are_known_by_what_the_configuration_says() -> None:
    users = Users(
        listed(User("bob", password="pencil"), User("alice", secret=SECRET.format()), User("old", secret=MD5))
    )
    bob, alice, old = [await users.find(name) for name in ("bob", "alice", "old")]
    assert bob is not None
    assert (bob.password, bob.md5) == ("pencil", MD5)
    assert bob.scram is not None
    assert bob.scram.iterations == 4096
    assert alice == Known("alice", SECRET)
    assert old == Known("old", md5=MD5)
    assert await users.find("nobody") is None


async def test_others_are_asked_for_on_the_nodes() -> None:
    node = Node(alice=SECRET.format(), bob=MD5)
    users = Users(listed(User("bob", secret=SECRET.format()), User("alice", server_user="app"), query="select"), node)
    assert await users.find("bob") == Known("bob", SECRET), "what the configuration says comes first"
    assert node.asked == []
    assert await users.find("alice") == Known("alice", SECRET), "it says nothing of her secret"
    assert await users.find("nobody") is None
    assert node.asked == ["alice", "nobody"]


async def test_without_auth_query_no_node_is_asked() -> None:
    node = Node(alice=MD5)
    assert await Users(listed(), node).find("alice") is None
    assert node.asked == []


async def test_an_empty_password_is_none() -> None:
    users = Users(listed(User("bob", password="")))
    await users.prepare()
    assert await users.find("bob") is None
    assert await Users(listed(query="select"), Node(bob="")).find("bob") == Known("bob")


async def test_a_secret_that_cannot_be_used_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    secret = SECRET.format().replace("$1:", "$99999999:")
    users = Users(listed(User("bob", secret=secret)))
    assert await users.find("bob") == Known("bob")
    assert 'user "bob" cannot log in with a password' in caplog.text
    assert secret.rpartition(":")[2] not in caplog.text


async def test_secrets_are_computed_ahead_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's first login takes no longer than any other, and no longer than a stranger's. Counted, not timed."""
    computed: list[str] = []
    original = known_module.ScramSecret.from_password

    def counted(password: str, salt: bytes) -> ScramSecret:
        computed.append(password)
        return original(password, salt=salt)

    monkeypatch.setattr(known_module.ScramSecret, "from_password", counted)
    users = Users(listed(User("bob", password="one"), User("alice", password="two")))
    assert computed == []
    await users.prepare()
    assert sorted(computed) == ["one", "two"]
    await users.prepare()
    for name in ("bob", "alice", "nobody", "bob"):
        await users.find(name)
    assert len(computed) == 2


async def test_a_login_that_comes_before_does_it_itself_and_all_see_the_same() -> None:
    users = Users(listed(User("bob", password="pencil")))
    first = await users.find("bob")
    await users.prepare()
    assert await users.find("bob") == first


async def test_what_logins_find_while_secrets_are_computed_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that computes looks at nothing that the loop changes meanwhile, and changes nothing itself."""
    node = Node(**{f"u{number}": SECRET.format() for number in range(20)})
    users = Users(listed(User("bob", password="one"), User("alice", password="two"), query="select"), node)
    for number in range(10):
        await users.find(f"u{number}")
    held, found = trio.Event(), trio.Event()
    original = Known.of

    def of(name: str, secret: str, salt: bytes | None = None) -> Known:
        if secret == "one":
            trio.from_thread.run_sync(held.set)
            trio.from_thread.run(found.wait)
        return original(name, secret, salt)

    monkeypatch.setattr(module.Known, "of", of)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(users.prepare)
            await held.wait()
            alice = await users.find("alice")
            for number in reversed(range(20)):
                await users.find(f"u{number}")
            found.set()
    node.asked.clear()
    assert await users.find("alice") == alice
    assert await users.find("bob") is not None
    assert users.strangers.iterations == 1, "20 of the node's to 2 of ours"
    assert node.asked == []


async def test_another_answer_costs_no_more_where_there_are_many() -> None:
    """Wrong logins are enough to have names asked for anew. Counted in calls, not timed."""
    node = Node(**{f"u{number}": SECRET.format() for number in range(2000)})
    users, calls = Users(listed(query="select"), node), 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    async def cost(name: str) -> int:
        nonlocal calls
        calls = 0
        sys.setprofile(count)
        try:
            await users.find(name)
            assert users.strangers.iterations == 1
        finally:
            sys.setprofile(None)
        return calls

    few = max([await cost(f"u{number}") for number in range(10)])
    for number in range(10, 1900):
        await users.find(f"u{number}")
    many = min([await cost(f"u{number}") for number in range(1900, 1910)])
    assert many < few + 500


async def test_strangers_look_like_most_users_of_the_configuration_and_of_the_nodes() -> None:
    def secret(iterations: int) -> str:
        return ScramSecret.from_password("x", iterations).format()

    users = Users(listed(User("a", secret=secret(5))))
    assert users.strangers.iterations == 5
    node = Node(b=secret(6), c=secret(6))
    users = Users(listed(User("a", secret=secret(5)), query="select"), node)
    await users.find("b")
    await users.find("c")
    assert users.strangers.iterations == 6
    users = Users(listed(User("a", password="x"), User("b", secret=secret(9)), User("c", password="y")))
    await users.prepare()
    assert users.strangers.iterations == 4096
    assert users.strangers.uses_md5, "passwords in plain text are good for MD5"


async def test_a_password_in_plain_text_has_the_salt_that_a_stranger_of_that_name_has() -> None:
    """So that it tells nothing when the user comes, goes, has another password, or the proxy has been restarted."""
    strangers = Strangers(b"k" * 32)
    salt = strangers.scram("bob").salt
    for auth, node in (
        (listed(User("bob", password="one")), Node()),
        (listed(User("bob", password="two")), Node()),
        (listed(query="select"), Node(bob="three")),
    ):
        known = await Users(auth, node, strangers=strangers).find("bob")
        assert known is not None
        assert known.scram is not None
        assert known.scram.salt == salt


async def test_a_failed_login_has_the_node_asked_anew(mock_clock: trio.testing.MockClock) -> None:
    node = Node(bob=MD5)
    users = Users(listed(query="select"), node)
    await users.find("bob")
    node.secrets["bob"] = SECRET.format()
    users.failed("bob")
    mock_clock.jump(1)
    assert await users.find("bob") == Known("bob", SECRET)
    Users(listed()).failed("bob")


# --- who they are on the nodes --------------------------------------------------------------------------------------

APP_POOL = Pool(server_user="app", server_password="of the pool")


@pytest.mark.parametrize(
    ("user", "pool", "login"),
    [
        pytest.param(User("bob", password="p"), POOL, ServerLogin("bob", "p"), id="itself, with its password"),
        pytest.param(User("bob", secret=MD5), POOL, ServerLogin("bob", md5=MD5), id="itself, with its MD5 secret"),
        pytest.param(User("bob", secret=SECRET.format()), POOL, ServerLogin("bob"), id="itself, keys not yet shown"),
        pytest.param(User("bob"), POOL, ServerLogin("bob"), id="itself, with nothing"),
        pytest.param(User("alice", password="p"), POOL, ServerLogin("bob"), id="a user who is not listed"),
        pytest.param(
            User("bob", password="p", server_password="s"), POOL, ServerLogin("bob", "s"), id="a password for there"
        ),
        pytest.param(
            User("bob", password="p", server_user="u"), POOL, ServerLogin("u", "p"), id="a role, its own password"
        ),
        pytest.param(
            User("bob", secret=MD5, server_user="u"), POOL, ServerLogin("u"), id="a role, for which its MD5 is wrong"
        ),
        pytest.param(
            User("bob", password="p", server_user="u", server_password="s"), POOL, ServerLogin("u", "s"), id="both"
        ),
        pytest.param(User("bob", password="p"), APP_POOL, ServerLogin("app", "of the pool"), id="the pool's"),
        pytest.param(User("alice"), APP_POOL, ServerLogin("app", "of the pool"), id="the pool's, not listed"),
        pytest.param(
            User("bob", password="p", server_user="u"), APP_POOL, ServerLogin("u", "p"), id="its own before the pool's"
        ),
        pytest.param(
            User("bob", password="p", server_password="s"), APP_POOL, ServerLogin("app", "s"),
            id="the pool's role, its own password",
        ),
        pytest.param(User("bob", password="p"), Pool(server_user="app"), ServerLogin("app"), id="a pool without one"),
    ],
)  # fmt: skip
async def test_who_a_user_is_on_the_nodes(user: User, pool: Pool, login: ServerLogin) -> None:
    users = Users(listed(user))
    await users.prepare()
    assert users.on_nodes("bob", pool) == login


async def test_what_a_user_has_shown_logs_in_in_its_place() -> None:
    users = Users(listed(User("bob", secret=SECRET.format())))
    users.proved("bob", Proof(KEYS))
    assert users.on_nodes("bob", POOL) == ServerLogin("bob", keys=KEYS)
    assert users.on_nodes("alice", POOL) == ServerLogin("alice")
    assert users.on_nodes("bob", APP_POOL) == ServerLogin("app", "of the pool"), "they are keys of bob, not of app"


async def test_a_password_that_was_sent_logs_in_where_the_secret_is_md5() -> None:
    users = Users(listed(User("bob", secret=MD5)))
    users.proved("bob", Proof(password="pencil"))
    assert users.on_nodes("bob", POOL) == ServerLogin("bob", "pencil", md5=MD5)
    users.proved("bob", Proof())
    assert users.on_nodes("bob", POOL) == ServerLogin("bob", "pencil", md5=MD5), "who shows nothing takes nothing back"


async def test_a_listed_password_comes_before_what_was_shown() -> None:
    """Its secret has a salt of our own making: keys of it fit no node."""
    users = Users(listed(User("bob", password="pencil")))
    known = await users.find("bob")
    assert known is not None
    assert known.scram is not None
    users.proved("bob", Proof(ScramKeys(b"k", b"s", known.scram.salt, 4096)))
    assert users.on_nodes("bob", POOL) == ServerLogin("bob", "pencil")


async def test_keys_of_a_secret_that_has_changed_on_the_node_are_forgotten(
    mock_clock: trio.testing.MockClock,
) -> None:
    node = Node(bob=SECRET.format())
    users = Users(listed(query="select"), node)
    await users.find("bob")
    users.proved("bob", Proof(KEYS))
    assert users.on_nodes("bob", POOL) == ServerLogin("bob", keys=KEYS)
    mock_clock.jump(3600)
    assert users.on_nodes("bob", POOL) == ServerLogin("bob", keys=KEYS), "as far as is known they are good"
    node.secrets["bob"] = ScramSecret.from_password("pencil", 1, b"other").format()
    await users.find("bob")
    assert users.on_nodes("bob", POOL) == ServerLogin("bob")


async def test_what_the_node_keeps_logs_in_if_it_is_enough() -> None:
    users = Users(listed(query="select"), Node(bob=MD5, plain="text"))
    await users.find("bob")
    await users.find("plain")
    assert users.on_nodes("bob", POOL) == ServerLogin("bob", md5=MD5)
    assert users.on_nodes("plain", POOL) == ServerLogin("plain", "text")


def test_what_was_shown_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROOFS_MOST", 2)
    users = Users(listed(*(User(name, secret=SECRET.format()) for name in "abc")))
    for name in ("a", "b", "a", "c"):
        users.proved(name, Proof(KEYS))
    assert [users.on_nodes(name, POOL).keys for name in ("a", "b", "c")] == [KEYS, None, KEYS]


def test_nothing_of_a_login_is_shown() -> None:
    login = ServerLogin("bob", "pencil", KEYS, MD5)
    assert repr(login) == "ServerLogin(user='bob')"


# --- a reload -------------------------------------------------------------------------------------------------------


async def test_a_reload_takes_users_in_and_leaves_users_out() -> None:
    users = Users(listed(User("bob", password="one"), User("alice", password="two")))
    await users.prepare()
    new = users.replaced(listed(User("bob", password="new"), User("carol", secret=MD5)))
    await new.prepare()
    bob = await new.find("bob")
    assert bob is not None
    assert bob.password == "new"
    assert await new.find("alice") is None
    assert await new.find("carol") is not None
    assert await users.find("alice") is not None, "logins under way end as they began"


async def test_a_reload_changes_nothing_by_which_users_and_strangers_could_be_told_apart() -> None:
    """A salt that changes, or one that does not while the others do, would tell."""
    auth = listed(User("bob", password="pencil"), User("alice", secret=SECRET.format()))
    users = Users(auth)
    await users.prepare()
    before = await users.find("bob"), users.strangers.scram("nobody"), users.strangers.md5("nobody")
    new = users.replaced(auth)
    await new.prepare()
    assert (await new.find("bob"), new.strangers.scram("nobody"), new.strangers.md5("nobody")) == before


async def test_a_reload_keeps_keys_whose_secret_is_the_same() -> None:
    users = Users(listed(User("bob", secret=SECRET.format())))
    users.proved("bob", Proof(KEYS))
    same = users.replaced(listed(User("bob", secret=SECRET.format()), User("alice", password="x")))
    assert same.on_nodes("bob", POOL) == ServerLogin("bob", keys=KEYS)
    other = ScramSecret.from_password("other", 1).format()
    changed = same.replaced(listed(User("bob", secret=other)))
    assert changed.on_nodes("bob", POOL) == ServerLogin("bob")


async def test_keys_of_a_user_who_is_listed_no_more_are_used_no_more() -> None:
    """Not by a session that stays, nor by who comes in with that name by other means."""
    users = Users(listed(User("bob", secret=SECRET.format())))
    users.proved("bob", Proof(KEYS))
    without = users.replaced(listed())
    assert without.on_nodes("bob", POOL) == ServerLogin("bob")
    back = without.replaced(listed(User("bob", secret=SECRET.format())))
    assert back.on_nodes("bob", POOL) == ServerLogin("bob"), "it has to log in once more"


async def test_keys_of_a_user_who_is_no_more_listed_are_good_again_when_auth_query_finds_the_same_secret() -> None:
    users = Users(listed(User("bob", secret=SECRET.format()), query="select"), Node())
    users.proved("bob", Proof(KEYS))
    node = Node(bob=SECRET.format())
    new = users.replaced(listed(query="select"), node).replaced(listed(query="select"), node)
    assert await new.find("bob") is not None
    assert new.on_nodes("bob", POOL) == ServerLogin("bob", keys=KEYS)


async def test_keys_of_a_user_who_is_no_more_listed_wait_for_auth_query_to_find_it() -> None:
    users = Users(listed(User("bob", secret=SECRET.format()), query="select"), Node(bob=SECRET.format()))
    users.proved("bob", Proof(KEYS))
    assert users.replaced(listed(query="select"), Node()).on_nodes("bob", POOL) == ServerLogin("bob")


async def test_keys_of_a_user_whom_auth_query_finds_no_more_are_forgotten(mock_clock: trio.testing.MockClock) -> None:
    node = Node(bob=SECRET.format())
    users = Users(listed(query="select"), node)
    await users.find("bob")
    users.proved("bob", Proof(KEYS))
    del node.secrets["bob"]
    mock_clock.jump(3600)
    assert await users.find("bob") is None
    assert users.on_nodes("bob", POOL) == ServerLogin("bob")


async def test_keys_of_a_user_whose_answer_has_been_driven_out_are_still_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "USERS_MOST", 1)
    users = Users(listed(query="select"), Node(bob=SECRET.format(), alice=MD5))
    await users.find("bob")
    users.proved("bob", Proof(KEYS))
    await users.find("alice")
    assert users.on_nodes("bob", POOL) == ServerLogin("bob", keys=KEYS)
    assert users.replaced(listed()).on_nodes("bob", POOL) == ServerLogin("bob"), "there is no auth_query any more"


async def test_a_reload_keeps_what_nodes_have_said_if_the_question_is_the_same() -> None:
    node = Node(bob=MD5)
    users = Users(listed(query="select"), node)
    await users.find("bob")
    same = users.replaced(Auth(auth_query="select", auth_cache=30.0, auth_password="rotated"), node)
    assert await same.find("bob") == Known("bob", md5=MD5)
    assert node.asked == ["bob"]
    other = same.replaced(Auth(auth_query="select other"), node)
    assert await other.find("bob") is not None
    assert node.asked == ["bob", "bob"]
    none = other.replaced(Auth(), node)
    assert await none.find("bob") is None
    assert none.on_nodes("bob", POOL) == ServerLogin("bob")


async def test_a_login_under_way_during_a_reload_is_not_lost() -> None:
    users = Users(listed(User("bob", secret=SECRET.format())))
    new = users.replaced(listed(User("bob", secret=SECRET.format())))
    users.proved("bob", Proof(KEYS))
    assert new.on_nodes("bob", POOL) == ServerLogin("bob", keys=KEYS)


async def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    users = Users(listed(User("bob", password="pencil"), User("alice", secret=SECRET.format()), query="s"), Node(c=MD5))
    await users.prepare()
    for name in ("bob", "alice", "c", "nobody"):
        await users.find(name)
        users.failed(name)
    shown = caplog.text + repr(users) + repr(users.strangers)
    for secret in ("pencil", MD5, SECRET.format(), repr(users.strangers.key)):
        assert secret not in shown
