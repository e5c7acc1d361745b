"""What `connect` makes of its runs, and its established client; that it runs is shown by
`python -m benchmarks connect --quick`."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import connect
from benchmarks._client import READY, Connection
from benchmarks._harness import BenchError, Rounds
from benchmarks._pgbench import throughput
from benchmarks._servers import DIRECT, HELIOS, PGBOUNCER
from benchmarks._steady import STATEMENT, Waits, steady
from benchmarks.connect import Beside, Measured, processor_time, program
from heliosproxy.wire.errors import error_response

REPORT = """\
number of transactions actually processed: 976
number of failed transactions: 0 (0.000%)
latency average = 4.102 ms
average connection time = 2.877 ms
tps = 243.800328 (including reconnection times)
"""


def measured(**failures: str) -> Measured:
    figures = {HELIOS: [900.0, 1100.0], DIRECT: [200.0, 100.0], PGBOUNCER: [1000.0, 1000.0]}
    kept = {name: values for name, values in figures.items() if name not in failures.values()}
    slow, fast = Waits(0.0004, 0.0021, 0.0309), Waits(0.0002, 0.0011, 0.005)
    beside = {name: Beside([fast, fast], [slow, fast], [0.0005, 0.0007], [0.002, 0.002]) for name in kept}
    return Measured("SCRAM", 16, Rounds(kept, dict.fromkeys(failures.values(), "not there")), beside)


def test_what_pgbench_says_of_connecting_each_time_is_read() -> None:
    assert throughput(REPORT) == pytest.approx(243.800328)
    found = connect._CONNECTING.search(REPORT)
    assert found is not None
    assert found[1] == "2.877"


def test_a_ratio_is_of_runs_that_followed_each_other() -> None:
    found = measured().ratio(DIRECT)
    assert found is not None
    assert (found.low, found.high) == (4.5, 11.0)


def test_tables_have_medians_and_the_longest_wait_of_all_runs() -> None:
    found = measured()
    assert found.cells() == [
        "SCRAM", "16", "1,000 (900-1,100)", "1,000 (1,000-1,000)", "150 (100-200)", "1.00 (0.90-1.10)",
        "7.75 (4.50-11.00)",
    ]  # fmt: skip
    assert found.waits()[2] == "0.30 / 1.6 / 31 (1.1)"
    assert found.costs() == ["SCRAM", "16", "600 (500-700)", "600 (500-700)"]


def test_what_is_missing_is_a_dash_in_each_table_and_said_in_the_figures() -> None:
    found = measured(peer=PGBOUNCER)
    assert found.cells()[3] == "-"
    assert found.waits()[3] == "-"
    assert found.costs()[3] == "-"
    figures = found.json()
    assert isinstance(figures, dict)
    assert figures["ratio"][PGBOUNCER] is None  # type: ignore[index, call-overload]
    assert figures["not_run"] == {PGBOUNCER: "not there"}


def test_a_peer_that_is_missing_is_no_failure_and_this_proxy_is_one() -> None:
    assert connect._failures([measured(peer=PGBOUNCER)]) == ()
    assert connect._failures([measured(peer=HELIOS)]) == (f"{HELIOS}, SCRAM, 16 at once: not there",)
    assert connect._not_run([measured(peer=HELIOS), measured(peer=PGBOUNCER), measured(peer=PGBOUNCER)]) == [
        f"{PGBOUNCER}: not measured with SCRAM: not there"
    ]


def test_pgbench_that_was_built_without_tls_is_known_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundled = str(connect._pgbench.program())
    monkeypatch.setattr(shutil, "which", lambda name, path=None: bundled)
    assert program() == (Path(bundled), False)


def test_processor_time_grows_with_what_a_process_computes() -> None:
    before = processor_time(os.getpid())
    while processor_time(os.getpid()) == before:
        sum(range(100_000))
    assert processor_time(0) == 0.0


@contextmanager
def answering(*answers: bytes) -> Iterator[Connection]:
    """A connection to a server that gives these answers, the last one for ever."""
    mine, other = socket.socketpair()
    for end in (mine, other):
        end.settimeout(10)

    def serve() -> None:
        given = list(answers)
        while other.recv(len(STATEMENT)) == STATEMENT:
            other.sendall(given.pop(0) if len(given) > 1 else given[0])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with Connection(mine) as connection:
            yield connection
        thread.join(10)
    finally:
        other.close()
    assert not thread.is_alive()


def test_waits_count_from_when_a_statement_was_due() -> None:
    # All are due at the beginning, so that each has waited for those before it as well.
    with answering(READY) as connection, steady(connection, 0.0) as found:
        while len(found.taken) < 50:
            assert not found.error
    assert found.taken == sorted(found.taken)
    assert found.taken[0] < found.taken[-1]
    waits = found.waits()
    assert found.taken[0] <= waits.p50 <= waits.p99 <= waits.longest == found.taken[-1]


def test_statements_are_not_asked_before_they_are_due() -> None:
    with answering(READY) as connection, steady(connection, 3600.0) as found:
        while not found.taken:
            assert not found.error
    assert len(found.taken) == 1


def test_an_established_client_that_gets_an_error_makes_the_run_none() -> None:
    refusal = error_response("ERROR", "53300", "no room") + READY
    with answering(READY, refusal) as connection, steady(connection, 0.0) as found:
        while not found.error:
            assert len(found.taken) < 3
    with pytest.raises(BenchError, match="the established client: no room"):
        found.waits()
