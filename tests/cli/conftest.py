from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of the simulated backend whose step takes half a millisecond."""
    path = tmp_path / "fake.keras"
    path.write_text("{}")
    return path


@pytest.fixture(autouse=True)
def lightest_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a command names no backend, the one whose import takes least: what is tested here is the command."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
