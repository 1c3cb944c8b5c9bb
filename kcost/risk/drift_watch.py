"""Live rows against a reference, a window at a time: evidence, sizes, dollars and what labels say."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from pydantic import Field

from kcost.core.schema import Record
from kcost.risk.drift import (
    jensen_shannon,
    kolmogorov_smirnov,
    population_stability,
    stability_by_chance,
    wasserstein,
)
from kcost.risk.drift_features import CONFIDENCE
from kcost.risk.drift_reference import CategoryReference, NumberReference, Reference, Source
from kcost.risk.drift_test import DriftTest, corrected
from kcost.risk.drift_usd import DriftCost, band_counts, drift_cost

RECENT_WINDOWS = 2
"""Sizes are of the last two windows: long enough to be steady, short enough to show what is now."""

MATTERS_PSI = 0.1
"""A feature has drifted where the test is sure and its index, less what chance makes, is at least this: below 0.1
there is no change that matters (Siddiqi 2006). A test alone finds any difference in the end, however small."""

KEPT_WINDOWS = 120
"""Of the history that charts show."""


class FeatureDrift(Record):
    """One feature, live against the reference."""

    name: str
    source: Source
    kind: str
    reference: str = Field(description="of numbers the median, of names the most frequent")
    now: str
    psi: float = Field(description="population stability index of the last windows")
    psi_by_chance: float = Field(description="what it is on average where nothing drifts")
    jensen_shannon: float = Field(description="distance, 0 to 1")
    kolmogorov_smirnov: float | None = Field(description="of numbers")
    wasserstein_deviations: float | None = Field(description="of numbers, in standard deviations of the reference")
    false_alarm_probability: float = Field(description="at most; valid at any time, corrected for all features")
    since_window: int | None = Field(description="at which the test was sure; None: it is not")
    drifted: bool = Field(description="the test is sure, and the size matters now")
    psi_history: tuple[float, ...] = Field(description="of single windows, the oldest first")


class ModelDrift(Record):
    """One model's traffic against its reference."""

    model: str
    dataset: str
    split: str
    reference_rows: int
    rows: int
    windows: int
    window_rows: int
    false_alarms: float
    features: tuple[FeatureDrift, ...] = Field(description="the most surely drifted first")
    cost: DriftCost | None = Field(description="None before the first window")

    @property
    def drifted(self) -> tuple[FeatureDrift, ...]:
        """Features that have drifted."""
        return tuple(f for f in self.features if f.drifted)


class DriftWatch:
    """What is known of one model's traffic. Memory is bounded by the window and the number of features.

    Args:
        reference: of the model.
        window_rows: rows of a window.
        false_alarms: how often the test is ever wrong, over all windows and features.
        seed: of the numbers that break ties.
    """

    def __init__(self, reference: Reference, window_rows: int, false_alarms: float, seed: int = 0) -> None:
        self.reference = reference
        self.window_rows = window_rows
        self._false_alarms = false_alarms
        self._rng = np.random.default_rng(seed)
        self._features = [_Watched(f) for f in reference.features]
        self._pending: list[dict[str, np.ndarray]] = []
        self._pending_rows = 0
        self._live_bands: deque[np.ndarray] = deque(maxlen=RECENT_WINDOWS)
        self.rows = 0
        self.windows = 0

    def add(self, columns: Mapping[str, np.ndarray]) -> int:
        """Takes rows in the order in which they came; gives how many windows they made whole.

        Args:
            columns: each feature of the reference -> a value of each row, shape (n,).
        """
        taken = {f.reference.name: columns[f.reference.name] for f in self._features}
        count = len(next(iter(taken.values())))
        self._pending.append(taken)
        self._pending_rows += count
        self.rows += count
        before = self.windows
        if self._pending_rows >= self.window_rows:
            joined = {name: np.concatenate([p[name] for p in self._pending]) for name in taken}
            whole = self._pending_rows // self.window_rows * self.window_rows
            for start in range(0, whole, self.window_rows):
                self._window({name: v[start : start + self.window_rows] for name, v in joined.items()})
            self._pending = [{name: v[whole:] for name, v in joined.items()}]
            self._pending_rows -= whole
        return self.windows - before

    def _window(self, columns: dict[str, np.ndarray]) -> None:
        self.windows += 1
        for feature in self._features:
            values = columns[feature.reference.name]
            feature.add(values, self._rng.random(len(values)))
            if feature.since is None and self._probability(feature) <= self._false_alarms:
                feature.since = self.windows
        if CONFIDENCE in columns:
            confidence = np.nan_to_num(columns[CONFIDENCE].astype(np.float64), nan=0.0)
            self._live_bands.append(band_counts(self.reference.bands, confidence))

    def _probability(self, feature: _Watched) -> float:
        return corrected(feature.test.p_value, len(self._features))

    def report(self, rows_per_month: float, usd_per_error: float) -> ModelDrift:
        """What the windows so far say.

        Args:
            rows_per_month: at the rate of now, for dollars.
            usd_per_error: 0 where the price is not known.
        """
        features = [f.report(self._probability(f)) for f in self._features]
        features.sort(key=lambda f: (not f.drifted, f.since_window is None, -f.psi))
        cost = None
        if self._live_bands and self.reference.bands:
            live: np.ndarray = np.sum(self._live_bands, axis=0)
            cost = drift_cost(self.reference.bands, live, rows_per_month, usd_per_error)
        return ModelDrift(
            model=self.reference.model,
            dataset=self.reference.dataset,
            split=self.reference.split,
            reference_rows=self.reference.rows,
            rows=self.rows,
            windows=self.windows,
            window_rows=self.window_rows,
            false_alarms=self._false_alarms,
            features=tuple(features),
            cost=cost,
        )


class _Watched:
    """One feature: its test, and its last windows."""

    def __init__(self, reference: NumberReference | CategoryReference) -> None:
        self.reference = reference
        self.counts = np.array(self.reference.counts, np.float64)
        self.test = DriftTest(self.counts)
        self.since: int | None = None
        self._codes: deque[np.ndarray] = deque(maxlen=RECENT_WINDOWS)
        self._values: deque[np.ndarray] = deque(maxlen=RECENT_WINDOWS)
        self._history: deque[float] = deque(maxlen=KEPT_WINDOWS)

    def add(self, values: np.ndarray, uniforms: np.ndarray) -> None:
        codes = self.reference.codes(values)
        self.test.add(codes, uniforms)
        self._codes.append(codes)
        self._values.append(values)
        self._history.append(population_stability(self.counts, np.bincount(codes, minlength=len(self.counts))))

    def report(self, probability: float) -> FeatureDrift:
        reference = self.reference
        live = np.zeros(len(self.counts))
        if self._codes:
            live = np.bincount(np.concatenate(self._codes), minlength=len(self.counts)).astype(np.float64)
        psi = population_stability(self.counts, live) if live.any() else 0.0
        chance = stability_by_chance(self.counts, live) if live.any() else 0.0
        ks = moved = None
        now = "-"
        if isinstance(reference, NumberReference):
            before = _median_text(reference.quantiles)
            finite = np.concatenate(self._values).astype(np.float64) if self._values else np.zeros(0)
            finite = finite[np.isfinite(finite)]
            if len(finite):
                now = f"{np.median(finite):.3g}"
            if len(finite) and reference.quantiles:
                whole = np.array(reference.quantiles)
                ks = kolmogorov_smirnov(whole, finite)
                moved = wasserstein(whole, finite) / reference.deviation if reference.deviation else None
        else:
            before = _share_text(reference.names, self.counts)
            if live.any():
                now = _share_text(reference.names, live)
        return FeatureDrift(
            name=reference.name,
            source=reference.source,
            kind=reference.kind,
            reference=before,
            now=now,
            psi=psi,
            psi_by_chance=chance,
            jensen_shannon=jensen_shannon(self.counts, live) if live.any() else 0.0,
            kolmogorov_smirnov=ks,
            wasserstein_deviations=moved,
            false_alarm_probability=probability,
            since_window=self.since,
            drifted=self.since is not None and psi - chance >= MATTERS_PSI,
            psi_history=tuple(self._history),
        )


def _median_text(quantiles: tuple[float, ...]) -> str:
    return f"{np.median(quantiles):.3g}" if quantiles else "-"


def _share_text(names: tuple[str, ...], counts: np.ndarray) -> str:
    place = int(counts.argmax())
    name = names[place] if place < len(names) else "(other)"
    return f"{name} ({counts[place] / counts.sum():.0%})"
