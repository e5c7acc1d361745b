"""What the proxy says to a node that asks who it is: mostly to nodes that are not what they seem.

Honest ones are in tests/cluster/secure/test_links.py.
"""

from __future__ import annotations

import pytest
import trio

from heliosproxy.auth.scram import MECHANISM, MECHANISM_PLUS, ScramServer
from heliosproxy.auth.secrets import MAX_ITERATIONS, ScramSecret
from heliosproxy.auth.users import ServerLogin
from heliosproxy.cluster.node import Node
from heliosproxy.config.access import ServerMethod, ServerTls
from heliosproxy.config.kinds import Address
from heliosproxy.config.model import NodeConfig
from heliosproxy.switch.proving import Proving
from heliosproxy.wire.buffer import Message
from heliosproxy.wire.errors import PeerError
from heliosproxy.wire.messages_authentication import (
    AuthenticationCleartextPassword,
    AuthenticationMD5Password,
    AuthenticationOk,
    AuthenticationSASL,
    AuthenticationSASLContinue,
    AuthenticationSASLFinal,
    AuthenticationUnsupported,
    SASLInitialResponse,
    SASLResponse,
)

LOGIN = ServerLogin("alice", "a secret password")
SCRAM = AuthenticationSASL((MECHANISM,))
CLEAR = AuthenticationCleartextPassword()
MD5 = AuthenticationMD5Password(b"salt")
OK = AuthenticationOk()


def proving(
    login: ServerLogin = LOGIN,
    *,
    private: bool = False,
    tls: ServerTls | None = None,
    allowed: tuple[ServerMethod, ...] = (),
) -> Proving:
    node = Node(NodeConfig("node", Address("10.0.0.1", 5432), tls=tls or ServerTls(), require_auth=allowed))
    return Proving(node, login, tls=None, private=private)


def body(message: Message) -> bytes:
    """What follows a message's header."""
    return message.encode()[5:]


async def first(asked: Proving) -> tuple[ScramServer, bytes]:
    """Begin SCRAM: the server's side, and its challenge."""
    initial = SASLInitialResponse.decode((await asked.answer(body(SCRAM)))[5:])
    server = ScramServer(ScramSecret.from_password(LOGIN.password or ""))
    return server, server.first(initial.data or b"")


async def test_scram_is_two_answers_and_nothing_to_the_proof() -> None:
    asked = proving()
    server, challenge = await first(asked)
    answer = SASLResponse.decode((await asked.answer(body(AuthenticationSASLContinue(challenge))))[5:])
    assert await asked.answer(body(AuthenticationSASLFinal(server.final(answer.data)))) == b""
    assert not asked.admitted
    assert await asked.answer(body(OK)) == b""
    assert asked.admitted


async def test_a_node_that_lets_us_in_without_proving_that_it_knows_us_is_refused() -> None:
    """Somebody in the middle could, whom every password would do."""
    asked = proving()
    _, challenge = await first(asked)
    await asked.answer(body(AuthenticationSASLContinue(challenge)))
    with pytest.raises(PeerError, match="node lets us in before it has proved that it knows the password"):
        await asked.answer(body(OK))
    assert not asked.admitted


async def test_a_wrong_proof_of_the_nodes_is_refused_and_names_it() -> None:
    asked = proving()
    _, challenge = await first(asked)
    await asked.answer(body(AuthenticationSASLContinue(challenge)))
    with pytest.raises(PeerError, match="node: the server's SCRAM signature is wrong") as caught:
        await asked.answer(body(AuthenticationSASLFinal(b"v=" + b"A" * 43 + b"=")))
    assert caught.value.sqlstate == "28P01"


@pytest.mark.parametrize("second", [SCRAM, CLEAR, MD5], ids=["scram", "password", "md5"])
async def test_nobody_gets_a_second_answer_of_another_kind(second: Message) -> None:
    asked = proving(private=True)
    await first(asked)
    with pytest.raises(PeerError, match="node asks who we are twice"):
        await asked.answer(body(second))


async def test_nobody_is_asked_again_who_has_been_let_in() -> None:
    asked = proving(private=True)
    await asked.answer(body(OK))
    for message in (CLEAR, OK):
        with pytest.raises(PeerError):
            await asked.answer(body(message))


@pytest.mark.parametrize(
    "said",
    [
        [AuthenticationSASLContinue(b"r=x,s=eA==,i=1")],
        [AuthenticationSASLFinal(b"v=eA==")],
        [SCRAM, AuthenticationSASLFinal(b"v=")],
    ],
    ids=["a challenge", "a proof", "a proof without a challenge"],
)
async def test_what_belongs_to_no_exchange_is_refused(said: list[Message]) -> None:
    asked = proving()
    *before, last = said
    for message in before:
        await asked.answer(body(message))
    with pytest.raises(PeerError, match="node says what does not belong to the exchange") as caught:
        await asked.answer(body(last))
    assert caught.value.sqlstate == "08P01"


async def test_there_is_one_challenge() -> None:
    """Each costs us a computation, and gives whoever asks another proof to guess at."""
    asked = proving()
    _, challenge = await first(asked)
    await asked.answer(body(AuthenticationSASLContinue(challenge)))
    with pytest.raises(PeerError, match="does not belong to the exchange"):
        await asked.answer(body(AuthenticationSASLContinue(challenge)))


async def test_a_password_in_the_clear_goes_only_where_nobody_overhears_it() -> None:
    with pytest.raises(PeerError, match="others could overhear it") as caught:
        await proving().answer(body(CLEAR))
    assert caught.value.sqlstate == "28000"
    assert b"a secret password" in await proving(private=True).answer(body(CLEAR))
    assert b"a secret password" in await proving(allowed=("password",)).answer(body(CLEAR))


async def test_an_md5_answer_holds_no_password() -> None:
    answer = await proving().answer(body(MD5))
    assert b"a secret password" not in answer
    assert answer[5:8] == b"md5"


async def test_binding_is_not_chosen_without_tls_and_not_done_without_where_required() -> None:
    both = AuthenticationSASL((MECHANISM_PLUS, MECHANISM))
    assert SASLInitialResponse.decode((await proving().answer(body(both)))[5:]).mechanism == MECHANISM
    with pytest.raises(PeerError, match="channel_binding is require") as caught:
        await proving(tls=ServerTls(channel_binding="require")).answer(body(both))
    assert "There is no TLS here" in (caught.value.hint or "")
    with pytest.raises(PeerError, match="node offers no SCRAM-SHA-256, only SCRAM-SHA-256-PLUS"):
        await proving().answer(body(AuthenticationSASL((MECHANISM_PLUS,))))


async def test_being_let_in_unasked_is_not_what_binding_or_require_auth_have() -> None:
    with pytest.raises(PeerError, match="node asks for no password, and channel_binding is require"):
        await proving(tls=ServerTls(channel_binding="require")).answer(body(OK))
    with pytest.raises(PeerError, match="node asks for no password, and its require_auth allows md5 only"):
        await proving(allowed=("md5",)).answer(body(OK))
    asked = proving(allowed=("none",))
    await asked.answer(body(OK))
    assert asked.admitted


@pytest.mark.parametrize("code", AuthenticationUnsupported.names)
async def test_what_cannot_be_answered_is_named(code: int) -> None:
    with pytest.raises(PeerError, match=r"node asks for .*, which this proxy cannot answer") as caught:
        await proving().answer(body(AuthenticationUnsupported(code)))
    assert caught.value.sqlstate == "28000"


async def test_a_hostile_count_of_iterations_stalls_nobody() -> None:
    """A thread computes; giving up does not wait for it."""
    asked = proving()
    initial = SASLInitialResponse.decode((await asked.answer(body(SCRAM)))[5:])
    nonce = (initial.data or b"").rpartition(b"r=")[2]
    challenge = b"r=%bmore,s=c2FsdA==,i=%d" % (nonce, MAX_ITERATIONS // 10)
    turns = 0
    with trio.CancelScope() as patience:
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                await asked.answer(body(AuthenticationSASLContinue(challenge)))

            nursery.start_soon(answer)
            while turns < 1000:
                turns += 1
                await trio.lowlevel.checkpoint()
            patience.cancel()
    assert patience.cancelled_caught, "it was still computing"


async def test_more_iterations_than_anybody_needs_are_refused() -> None:
    asked = proving()
    initial = SASLInitialResponse.decode((await asked.answer(body(SCRAM)))[5:])
    nonce = (initial.data or b"").rpartition(b"r=")[2]
    challenge = b"r=%bmore,s=c2FsdA==,i=%d" % (nonce, MAX_ITERATIONS + 1)
    with pytest.raises(PeerError, match=r"node: the server asks for .* SCRAM iterations, which we refuse"):
        await asked.answer(body(AuthenticationSASLContinue(challenge)))


@pytest.mark.parametrize("message", [SCRAM, MD5, CLEAR])
async def test_no_error_holds_a_secret(message: Message) -> None:
    with pytest.raises(PeerError) as caught:
        await proving(allowed=("none",)).answer(body(message))
    error = caught.value
    assert "secret" not in f"{error.message} {error.detail} {error.hint} {error!r} {LOGIN!r}"
