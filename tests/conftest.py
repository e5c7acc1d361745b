"""For all tests. Hypothesis has no deadline: a busy machine is not a bug; in CI its examples are the same each time."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("helios", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("helios")
