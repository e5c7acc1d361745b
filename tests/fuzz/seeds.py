"""Where fuzzing starts: one good input of each kind, and the words that it may put together."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import trustme

from heliosproxy.auth.scram import ScramClient, ScramServer
from heliosproxy.auth.secrets import ScramSecret
from heliosproxy.wire import builders
from heliosproxy.wire.errors import error_response
from heliosproxy.wire.messages_authentication import AuthenticationSASL, SASLInitialResponse
from heliosproxy.wire.messages_frontend import Bind, CopyFail, FunctionCall, Parse
from heliosproxy.wire.startup import CancelRequest, GSSENCRequest, SSLRequest, StartupMessage

MESSAGES = (
    builders.query(b"select 1"),
    Parse(b"s", b"select $1", (23, 0)).encode(),
    Bind(b"p", b"s", (0, 1), (b"1", None), (1,)).encode(),
    FunctionCall(1, (1,), (b"x", None), 0).encode(),
    CopyFail(b"no").encode(),
    builders.describe_statement(b"s"),
    builders.execute(b"p", 10),
    builders.close_portal(b"p"),
    builders.SYNC,
    SASLInitialResponse("SCRAM-SHA-256", b"n,,n=,r=abc").encode(),
    AuthenticationSASL(("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")).encode(),
    error_response("ERROR", "42601", "syntax error", hint="none", position=7),
    builders.row_description_text(["a", "b"]),
    builders.data_row_text(["1", None]),
    builders.parameter_status("TimeZone", "UTC"),
    builders.backend_key_data(1, b"abcd"),
    builders.parameter_description((23, 25)),
    builders.ready_for_query(ord("T")),
)
ANSWERS = (
    (SASLInitialResponse("SCRAM-SHA-256", b"n,,n=,r=abc").encode()[5:], b"c=biws,r=abc,p=AAAA"),
    (SASLInitialResponse("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=a").encode()[5:], b"c=cD10,r=a,p=AAAA"),
    (b"password\0",), (b"md5" + b"0" * 32 + b"\0",),
)  # fmt: skip
STATEMENTS = (
    b"select 'a', E'\\'b', U&'c', b'01', 1.5e3, 0x1F, $$d$$, $t$e$t$ from \"q\" where a = $1 limit 10 offset 0",
    b"/*helios:route=async,lag=1s*/ select 1 /* nested /* comment */ */ -- end",
    b"insert into t (a, b) values (1, 'x'), (-2147483648, null) returning * /*k='v%27',trace='0'*/;",
    b"prepare p (int) as select $1; execute p(1); deallocate p",
    b"with recursive r as (select 1 union all select n + 1 from r) select case when a then b end from r",
    b"select (((((1)))))::text || 'a'\n'b' is not null and not exists (select 1) for update",
    b"set local helios.route = 'primary'; begin; savepoint s; rollback to s; commit and chain",
    b"copy t from stdin with (format csv); listen x; do $$ begin perform set_config('a', 'b', false); end $$",
    b"update t set (a, b) = (1, 2) where c = any (array[1, 2]) and d between 1 and 2 collate \"C\"",
)
WORDS = (
    *(b"select ", b"insert ", b" union all ", b" limit ", b" offset ", b" fetch first ", b"prepare ", b" as "),
    *(b"/*helios:", b"*/", b"/*", b"--", b"$$", b"$t$", b"E'", b"U&'", b"b'", b"'", b"\"", b"\\", b"set_config("),
    *(b"n,,n=,r=", b"y,,n=,r=", b"p=tls-server-end-point,,", b"c=biws,r=", b",p=", b",s=", b",i=4096", b"v=", b"e="),
    *(b"\0\3\0\0", b"\x04\xd2\x16\x2e", b"\x04\xd2\x16\x2f", b"\0\0\0\4", b"\xff\xff\xff\xff", b"user\0", b"_pq_."),
    *(b"SCRAM-SHA-256$1:", b"client", b"server"),
)


def seeds() -> Iterator[bytes]:
    """Inputs as `properties.check` takes them."""
    starts = (
        StartupMessage({"user": "a", "database": "d", "options": "-c a=b"}, minor=2, options={"_pq_.x": "1"}),
        SSLRequest(), GSSENCRequest(), CancelRequest(1, b"abcd"),
    )  # fmt: skip
    for start in starts:
        yield b"S\0" + start.encode()
        yield b"S\3" + SSLRequest().encode() + start.encode()
    for message in MESSAGES:
        yield b"F\1" + message + message
        yield b"C" + message[:1] + message[5:]
        yield b"B" + message[:1] + message[5:]
        yield b"A" + message[5:]
    yield b"P" + _login()
    yield b"P" + ScramSecret.from_password("secret", 1, b"0123456789abcdef").format().encode()
    for method in (*range(12), *range(0x80, 0x8C)):
        for answers in ANSWERS:
            yield b"X" + bytes((method,)) + b"".join(bytes((len(answer),)) + answer for answer in answers)
    yield b"L" + _hello()
    yield b"D" + _certificate()
    for statement in STATEMENTS:
        for subject in (b"Q", b"T", b"H"):
            yield subject + statement


def _hello() -> bytes:
    context, outgoing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="db.example.org").do_handshake()
    return outgoing.read()


def _certificate() -> bytes:
    issued = trustme.CA().issue_cert("db.example.org", common_name="alice")
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def _login() -> bytes:
    server = ScramServer(ScramSecret.from_password("wrong", 1), nonce=lambda: b"server")
    client = ScramClient("alice", "secret", nonce=lambda: b"client")
    first = client.first()
    return first + b"\0" + client.final(server.first(first))


def write(directory: Path) -> tuple[Path, Path]:
    """A corpus and a dictionary as libFuzzer reads them, in this directory."""
    corpus, dictionary = directory / "corpus", directory / "words"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / f"{number:03}").write_bytes(seed)
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
    return corpus, dictionary


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
