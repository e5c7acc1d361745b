"""Fuzzing for a moment, in a process of its own. HELIOS_FUZZ_SECONDS: for how long.

`.ci/run` does two minutes beside the tests, and half an hour by hand goes before a release.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import properties, seeds

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("HELIOS_FUZZ_SECONDS", "8"))
STARTS = 60
"""Seconds that it may take beyond those."""


def test_what_must_hold_holds_for_every_seed() -> None:
    for seed in seeds.seeds():
        properties.check(seed)


def test_what_must_hold_does_not_hold_for_a_shape_that_masks_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(properties, "shape", lambda text: b"select \0i")
    with pytest.raises(AssertionError, match="one shape"):
        properties.check(b"Qselect 'a'")


def test_what_must_hold_does_not_hold_where_the_password_is_told() -> None:
    password = properties.UNTOLD.encode() + b"\0"
    for user in (2, 6):
        with pytest.raises(AssertionError, match="without the password"):
            properties.check(b"X" + bytes((user, len(password))) + password)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_fuzzing_finds_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seconds", str(SECONDS), "--found", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, timeout=SECONDS + STARTS, check=False,
    )  # fmt: skip
    said = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, f"{said[-4000:]}\n{[(file.name, file.read_bytes()) for file in tmp_path.iterdir()]}"
    assert "stat::number_of_executed_units" in said, said[-4000:]
