"""The first runs of a model, before a server hands it requests.

A runtime prepares a graph at its first run, and again at the first with several rows: for a small CNN in TensorFlow
50 and 25 ms, where a run takes 0.3. All that comes to a new version meanwhile would wait behind its first requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from kcost.core.serving import ServedModel, ServedSignature

_ROWS = (1, 2)
_DEFAULT = "serving_default"
_LONG_S = 1.0
"""A first run that takes longer is no matter of preparing: what a second shape would save is little beside it."""
_NUMBERS = frozenset(
    (
        *("float16", "float32", "float64", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)

Run = Callable[[ServedSignature, dict[str, np.ndarray]], list[np.ndarray]]


def warm_up(model: ServedModel, run: Run) -> None:
    """Runs the default signature, or the only one, on zeros, where its inputs are numbers of known shapes but for rows.

    Of other inputs nobody knows which a model takes, and libtensorflow ends its process on some. What other signatures
    do is not known either: one that trains would change the weights that are about to be served.

    Args:
        run: the outputs of a signature for its inputs by name.
    """
    for signature in model.signatures:
        if signature.name != _DEFAULT and len(model.signatures) > 1:
            continue
        if signature.refused_because is not None or not _is_known(signature):
            continue
        for rows in _ROWS:
            inputs = {
                tensor.name: np.zeros([rows if size is None else size for size in tensor.shape or ()], tensor.dtype)
                for tensor in signature.inputs
            }
            began_s = time.monotonic()
            try:
                run(signature, inputs)
            except Exception:  # whoever asks for the same is told; others may ask for what the model takes
                break
            if time.monotonic() - began_s > _LONG_S:
                break


def _is_known(signature: ServedSignature) -> bool:
    return bool(signature.inputs) and all(
        tensor.dtype in _NUMBERS and tensor.shape is not None and None not in tensor.shape[1:]
        for tensor in signature.inputs
    )
