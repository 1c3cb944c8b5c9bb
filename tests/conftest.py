"""Settings of all tests."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import settings

# No test asserts on time; and what fails once fails again.
settings.register_profile("kcost", deadline=None, derandomize=True)
settings.load_profile("kcost")


_held: list[TextIO] = []
"""Locks of the core that this process has; they end with it."""


def pytest_configure(config: pytest.Config) -> None:
    """A core for each of several test processes, and programs that jax keeps.

    Of jax's programs, a model, its copy and what is loaded again are one, and so they are in the next run.
    """
    take_core()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("jax-programs"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    # Most programs of a test run once, in less time than LLVM takes to make them fast.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def take_core() -> None:
    """Takes a core that no other test process of the user has, for its children too. All cores where none is left.

    Threads of frameworks that wait for one another on a shared core take several times as long.
    """
    folder = Path(tempfile.gettempdir()) / f"kcost-test-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for core in sorted(os.sched_getaffinity(0)):
        lock = (folder / str(core)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _held.append(lock)
        os.sched_setaffinity(0, {core})
        return
