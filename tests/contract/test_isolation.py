from __future__ import annotations

import importlib.util
import sys

import pytest

from kcost.worker.isolate import OTHERS, hide


def test_keras_and_keras_nlp_come_up_without_the_other_frameworks(backend: str) -> None:
    import keras
    import keras_nlp  # noqa: F401

    assert keras.backend.backend() == backend
    assert [m for m in OTHERS[backend] if m in sys.modules] == []


def test_a_hidden_framework_looks_uninstalled(backend: str) -> None:
    other = OTHERS[backend][0]
    assert importlib.util.find_spec(other) is None
    with pytest.raises(ModuleNotFoundError, match=other):
        importlib.import_module(other)


def test_hiding_what_is_imported_already_is_refused() -> None:
    with pytest.raises(RuntimeError, match="imported already"):
        hide(["numpy"])
