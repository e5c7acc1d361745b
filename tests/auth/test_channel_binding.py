"""SCRAM-SHA-256-PLUS, SCRAM by keys, and SCRAM whose computing is the caller's."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosproxy.auth.scram import AuthenticationError, Derivation, ScramClient, ScramKeys, ScramServer
from heliosproxy.auth.secrets import ScramSecret, client_key, salted_password
from heliosproxy.wire.errors import PeerError, ProtocolError

ENDPOINT = bytes(range(32))
SECRET = ScramSecret.from_password("pencil", 1, b"salt")
CLIENT_NONCE, SERVER_NONCE = b"abc", b"xyz"
GS2 = b"p=tls-server-end-point,,"
SALTED = salted_password(b"pencil", b"salt", 1)
KEYS = ScramKeys(client_key(SALTED), SECRET.server_key, b"salt", 1)
MUTATIONS = st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=3)


def server(*, plus: bool = True, endpoint: bytes | None = ENDPOINT) -> ScramServer:
    return ScramServer(SECRET, user="bob", nonce=lambda: SERVER_NONCE, endpoint=endpoint, plus=plus)


def client(*, plus: bool = True, endpoint: bytes | None = ENDPOINT, credential: str | ScramKeys = KEYS) -> ScramClient:
    return ScramClient("bob", credential, nonce=lambda: CLIENT_NONCE, endpoint=endpoint, plus=plus)


def login(client: ScramClient, server: ScramServer) -> None:
    client.verify(server.final(client.final(server.first(client.first()))))


def refusal(call: Callable[[], object]) -> PeerError:
    with pytest.raises((ProtocolError, AuthenticationError)) as caught:
        call()
    return caught.value


def mutate(message: bytes, mutations: list[tuple[int, bytes, int]]) -> bytes:
    for where, inserted, removed in mutations:
        at = where % (len(message) + 1)
        message = message[:at] + inserted + message[at + removed :]
    return message


@given(
    password=st.text(min_size=1, max_size=20), endpoint=st.binary(min_size=1, max_size=64), plus=st.booleans(),
    bound=st.booleans(), user=st.text(max_size=10).filter(lambda text: "\0" not in text),
)  # fmt: skip
def test_client_and_server_agree_with_binding_and_without(
    password: str, endpoint: bytes, plus: bool, bound: bool, user: str
) -> None:
    data = endpoint if bound or plus else None
    secret = ScramSecret.from_password(password.encode("utf-8", "replace"), 1)
    scram = ScramServer(secret, endpoint=data, plus=plus)
    # A client that did not choose PLUS although it was offered says that it cannot bind.
    mine = ScramClient(
        user.encode("utf-8", "replace").decode(), password.encode("utf-8", "replace"),
        endpoint=data if plus else None, plus=plus,
    )  # fmt: skip
    login(mine, scram)
    assert scram.keys is not None
    login(ScramClient("", scram.keys, endpoint=data, plus=plus) if plus else ScramClient("", scram.keys),
          ScramServer(secret, endpoint=data, plus=plus))  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "plus", "flag", "mechanism"),
    [
        (ENDPOINT, True, GS2, "SCRAM-SHA-256-PLUS"),
        (ENDPOINT, False, b"y,,", "SCRAM-SHA-256"),
        (None, False, b"n,,", "SCRAM-SHA-256"),
    ],
)
def test_the_client_says_whether_it_binds(endpoint: bytes | None, plus: bool, flag: bytes, mechanism: str) -> None:
    mine = client(plus=plus, endpoint=endpoint)
    assert mine.first() == flag + b"n=bob,r=abc"
    assert mine.mechanism == mechanism
    data = flag + (ENDPOINT if plus else b"")
    assert mine.final(b"r=abcxyz,s=c2FsdA==,i=1").startswith(b"c=" + b64encode(data) + b",r=abcxyz,p=")


def test_binding_without_an_endpoint_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="endpoint"):
        client(endpoint=None)
    with pytest.raises(ValueError, match="endpoint"):
        server(endpoint=None)


@pytest.mark.parametrize(
    ("flag", "plus", "endpoint", "sqlstate", "text"),
    [
        pytest.param(b"y", False, ENDPOINT, "28000", "negotiation error", id="downgraded by somebody in between"),
        pytest.param(b"n", True, ENDPOINT, "08P01", "malformed", id="PLUS without binding"),
        pytest.param(b"y", True, ENDPOINT, "08P01", "malformed", id="PLUS, and it could bind"),
        pytest.param(b"p=tls-server-end-point", False, ENDPOINT, "08P01", "malformed", id="binding without PLUS"),
        pytest.param(b"p=tls-server-end-point", False, None, "08P01", "malformed", id="binding without TLS"),
        pytest.param(b"p=tls-unique", True, ENDPOINT, "08P01", "unsupported.*tls-unique", id="another binding"),
        pytest.param(b"p=tls-exporter", True, ENDPOINT, "08P01", "unsupported.*tls-exporter", id="a newer binding"),
        pytest.param(b"p=", True, ENDPOINT, "08P01", "malformed", id="no binding's name"),
    ],
)
def test_a_flag_that_does_not_fit_is_refused(
    flag: bytes, plus: bool, endpoint: bytes | None, sqlstate: str, text: str
) -> None:
    scram = server(plus=plus, endpoint=endpoint)
    with pytest.raises(PeerError, match=text) as caught:
        scram.first(flag + b",,n=,r=abc")
    assert caught.value.sqlstate == sqlstate


@pytest.mark.parametrize(
    ("flag", "plus", "endpoint"), [(b"n", False, ENDPOINT), (b"n", False, None), (b"y", False, None)]
)  # fmt: skip
def test_a_client_that_cannot_bind_logs_in_without(flag: bytes, plus: bool, endpoint: bytes | None) -> None:
    assert server(plus=plus, endpoint=endpoint).first(flag + b",,n=,r=abc").startswith(b"r=abcxyz,")


@pytest.mark.parametrize("other", [b"", ENDPOINT[:-1], ENDPOINT + b"x", bytes(32)])
def test_a_client_on_another_tls_connection_is_refused(other: bytes) -> None:
    """Somebody in the middle shows the client another certificate, and passes on what it says."""
    mine, scram = client(endpoint=other), server()
    with pytest.raises(AuthenticationError, match="channel binding check failed") as caught:
        login(mine, scram)
    assert caught.value.sqlstate == "28000"
    assert scram.keys is None


@given(MUTATIONS)
def test_no_mutated_message_of_a_bound_exchange_logs_in(mutations: list[tuple[int, bytes, int]]) -> None:
    mine, scram = client(), server()
    first = scram.first(mine.first())
    final = mine.final(first)
    mutated = mutate(final, mutations)
    if mutated != final:
        refusal(lambda: scram.final(mutated))
        assert scram.keys is None


@given(MUTATIONS)
def test_a_bound_exchange_whose_beginning_was_mutated_fails(mutations: list[tuple[int, bytes, int]]) -> None:
    mine, scram = client(), server()
    first = mine.first()
    mutated = mutate(first, mutations)
    if mutated != first:
        refusal(lambda: scram.final(mine.final(scram.first(mutated))))
        assert scram.keys is None


@given(MUTATIONS)
def test_a_bound_exchange_whose_challenge_was_mutated_fails(mutations: list[tuple[int, bytes, int]]) -> None:
    mine, scram = client(), server()
    challenge = scram.first(mine.first())
    mutated = mutate(challenge, mutations)
    if mutated != challenge:
        refusal(lambda: mine.verify(scram.final(mine.final(mutated))))


@given(MUTATIONS)
def test_no_mutated_signature_is_believed_in_a_bound_exchange(mutations: list[tuple[int, bytes, int]]) -> None:
    mine, scram = client(), server()
    signature = scram.final(mine.final(scram.first(mine.first())))
    mutated = mutate(signature, mutations)
    # What follows the signature as an extension is not signed: RFC 5802 has it ignored.
    if not (mutated == signature or mutated.startswith(signature + b",")):
        refusal(lambda: mine.verify(mutated))


def test_keys_that_a_client_has_proved_log_in_in_its_place() -> None:
    scram = server(plus=False, endpoint=None)
    login(ScramClient("bob", "pencil"), scram)
    assert scram.keys == KEYS
    again = server()
    login(client(credential=scram.keys), again)
    assert again.keys == KEYS


@pytest.mark.parametrize(
    "other", [ScramSecret.from_password("pencil", 1, b"salz"), ScramSecret.from_password("pencil", 2, b"salt")]
)  # fmt: skip
def test_keys_of_another_secret_are_refused_before_anything_is_sent(other: ScramSecret) -> None:
    mine = ScramClient("bob", KEYS)
    with pytest.raises(AuthenticationError, match="another SCRAM secret") as caught:
        mine.challenge(ScramServer(other).first(mine.first()))
    assert caught.value.sqlstate == "28P01"
    assert "server_password" in (caught.value.hint or "")


def test_keys_of_another_password_with_equal_salt_are_refused() -> None:
    other = ScramSecret.from_password("pen", 1, b"salt")
    with pytest.raises(AuthenticationError, match="password authentication failed"):
        login(ScramClient("bob", KEYS), ScramServer(other, user="bob"))


def test_the_caller_may_compute_in_its_own_time() -> None:
    mine, scram = client(credential="pencil"), server()
    work = mine.challenge(scram.first(mine.first()))
    assert work == Derivation(b"pencil", b"salt", 1)
    assert work is not None
    mine.verify(scram.final(mine.prove(work.compute())))
    with pytest.raises(ValueError, match="missing"):
        mine.prove()


def test_with_keys_there_is_nothing_to_compute() -> None:
    mine, scram = client(), server()
    assert mine.challenge(scram.first(mine.first())) is None
    mine.verify(scram.final(mine.prove()))


def test_a_signature_is_not_believed_before_the_proof() -> None:
    """Not even that of nothing, by no key, which anybody can make."""
    of_nothing = hmac.digest(b"", b"", "sha256")
    with pytest.raises(AuthenticationError):
        client().verify(b"v=" + b64encode(of_nothing))


def test_neither_keys_nor_passwords_are_shown() -> None:
    shown = repr(KEYS) + repr(Derivation(b"pencil", b"salt", 1))
    assert repr(KEYS.client_key) not in shown
    assert repr(KEYS.server_key) not in shown
    assert "pencil" not in shown
