"""Each method as an exchange of messages: who gets in, what everyone else is told, and that it is the same for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.auth import exchange as module
from heliosproxy.auth.exchange import Exchange, Md5Exchange, PasswordExchange, ScramExchange, exchange_of
from heliosproxy.auth.known import Known, Proof, Strangers
from heliosproxy.auth.md5 import md5_response, md5_secret
from heliosproxy.auth.scram import AuthenticationError, ScramClient
from heliosproxy.auth.secrets import ScramSecret, stored_key
from heliosproxy.config.access import Method
from heliosproxy.wire.errors import PeerError, ProtocolError
from heliosproxy.wire.messages_authentication import (
    AuthenticationCleartextPassword,
    AuthenticationMD5Password,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    PasswordMessage,
    SASLInitialResponse,
    decode_authentication,
)

ENDPOINT = b"e" * 32
SECRET = ScramSecret.from_password("pencil", 1, b"salt")
BY_SCRAM = Known("bob", SECRET)
BY_MD5 = Known("bob", md5=md5_secret("bob", "pencil"))
BY_PASSWORD = Known("bob", SECRET, md5_secret("bob", "pencil"), "pencil")
WITHOUT = Known("bob")
FAILED = 'password authentication failed for user "bob"'


def strangers(*, iterations: int = 1, uses_md5: bool = False) -> Strangers:
    found = Strangers(b"k" * 32)
    found.iterations, found.uses_md5 = iterations, uses_md5
    return found


def said(message: bytes) -> object:
    """What the proxy sends, decoded."""
    return decode_authentication(message[5:])


def password(text: str) -> bytes:
    return PasswordMessage(text.encode()).body()


def by_scram(exchange: Exchange, word: str, *, endpoint: bytes | None = None, plus: bool = False) -> None:
    """A client's side of SCRAM, to its end."""
    client = ScramClient("bob", word, endpoint=endpoint, plus=plus)
    initial = SASLInitialResponse(client.mechanism, client.first()).body()
    challenge = said(exchange.answer(initial))
    assert isinstance(challenge, AuthenticationSASLContinue)
    last = said(exchange.answer(client.final(challenge.data)))
    assert isinstance(last, AuthenticationSASLFinal)
    client.verify(last.data)


def log_in(exchange: Exchange, word: str) -> None:
    """Whatever is asked for, with this password."""
    request = said(exchange.begin())
    if isinstance(request, AuthenticationSASL):
        by_scram(exchange, word)
    elif isinstance(request, AuthenticationMD5Password):
        digest = md5_response(md5_secret("bob", word), request.salt)
        assert exchange.answer(PasswordMessage(digest).body()) == b""
    else:
        assert request == AuthenticationCleartextPassword()
        assert exchange.answer(password(word)) == b""


def refused(call: Callable[[], object]) -> PeerError:
    with pytest.raises((AuthenticationError, ProtocolError)) as caught:
        call()
    return caught.value


# --- which exchange -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "known", "kind"),
    [
        ("scram-sha-256", BY_SCRAM, ScramExchange),
        ("scram-sha-256", BY_MD5, ScramExchange),
        ("scram-sha-256", None, ScramExchange),
        ("md5", BY_SCRAM, ScramExchange),
        ("md5", BY_MD5, Md5Exchange),
        ("md5", BY_PASSWORD, Md5Exchange),
        ("password", BY_SCRAM, PasswordExchange),
        ("password", None, PasswordExchange),
    ],
)
def test_the_method_and_the_users_secret_choose_the_exchange(method: Method, known: Known | None, kind: type) -> None:
    assert type(exchange_of(method, "bob", known, strangers())) is kind


@pytest.mark.parametrize("known", [None, WITHOUT])
def test_whom_md5_knows_nothing_of_is_asked_as_most_users_are(known: Known | None) -> None:
    assert isinstance(exchange_of("md5", "bob", known, strangers(uses_md5=True)), Md5Exchange)
    assert isinstance(exchange_of("md5", "bob", known, strangers(uses_md5=False)), ScramExchange)


@pytest.mark.parametrize("method", ["trust", "cert", "peer", "reject"])
def test_methods_without_a_password_have_no_exchange(method: Method) -> None:
    with pytest.raises(ValueError, match=method):
        exchange_of(method, "bob", None, strangers())


# --- who gets in ----------------------------------------------------------------------------------------------------

METHODS: list[Method] = ["scram-sha-256", "md5", "password"]
MATRIX = [
    pytest.param(method, known, right, id=f"{method}-{name}")
    for method in METHODS
    for name, known, right in (
        ("scram secret", BY_SCRAM, True),
        ("md5 secret", BY_MD5, method != "scram-sha-256"),
        ("plain password", BY_PASSWORD, True),
        ("no secret", WITHOUT, False),
        ("no user", None, False),
    )
]


@pytest.mark.parametrize(("method", "known", "right"), MATRIX)
def test_the_right_password_gets_in_where_there_is_what_to_check_it_with(
    method: Method, known: Known | None, right: bool
) -> None:
    exchange = exchange_of(method, "bob", known, strangers())
    if right:
        log_in(exchange, "pencil")
        assert exchange.done
    else:
        assert refused(lambda: log_in(exchange, "pencil")).message == FAILED
        assert not exchange.done


@pytest.mark.parametrize(("method", "known", "right"), MATRIX)
@pytest.mark.parametrize("word", ["Pencil", "pencil ", "x"])
def test_a_wrong_password_is_refused_in_the_same_words_for_all(
    method: Method, known: Known | None, right: bool, word: str
) -> None:
    exchange = exchange_of(method, "bob", known, strangers())
    error = refused(lambda: log_in(exchange, word))
    assert (error.message, error.sqlstate, error.detail, error.hint) == (FAILED, "28P01", None, None)
    assert not exchange.done
    assert exchange.proof == Proof()


@pytest.mark.parametrize("known", [BY_SCRAM, BY_MD5, BY_PASSWORD, WITHOUT, None])
def test_a_password_costs_the_same_work_whoever_sends_it(
    known: Known | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: one derivation, with as many iterations, and one digest, for users and strangers alike."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., object]:
        original = getattr(module, name)

        def call(*arguments: object) -> object:
            calls[name] += 1
            if name == "Derivation":
                calls["iterations"] += arguments[2]  # type: ignore[assignment, operator]
            return original(*arguments)

        return call

    for name in ("Derivation", "md5_secret", "stored_key", "client_key"):
        monkeypatch.setattr(module, name, counted(name))
    exchange = PasswordExchange("bob", known, strangers())
    refused(lambda: exchange.answer(password("wrong")))
    assert calls == {"Derivation": 1, "iterations": 1, "md5_secret": 1, "stored_key": 1, "client_key": 1}


@pytest.mark.parametrize("method", ["scram-sha-256", "md5"])
@pytest.mark.parametrize("uses_md5", [True, False])
def test_a_stranger_is_asked_the_same_each_time(method: Method, uses_md5: bool) -> None:
    def challenge(name: str) -> tuple[int, bytes, bytes]:
        exchange = exchange_of(method, name, None, strangers(uses_md5=uses_md5, iterations=7))
        request = exchange.begin()
        if isinstance(exchange, Md5Exchange):
            return len(request), b"", b""
        answer = said(exchange.answer(SASLInitialResponse("SCRAM-SHA-256", b"n,,n=,r=abc").body()))
        assert isinstance(answer, AuthenticationSASLContinue)
        _, salt, iterations = answer.data.split(b",")
        return len(request), salt, iterations

    assert challenge("bob") == challenge("bob")
    if method == "scram-sha-256":
        assert challenge("bob") != challenge("alice")
        assert challenge("bob")[2] == b"i=7"


def test_only_checking_a_password_is_heavy() -> None:
    heavy = {method: exchange_of(method, "bob", BY_MD5, strangers()).heavy for method in METHODS}
    assert heavy == {"scram-sha-256": False, "md5": False, "password": True}


# --- what is shown by it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["scram-sha-256", "password"])
def test_the_proof_holds_the_keys_with_which_the_proxy_logs_in_to_the_node(method: Method) -> None:
    exchange = exchange_of(method, "bob", BY_SCRAM, strangers())
    log_in(exchange, "pencil")
    keys = exchange.proof.keys
    assert keys is not None
    assert stored_key(keys.client_key) == SECRET.stored_key
    assert (keys.server_key, keys.salt, keys.iterations) == (SECRET.server_key, b"salt", 1)
    assert exchange.proof.password is None
    again = ScramExchange("bob", BY_SCRAM, strangers())
    client = ScramClient("bob", keys)
    challenge = said(again.answer(SASLInitialResponse("SCRAM-SHA-256", client.first()).body()))
    assert isinstance(challenge, AuthenticationSASLContinue)
    again.answer(client.final(challenge.data))
    assert again.done


def test_the_proof_holds_the_password_only_where_there_are_no_keys() -> None:
    exchange = exchange_of("password", "bob", BY_MD5, strangers())
    log_in(exchange, "pencil")
    assert exchange.proof == Proof(password="pencil")
    assert "pencil" not in repr(exchange.proof)


def test_md5_shows_nothing_that_could_be_used() -> None:
    exchange = exchange_of("md5", "bob", BY_MD5, strangers())
    log_in(exchange, "pencil")
    assert exchange.proof == Proof()


def test_a_proof_fits_until_the_secret_changes() -> None:
    exchange = exchange_of("scram-sha-256", "bob", BY_SCRAM, strangers())
    log_in(exchange, "pencil")
    assert exchange.proof.fits(BY_SCRAM)
    assert not exchange.proof.fits(BY_MD5)
    assert not exchange.proof.fits(WITHOUT)
    assert not exchange.proof.fits(Known("bob", ScramSecret.from_password("pencil", 1, b"salz")))
    assert not exchange.proof.fits(Known("bob", ScramSecret.from_password("pencils", 1, b"salt")))
    assert not exchange.proof.fits(Known("bob", ScramSecret.from_password("pencil", 2, b"salt")))
    assert Proof(password="pencil").fits(BY_MD5)
    assert not Proof(password="pen").fits(BY_MD5)
    assert not Proof().fits(BY_MD5)


# --- channel binding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "endpoint", "offered"),
    [
        ("scram-sha-256", None, ("SCRAM-SHA-256",)),
        ("scram-sha-256", ENDPOINT, ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")),
        ("scram-sha-256-plus", ENDPOINT, ("SCRAM-SHA-256-PLUS",)),
        ("md5", ENDPOINT, ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")),
    ],
)
def test_plus_is_offered_first_where_there_is_something_to_bind_to(
    method: Method, endpoint: bytes | None, offered: tuple[str, ...]
) -> None:
    exchange = exchange_of(method, "bob", BY_SCRAM, strangers(), endpoint=endpoint)
    assert said(exchange.begin()) == AuthenticationSASL(offered)


@pytest.mark.parametrize("method", ["scram-sha-256", "scram-sha-256-plus"])
def test_a_client_binds(method: Method) -> None:
    exchange = exchange_of(method, "bob", BY_SCRAM, strangers(), endpoint=ENDPOINT)
    exchange.begin()
    by_scram(exchange, "pencil", endpoint=ENDPOINT, plus=True)
    assert exchange.done


def test_where_binding_is_optional_a_client_need_not_bind() -> None:
    exchange = exchange_of("scram-sha-256", "bob", BY_SCRAM, strangers(), endpoint=ENDPOINT)
    by_scram(exchange, "pencil")
    assert exchange.done


def test_where_binding_is_required_a_client_must_bind() -> None:
    exchange = exchange_of("scram-sha-256-plus", "bob", BY_SCRAM, strangers(), endpoint=ENDPOINT)
    error = refused(lambda: by_scram(exchange, "pencil"))
    assert isinstance(error, ProtocolError)
    assert not exchange.done


def test_where_binding_is_required_and_impossible_nobody_is_asked_for_anything() -> None:
    error = refused(exchange_of("scram-sha-256-plus", "bob", BY_SCRAM, strangers()).begin)
    assert isinstance(error, AuthenticationError)
    assert error.sqlstate == "28000"


# --- what is no answer ----------------------------------------------------------------------------------------------


def test_a_client_may_let_the_proxy_speak_first() -> None:
    """A SASLInitialResponse without data is answered by an empty challenge."""
    exchange = exchange_of("scram-sha-256", "bob", BY_SCRAM, strangers())
    assert said(exchange.answer(SASLInitialResponse("SCRAM-SHA-256", None).body())) == AuthenticationSASLContinue(b"")
    client = ScramClient("bob", "pencil")
    challenge = said(exchange.answer(client.first()))
    assert isinstance(challenge, AuthenticationSASLContinue)
    exchange.answer(client.final(challenge.data))
    assert exchange.done


@pytest.mark.parametrize("mechanism", ["", "SCRAM-SHA-1", "scram-sha-256", "SCRAM-SHA-256-PLUS"])
def test_a_mechanism_that_was_not_offered_is_refused(mechanism: str) -> None:
    exchange = exchange_of("scram-sha-256", "bob", BY_SCRAM, strangers())
    error = refused(lambda: exchange.answer(SASLInitialResponse(mechanism, b"n,,n=,r=abc").body()))
    assert error.sqlstate == "08P01"


@pytest.mark.parametrize("method", ["md5", "password"])
@pytest.mark.parametrize("known", [BY_MD5, None])
def test_an_empty_password_is_refused_as_postgresql_refuses_it(method: Method, known: Known | None) -> None:
    exchange = exchange_of(method, "bob", known, strangers(uses_md5=True))
    error = refused(lambda: exchange.answer(b"\0"))
    assert (error.message, error.sqlstate) == ("empty password returned by client", "28P01")


@pytest.mark.parametrize("method", ["md5", "password"])
@pytest.mark.parametrize("body", [b"", b"pencil", b"pencil\0x", b"\0\0", b"pencil\0\0"])
def test_what_is_no_password_message_is_refused(method: Method, body: bytes) -> None:
    exchange = exchange_of(method, "bob", BY_MD5, strangers())
    error = refused(lambda: exchange.answer(body))
    assert isinstance(error, ProtocolError)
    assert not exchange.done


@given(st.sampled_from([*METHODS, "scram-sha-256-plus"]), st.lists(st.binary(max_size=80), min_size=1, max_size=4))
def test_random_answers_raise_nothing_but_our_errors(method: Method, bodies: list[bytes]) -> None:
    exchange = exchange_of(method, "bob", BY_PASSWORD, strangers(), endpoint=ENDPOINT)
    exchange.begin()
    for body in bodies:
        refused(lambda body=body: exchange.answer(body))  # type: ignore[misc]
    assert not exchange.done
    assert exchange.proof == Proof()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_answered_after_the_end(method: Method) -> None:
    exchange = exchange_of(method, "bob", BY_PASSWORD, strangers())
    log_in(exchange, "pencil")
    assert isinstance(refused(lambda: exchange.answer(password("pencil"))), ProtocolError)


@pytest.mark.parametrize("method", METHODS)
def test_there_is_one_try(method: Method) -> None:
    exchange = exchange_of(method, "bob", BY_PASSWORD, strangers())
    refused(lambda: log_in(exchange, "wrong"))
    refused(lambda: exchange.answer(password("pencil")))
    assert not exchange.done


def test_a_challenge_is_good_for_one_guess() -> None:
    exchange = exchange_of("scram-sha-256", "bob", BY_SCRAM, strangers())
    wrong, right = (ScramClient("bob", word, nonce=lambda: b"abc") for word in ("pencils", "pencil"))
    challenge = said(exchange.answer(SASLInitialResponse("SCRAM-SHA-256", right.first()).body()))
    assert isinstance(challenge, AuthenticationSASLContinue)
    wrong.first()
    refused(lambda: exchange.answer(wrong.final(challenge.data)))
    assert isinstance(refused(lambda: exchange.answer(right.final(challenge.data))), ProtocolError)
    assert not exchange.done


def test_a_name_that_is_not_utf8_is_told_as_it_can_be() -> None:
    exchange = exchange_of("password", "\udcff", None, strangers())
    assert refused(lambda: exchange.answer(password("x"))).message.endswith('user "\ufffd"')
