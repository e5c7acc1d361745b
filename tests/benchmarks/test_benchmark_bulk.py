"""What `bulk` makes of its runs; that it runs at all is shown by `python -m benchmarks bulk --quick`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks._client import READY, Connection
from benchmarks._harness import BenchError, Rounds
from benchmarks._servers import DIRECT, HELIOS, PGBOUNCER
from benchmarks.bulk import CASES, Measured, copy_in, copy_out, extended, simple
from heliosproxy.wire.errors import PeerError, error_response


def measured(**failures: str) -> Measured:
    figures = {HELIOS: [90.0, 110.0], DIRECT: [200.0, 100.0], PGBOUNCER: [100.0, 100.0]}
    kept = {name: values for name, values in figures.items() if name not in failures.values()}
    why = dict.fromkeys(failures.values(), "not there")
    return Measured(CASES[0], Rounds(kept, why), {HELIOS: [130e6, 131e6], DIRECT: []})


def test_a_ratio_is_of_runs_that_followed_each_other() -> None:
    found = measured().ratio(DIRECT)
    assert found is not None
    assert (found.low, found.high) == (0.45, 1.1)


def test_what_is_missing_is_a_dash_in_both_tables_and_nothing_in_the_figures() -> None:
    found = measured(peer=PGBOUNCER)
    assert found.cells() == ["result, simple", "100", "100 (90-110)", "-", "150 (100-200)", "-", "0.78 (0.45-1.10)"]
    assert found.peaks() == ["result, simple", "100", "131", "-"]
    figures = found.json()
    assert isinstance(figures, dict)
    assert figures["ratio"][PGBOUNCER] is None  # type: ignore[index, call-overload]
    assert figures["not_run"] == {PGBOUNCER: "not there"}


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A client's connection and the server's end of it."""
    mine, other = socket.socketpair()
    for end in (mine, other):
        end.settimeout(10)
    with other, Connection(mine) as connection:
        yield connection, other


@pytest.mark.parametrize("transfer", [simple, extended, copy_out])
def test_a_transfer_of_which_something_is_missing_is_no_figure(
    pair: tuple[Connection, socket.socket], transfer: object
) -> None:
    connection, server = pair
    server.sendall(b"D" * 900 + READY)
    with pytest.raises(BenchError, match="the values alone have 1000"):
        transfer(connection, 100, 10)  # type: ignore[operator]


@pytest.mark.parametrize("transfer", [simple, extended, copy_out, copy_in])
def test_a_transfer_that_is_refused_is_an_error(pair: tuple[Connection, socket.socket], transfer: object) -> None:
    connection, server = pair
    server.sendall(error_response("ERROR", "42P01", "no such table") + READY)
    with pytest.raises(PeerError, match="no such table"):
        transfer(connection, 100, 10)  # type: ignore[operator]


def test_copy_in_sends_every_line(pair: tuple[Connection, socket.socket]) -> None:
    connection, server = pair
    server.sendall(b"G\0\0\0\7\0\0\0")
    sending = threading.Thread(target=copy_in, args=(connection, 100, 6550))
    sending.start()
    received = b""
    while not received.endswith(b"c\0\0\0\4"):
        received += server.recv(65536)
    server.sendall(READY)
    sending.join()
    assert received.count(b"c" * 99 + b"\n") == 6550
