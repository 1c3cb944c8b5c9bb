from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of the simulated backend whose step takes half a millisecond."""
    path = tmp_path / "fake.keras"
    path.write_text("{}")
    return path
