"""A test for drift that may be looked at after every window, for ever, without more false alarms.

Each live row gets a conformal p-value: the share of the rows seen so far, the reference among them, that lie below it,
with ties broken by chance. As long as live rows are exchangeable with the reference, these p-values are independent
and uniform, whatever the distribution and however small the reference. A bettor bets that they are not: its capital is
a martingale that starts at 1, so that it ever reaches 1/a with a probability of at most a (Ville's inequality).

A bettor that has lost for a thousand windows is too poor to see a change now. So half of the capital bets from the
first window on, and the other half is kept for bettors that start later and bet for 1, 2, 4, 8, ... windows: a change
at window s costs a factor of about s squared, not all that was lost before.

Sources: Vovk, V., Gammerman, A. and Shafer, G. (2005), Algorithmic Learning in a Random World, chapter 7, and Vovk, V.
(2021), Testing randomness online, for conformal test martingales. Ville, J. (1939), for the inequality. Krichevsky, R.
and Trofimov, V. (1981), for betting with a Dirichlet mixture. Daniely, A., Gonen, A. and Shalev-Shwartz, S. (2015),
Strongly adaptive online learning, for the intervals. Wang, R. and Ramdas, A. (2022), False discovery rate control with
e-values, for what many features may share.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln

P_BINS = 20
"""Bins of p-values that are bet on."""

_CONCENTRATIONS = np.array([0.5, 5.0, 50.0, 500.0])
"""Of the Dirichlet mixtures, by bin: from p-values that may go anywhere to such that hardly leave the uniform."""


def conformal_p_values(bag: np.ndarray, codes: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """P-values of rows that come one after the other, each against those before it: shape (n,), in 0 to 1.

    Args:
        bag: counts by bin of all that came before, shape (bins,), in the order of the bins.
        codes: the bin of each row, shape (n,), integers in 0 to bins - 1.
        uniforms: of [0, 1), independent, shape (n,): they break ties.

    Examples:
        >>> conformal_p_values(np.array([10, 0]), np.array([1]), np.array([0.5])).round(3).tolist()
        [0.955]
    """
    places = np.arange(len(codes))
    one_hot = np.zeros((len(codes) + 1, len(bag)))
    one_hot[places + 1, codes] = 1
    before = bag + one_hot.cumsum(0)[:-1]
    equal = before[places, codes]
    below = before.cumsum(1)[places, codes] - equal
    p_values: np.ndarray = (below + uniforms * (equal + 1)) / (before.sum(1) + 1)
    return p_values


def log_capital(counts: np.ndarray) -> np.ndarray:
    """Natural logarithm of what a Dirichlet mixture makes of 1 by betting on p-values against the uniform.

    Args:
        counts: of p-values by equal bin, shape (..., bins).

    Returns:
        Shape (...), float64.

    Examples:
        >>> float(log_capital(np.zeros(4)))
        0.0
        >>> bool(log_capital(np.array([100, 0, 0, 0])) > 100)
        True
    """
    bins, n = counts.shape[-1], counts.sum(-1)[..., None]
    likelihood = (gammaln(_CONCENTRATIONS[:, None] + counts[..., None, :]) - gammaln(_CONCENTRATIONS)[:, None]).sum(-1)
    whole = _CONCENTRATIONS * bins
    logs: np.ndarray = gammaln(whole) - gammaln(whole + n) + likelihood + n * math.log(bins)
    return _log_sum(logs) - math.log(len(_CONCENTRATIONS))


class DriftTest:
    """The capital of bettors against one feature. A window is added whole; looking costs nothing.

    Args:
        reference: counts by bin, shape (bins,). A bin may be empty.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> test = DriftTest(np.array([500, 500]))
        >>> for _ in range(5):
        ...     test.add(rng.integers(0, 2, 200), rng.random(200))
        >>> test.p_value > 0.01
        True
        >>> test.add(np.ones(200, int), rng.random(200))
        >>> test.p_value < 1e-6
        True
    """

    def __init__(self, reference: np.ndarray) -> None:
        self._bag = reference.astype(np.float64)
        self._counts = np.zeros((1, P_BINS))
        """P-values of each bettor that is at it, by bin; the first began with the first window."""
        self._begins = np.array([math.log(0.5)])
        """Logarithm of the capital that each began with."""
        self._lasts = np.array([math.inf])
        """The last window of each."""
        self._ended = -math.inf
        """Logarithm of the capital of bettors that are through, which is kept."""
        self._log_largest = 0.0
        self.windows = 0
        self.log_wealth = 0.0

    @property
    def p_value(self) -> float:
        """At most this often is there ever so much capital where nothing drifts: valid at any time, and for all."""
        return math.exp(-self._log_largest)

    def add(self, codes: np.ndarray, uniforms: np.ndarray) -> None:
        """One more window: the bin of each row in the order in which they came, and a uniform number for each."""
        self.windows += 1
        now = self.windows
        p_values = conformal_p_values(self._bag, codes, uniforms)
        self._bag = self._bag + np.bincount(codes, minlength=len(self._bag))
        places = np.minimum((p_values * P_BINS).astype(np.int64), P_BINS - 1)
        counts = np.bincount(places, minlength=P_BINS).astype(np.float64)
        levels = (now & -now).bit_length()  # one bettor for each power of two that divides the window's number
        begin = math.log(0.5 / (now * (now + 1) * levels))
        self._begins = np.append(self._begins, np.full(levels, begin))
        self._lasts = np.append(self._lasts, now + 2.0 ** np.arange(levels) - 1)
        self._counts = np.concatenate([self._counts, np.zeros((levels, P_BINS))]) + counts
        logs = self._begins + log_capital(self._counts)
        # Half of 1 is for later bettors; 1/(1 x 2) + ... + 1/(n (n + 1)) = 1 - 1/(n + 1) of it has been given out.
        kept = math.log(0.5 / (now + 1))
        self.log_wealth = float(_log_sum(np.array([kept, self._ended, *logs])))
        stay = self._lasts > now
        self._ended = float(_log_sum(np.array([self._ended, *logs[~stay]])))
        self._begins, self._lasts, self._counts = self._begins[stay], self._lasts[stay], self._counts[stay]
        self._log_largest = max(self._log_largest, self.log_wealth)


def corrected(p_value: float, features: int) -> float:
    """The p-value of one of many features that are looked at: Bonferroni's, which holds whatever they depend on."""
    return min(1.0, p_value * features)


def _log_sum(logs: np.ndarray) -> np.ndarray:
    """Logarithm of the sum along the last axis; of nothing but minus infinity it is that."""
    largest = np.max(logs, -1)
    shift = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        log_sums: np.ndarray = shift + np.log(np.exp(logs - shift[..., None]).sum(-1))
    return log_sums
