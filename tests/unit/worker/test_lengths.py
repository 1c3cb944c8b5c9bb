"""Whether zeros behind a row change its answers, tried with models that are a line each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest

from kcost.core.errors import InputError
from kcost.core.serving import ServedSignature, ServedTensor
from kcost.worker.lengths import MOST_STEP_PLACES, may_pad, step_places

Arrays = dict[str, np.ndarray]


def signature(mask: str = "padding_mask", shape: tuple[int | None, ...] = (None, None)) -> ServedSignature:
    names = ("segment_ids", mask, "token_ids")
    return ServedSignature(
        name="serving_default",
        method="tensorflow/serving/predict",
        inputs=tuple(ServedTensor(name=n, dtype="int32", shape=shape, graph_name=n) for n in names),
        outputs=(ServedTensor(name="y", dtype="float32", shape=(None, None, 2), graph_name="y"),),
    )


def tagged(ids: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Each piece beside the mean of what is seen of its row, shape (rows, length, 2)."""
    mean = (ids * seen).sum(1, keepdims=True) / seen.sum(1, keepdims=True)
    return np.stack([ids, np.broadcast_to(mean, ids.shape)], -1)


def by_mask(x: Arrays) -> np.ndarray:
    return tagged(x["token_ids"], x["padding_mask"])


def without_mask(x: Arrays) -> np.ndarray:
    return tagged(x["token_ids"], np.ones_like(x["token_ids"]))


def of_one_scale(x: Arrays) -> np.ndarray:
    """In eighths of the largest number of the batch, wherever that stands."""
    y = by_mask(x) + np.arange(x["token_ids"].shape[1])[None, :, None]
    step = np.abs(y).max() / 8
    return np.round(y / step) * step


def pooled(x: Arrays) -> np.ndarray:
    return by_mask(x)[:, 0]


def refuses(x: Arrays) -> np.ndarray:
    raise InputError("No such piece.")


@pytest.mark.parametrize(
    ("model", "pads"),
    [(by_mask, True), (without_mask, False), (of_one_scale, False), (pooled, False), (refuses, False)],
)
def test_a_model_is_tried(model: Callable[[Arrays], np.ndarray], pads: bool) -> None:
    assert may_pad(signature(), lambda _, x: [model(x)]) is pads


@pytest.mark.parametrize(
    "other", [signature("mask"), signature(shape=(None, 64)), signature().model_copy(update={"alone_because": "it is"})]
)
def test_a_model_of_another_kind_is_not_tried(other: ServedSignature) -> None:
    def run(_: ServedSignature, x: Arrays) -> list[np.ndarray]:
        raise AssertionError("it was run")

    assert not may_pad(other, run)


@pytest.mark.parametrize(("threads", "clock"), [(1, "process_time"), (2, "perf_counter")])
@pytest.mark.parametrize(
    ("step_s", "place_s", "places"),
    [(2e-3, 1e-5, 200), (0, 2e-5, 0), (1e-2, 1e-9, MOST_STEP_PLACES), (1e-3, 0, MOST_STEP_PLACES)],
)
def test_what_a_step_costs_by_itself_is_timed(
    step_s: float, place_s: float, places: int, threads: int, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: ServedSignature, x: Arrays) -> list[np.ndarray]:
        clock_s[0] += step_s + x["token_ids"].size * place_s * next(slower)
        return []

    clock_s, slower = [0.0], itertools.cycle((1, 1, 3, 1))  # some steps take longer by chance
    monkeypatch.setattr(time, clock, lambda: clock_s[0])

    assert step_places(signature(), run, threads) == places
