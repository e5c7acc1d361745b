"""How much memory the instances' linear memories take, read from the process's own map.

wasmtime's C API does not tell a component's memory. On Linux a linear memory is recognised by its reservation: a run
of writable pages followed by gigabytes without access. Elsewhere nothing is known, and callers count calls instead.
"""

from __future__ import annotations

from pathlib import Path

_MAPS = Path("/proc/self/maps")
_RESERVED = 1 << 30


def linear_memories() -> dict[int, int]:
    """Start address to size in bytes, of every linear memory in this process; empty where it cannot be told."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return {}
    found: dict[int, int] = {}
    run_start = run_end = 0
    for line in lines:
        addresses, access = line.split(maxsplit=2)[:2]
        start, end = (int(part, 16) for part in addresses.split("-"))
        if access.startswith("rw"):
            if start != run_end:
                run_start = start
            run_end = end
        elif access.startswith("---") and start == run_end and end - start > _RESERVED:
            found[run_start] = run_end - run_start
    return found
