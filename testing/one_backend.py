"""A process that sees one framework, the one of the backend that KERAS_BACKEND names, and fixtures for it."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import tempfile
from collections.abc import Iterator

import pytest

from kcost.core.plan import BACKENDS
from kcost.core.process import chosen_backend, installed
from kcost.worker.isolate import OTHERS, hide

BACKEND = chosen_backend()
INSTALLED = tuple(backend for backend in BACKENDS if installed(backend))
"""The backends that are installed: those that this process hides from itself included."""

os.environ["KERAS_BACKEND"] = BACKEND
os.environ["KERAS_HOME"] = tempfile.mkdtemp(prefix="kcost-test-keras-")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "2")
hide(OTHERS[BACKEND])


TESTS_A_COLLECTION = 25
"""How many tests of a process end before it looks for garbage."""

_ended = itertools.count(1)


@pytest.fixture(scope="session")
def backend() -> str:
    """Its name."""
    return BACKEND


@functools.cache
def keep_imports() -> None:
    """From the first call on, what frameworks and test modules made at import is not searched for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_seed() -> Iterator[None]:
    """Each test begins with the same random numbers, and leaves no layers behind."""
    import keras

    keep_imports()
    keras.utils.set_random_seed(0)
    yield
    # A search for garbage takes as long as many a test: not after each.
    keras.utils.clear_session(free_memory=next(_ended) % TESTS_A_COLLECTION == 0)
