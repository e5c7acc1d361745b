"""Clients of a pool beside models of PostgreSQL: each hears what it would hear alone, whoever else has its link."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliosproxy.cluster.proof import Proof, prove
from heliosproxy.sql.facts import Facts
from heliosproxy.switch import planner
from heliosproxy.wire import builders
from heliosproxy.wire.errors import error_response, parse_fields
from tests.switch.stage import Stage, split

_PREPARE = re.compile(r"prepare (\w+) as (.*)")
_ENDS = ("rollback", "commit")


class Failed(Exception):
    """A statement's error; its only argument is the SQLSTATE."""


class Model:
    """As much of a PostgreSQL server as the clients below use: bytes in, bytes out."""

    def __init__(self) -> None:
        self.statements: dict[str, str] = {}
        self.portals: dict[str, str] = {}
        self.listens = False
        self.status = "I"
        self.skips = False
        self.implicit = False

    def feed(self, data: bytes) -> bytes:
        """The answers to these messages."""
        return b"".join(self._message(message[0], message[5:]) for message in split(data))

    def _message(self, tag: int, body: bytes) -> bytes:
        if tag == ord("S"):
            return self._ready()
        if self.skips:
            return b""
        try:
            if tag == ord("Q"):
                return self._query(body[:-1].decode())
            return self._extended(chr(tag), body.split(b"\0"))
        except Failed as error:
            self.skips = True
            self.status = "E" if self.status == "T" else self.status
            return error_response("ERROR", error.args[0], "it went wrong")

    def _ready(self) -> bytes:
        self.skips = False
        if self.status == "I":
            self.portals.clear()
        return builders.ready_for_query(ord(self.status))

    def _query(self, text: str) -> bytes:
        self.statements.pop("", None)
        out = b""
        try:
            if "!" in text:
                raise Failed("42601")
            for part in filter(None, re.split(r"; ?", text)):
                out += self._describe(part) + self._run(part)
        except Failed as error:
            self.status = "E" if self.status == "T" else self.status
            out += error_response("ERROR", error.args[0], "it went wrong")
        return out + self._ready()

    def _extended(self, tag: str, parts: Sequence[bytes]) -> bytes:
        first, second = parts[0].decode(), parts[1].decode() if len(parts) > 1 else ""
        if tag == "P":
            self._parse(first, second)
            return builders.PARSE_COMPLETE
        if tag == "B":
            self.portals.pop(first, None)
            self.portals[first] = self._known(second)
            return builders.BIND_COMPLETE
        if tag == "E":
            if first not in self.portals:
                raise Failed("34000")
            return self._run(self.portals[first])
        if tag == "C":
            (self.statements if first[0] == "S" else self.portals).pop(first[1:], None)
            return builders.CLOSE_COMPLETE
        if tag == "D":
            text = self._known(first[1:]) if first[0] == "S" else self.portals[first[1:]]
            described = self._describe(text) or builders.NO_DATA
            return (builders.parameter_description(()) if first[0] == "S" else b"") + described
        return b""

    def _parse(self, name: str, text: str) -> None:
        if not name:
            self.statements.pop("", None)
        if text == "!":
            raise Failed("42601")
        self._check(text)
        if name in self.statements:
            raise Failed("42P05")
        self.statements[name] = text

    def _known(self, name: str) -> str:
        if name not in self.statements:
            raise Failed("26000")
        self._check(self.statements[name])
        return self.statements[name]

    def _check(self, text: str) -> None:
        if self.status == "E" and text.lower() not in _ENDS:
            raise Failed("25P02")

    def _describe(self, text: str) -> bytes:
        if text.startswith("execute "):
            text = self.statements.get(text[8:], text)
        return builders.row_description_text(["n"]) if text.lower().startswith("select") else b""

    def _run(self, text: str) -> bytes:
        self._check(text)
        word, _, rest = text.partition(" ")
        made = _PREPARE.match(text)
        if made is not None:
            if made[1] in self.statements:
                raise Failed("42P05")
            self.statements[made[1]] = made[2]
        elif word == "execute":
            return self._run(self._known(rest))
        elif word == "deallocate" and rest == "all":
            self.statements.clear()
        elif word.lower() == "deallocate":
            self._known(rest.strip('"'))
            del self.statements[rest.strip('"')]
        elif text == "select 1/0":
            raise Failed("22012")
        elif word.lower() == "select":
            return builders.data_row_text([text]) + builders.command_complete("SELECT 1")
        elif word == "begin":
            self.status = "T"
        elif word.lower() in _ENDS:
            self.status = "I"
            self.portals.clear()
        elif text == "DISCARD ALL":
            self.statements.clear()
        return builders.command_complete(word.upper())


def harmless(facts: Facts, catalogue: object) -> Proof:
    """A proof from a catalogue in which all that a statement may name is harmless."""
    if facts.parts:
        return max((harmless(part, catalogue) for part in facts.parts), key=lambda one: one.leaves == "anything")
    return prove(facts, None) if facts.references is None else Proof(facts.kind == "select", "nothing", "")


def heard(data: bytes) -> list[tuple[str, str]]:
    """What of an answer must be equal: types of messages, rows, SQLSTATEs, transaction statuses."""
    found = []
    for message in split(data):
        tag = chr(message[0])
        shown = parse_fields(message[5:])["C"] if tag == "E" else ""
        found.append((tag, shown if tag == "E" else str(message[5:]) if tag in "DZ" else ""))
    return found


NAMES = st.sampled_from("pq")
VALUES = st.sampled_from(["select 'a'", "select 'b'", "select 'c'"])
SQL = st.one_of(
    VALUES,
    st.builds("prepare {} as {}".format, NAMES, VALUES),
    st.builds("execute {}".format, NAMES),
    st.builds("deallocate {}".format, NAMES),
    st.sampled_from(["begin", "commit", "rollback", "select 1/0", "deallocate all"]),
)
PROTOCOL_NAMES = st.sampled_from([b"", b"p", b"s"])
BOUND = st.builds(lambda name: builders.join_two(ord("B"), b"", name, bytes(6)) + builders.execute(), PROTOCOL_NAMES)
MESSAGES = st.one_of(
    st.builds(lambda name, text: builders.parse(name, text.encode()), PROTOCOL_NAMES, VALUES),
    st.builds(lambda text: builders.parse(b"", text.encode()) + builders.join_two(ord("B"), b"", b"", bytes(6))
              + builders.execute(), SQL),
    BOUND,
    BOUND,
    st.builds(builders.describe_statement, PROTOCOL_NAMES),
    st.builds(builders.close_statement, PROTOCOL_NAMES),
    st.just(b"H\0\0\0\4"),
)  # fmt: skip
UNITS = st.one_of(
    st.builds(lambda text: builders.query(text.encode()), SQL),
    st.builds(lambda messages: b"".join(messages) + builders.SYNC, st.lists(MESSAGES, min_size=1, max_size=5)),
)
DEEDS = st.lists(st.tuples(st.integers(0, 2), UNITS, st.booleans()), min_size=2, max_size=12)


class Play:
    """Clients, each with a model of its own that hears the same, and the links' servers, models too."""

    def __init__(self, clients: int) -> None:
        self.stage = Stage(nodes=("primary",), size=1)
        self.speakers = [self.stage.client() for _ in range(clients)]
        self.alone = [Model() for _ in range(clients)]
        self.expected = [b""] * clients
        self.servers: list[Model] = []

    def says(self, who: int, unit: bytes) -> None:
        """A client says something, here and alone."""
        self.speakers[who].says(unit)
        self.expected[who] += self.alone[who].feed(unit)

    def serve(self) -> None:
        """The servers answer all they are asked, one message at a time."""
        busy = True
        while busy:
            busy = False
            self.servers += [Model() for _ in self.stage.servers[len(self.servers) :]]
            for server, model in zip(self.stage.servers, self.servers, strict=True):
                for message in split(server.takes()):
                    busy = True
                    answer = model.feed(message)
                    if answer:
                        server.answers(answer)

    def check(self) -> None:
        """Everybody has heard what it would have heard alone; the link's books agree with its server."""
        for speaker, expected in zip(self.speakers, self.expected, strict=True):
            assert heard(speaker.heard) == heard(expected)
        for server, model in zip(self.stage.servers, self.servers, strict=True):
            link = server.link
            if not server.closed and not link.units:
                books = {name.decode() for name in (*link.prepared, *link.declared)}
                there = set(model.statements) - {""}
                assert books <= there <= books | {name.decode() for name in link.stale}


@settings(
    max_examples=500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(deeds=DEEDS)
def test_everybody_hears_what_it_would_hear_alone(
    monkeypatch: pytest.MonkeyPatch, deeds: list[tuple[int, bytes, bool]]
) -> None:
    monkeypatch.setattr(planner, "prove", harmless)
    play = Play(3)
    for who, unit, waits in deeds:
        play.says(who, unit)
        if waits:
            play.serve()
    play.serve()
    for who in range(3):  # nobody keeps the only link for ever
        play.says(who, builders.query(b"rollback"))
        play.serve()
    play.check()
