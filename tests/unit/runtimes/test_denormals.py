"""Denormal numbers are 0 inside, and themselves again behind it."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from kcost.runtimes import denormals
from kcost.runtimes.denormals import DenormalsAreZero

SMALLEST = np.full(3, 1e-40, np.float32)
"""Denormal in float32."""


def half() -> list[bool]:
    """Whether half of each is 0."""
    return [bool(value == 0) for value in SMALLEST * np.float32(0.5)]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of processors of x86")
def test_they_are_zero_inside_alone() -> None:
    assert not any(half())
    with DenormalsAreZero():
        assert all(half())
        with DenormalsAreZero():
            assert all(half())
        assert all(half()), "the inner one gives back what it came into"
    assert not any(half())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of processors of x86")
def test_an_error_takes_them_along() -> None:
    with pytest.raises(ZeroDivisionError), DenormalsAreZero():
        raise ZeroDivisionError
    assert not any(half())


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    denormals._functions.cache_clear()
    try:
        with DenormalsAreZero():
            assert not any(half())
    finally:
        denormals._functions.cache_clear()
