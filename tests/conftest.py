"""Settings of all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# No test asserts on time; and what fails once fails again.
settings.register_profile("kcost", deadline=None, derandomize=True)
settings.load_profile("kcost")


def pytest_configure(config: pytest.Config) -> None:
    """A core for each of several test processes, and programs that jax keeps.

    Threads of frameworks that wait for one another on a shared core take several times as long. Of jax's programs, a
    model, its copy and what is loaded again are one, and so they are in the next run.
    """
    process = os.environ.get("PYTEST_XDIST_WORKER")
    if process is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(process.removeprefix("gw")) % len(cores)]})
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("jax-programs"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
