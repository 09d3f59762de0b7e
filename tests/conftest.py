"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real, openly licensed images beside the checkout; tests that need them skip without them."""
    if not SHARED.is_dir():
        pytest.skip("the folder with real images (../shared/data) is not beside this checkout")
    return SHARED
