"""Whether rows of several lengths may run as one, and what a step costs: tried with the model, when it is loaded.

Rows run as one with zeros behind the shorter ones; or end to end, where the model has a signature for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from kcost.core.conversion import PACKED_SIGNATURE, ROW_LENGTHS
from kcost.core.errors import InputError
from kcost.core.serving import ServedModel, ServedSignature
from kcost.worker.packed_rows import packed_rows

MASKS = ("padding_mask", "attention_mask")
"""Inputs that say which positions count, as Keras and Hugging Face call them."""

WITHIN = 1e-3
"""Of the largest answer: more than sums in another order change, less than a scale that the padding has a part in."""

SERVING = "serving_default"

_ROWS, _SHORT, _LONG = 2, 7, 21

_BEHIND = 3
"""Places that belong to no row, as a server has them."""

MOST_STEP_PLACES = 1 << 14
"""A step is taken for no dearer: it bounds the memory that padding takes, where places cost next to nothing."""

_INTEGERS = ("int32", "int64", "bool", "int8", "uint8")

_SMALL, _LARGE = (1, 8), (16, 16)
"""Rows and their length in the two steps that are timed."""

_LONGER = (120, 56)
"""The longest row of a third step, of as many places as the second: the first of them that the model takes."""

_MOST_TIMED, _TIMED_S = 10, 0.2
"""Each is timed so often, or until both took this long together: the least counts."""

Run = Callable[[ServedSignature, dict[str, np.ndarray]], list[np.ndarray]]


def with_padding(model: ServedModel, run: Run, threads: int) -> ServedModel:
    """The model with what was tried of each signature: see `may_pad`, `may_pack`, `step_places`, `packed_costs`."""
    packed = next((place for place, s in enumerate(model.signatures) if s.name == PACKED_SIGNATURE), None)
    tried = []
    for signature in model.signatures:
        if may_pad(signature, run):
            costs = None
            if packed is not None and may_pack(signature, model.signatures[packed], run):
                costs = packed_costs(model.signatures[packed], run, threads)
            update: dict[str, object] = {"pads": True}
            if costs is None:
                update["step_places"] = step_places(signature, run, threads)
            else:
                update |= {"packed": packed, "step_places": costs[0], "attention_places": costs[1]}
            signature = signature.model_copy(update=update)
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
    return all(
        alone.shape[:2] == (_ROWS, _SHORT) and padded.shape[:2] == (_ROWS, _LONG) and _alike(alone, padded[:, :_SHORT])
        for alone, padded in answers
    )


def may_pack(signature: ServedSignature, packed: ServedSignature, run: Run) -> bool:
    """Whether another signature gives for rows end to end what a signature that may be padded gives for each.

    Args:
        packed: see PACKED_SIGNATURE.
        run: the outputs of a signature, in order, for its inputs by name.
    """
    if packed.refused_because is not None or signature.name != SERVING:
        return False
    lines = {t.name: (t.dtype, t.shape) for t in packed.inputs}
    wanted = {t.name: (t.dtype, (None,)) for t in signature.inputs}
    if lines != {**wanted, ROW_LENGTHS: ("int32", (None,))}:
        return False
    if [(t.name, t.dtype) for t in packed.outputs] != [(t.name, t.dtype) for t in signature.outputs]:
        return False
    lengths = [_SHORT, _LONG, _SHORT - 2]
    whole = _made_up(signature, 1, sum(lengths))
    ends = np.cumsum(lengths).tolist()
    rows = [
        {name: array[0, end - length : end].copy() for name, array in whole.items()}
        for length, end in zip(lengths, ends, strict=True)
    ]
    for name, array in rows[1].items():
        if name in MASKS:
            array[-1] = 0  # a place that somebody else has padded
    try:
        answers = run(packed, packed_rows(rows, _BEHIND))
        alone = [run(signature, {name: array[None] for name, array in row.items()}) for row in rows]
    except (InputError, MemoryError):
        return False
    return all(
        answer.ndim > 0
        and len(answer) == sum(lengths) + _BEHIND
        and _alike(own[output], answer[None, end - length : end])
        for output, answer in enumerate(answers)
        for own, length, end in zip(alone, lengths, ends, strict=True)
    )


def packed_costs(packed: ServedSignature, run: Run, threads: int) -> tuple[int, float] | None:
    """`step_places` of rows end to end, and how many places cost as much as one that looks at one of a line.

    The second is told by two steps of as many places, of which one has a much longer line. Of a model that takes no
    rows as long it is 0: its lines are short. None for a signature that takes no such steps at all.
    """
    ours = packed.model_copy(update={"inputs": tuple(t for t in packed.inputs if t.name != ROW_LENGTHS)})

    def step(lengths: list[int]) -> dict[str, np.ndarray]:
        rows = [_made_up(ours, 1, length) for length in lengths]
        return packed_rows([{name: array[0] for name, array in row.items()} for row in rows])

    (rows, length), (small_rows, small_length) = _LARGE, _SMALL
    even, small = [length] * rows, [small_length] * small_rows
    for longest in (*_LONGER, length):
        uneven = [longest, *[small_length] * ((sum(even) - longest) // small_length)]
        try:
            small_s, even_s, uneven_s = _least_s([step(small), step(even), step(uneven)], packed, run, threads)
        except (InputError, MemoryError):
            continue
        place_s = (even_s - small_s) / (sum(even) - sum(small))
        pairs = len(uneven) * longest**2 - rows * length**2
        attention = max(0.0, (uneven_s - even_s) / pairs / place_s) if place_s > 0 and longest > length else 0.0
        return _step_places(small_s, even_s), attention
    return None


def step_places(signature: ServedSignature, run: Run, threads: int) -> int:
    """How many places of rows take as long as a step takes by itself, whatever its rows.

    A line through the times of a small and of a larger step: of one thread by the time of this process, in which other
    programs have no part; of several by the clock on the wall, since the time of a process is that of its threads
    together.

    Args:
        threads: that the model runs in.
    """
    return _step_places(*_least_s([_made_up(signature, *shape) for shape in (_SMALL, _LARGE)], signature, run, threads))


def _least_s(steps: Sequence[dict[str, np.ndarray]], signature: ServedSignature, run: Run, threads: int) -> list[float]:
    """The shortest time of each step, which take turns."""
    now_s = time.process_time if threads == 1 else time.perf_counter
    least_s = [float("inf")] * len(steps)
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
    return least_s


def _step_places(small_s: float, large_s: float) -> int:
    """From the times of steps of the shapes _SMALL and _LARGE."""
    places = [rows * length for rows, length in (_SMALL, _LARGE)]
    place_s = (large_s - small_s) / (places[1] - places[0])
    if place_s <= 0:  # all the time is the step's: whatever waits runs as one
        return MOST_STEP_PLACES
    return max(0, min(MOST_STEP_PLACES, round(small_s / place_s - places[0])))


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
    if alone.dtype == object or alone.shape != padded.shape:
        return False
    off = np.abs(padded.astype(np.float64) - alone).max()
    return bool(off <= WITHIN * np.abs(alone).max())
