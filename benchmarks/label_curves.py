"""Trains kcost's own small models with fewer and with all labels of real data sets, once for each seed, and keeps what
they scored. It goes on where it stopped: each training is an artifact folder of its own.

All trainings run in this process, by the job that `kcost train` starts a worker for, on the backend of KERAS_BACKEND.
Scores do not depend on how busy the machine is.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

from kcost.core.artifact import Artifact, open_model
from kcost.core.request import TrainRequest
from kcost.cost.learning_curve import fit_curve

SEEDS = range(5)


class Curve(NamedTuple):
    """The trainings on one data set."""

    data: str
    family: Any
    settings: dict[str, Any]
    labels: tuple[int, ...]
    """At most half of all."""
    all_labels: int
    score: str


CURVES = (
    Curve(
        "mnist", "cnn", {"size": "seed", "epochs": 3, "batch_size": 128},
        (3_750, 7_500, 15_000, 30_000), 60_000, "accuracy",
    ),
    Curve(
        "btc", "bert", {"size": "tiny", "epochs": 3, "max_length": 64},
        (917, 1_468, 2_304, 3_669), 7_338, "entity_f1",
    ),
)  # fmt: skip


def train_curves(out: Path, minutes: float) -> bool:
    """Makes the artifacts that are not there yet, the smallest first. False where the minutes ended before all were
    there: no training begins after them."""
    from kcost.worker.train import run

    end = time.monotonic() + 60 * minutes
    for labels_at in range(max(len(c.labels) for c in CURVES) + 1):
        for curve in CURVES:
            sizes = (*curve.labels, curve.all_labels)
            if labels_at >= len(sizes):
                continue
            for seed in SEEDS:
                folder = out / curve.data / f"{sizes[labels_at]}-{seed}"
                if folder.exists():
                    continue
                if time.monotonic() > end:
                    return False
                request = TrainRequest(
                    family=curve.family, data=curve.data, out=folder, name=folder.name, seed=seed,
                    labels=sizes[labels_at], usd_per_hour=0.1, usd_basis="not told", **curve.settings,
                )  # fmt: skip
                made = run(request).artifact
                print(f"{curve.data}, {sizes[labels_at]:,} labels, seed {seed}: {_score(made, curve):.4f}", flush=True)
    return True


def tell_curves(out: Path) -> None:
    """For each data set: what at most half of the labels predict for all of them, and what all of them gave."""
    held = cases = 0
    for curve in CURVES:
        by_size = {n: [s for seed in SEEDS if (s := _stored(out, curve, n, seed)) is not None] for n in curve.labels}
        whole = [s for seed in SEEDS if (s := _stored(out, curve, curve.all_labels, seed)) is not None]
        for labels, scores in [*by_size.items(), (curve.all_labels, whole)]:
            print(f"{curve.data}, {labels:,} labels: {', '.join(f'{s:.4f}' for s in scores)}")
        if len(whole) < len(SEEDS) or any(len(scores) < len(SEEDS) for scores in by_size.values()):
            print(f"{curve.data}: not all trainings are there; the same command goes on")
            continue
        fitted = fit_curve({float(n): scores for n, scores in by_size.items()}, seed=1)
        forecast = fitted.at(curve.all_labels)
        inside = sum(forecast.low <= score <= forecast.high for score in whole)
        print(
            f"{curve.data}: {curve.score} at {curve.all_labels:,} labels predicted {forecast.score:.4f} "
            f"({forecast.low:.4f} to {forecast.high:.4f}, 90%); {inside} of {len(whole)} seeds inside"
        )
        held, cases = held + inside, cases + len(whole)
    print(f"{held} of {cases} inside the 90% interval")


def _stored(out: Path, curve: Curve, labels: int, seed: int) -> float | None:
    folder = out / curve.data / f"{labels}-{seed}"
    about = open_model(folder).artifact if folder.exists() else None
    return None if about is None else _score(about, curve)


def _score(about: Artifact, curve: Curve) -> float:
    (value,) = (s.value for s in about.scores if s.name == curve.score and s.split == "test")
    return value
