"""What users are checked against, and what strangers look like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.auth.known import Crowd, Known, Strangers
from heliosproxy.auth.md5 import is_md5, md5_secret
from heliosproxy.auth.secrets import DEFAULT_ITERATIONS, ScramSecret


def secret(iterations: int) -> ScramSecret:
    return ScramSecret(iterations, b"salt", b"s" * 32, b"k" * 32)


def test_what_stands_in_pg_authid_is_known_for_what_it_is() -> None:
    scram = ScramSecret.from_password("pencil", 2)
    assert Known.of("bob", scram.format()) == Known("bob", scram)
    md5 = md5_secret("bob", "pencil")
    assert Known.of("bob", md5) == Known("bob", md5=md5)


def test_a_password_in_plain_text_is_good_for_every_method() -> None:
    known = Known.of("bob", "pencil")
    assert known.scram == ScramSecret.from_password("pencil", salt=known.scram.salt if known.scram else b"")
    assert (known.md5, known.password) == (md5_secret("bob", "pencil"), "pencil")


def test_an_empty_secret_proves_nothing() -> None:
    assert Known.of("bob", "") == Known("bob")


@pytest.mark.parametrize("text", ["SCRAM-SHA-256$", "SCRAM-SHA-256$4096:abc", "SCRAM-SHA-256$99999999:YQ==$YQ==:YQ=="])
def test_a_scram_secret_that_cannot_be_used_is_no_password(text: str) -> None:
    with pytest.raises(ValueError, match="SCRAM secret"):
        Known.of("bob", text)


def test_nothing_of_it_is_shown() -> None:
    known = Known.of("bob", "pencil")
    assert repr(known) == "Known(name='bob')"


def test_strangers_look_like_most_users() -> None:
    strangers = Strangers()
    assert strangers.scram("x").iterations == DEFAULT_ITERATIONS
    users = [Known("a", secret(7)), Known("b", secret(9)), Known("c", secret(9)), Known("d", md5="x")]
    strangers.resemble(Crowd(users[:2]), Crowd(users[2:]))
    assert strangers.scram("x").iterations == 9
    assert not strangers.uses_md5
    strangers.resemble(
        Crowd([Known("a", md5="x"), Known("b", secret(5), "x"), Known("c", secret(6)), Known("d")]),
    )
    assert strangers.uses_md5


def test_strangers_stay_as_they_are_where_nothing_is_known_of_users() -> None:
    strangers = Strangers()
    strangers.resemble(Crowd([Known("a", secret(7), "x")]))
    strangers.resemble(Crowd([Known("a")]))
    assert (strangers.iterations, strangers.uses_md5) == (7, True)
    assert strangers.copy().scram("x") == strangers.scram("x")
    assert strangers.copy().uses_md5


def test_which_of_two_equal_crowds_strangers_look_like_does_not_turn_on_who_came_last() -> None:
    strangers, crowd = Strangers(), Crowd([Known("a", secret(5)), Known("b", secret(6), "x")])
    seen = set()
    for user in (Known("a", secret(5)), Known("b", secret(6), "x"), Known("a", secret(5))):
        crowd.remove(user)
        crowd.add(user)
        strangers.resemble(crowd)
        seen.add((strangers.iterations, strangers.uses_md5))
    assert len(seen) == 1


KINDS = st.builds(
    lambda iterations, md5: Known("x", None if iterations is None else secret(iterations), md5),
    st.none() | st.integers(1, 3), st.none() | st.just("md5"),
)  # fmt: skip


@given(st.lists(st.none() | KINDS), st.data())
def test_a_crowd_is_those_who_have_come_and_not_gone(users: list[Known | None], data: st.DataObject) -> None:
    crowd = Crowd()
    for user in users:
        crowd.add(user)
    for _ in range(data.draw(st.integers(0, len(users)))):
        crowd.remove(users.pop(data.draw(st.integers(0, len(users) - 1))))
    expected = Crowd(user for user in users if user is not None)
    assert (crowd.iterations, crowd.md5) == (expected.iterations, expected.md5)
    assert all(crowd.iterations.values())


def test_a_stranger_is_the_same_each_time_for_one_name_and_key() -> None:
    one, other = Strangers(b"k" * 32), Strangers(b"o" * 32)
    assert one.scram("x") == Strangers(b"k" * 32).scram("x")
    assert one.md5("x") == Strangers(b"k" * 32).md5("x")
    assert is_md5(one.md5("\udcff"))
    assert len({one.md5("x"), one.md5("y"), other.md5("x")}) == 3
    assert len({one.scram("x").salt, one.scram("y").salt, other.scram("x").salt}) == 3
