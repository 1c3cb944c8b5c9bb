"""The same tests on whichever backend KERAS_BACKEND names, in a process that sees no other framework.

Run as `KERAS_BACKEND=jax python -m pytest tests/contract`; `make test` does it for each.
"""

from pathlib import Path

import pytest

from testing.one_backend import BACKEND, backend, same_seed
from tests.contract.slow_on import SLOW_ON

__all__ = ["BACKEND", "backend", "same_seed"]

FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before the marks are selected by
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is slow on this backend. Raises UsageError for a name in that list that no test has any more."""
    slow = SLOW_ON.get(BACKEND, frozenset())
    own = {f"{item.path.name}::{item.name}": item for item in items if item.path.parent == FOLDER}
    files = {name.split("::")[0] for name in own}
    whole = {name for name in slow if name.split("::")[0] in files}
    if len(files) == len(list(FOLDER.glob("test_*.py"))) and (gone := whole - own.keys()):
        raise pytest.UsageError(f"slow_on.py names tests that are there. Received: {', '.join(sorted(gone))}")
    for name in whole & own.keys():
        own[name].add_marker(pytest.mark.slow)
