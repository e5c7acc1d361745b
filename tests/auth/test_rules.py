"""Rules and maps, by what PostgreSQL's chapters on pg_hba.conf and pg_ident.conf say."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.auth.interfaces import Interface, read_interfaces
from heliosproxy.auth.rules import Attempt, Rules, refusal
from heliosproxy.config.access import Auth, NameMap, Rule

MACHINE = [ip_interface("127.0.0.1/8"), ip_interface("192.0.2.10/24"), ip_interface("fd00::2/64")]


def attempt(
    address: str = "192.0.2.1", *, user: str = "bob", database: str = "shop", tls: bool = False, local: bool = False
) -> Attempt:
    return Attempt(local, tls, "local" if local else address, database, user)


def lets_in(rule: Rule, tried: Attempt) -> bool:
    return Rules([rule], interfaces=lambda: MACHINE).match(tried) is rule


def rule(method: str = "scram-sha-256", **keys: object) -> Rule:
    return Rule(method, **keys)  # type: ignore[arg-type]


# --- what a rule matches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "matches"),
    [
        ("local", {"local"}),
        ("host", {"plain", "tls"}),
        ("hostssl", {"tls"}),
        ("hostnossl", {"plain"}),
    ],
)
def test_the_type_says_how_the_client_comes(kind: str, matches: set[str]) -> None:
    ways = {"local": attempt(local=True), "plain": attempt(), "tls": attempt(tls=True)}
    assert {name for name, tried in ways.items() if lets_in(rule(type=kind), tried)} == matches


@pytest.mark.parametrize(
    ("names", "database", "user", "matches"),
    [
        (("all",), "shop", "bob", True),
        (("shop",), "shop", "bob", True),
        (("shop",), "shops", "bob", False),
        (("shop",), "Shop", "bob", False),
        (("a", "shop"), "shop", "bob", True),
        (("sameuser",), "bob", "bob", True),
        (("sameuser",), "shop", "bob", False),
        (("/^sh",), "shop", "bob", True),
        (("/ho",), "shop", "bob", True),
        (("/^ho$",), "shop", "bob", False),
        (("/^db\\d{2,4}$",), "db123", "bob", True),
        (("/^db\\d{2,4}$",), "db12345", "bob", False),
        (("/shop",), "/shop", "bob", True),
        ((), "shop", "bob", False),
    ],
)
def test_databases_are_named_or_described(names: tuple[str, ...], database: str, user: str, matches: bool) -> None:
    assert lets_in(rule(database=names), attempt(database=database, user=user)) is matches


@pytest.mark.parametrize(
    ("names", "user", "matches"),
    [
        (("all",), "bob", True),
        (("all",), "all", True),
        (("bob",), "bob", True),
        (("bob",), "bobby", False),
        (("bob",), "BOB", False),
        (("/ob",), "bob", True),
        (("/^ob",), "bob", False),
        (("/^app_(read|write)$",), "app_write", True),
        (("/^bob$",), "bob\n", False),
        (("/^bob$",), "bob\n\n", False),
        (("/bob",), "x\nbob\n", True),
        (("/^x.bob$",), "x\nbob", True),
        (("/^[[:digit:]]+$",), "12345", True),
        (("/^[[:digit:]]+$",), "digit:", False),
        (("/^(\\w+\\.?)+$",), "a" * 63, True),
        (("/^(\\w+\\.?)+$",), "a" * 62 + "!", False),
        (("sameuser",), "bob", False),
        (("sameuser",), "sameuser", True),
    ],
)
def test_users_are_named_or_described(names: tuple[str, ...], user: str, matches: bool) -> None:
    assert lets_in(rule(user=names), attempt(user=user, database=user)) is matches


@pytest.mark.parametrize(
    ("written", "address", "matches"),
    [
        ((), "203.0.113.9", True),
        (("all",), "2001:db8::1", True),
        (("192.0.2.0/24",), "192.0.2.255", True),
        (("192.0.2.0/24",), "192.0.3.0", False),
        (("192.0.2.77/24",), "192.0.2.1", True),  # bits beyond the mask do not count
        (("192.0.2.1",), "192.0.2.1", True),
        (("192.0.2.1",), "192.0.2.2", False),
        (("0.0.0.0/0",), "203.0.113.9", True),
        (("0.0.0.0/0",), "2001:db8::1", False),
        (("::/0",), "2001:db8::1", True),
        (("::/0",), "203.0.113.9", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("fe80::1",), "fe80::1%eth0", True),
        (("192.0.2.0/24",), "::ffff:192.0.2.9", True),
        (("::/0",), "::ffff:192.0.2.9", False),
        (("::ffff:192.0.2.0/120",), "::ffff:192.0.2.9", True),
        (("::FFFF:c000:200/120",), "192.0.2.9", True),
        (("::ffff:192.0.2.0/120",), "::ffff:192.0.3.0", False),
        (("::ffff:192.0.2.9",), "192.0.2.9", True),
        (("::ffff:192.0.2.9",), "::ffff:192.0.2.8", False),
        (("::ffff:0:0/96",), "203.0.113.9", True),
        (("::ffff:0:0/96",), "2001:db8::1", False),
        (("10.0.0.0/8", "192.0.2.0/24"), "192.0.2.1", True),
        (("samehost",), "192.0.2.10", True),
        (("samehost",), "192.0.2.11", False),
        (("samehost",), "127.0.0.1", True),
        (("samehost",), "fd00::2", True),
        (("samehost",), "::ffff:192.0.2.10", True),
        (("samenet",), "192.0.2.11", True),
        (("samenet",), "127.9.9.9", True),
        (("samenet",), "fd00::ffff", True),
        (("samenet",), "192.0.3.1", False),
        (("samenet",), "fd00:1::2", False),
    ],
)
def test_addresses_are_those_of_networks(written: tuple[str, ...], address: str, matches: bool) -> None:
    assert lets_in(rule(address=written), attempt(address)) is matches


@pytest.mark.parametrize(
    ("written", "address", "matches"),
    [
        ((), "127.0.0.1", True),
        ((), "127.1.2.3", True),
        ((), "::1", True),
        ((), "::ffff:127.0.0.1", True),
        ((), "192.0.2.1", False),
        ((), "::ffff:192.0.2.1", False),
        (("192.0.2.0/24",), "192.0.2.1", True),
        (("all",), "203.0.113.9", True),
    ],
)
def test_trust_without_an_address_is_for_this_machine(written: tuple[str, ...], address: str, matches: bool) -> None:
    assert lets_in(rule("trust", address=written), attempt(address)) is matches


def test_trust_on_the_unix_socket_needs_no_address() -> None:
    assert lets_in(rule("trust", type="local"), attempt(local=True))


def test_all_that_a_rule_says_must_match() -> None:
    narrow = rule(type="hostssl", database=("shop",), user=("bob",), address=("192.0.2.0/24",))
    right = {"address": "192.0.2.1", "user": "bob", "database": "shop", "tls": True}
    assert lets_in(narrow, attempt(**right))  # type: ignore[arg-type]
    wrong = {"address": "192.0.3.1", "user": "alice", "database": "stock", "tls": False}
    for key, value in wrong.items():
        assert not lets_in(narrow, attempt(**{**right, key: value}))  # type: ignore[arg-type]


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        rule("reject", user=("mallory",)),
        rule("trust", address=("192.0.2.1",)),
        rule("md5", user=("old",)),
        rule("scram-sha-256", database=("shop",)),
    ]
    compiled = Rules(rules)
    assert compiled.match(attempt(user="mallory")) is rules[0]
    assert compiled.match(attempt(user="old")) is rules[1]
    assert compiled.match(attempt("192.0.2.2", user="old")) is rules[2]
    assert compiled.match(attempt("192.0.2.2")) is rules[3]
    assert compiled.match(attempt("192.0.2.2", database="stock")) is None


@pytest.mark.parametrize("address", ["", "local", "nonsense", "192.0.2", "192.0.2.1/24", "192.0.2.256"])
def test_what_is_no_address_is_let_in_by_nothing(address: str) -> None:
    assert Rules([rule("trust", address=("all",))]).match(attempt(address)) is None


def test_without_rules_the_method_is_everyones() -> None:
    rules = Rules.of(Auth())
    for tried in (attempt(), attempt(tls=True), attempt(local=True)):
        found = rules.match(tried)
        assert found is not None
        assert found.method == "scram-sha-256"
    assert Rules.of(Auth(method="trust")).match(attempt()) is None
    assert Rules.of(Auth(method="trust")).match(attempt("127.0.0.1")) is not None


def test_with_rules_there_is_nothing_beside_them() -> None:
    assert Rules.of(Auth(rules=(rule("md5", user=("old",)),))).match(attempt()) is None


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_whatever_a_client_says_is_an_answer(address: str, user: str, database: str) -> None:
    rules = Rules([rule(user=("/^a(.*)b$",), address=("samenet",)), rule("reject")], interfaces=lambda: MACHINE)
    found = rules.match(attempt(address, user=user, database=database))
    assert refusal(attempt(address, user=user, database=database), found).sqlstate == "28000"


def test_this_machine_is_asked_only_where_a_rule_turns_on_it() -> None:
    asked: list[int] = []

    def interfaces() -> list[Interface]:
        asked.append(1)
        return list(MACHINE)

    rules = Rules([rule(user=("alice",), address=("samehost",)), rule()], interfaces=interfaces)
    assert rules.match(attempt()) is not None
    assert asked == []
    assert rules.match(attempt(user="alice")) is not None
    assert asked == [1]


def test_the_interfaces_of_this_machine_are_found() -> None:
    found = read_interfaces()
    loopback = [each for each in found if each.ip.is_loopback]
    assert ip_interface("127.0.0.1/8") in loopback
    assert all(each.ip in each.network for each in found)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tried", "matched", "message"),
    [
        (
            attempt(), None,
            'no rule of [[auth.rules]] for host "192.0.2.1", user "bob", database "shop", no encryption',
        ),
        (
            attempt(tls=True), None,
            'no rule of [[auth.rules]] for host "192.0.2.1", user "bob", database "shop", SSL encryption',
        ),
        (
            attempt(local=True, user="\udcff"), rule("reject", type="local"),
            'a rule of [[auth.rules]] rejects connection for host "[local]", user "\ufffd", database "shop", '
            "no encryption",
        ),
    ],
)  # fmt: skip
def test_a_refusal_says_who_and_from_where(tried: Attempt, matched: Rule | None, message: str) -> None:
    error = refusal(tried, matched)
    assert (error.message, error.sqlstate) == (message, "28000")


# --- maps -----------------------------------------------------------------------------------------------------------


def mapped(entries: list[tuple[str, str]], system_user: str, user: str) -> bool:
    maps = [NameMap("m", who, whom) for who, whom in entries] + [NameMap("other", "bob", "all")]
    return Rules([], maps).mapped(rule("cert", map="m"), system_user, user)


def test_without_a_map_the_names_must_be_equal() -> None:
    rules = Rules([], [NameMap("m", "bob", "all")])
    assert rules.mapped(rule("cert"), "bob", "bob")
    assert not rules.mapped(rule("cert"), "bob", "alice")
    assert not rules.mapped(rule("cert"), "Bob", "bob")


@pytest.mark.parametrize(
    ("entries", "system_user", "user", "maps"),
    [
        ([("bryanh", "bryanh")], "bryanh", "bryanh", True),
        ([("robert", "bob")], "robert", "bob", True),
        ([("robert", "bob")], "bob", "bob", False),
        ([("robert", "bob")], "robert", "robert", False),
        ([("bryanh", "bryanh"), ("bryanh", "guest1")], "bryanh", "guest1", True),
        ([("bryanh", "all")], "bryanh", "anyone", True),
        ([("bryanh", "all")], "other", "anyone", False),
        ([("/^(.*)@mydomain\\.com$", "\\1")], "bob@mydomain.com", "bob", True),
        ([("/^(.*)@mydomain\\.com$", "\\1")], "bob@mydomain.com.evil", "bob", False),
        ([("/^(.*)@mydomain\\.com$", "\\1")], "bob@mydomain.com", "alice", False),
        ([("/^(.*)@otherdomain\\.com$", "guest")], "bob@otherdomain.com", "guest", True),
        ([("/^(.*)@otherdomain\\.com$", "guest")], "bob@otherdomain.com", "bob", False),
        ([("/^(.*)@x$", "app_\\1_ro")], "bob@x", "app_bob_ro", True),
        ([("/^(.*)@x$", "all")], "bob@x", "anyone", True),
        ([("/ob", "root")], "bob", "root", True),
        ([("/^.*$", "\\1")], "bob", "bob", False),
        ([("/^(a)?b$", "\\1")], "b", "", False),
        ([("/^(.*)@x$", "\\1")], "bob@x\n", "bob", False),
        ([("/^(.*)@x$", "\\1")], "all@x", "postgres", False),
        ([("/^(.*)@x$", "\\1")], "all@x", "all", True),
        ([("/^(.*)@x$", "\\1")], "/.*@x", "postgres", False),
        ([("/^(.*)@x$", "\\1")], "\\1@x", "\\1", True),
        ([("bob", "\\1")], "bob", "bob", False),
        ([], "bob", "bob", False),
    ],
)
def test_a_map_says_who_may_be_whom(entries: list[tuple[str, str]], system_user: str, user: str, maps: bool) -> None:
    assert mapped(entries, system_user, user) is maps


def test_a_map_that_does_not_exist_lets_nobody_in() -> None:
    assert not Rules([], []).mapped(rule("cert", map="m"), "bob", "bob")
