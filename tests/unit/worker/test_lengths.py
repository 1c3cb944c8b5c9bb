"""Whether zeros behind a row change its answers, tried with models that are a line each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest

from kcost.core.errors import InputError
from kcost.core.serving import ServedModel, ServedSignature, ServedTensor
from kcost.worker.lengths import MOST_STEP_PLACES, may_pack, may_pad, packed_costs, step_places, with_padding

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


def packed_signature(**changes: object) -> ServedSignature:
    """Of `signature()`, for rows that lie end to end."""
    padded = signature()
    lines = [tensor.model_copy(update={"shape": (None,)}) for tensor in padded.inputs]
    where = ServedTensor(name="row_lengths", dtype="int32", shape=(None,), graph_name="r")
    outputs = (padded.outputs[0].model_copy(update={"shape": (None, 2)}),)
    fields: dict[str, object] = {"inputs": (*lines, where), "outputs": outputs, "name": "serving_packed", **changes}
    return padded.model_copy(update=fields)


def end_to_end(x: Arrays) -> np.ndarray:
    """`by_mask` of rows that lie end to end; zeros behind them."""
    answers, at = [], 0
    for length in x["row_lengths"].tolist():
        row = slice(at, at + length)
        answers.append(tagged(x["token_ids"][None, row], x["padding_mask"][None, row])[0])
        at += length
    behind = np.zeros((len(x["token_ids"]) - at, 2))
    return np.concatenate([*answers, behind])


def as_one_row(x: Arrays) -> np.ndarray:
    return tagged(x["token_ids"][None], x["padding_mask"][None])[0]


def without_what_is_behind(x: Arrays) -> np.ndarray:
    return end_to_end(x)[: x["row_lengths"].sum()]


@pytest.mark.parametrize(
    ("model", "packs"), [(end_to_end, True), (as_one_row, False), (without_what_is_behind, False), (refuses, False)]
)
def test_rows_end_to_end_are_tried(model: Callable[[Arrays], np.ndarray], packs: bool) -> None:
    packed = packed_signature()
    assert may_pack(signature(), packed, lambda s, x: [(model if s is packed else by_mask)(x)]) is packs


@pytest.mark.parametrize(
    "changes",
    [
        {"refused_because": "it is"},
        {"inputs": signature().inputs},
        {"outputs": ()},
        {"outputs": (ServedTensor(name="z", dtype="float32", shape=(None, 2), graph_name="z"),)},
    ],
)
def test_another_signature_of_that_name_is_not_tried(changes: dict[str, object]) -> None:
    def run(_: ServedSignature, x: Arrays) -> list[np.ndarray]:
        raise AssertionError("it was run")

    assert not may_pack(signature(), packed_signature(**changes), run)


@pytest.mark.parametrize("longest", [1000, 60, 20])
def test_what_attention_costs_is_timed_on_lines_that_the_model_takes(
    longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_s, place_s, pair_s = 1e-3, 1e-5, 2e-8

    def run(_: ServedSignature, x: Arrays) -> list[np.ndarray]:
        line, rows = int(x["row_lengths"].max()), len(x["row_lengths"])
        if line > longest:
            raise InputError("A longest row.")
        clock_s[0] += step_s + len(x["token_ids"]) * place_s + rows * line**2 * pair_s
        return []

    clock_s = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: clock_s[0])
    places, attention = packed_costs(packed_signature(), run, 1)
    assert places == pytest.approx(100, rel=0.1)
    assert attention == (0.0 if longest == 20 else pytest.approx(pair_s / place_s, rel=0.1))


def test_a_model_says_which_of_its_signatures_takes_rows_end_to_end() -> None:
    both = ServedModel(signatures=(signature(), packed_signature()), library_version="0")

    def run(signature_run: ServedSignature, x: Arrays) -> list[np.ndarray]:
        return [(end_to_end if signature_run.name == "serving_packed" else by_mask)(x)]

    tried = with_padding(both, run, 1)
    assert [(s.pads, s.packed) for s in tried.signatures] == [(True, 1), (False, None)]
    alone = with_padding(both.model_copy(update={"signatures": both.signatures[:1]}), run, 1)
    assert [(s.pads, s.packed) for s in alone.signatures] == [(True, None)]
