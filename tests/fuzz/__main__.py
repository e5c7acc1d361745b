"""Fuzz for a while. Ends with 0, or at the first finding with its traceback, its input in a file, and another status.

    python -m tests.fuzz --seconds 1800              by hand, before a release
    python -m tests.fuzz --again crash-4f3c…         one input, as it was found
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import atheris

LONGEST = 20_000
"""Bytes of the longest input: more than the longest text that is read as a tree."""
SLOWEST = 5
"""Seconds that one input may take; more is a finding."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="for how long")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers; 0: another one each time")
    parser.add_argument("--found", type=Path, default=Path.cwd(), help="where inputs that fail are written")
    parser.add_argument("--again", type=Path, help="run this input only")
    arguments = parser.parse_args()
    with atheris.instrument_imports(include=["heliosproxy.wire", "heliosproxy.sql", "heliosproxy.auth"]):
        from tests.fuzz import properties, seeds

    if arguments.again is not None:
        properties.check(arguments.again.read_bytes())
        return
    with tempfile.TemporaryDirectory() as directory:
        corpus, words = seeds.write(Path(directory))
        options = [
            f"-max_total_time={arguments.seconds}", f"-max_len={LONGEST}", "-len_control=30", f"-timeout={SLOWEST}",
            "-rss_limit_mb=2048", f"-artifact_prefix={arguments.found.absolute()}/", f"-dict={words}",
            "-print_final_stats=1", str(corpus),
        ]  # fmt: skip
        if arguments.seed:
            options.insert(0, f"-seed={arguments.seed}")
        atheris.Setup(["fuzz", *options], properties.check)
        atheris.Fuzz()  # ends the process


main()
