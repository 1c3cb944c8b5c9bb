"""How far a window of live traffic lies from a stored reference: sizes of the difference, not tests of it.

A size says whether a drift matters; `kcost.risk.drift_test` says whether there is one.
"""

from __future__ import annotations

import math

import numpy as np

SMOOTHING = 0.5
"""Added to each count before logarithms, as Jeffreys' prior has it: an empty bin is rare, not impossible."""


def population_stability(reference: np.ndarray, window: np.ndarray) -> float:
    """The population stability index of two histograms: the sum of (q - p) ln(q / p) over bins.

    It is 0 where shares are equal and has no upper bound; it is Jeffreys' symmetric divergence.

    Source: Siddiqi, N. (2006), Credit Risk Scorecards, chapter 9.

    Args:
        reference, window: counts by bin, shape (bins,).

    Examples:
        >>> round(population_stability(np.array([5000, 5000]), np.array([5000, 5000])), 6)
        0.0
        >>> round(population_stability(np.array([5000, 5000]), np.array([2500, 7500])), 2)
        0.27
    """
    p, q = _shares(reference), _shares(window)
    return float(((q - p) * np.log(q / p)).sum())


def stability_by_chance(reference: np.ndarray, window: np.ndarray) -> float:
    """What the index is on average where both histograms are of one distribution: (bins - 1) (1/m + 1/n).

    Source: Yurdakul, B. (2018), Statistical properties of population stability index, Western Michigan University.

    Args:
        reference, window: counts by bin, shape (bins,); bins that are empty in both count for nothing.
    """
    m, n = reference.sum(), window.sum()
    if not m or not n:
        return math.inf
    filled = int(((reference + window) > 0).sum())
    return max(0, filled - 1) * (1 / float(m) + 1 / float(n))


def jensen_shannon(reference: np.ndarray, window: np.ndarray) -> float:
    """The Jensen-Shannon distance of two histograms: the root of the divergence in bits, from 0 (equal) to 1 (apart).

    Source: Lin, J. (1991), Divergence measures based on the Shannon entropy; Endres and Schindelin (2003) for the root.

    Args:
        reference, window: counts by bin, shape (bins,), neither all zero.

    Examples:
        >>> jensen_shannon(np.array([1, 0]), np.array([0, 1]))
        1.0
    """
    p, q = reference / reference.sum(), window / window.sum()
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(s > 0, s * np.log2(s / middle), 0.0).sum() for s in (p, q)]
    return math.sqrt(min(1.0, max(0.0, float(sum(terms)) / 2)))


def kolmogorov_smirnov(reference: np.ndarray, window: np.ndarray) -> float:
    """The largest difference of two empirical distribution functions, from 0 to 1.

    Args:
        reference, window: finite numbers, shapes (m,) and (n,), in any order.
    """
    from scipy import stats  # here, as it takes a second that a proxy need not wait for

    with np.errstate(divide="ignore"):  # in its p-value, which is not used
        return float(stats.ks_2samp(reference, window, method="asymp").statistic)


def wasserstein(reference: np.ndarray, window: np.ndarray) -> float:
    """How far the numbers of one have to move, on average, to become the other's: in the numbers' own unit.

    Source: Villani, C. (2009), Optimal Transport, with the distance of two numbers as the cost.

    Args:
        reference, window: finite numbers, shapes (m,) and (n,).
    """
    from scipy import stats

    return float(stats.wasserstein_distance(reference, window))


def embedding_distances(
    vectors: np.ndarray, centre: np.ndarray, components: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far vectors lie from the middle of a reference: along its main directions, and off them.

    Along: the root mean square of the coordinates, each over its standard deviation in the reference, which is the
    Mahalanobis distance in that plane over the root of its dimensions. Off: the length of the rest.

    Source: Jackson, J. E. and Mudholkar, G. S. (1979), Control procedures for residuals associated with principal
    component analysis (Hotelling's T2 and the residual Q).

    Args:
        vectors: shape (n, d), finite.
        centre: shape (d,). components: orthonormal rows, shape (k, d). spread: positive, shape (k,).

    Returns:
        Two arrays of shape (n,), float64, of at least 0.
    """
    away = vectors.astype(np.float64) - centre
    coordinates = away @ components.T
    along: np.ndarray = np.sqrt(((coordinates / spread) ** 2).mean(1))
    off: np.ndarray = np.sqrt(np.maximum((away**2).sum(1) - (coordinates**2).sum(1), 0.0))
    return along, off


def main_directions(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The middle of vectors, the directions in which they vary most, and the standard deviation along each.

    Args:
        vectors: shape (n, d), n at least 2, finite.
        count: most directions.

    Returns:
        Shapes (d,), (k, d) and (k,), float64; k may be below `count` where the vectors vary in fewer directions.
    """
    numbers = vectors.astype(np.float64)
    centre = numbers.mean(0)
    away = numbers - centre
    wide = away.shape[1] > away.shape[0]
    # The products of rows with rows have the same main values as those of columns with columns, and are fewer here.
    values, vectors_of_products = np.linalg.eigh(away @ away.T if wide else away.T @ away)
    order = np.argsort(values)[::-1][:count]
    kept = order[values[order] > 1e-9 * max(float(values.max()), 1e-300)]
    lengths = np.sqrt(values[kept])
    directions = (away.T @ vectors_of_products[:, kept]) / lengths if wide else vectors_of_products[:, kept]
    return centre, directions.T, lengths / np.sqrt(len(numbers) - 1)


def _shares(counts: np.ndarray) -> np.ndarray:
    smoothed = counts + SMOOTHING
    shares: np.ndarray = smoothed / smoothed.sum()
    return shares
