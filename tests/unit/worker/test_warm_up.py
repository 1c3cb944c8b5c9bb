"""What of a model is run before it is served."""

from __future__ import annotations

import time

import numpy as np
import pytest

from kcost.core.serving import ServedModel, ServedSignature, ServedTensor
from kcost.worker.warm_up import warm_up


def of(
    *inputs: tuple[str, tuple[int | None, ...] | None], name: str = "s", refused: str | None = None
) -> ServedSignature:
    tensors = tuple(ServedTensor(name=f"x{i}", dtype=d, shape=s, graph_name="") for i, (d, s) in enumerate(inputs))
    return ServedSignature(name=name, method="m", inputs=tensors, outputs=(), refused_because=refused)


def shapes_run(
    *signatures: ServedSignature, error: Exception | None = None, each_s: float = 0.0
) -> list[list[tuple[int, ...]]]:
    runs: list[list[tuple[int, ...]]] = []

    def run(signature: ServedSignature, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert [array.dtype.name for array in inputs.values()] == [tensor.dtype for tensor in signature.inputs]
        runs.append([array.shape for array in inputs.values()])
        time.sleep(each_s)
        if error is not None:
            raise error
        return []

    warm_up(ServedModel(signatures=signatures, library_version="0"), run)
    return runs


def test_one_row_and_two() -> None:
    assert shapes_run(of(("float32", (None, 8, 8, 1)))) == [[(1, 8, 8, 1)], [(2, 8, 8, 1)]]
    assert shapes_run(of(("int64", (None,)), ("bool", ()))) == [[(1,), ()], [(2,), ()]]
    assert shapes_run(of(("float32", (3, 2)))) == [[(3, 2)], [(3, 2)]]


@pytest.mark.parametrize("shape", [None, (None, None), (None, 8, None, 1)])
def test_shapes_that_are_not_known_are_not_made_up(shape: tuple[int | None, ...] | None) -> None:
    assert shapes_run(of(("float32", (None, 2)), ("float32", shape))) == []


def test_strings_and_what_cannot_be_run_are_left_alone() -> None:
    assert shapes_run(of(("string", (None,)))) == []
    assert shapes_run(of()) == []
    assert shapes_run(of(("float32", (None,)), refused="sparse")) == []


def test_of_several_signatures_the_default_one_is_run() -> None:
    """Another may train: run on zeros, it changed the weights that were served."""
    train = of(("float32", (None, 5)), name="train")
    assert shapes_run(of(("float32", (None,)), name="serving_default"), train) == [[(1,)], [(2,)]]
    assert shapes_run(of(("float32", (None,)), name="a"), train) == []


def test_a_slow_model_is_run_once() -> None:
    assert shapes_run(of(("float32", (None,))), each_s=1.1) == [[(1,)]]


def test_a_model_that_takes_no_zeros_is_served_all_the_same() -> None:
    assert shapes_run(of(("float32", (None,))), error=ValueError("no zeros")) == [[(1,)]]
