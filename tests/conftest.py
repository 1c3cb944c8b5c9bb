"""Settings of all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# No test asserts on time; and what fails once fails again.
settings.register_profile("kcost", deadline=None, derandomize=True)
settings.load_profile("kcost")


def pytest_configure(config: pytest.Config) -> None:
    """jax keeps what it compiles from run to run, and a model, its copy and what is loaded again are one program."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("jax-programs"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
