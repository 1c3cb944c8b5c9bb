"""Which examples of a split are taken where not all are: the same wherever they are taken."""

from __future__ import annotations

import numpy as np


def chosen_rows(total: int, count: int, seed: int) -> np.ndarray:
    """Places of at most `count` of `total` examples, drawn by the seed, ascending; int64, shape (n,).

    More of them hold all that fewer do.

    Examples:
        >>> few, many = chosen_rows(100, 10, 0), chosen_rows(100, 20, 0)
        >>> set(few) < set(many)
        True
    """
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])
