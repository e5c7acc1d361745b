"""SCRAM-SHA-256: RFC 7677's example, our client against our server, and every way to get it wrong."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heliosproxy.auth.scram import AuthenticationError, ScramClient, ScramServer
from heliosproxy.auth.secrets import ScramSecret, decode_base64, stored_key
from heliosproxy.wire.errors import PeerError, ProtocolError

# RFC 7677, section 3: user "user", password "pencil".
CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SECRET = ScramSecret.from_password("pencil", 4096, decode_base64(b"W22ZaJ0SNY7soEsUEjb6gQ=="))
CLIENT_FIRST = b"n,,n=user,r=" + CLIENT_NONCE
SERVER_FIRST = b"r=" + CLIENT_NONCE + SERVER_NONCE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
UNPROVEN = b"c=biws,r=" + CLIENT_NONCE + SERVER_NONCE
PROOF = b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
CLIENT_FINAL = UNPROVEN + b",p=" + PROOF
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

QUICK = ScramSecret.from_password("pencil", 1, b"salt")
MUTATIONS = st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=3)


def server() -> ScramServer:
    return ScramServer(SECRET, user="user", nonce=lambda: SERVER_NONCE)


def client() -> ScramClient:
    return ScramClient("user", "pencil", nonce=lambda: CLIENT_NONCE)


def login(client: ScramClient, server: ScramServer) -> None:
    client.verify(server.final(client.final(server.first(client.first()))))


def mutate(message: bytes, mutations: list[tuple[int, bytes, int]]) -> bytes:
    for where, inserted, removed in mutations:
        at = where % (len(message) + 1)
        message = message[:at] + inserted + message[at + removed :]
    return message


def refusal(call: Callable[[bytes], object], message: bytes) -> PeerError:
    with pytest.raises((ProtocolError, AuthenticationError)) as caught:
        call(message)
    return caught.value


def test_the_server_says_what_rfc_7677_says() -> None:
    scram = server()
    assert scram.first(CLIENT_FIRST) == SERVER_FIRST
    assert scram.final(CLIENT_FINAL) == SERVER_FINAL


def test_the_client_says_what_rfc_7677_says() -> None:
    scram = client()
    assert scram.first() == CLIENT_FIRST
    assert scram.final(SERVER_FIRST) == CLIENT_FINAL
    scram.verify(SERVER_FINAL)


@pytest.mark.parametrize(
    ("user", "password"),
    [("user", "pencil"), ("a,b=c", "pässwörd"), ("", ""), ("ü", "\u00aa\u0085"), ("u", b"\xff\xfe")],
)
def test_client_and_server_agree(user: str, password: str | bytes) -> None:
    login(ScramClient(user, password), ScramServer(ScramSecret.from_password(password, 2)))


def test_passwords_that_saslprep_makes_equal_are_equal() -> None:
    login(ScramClient("u", "u\u0308"), ScramServer(ScramSecret.from_password("ü", 1)))


def test_nonces_are_fresh() -> None:
    assert ScramClient("u", "p").first() != ScramClient("u", "p").first()
    assert ScramServer(QUICK).first(CLIENT_FIRST) != ScramServer(QUICK).first(CLIENT_FIRST)


def test_the_client_key_is_revealed_by_success_only() -> None:
    scram = server()
    scram.first(CLIENT_FIRST)
    assert scram.client_key is None
    scram.final(CLIENT_FINAL)
    assert scram.client_key is not None
    assert stored_key(scram.client_key) == SECRET.stored_key


@pytest.mark.parametrize("password", ["Pencil", "", "pencil "])
def test_a_wrong_password_is_refused(password: str) -> None:
    scram = ScramServer(QUICK, user="bob")
    with pytest.raises(AuthenticationError) as caught:
        login(ScramClient("bob", password), scram)
    assert caught.value.sqlstate == "28P01"
    assert caught.value.message == 'password authentication failed for user "bob"'
    assert scram.client_key is None


def test_no_password_fits_a_mock_secret_and_the_refusal_is_the_same() -> None:
    with pytest.raises(AuthenticationError) as caught:
        login(ScramClient("bob", "pencil"), ScramServer(ScramSecret.mock("bob", b"key", 1), user="bob"))
    assert caught.value.message == 'password authentication failed for user "bob"'


def test_a_client_that_could_bind_channels_but_was_not_offered_it_logs_in() -> None:
    scram = ScramServer(QUICK, nonce=lambda: SERVER_NONCE)
    mine = ScramClient("user", "pencil", nonce=lambda: CLIENT_NONCE)
    mine.final(scram.first(b"y" + mine.first()[1:]))
    unproven = b"c=" + b64encode(b"y,,") + b",r=" + CLIENT_NONCE + SERVER_NONCE
    error = refusal(scram.final, unproven + b",p=" + PROOF)
    assert isinstance(error, AuthenticationError), "the binding is accepted, only this proof is for other words"
    assert isinstance(refusal(scram.final, UNPROVEN + b",p=" + PROOF), ProtocolError), "its binding says n, not y"


@pytest.mark.parametrize(
    ("message", "sqlstate"),
    [
        pytest.param(b"", "08P01", id="empty"),
        pytest.param(b"p=tls-unique,,n=,r=abc", "08P01", id="channel binding without PLUS"),
        pytest.param(b"n,a=other,n=,r=abc", "0A000", id="authorization identity"),
        pytest.param(b"n,,m=ext,n=,r=abc", "0A000", id="mandatory extension"),
        pytest.param(b"n,,n=user", "08P01", id="no nonce"),
        pytest.param(b"n,,n=user,r=", "08P01", id="empty nonce"),
        pytest.param(b"n,,n=user,r=a b", "08P01", id="blank in the nonce"),
        pytest.param(b"n,,n=user,r=a\xc3\xbc", "08P01", id="nonce not ASCII"),
        pytest.param(b"n,,r=abc,n=user", "08P01", id="wrong order"),
        pytest.param(b"x,,n=,r=abc", "08P01", id="unknown binding flag"),
        pytest.param(b"n,,n=,r=abc\0", "08P01", id="NUL"),
        pytest.param(b"n,,n=,r=abc\n", "08P01", id="line end"),
    ],
)
def test_a_bad_first_message_is_refused(message: bytes, sqlstate: str) -> None:
    error = refusal(ScramServer(QUICK).first, message)
    assert isinstance(error, ProtocolError)
    assert error.sqlstate == sqlstate


def test_optional_extensions_are_ignored() -> None:
    scram = ScramServer(QUICK, nonce=lambda: SERVER_NONCE)
    assert scram.first(b"n,,n=,r=abc,x=1,y=").startswith(b"r=abc" + SERVER_NONCE)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        pytest.param(b"", ProtocolError, id="empty"),
        pytest.param(UNPROVEN, ProtocolError, id="no proof"),
        pytest.param(UNPROVEN + b",p=", ProtocolError, id="empty proof"),
        pytest.param(UNPROVEN + b",p=!", ProtocolError, id="proof not base64"),
        pytest.param(UNPROVEN + b",p=" + b64encode(bytes(31)), ProtocolError, id="proof too short"),
        pytest.param(UNPROVEN + b",p=" + b64encode(bytes(33)), ProtocolError, id="proof too long"),
        pytest.param(UNPROVEN + b",p=" + b64encode(bytes(32)), AuthenticationError, id="proof of nothing"),
        pytest.param(CLIENT_FINAL.replace(b"biws", b"eSws"), ProtocolError, id="another binding flag than before"),
        pytest.param(CLIENT_FINAL.replace(SERVER_NONCE, b""), ProtocolError, id="not our nonce"),
        pytest.param(CLIENT_FINAL.replace(b",p=", b",x=1,p="), AuthenticationError, id="words that were not signed"),
        pytest.param(CLIENT_FINAL + b",x=1", ProtocolError, id="words after the proof"),
    ],
)
def test_a_bad_final_message_is_refused(message: bytes, kind: type[PeerError]) -> None:
    scram = server()
    scram.first(CLIENT_FIRST)
    assert isinstance(refusal(scram.final, message), kind)
    assert scram.client_key is None


def test_a_final_message_before_the_first_is_refused() -> None:
    assert isinstance(refusal(server().final, CLIENT_FINAL), ProtocolError)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        pytest.param(b"", ProtocolError, id="empty"),
        pytest.param(b"e=other-error", ProtocolError, id="an error too early"),
        pytest.param(b"m=x," + SERVER_FIRST, ProtocolError, id="mandatory extension"),
        pytest.param(SERVER_FIRST.replace(CLIENT_NONCE, b"other"), AuthenticationError, id="not our nonce"),
        pytest.param(SERVER_FIRST.replace(SERVER_NONCE, b""), AuthenticationError, id="our nonce alone"),
        pytest.param(SERVER_FIRST.replace(b"4096", b"0"), AuthenticationError, id="no iterations"),
        pytest.param(SERVER_FIRST.replace(b"4096", b"10000001"), AuthenticationError, id="too many iterations"),
        pytest.param(SERVER_FIRST.replace(b"4096", b"9" * 19), AuthenticationError, id="absurdly many iterations"),
        pytest.param(SERVER_FIRST.replace(b"4096", b"9" * 5000), ProtocolError, id="a number too long to be one"),
        pytest.param(SERVER_FIRST.replace(b"4096", b"-1"), ProtocolError, id="negative iterations"),
        pytest.param(SERVER_FIRST.replace(b"W22ZaJ0SNY7soEsUEjb6gQ==", b""), ProtocolError, id="empty salt"),
        pytest.param(SERVER_FIRST.replace(b"gQ==", b"gQ="), ProtocolError, id="salt not base64"),
    ],
)
def test_a_server_that_cannot_be_honest_is_refused_before_anything_is_computed(
    message: bytes, kind: type[PeerError]
) -> None:
    computed: list[int] = []

    def derive(password: bytes, salt: bytes, iterations: int) -> bytes:
        computed.append(iterations)
        return bytes(32)

    scram = ScramClient("user", "pencil", nonce=lambda: CLIENT_NONCE, derive=derive)
    assert isinstance(refusal(scram.final, message), kind)
    assert computed == []


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        pytest.param(b"", ProtocolError, id="empty"),
        pytest.param(b"v=", ProtocolError, id="empty signature"),
        pytest.param(b"v=" + b64encode(bytes(31)), ProtocolError, id="signature too short"),
        pytest.param(b"v=" + b64encode(bytes(32)), AuthenticationError, id="wrong signature"),
        pytest.param(b"e=invalid-proof", AuthenticationError, id="an error"),
    ],
)
def test_a_server_that_does_not_know_the_secret_is_refused(message: bytes, kind: type[PeerError]) -> None:
    scram = client()
    scram.final(SERVER_FIRST)
    assert isinstance(refusal(scram.verify, message), kind)


def test_a_signature_is_not_believed_before_the_challenge() -> None:
    assert isinstance(refusal(client().verify, SERVER_FINAL), AuthenticationError)


def test_a_client_that_remembers_computes_once() -> None:
    computed: list[tuple[bytes, bytes, int]] = []

    def derive(password: bytes, salt: bytes, iterations: int) -> bytes:
        computed.append((password, salt, iterations))
        return b64decode(b"xKSVEDI6tPlSysH6mUQZOeeOp01r6B3fcJbodRPcYV0=")

    scram = ScramClient("user", "pencil", nonce=lambda: CLIENT_NONCE, derive=derive)
    assert scram.final(SERVER_FIRST) == CLIENT_FINAL
    assert computed == [(b"pencil", SECRET.salt, 4096)]


@given(MUTATIONS)
@example([(0, b"", 0)])
def test_mutated_first_messages_raise_nothing_but_our_errors(mutations: list[tuple[int, bytes, int]]) -> None:
    try:
        answer = ScramServer(QUICK).first(mutate(CLIENT_FIRST, mutations))
    except (ProtocolError, AuthenticationError):
        return
    assert answer.startswith(b"r=")


@given(MUTATIONS)
def test_no_mutated_final_message_logs_in(mutations: list[tuple[int, bytes, int]]) -> None:
    scram = server()
    scram.first(CLIENT_FIRST)
    mutated = mutate(CLIENT_FINAL, mutations)
    if mutated != CLIENT_FINAL:
        refusal(scram.final, mutated)
        assert scram.client_key is None


@given(MUTATIONS)
def test_mutated_challenges_raise_nothing_but_our_errors(mutations: list[tuple[int, bytes, int]]) -> None:
    scram = ScramClient("user", "pencil", nonce=lambda: CLIENT_NONCE, derive=lambda password, salt, iterations: salt)
    try:
        answer = scram.final(mutate(SERVER_FIRST, mutations))
    except (ProtocolError, AuthenticationError):
        return
    assert answer.startswith(b"c=biws,r=" + CLIENT_NONCE)


@given(MUTATIONS)
def test_no_mutated_signature_is_believed(mutations: list[tuple[int, bytes, int]]) -> None:
    scram = ScramClient("user", "pencil", nonce=lambda: CLIENT_NONCE, derive=lambda password, salt, iterations: salt)
    scram.final(SERVER_FIRST)
    refusal(scram.verify, mutate(SERVER_FINAL, mutations))


@given(st.binary(max_size=100))
def test_random_bytes_raise_nothing_but_our_errors(message: bytes) -> None:
    for call in (server().first, server().final, client().final, client().verify):
        refusal(call, message)
