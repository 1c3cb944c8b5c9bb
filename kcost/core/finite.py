"""Whether what a model answers is made of finite numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def rows_not_finite(outputs: Iterable[np.ndarray], rows: int) -> int:
    """How many of the first `rows` rows hold NaN or an infinity in an output.

    Args:
        outputs: arrays (rows or more, ...); those of whole numbers, booleans, texts or objects are finite. An output
            whose first axis is shorter than `rows` has no rows: where it is not finite, no row is.
    """
    bad = np.zeros(rows, bool)
    for output in map(np.asarray, outputs):
        if output.dtype.kind not in "fc":
            continue
        finite = np.isfinite(output)
        if output.ndim and len(output) >= rows:
            bad |= ~finite[:rows].reshape(rows, -1).all(axis=1)
        elif not finite.all():
            bad[:] = True
    return int(bad.sum())
