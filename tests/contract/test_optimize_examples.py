"""The examples in the docstrings of the public functions of kcost.optimize, on each backend."""

from __future__ import annotations

import doctest
import inspect

import pytest

import kcost.optimize

FUNCTIONS = sorted(name for name in kcost.optimize.__all__ if inspect.isfunction(getattr(kcost.optimize, name)))


@pytest.mark.parametrize("name", [*FUNCTIONS, "Coverage"])
def test_the_example_runs(name: str) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(kcost.optimize, name), name, globs={})
    assert example.examples, f"kcost.optimize.{name} has no example"
    said: list[str] = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)
