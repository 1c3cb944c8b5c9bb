"""Whether rows of several lengths may run as one: tried with the model itself, when it is loaded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kcost.core.errors import InputError
from kcost.core.serving import ServedModel, ServedSignature

MASKS = ("padding_mask", "attention_mask")
"""Inputs that say which positions count, as Keras and Hugging Face call them."""

WITHIN = 1e-3
"""Of the largest answer: more than sums in another order change, less than a scale that the padding has a part in."""

_ROWS, _SHORT, _LONG = 2, 7, 21
_INTEGERS = ("int32", "int64", "bool", "int8", "uint8")

Run = Callable[[ServedSignature, dict[str, np.ndarray]], list[np.ndarray]]


def with_padding(model: ServedModel, run: Run) -> ServedModel:
    """The model with what was tried of each signature: see `may_pad`."""
    tried = tuple(s.model_copy(update={"pads": may_pad(s, run)}) for s in model.signatures)
    return model.model_copy(update={"signatures": tried})


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
    rows = {}
    for tensor in signature.inputs:
        values: np.ndarray = np.ones((_ROWS, _SHORT))
        if tensor.name not in MASKS and "segment" not in tensor.name and "type" not in tensor.name:
            values = 1.0 + np.arange(_ROWS * _SHORT).reshape(_ROWS, _SHORT) % 5  # pieces that every vocabulary has
        elif tensor.name not in MASKS:
            values = np.zeros((_ROWS, _SHORT))
        rows[tensor.name] = values.astype(tensor.dtype)
    longer = {name: np.pad(array, ((0, 0), (0, _LONG - _SHORT))) for name, array in rows.items()}
    try:
        answers = list(zip(run(signature, rows), run(signature, longer), strict=True))
    except (InputError, MemoryError):  # as of a model with fewer pieces: its rows are not padded
        return False
    return all(_alike(alone, padded) for alone, padded in answers)


def _alike(alone: np.ndarray, padded: np.ndarray) -> bool:
    if alone.dtype == object or alone.shape[:2] != (_ROWS, _SHORT) or padded.shape[:2] != (_ROWS, _LONG):
        return False
    off = np.abs(padded[:, :_SHORT].astype(np.float64) - alone).max()
    return bool(off <= WITHIN * np.abs(alone).max())
