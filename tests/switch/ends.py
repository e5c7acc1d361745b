"""The two ends of the session machine: servers that answer when they are told to, and clients that check what they
hear."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import accumulate

from heliosproxy.wire import builders
from heliosproxy.wire.errors import error_response
from heliosproxy.wire.framing import Framer
from heliosproxy.wire.messages_backend import DataRow, ErrorResponse, ReadyForQuery, decode_backend
from tests.switch.stage import Server, Speaker, split
from tests.switch.test_review_pooling_model import Model

COPY_IN = b"G\0\0\0\7\0\0\0"
UNKNOWN = error_response("ERROR", "08P01", "unknown message")


class FarEnd(Model):
    """A server: reads what has arrived, and has answers that are on their way."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.copies = False
        self.canceled = False
        self.answers = b""
        self.whole = True
        """What has arrived of them ends with a message."""

    def says(self, size: int) -> None:
        """So many bytes of its answers arrive."""
        if size >= len(self.answers):
            self.whole = True
        elif size:
            self.whole = self.whole and size in accumulate(map(len, split(self.answers)))
        piece, self.answers = self.answers[:size], self.answers[size:]
        if piece and not self.server.link.closed:
            self.server.answers(piece)

    def work(self) -> None:
        """Read and answer all that has arrived."""
        data = self.server.takes()
        for message in split(data):
            self.answers += self._work(message[0], message[5:])

    def _work(self, tag: int, body: bytes) -> bytes:
        if self.copies:
            return self._copy(tag)
        if tag in b"dcf" or tag == ord("X"):
            return b""
        if self.canceled and tag == ord("Q"):
            self.canceled = False
            self.status = "E" if self.status == "T" else self.status
            return error_response("ERROR", "57014", "canceling statement due to user request") + self._ready()
        if tag == ord("Q") and body == b"copy\0" and self.status != "E":
            self.copies = True
            return COPY_IN
        try:
            return self._message(tag, body)
        except (KeyError, IndexError, ValueError):
            self.skips = tag != ord("Q")
            self.status = "E" if self.status == "T" else self.status
            return UNKNOWN + (b"" if self.skips else self._ready())

    def _copy(self, tag: int) -> bytes:
        if tag in b"dHS":
            return b""
        self.copies = False
        if tag == ord("c"):
            return builders.command_complete("COPY 1") + self._ready()
        self.status = "E" if self.status == "T" else self.status
        return error_response("ERROR", "57014", "COPY from stdin failed") + self._ready()


class Ear:
    """What a client hears, held against what it has said."""

    def __init__(self, speaker: Speaker, name: str) -> None:
        self.speaker = speaker
        self.name = name
        self.said = 0
        """Units whose end was sent."""
        self.heard = 0
        """Units that were answered."""
        self.failing: set[int] = set()
        """Units that must fail."""
        self.failed = False
        """The unit that is being answered has."""
        self.asked: Counter[int] = Counter()
        """Rows that each unit asks for, and that say whose they are."""
        self.rows = 0
        """How many of them have come for the unit that is being answered."""
        self.outbox = b""
        self.honest = True
        """It has not sent what is no message; what it hears after that is not to be foretold."""
        self.left = False
        self._framer = Framer(1 << 30)

    def listen(self) -> None:
        """Check what has arrived since."""
        for tag, body in self._framer.feed(self.speaker.hears()):
            message = decode_backend(tag, body)
            if isinstance(message, ReadyForQuery):
                assert self.failed or self.heard not in self.failing, f"{self.name} does not hear of an error"
                self.heard, self.failed, self.rows = self.heard + 1, False, 0
            elif isinstance(message, DataRow):
                self._row((message.values[0] or b"").decode())
            elif isinstance(message, ErrorResponse):
                assert message.sqlstate not in ("XX000", ""), message
                self.failed = True
        if self.honest:
            assert self.heard <= self.said, f"{self.name} hears an answer to nothing"

    def _row(self, value: str) -> None:
        """Rows that can be told apart are of the unit that is being answered, and come once."""
        if ":" in value:
            assert value == f"select '{self.name}:{self.heard}'", f"{self.name} hears {value}"
            self.rows += 1
            assert self.rows <= self.asked[self.heard], f"{self.name} hears {value} twice"

    @property
    def closed(self) -> bool:
        """Nothing more is to come; what is to be expected of a client that sends junk is no business of this test."""
        return self.left or not self.honest or self.speaker.closed or self.speaker.session.closing


class Troubles(logging.Handler):
    """What is logged as a bug of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.found.append(self.format(record))
