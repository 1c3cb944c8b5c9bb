"""Whether rows of several lengths may run as one, and what a step costs: tried with the model, when it is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from kcost.core.errors import InputError
from kcost.core.serving import ServedModel, ServedSignature

MASKS = ("padding_mask", "attention_mask")
"""Inputs that say which positions count, as Keras and Hugging Face call them."""

WITHIN = 1e-3
"""Of the largest answer: more than sums in another order change, less than a scale that the padding has a part in."""

_ROWS, _SHORT, _LONG = 2, 7, 21

MOST_STEP_PLACES = 1 << 14
"""A step is taken for no dearer: it bounds the memory that padding takes, where places cost next to nothing."""

_INTEGERS = ("int32", "int64", "bool", "int8", "uint8")

_SMALL, _LARGE = (1, 8), (16, 16)
"""Rows and their length in the two steps that are timed."""

_MOST_TIMED, _TIMED_S = 10, 0.2
"""Each is timed so often, or until both took this long together: the least counts."""

Run = Callable[[ServedSignature, dict[str, np.ndarray]], list[np.ndarray]]


def with_padding(model: ServedModel, run: Run, threads: int) -> ServedModel:
    """The model with what was tried of each signature: see `may_pad` and `step_places`."""
    tried = []
    for signature in model.signatures:
        if may_pad(signature, run):
            signature = signature.model_copy(update={"pads": True, "step_places": step_places(signature, run, threads)})
        tried.append(signature)
    return model.model_copy(update={"signatures": tuple(tried)})


def may_pad(signature: ServedSignature, run: Run) -> bool:
    """Whether zeros behind a row change nothing of its answers.

    Only of signatures whose inputs are integers of shape (rows, length), both free, with one mask among them, and whose
    outputs begin with these axes. Rows of word pieces run by themselves and with zeros behind them.

    Args:
        run: the outputs of a signature, in order, for its inputs by name.
    """
    masks = [tensor for tensor in signature.inputs if tensor.name in MASKS]
    if signature.refused_because is not None or signature.alone_because is not None or len(masks) != 1:
        return False
    if any(tensor.shape != (None, None) or tensor.dtype not in _INTEGERS for tensor in signature.inputs):
        return False
    if any(tensor.shape is None or tensor.shape[:2] != (None, None) for tensor in signature.outputs):
        return False
    rows = _made_up(signature, _ROWS, _SHORT)
    longer = {name: np.pad(array, ((0, 0), (0, _LONG - _SHORT))) for name, array in rows.items()}
    try:
        answers = list(zip(run(signature, rows), run(signature, longer), strict=True))
    except (InputError, MemoryError):  # as of a model with fewer pieces: its rows are not padded
        return False
    return all(_alike(alone, padded) for alone, padded in answers)


def step_places(signature: ServedSignature, run: Run, threads: int) -> int:
    """How many places of rows take as long as a step takes by itself, whatever its rows.

    A line through the times of a small and of a larger step: of one thread by the time of this process, in which other
    programs have no part; of several by the clock on the wall, since the time of a process is that of its threads
    together.

    Args:
        threads: that the model runs in.
    """
    now_s = time.process_time if threads == 1 else time.perf_counter
    steps = [_made_up(signature, *shape) for shape in (_SMALL, _LARGE)]
    least_s = [float("inf")] * 2
    for step in steps:
        run(signature, step)  # the first of a shape prepares what the next ones use
    end_s = now_s() + _TIMED_S
    for _ in range(_MOST_TIMED):
        for i, step in enumerate(steps):
            began_s = now_s()
            run(signature, step)
            least_s[i] = min(least_s[i], now_s() - began_s)
        if now_s() > end_s:
            break
    places = [rows * length for rows, length in (_SMALL, _LARGE)]
    place_s = (least_s[1] - least_s[0]) / (places[1] - places[0])
    if place_s <= 0:  # all the time is the step's: whatever waits runs as one
        return MOST_STEP_PLACES
    return max(0, min(MOST_STEP_PLACES, round(least_s[0] / place_s - places[0])))


def _made_up(signature: ServedSignature, count: int, length: int) -> dict[str, np.ndarray]:
    """Rows of word pieces without padding, of pieces that every vocabulary has."""
    rows = {}
    for tensor in signature.inputs:
        values: np.ndarray = np.ones((count, length))
        if tensor.name not in MASKS and "segment" not in tensor.name and "type" not in tensor.name:
            values = 1.0 + np.arange(count * length).reshape(count, length) % 5
        elif tensor.name not in MASKS:
            values = np.zeros((count, length))
        rows[tensor.name] = values.astype(tensor.dtype)
    return rows


def _alike(alone: np.ndarray, padded: np.ndarray) -> bool:
    if alone.dtype == object or alone.shape[:2] != (_ROWS, _SHORT) or padded.shape[:2] != (_ROWS, _LONG):
        return False
    off = np.abs(padded[:, :_SHORT].astype(np.float64) - alone).max()
    return bool(off <= WITHIN * np.abs(alone).max())
