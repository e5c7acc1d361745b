"""Transactions that write: pgbench's own (TPC-B like) through this proxy, through PgBouncer, and without either."""

from __future__ import annotations

from benchmarks import _pgbench
from benchmarks._harness import Options, Result, Say
from benchmarks._pgbench import Case

NAME = "tpcb"
SUMMARY = "pgbench's TPC-B like transactions, 8 and 32 clients: this proxy, PgBouncer, no proxy"

CLIENTS = (8, 32)
SCALE = 32
"""At least the number of clients, else they wait for each other's rows."""
QUICK_SCALE = 2


def run(options: Options, say: Say) -> Result:
    """Measure. Raises BenchError."""
    cases = [Case("simple", clients) for clients in CLIENTS]
    scale = QUICK_SCALE if options.quick else SCALE
    found, versions = _pgbench.compare(cases, scale, options, say, fresh=True)
    notes = (
        "fsync is off: a commit waits for no disk, so what a proxy adds weighs more than it would in production.",
        "All bundled plugins are on. Either proxy has 20 links at most; transaction pooling; SCRAM-SHA-256.",
        f"pgbench, the proxies and PostgreSQL share this machine; pgbench -j {options.jobs}, scale {scale}.",
    )
    return _pgbench.result("pgbench (TPC-B like)", found, versions, notes)
