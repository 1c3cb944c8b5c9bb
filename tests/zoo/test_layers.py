"""Each public layer class of Keras, in each mode: right, or refused with a reason that names it.

The short form loads each layer, quantizes it in one mode, saves it and loads it again. The whole form does all else: a
bench round in float32 and bfloat16, every mode of `quantize`, a SavedModel.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable

import keras
import pytest

from . import table
from .conftest import BACKEND, ROWS_FOLDER
from .specimens import layer_classes
from .table import MODES, Row
from .trial import Trial

SHORT = ("quantize dynamic",) if BACKEND == "jax" else ("load", "quantize dynamic")
"""What loads and quantizes loads as well; on jax each further program takes its time to compile."""

WHOLE = [m for m in MODES if BACKEND in table.backends_of(m) and (BACKEND == "jax" or m not in SHORT)]
"""On jax the short form passes over layers without weights."""

NAMES = list(layer_classes())


def test_every_public_class_is_looked_at() -> None:
    """A class without `call` is a base of others."""
    public = {kind for _, kind in inspect.getmembers(keras.layers, inspect.isclass)}
    left_out = {kind.__name__ for kind in public if issubclass(kind, keras.layers.Layer)} - set(NAMES)
    assert left_out == {"Layer", "Wrapper"}
    assert len(NAMES) > 130


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_right_or_refused_by_name(
    name: str, trial_of: Callable[[str, bool], Trial], record: Callable[[Row], None]
) -> None:
    _check(trial_of(name, False).rows(SHORT), record)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_right_or_refused_by_name_in_every_mode(
    name: str, trial_of: Callable[[str, bool], Trial], record: Callable[[Row], None]
) -> None:
    _check(trial_of(name, True).rows(WHOLE), record)


def _check(rows: list[Row], record: Callable[[Row], None]) -> None:
    for row in rows:
        record(row)
    failed = [f"{row.mode}: {row.outcome}: {row.reason}" for row in rows if row.outcome not in ("right", "refused")]
    assert not failed, "\n".join(failed)
    if ROWS_FOLDER not in os.environ:  # else the page is being made
        committed = table.committed()
        other = [f"{row.mode}: {row.word}, not {committed.of(row)}" for row in rows if row.word != committed.of(row)]
        assert not other, f"docs/layers.md says otherwise. Make it again with `make zoo`: {other}"
