"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No example has a time limit: machines are noisy. A new counterexample is found by people, who can mend it; CI runs the
# same examples each time.
settings.register_profile("people", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "people")

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # the suite runs several processes side by side

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real, openly licensed images beside the checkout; tests that need them skip without them."""
    if not SHARED.is_dir():
        pytest.skip("the folder with real images (../shared/data) is not beside this checkout")
    return SHARED
