"""What of a model is run before it is served."""

from __future__ import annotations

import numpy as np
import pytest

from kcost.core.serving import ServedModel, ServedSignature, ServedTensor
from kcost.worker.warm_up import warm_up


def model(*inputs: tuple[str, tuple[int | None, ...] | None], refused: str | None = None) -> ServedModel:
    tensors = tuple(ServedTensor(name=f"x{i}", dtype=d, shape=s, graph_name="") for i, (d, s) in enumerate(inputs))
    signature = ServedSignature(name="s", method="m", inputs=tensors, outputs=(), refused_because=refused)
    return ServedModel(signatures=(signature,), library_version="0")


def shapes_run(served: ServedModel, error: Exception | None = None) -> list[list[tuple[int, ...]]]:
    runs: list[list[tuple[int, ...]]] = []

    def run(signature: ServedSignature, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert [array.dtype.name for array in inputs.values()] == [tensor.dtype for tensor in signature.inputs]
        runs.append([array.shape for array in inputs.values()])
        if error is not None:
            raise error
        return []

    warm_up(served, run)
    return runs


def test_one_row_and_two() -> None:
    assert shapes_run(model(("float32", (None, 8, 8, 1)))) == [[(1, 8, 8, 1)], [(2, 8, 8, 1)]]
    assert shapes_run(model(("int64", (None,)), ("bool", ()))) == [[(1,), ()], [(2,), ()]]
    assert shapes_run(model(("float32", (3, 2)))) == [[(3, 2)], [(3, 2)]]


@pytest.mark.parametrize("shape", [None, (None, None), (None, 8, None, 1)])
def test_shapes_that_are_not_known_are_not_made_up(shape: tuple[int | None, ...] | None) -> None:
    assert shapes_run(model(("float32", (None, 2)), ("float32", shape))) == []


def test_strings_and_what_cannot_be_run_are_left_alone() -> None:
    assert shapes_run(model(("string", (None,)))) == []
    assert shapes_run(model()) == []
    assert shapes_run(model(("float32", (None,)), refused="sparse")) == []


def test_a_model_that_takes_no_zeros_is_served_all_the_same() -> None:
    assert shapes_run(model(("float32", (None,))), ValueError("no zeros")) == [[(1,)]]
