"""Point reads as fast as they go: `pgbench -S` through this proxy, through PgBouncer, and without either."""

from __future__ import annotations

from benchmarks import _pgbench
from benchmarks._harness import Options, Result, Say
from benchmarks._pgbench import Case

NAME = "throughput"
SUMMARY = "pgbench -S, simple and prepared, 1 to 200 clients: this proxy, PgBouncer, no proxy"

PROTOCOLS = ("simple", "prepared")
CLIENTS = (1, 8, 64, 200)
SCALE = 10


def run(options: Options, say: Say) -> Result:
    """Measure. Raises BenchError."""
    cases = [Case(protocol, clients, ("-S",)) for protocol in PROTOCOLS for clients in CLIENTS]
    found, versions = _pgbench.compare(cases, 1 if options.quick else SCALE, options, say)
    notes = (
        "All bundled plugins are on. Either proxy has 20 links at most; transaction pooling; SCRAM-SHA-256.",
        f"pgbench, the proxies and PostgreSQL share this machine; pgbench -j {options.jobs}.",
        "A ratio is the median of the rounds' own ratios: runs that followed each other.",
    )
    return _pgbench.result("pgbench -S", found, versions, notes)
