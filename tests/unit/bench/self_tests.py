"""Parts of a self-test's answer."""

from __future__ import annotations

import numpy as np

from kcost.bench.self_test import Move, Pair


def pairs(count: int, bias: float, seed: int = 0) -> tuple[Pair, ...]:
    """Cells against themselves under a drift that both turns share, the second slower by `bias`."""
    rng = np.random.default_rng(seed)
    cell_pairs = []
    for _ in range(count):
        drift = 1e6 * np.exp(rng.normal(0, 0.2, 10))
        a, b = (drift * np.exp(rng.normal(0, 0.02, 10)) for _ in range(2))
        cell_pairs.append(Pair(model="m", cell="c", a_ns=tuple(a), b_ns=tuple(b * (1 + bias))))
    return tuple(cell_pairs)


def move(loaded: float, invalid: str | None = None) -> Move:
    return Move(model="m", cell="c", baseline="b", quiet=2.0, loaded=loaded, invalid=invalid)
