"""Learning curves whose truth is known."""

from __future__ import annotations

import numpy as np


def made_up(seed: int) -> tuple[dict[float, list[float]], float, float]:
    """Scores of four sizes and five seeds, and the true mean and the scatter of a score at twice the largest."""
    generator = np.random.default_rng(seed)
    floor, exponent = generator.uniform(0, 0.15), generator.uniform(0.15, 0.7)
    scale = generator.uniform(0.2, 0.5) * 200**exponent

    def error(labels: float) -> float:
        return float(floor + scale * labels**-exponent)

    scores = {
        float(n): [1 - error(n) * (1 + 0.04 * generator.standard_normal()) for _ in range(5)]
        for n in (500, 1000, 2000, 4000)
    }
    return scores, 1 - error(8000) * (1 + 0.04 * generator.standard_normal() / 5**0.5), 1 - floor
