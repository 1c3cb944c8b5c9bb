"""Answers of a made-up model to changed examples, to other data and by other seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kcost.core.artifact import Dataset
from kcost.core.ood_scores import OodScores, OodScoresHeader, StoredOodScores
from kcost.core.predictions import Predictions, SplitPredictions
from kcost.risk.seeds import seeds_of

from .answers import classifier
from .reports import DATASET, predictions


def worse(answers: SplitPredictions, share: float, seed: int = 0) -> SplitPredictions:
    """The same answers, of which a share is another class."""
    rng = np.random.default_rng(seed)
    off = rng.random(len(answers.labels)) < share
    return replace(answers, predicted=np.where(off, (answers.predicted + 1) % 4, answers.predicted))


def stored(notes: tuple[str, ...] = (), **splits: SplitPredictions) -> Predictions:
    header = predictions().header.model_copy(update={"notes": notes})
    return Predictions(header, {name.replace("_", " "): split for name, split in splits.items()}, "2" * 64)


def ood_scores(own: np.ndarray, other: np.ndarray, energy: bool = True, because: str | None = None) -> StoredOodScores:
    header = OodScoresHeader(
        model="m",
        model_sha256="1" * 64,
        backend="torch",
        dataset=DATASET,
        other=Dataset(name="strange", synthetic=False, source="s", licence="MIT", splits={}),
        unit="examples",
        no_energy_because=because,
    )
    both = [OodScores(a, 10 * a if energy else None) for a in (own, other)]
    return StoredOodScores(header, *both, sha256="3" * 64)


def seeds(*shares: float, count: int = 1000) -> dict[str, SplitPredictions]:
    clean = classifier(count, 5, spread=4)
    return {f"m, seed {i}": worse(clean, share, seed=i) for i, share in enumerate(shares)}


def of(answers: dict[str, SplitPredictions]):  # type: ignore[no-untyped-def]
    return seeds_of(answers, {n: i for i, n in enumerate(answers)}, dict.fromkeys(answers, "4" * 64), "examples")
