"""What a peer's program does around the model: a row out of a request, rows of several lengths as one batch.

numpy and `kcost.runtimes.saved_model` alone: it runs in the environments of LitServe and MLServer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from kcost.runtimes.saved_model import SavedModelSession

MOST_ROWS = 32
"""Of a batch: the concurrency of the benchmark."""

WAIT_S = 0.005
"""How long the first request of a batch waits for others. With 32 clients, a batch is full before."""

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
Row = dict[str, np.ndarray]


class Model:
    """A SavedModel on one thread. A row is one array an input, without the batch axis."""

    def __init__(self, folder: str) -> None:
        self.session = SavedModelSession(folder, threads=1, caller_thread=True)
        self.inputs = self.session.signature.inputs

    def row(self, values: Any) -> Row:
        """A row of a request in TensorFlow Serving's JSON: an object, or the values of the only input."""
        named = values if isinstance(values, Mapping) else dict.fromkeys(self.inputs, values)
        return {name: np.asarray(named[name], tensor.dtype) for name, tensor in self.inputs.items()}

    def run(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """The output of each row. Rows of several lengths are padded with zeros, and answers cut again."""
        lengths = [next(iter(row.values())).shape[0] for row in rows]
        longest = max(lengths)
        batch = {name: np.stack([padded(row[name], longest) for row in rows]) for name in self.inputs}
        output = next(iter(self.session.run(batch).values()))
        if len(set(lengths)) == 1:
            return list(output)
        return [answer[:length] for answer, length in zip(output, lengths, strict=True)]


def padded(array: np.ndarray, length: int) -> np.ndarray:
    if len(array) == length:
        return array
    whole = np.zeros((length, *array.shape[1:]), array.dtype)
    whole[: len(array)] = array
    return whole
