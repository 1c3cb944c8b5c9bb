"""Cards of a made-up report."""

from __future__ import annotations

import numpy as np

from kcost.core.artifact import Artifact, RunCost, Step, TensorSpec
from kcost.risk.annex_iv import render_annex
from kcost.risk.card import Card, render_card
from kcost.risk.out_of_distribution import ood_detection
from kcost.risk.report import Surroundings
from kcost.risk.robustness import robustness

from .answers import classifier
from .changed_answers import of, ood_scores, seeds, stored, worse
from .reports import report

ARTIFACT = Artifact(
    name="m",
    task="image-classification",
    family="cnn",
    model_sha256="1" * 64,
    parameters=12345,
    inputs=(TensorSpec(name="x", shape=(None, 8, 8, 1), dtype="float32"),),
    outputs=(),
    steps=(
        Step(
            kind="train",
            backend="torch",
            backend_version="2.13",
            settings={"epochs": 3, "seed": 7, "init": None},
            cost=RunCost(
                wall_s=12.5, energy_wh=None, energy_basis="not measured", usd=1.0, usd_basis="", labelled_examples=60
            ),
        ),
    ),
    created_at="2026-11-29T06:00:00+00:00",
)


def pages() -> dict[str, Card]:
    """A card and a page of Annex IV with all that can stand in them."""
    clean = classifier(400, 0)
    around = Surroundings(
        columns={"part": np.where(np.arange(1500) % 2, "odd", "even")},
        groups=("part",),
        robustness=robustness(
            stored(("not attacked: by 3 of 4",), clean=clean, noise_5=worse(clean, 0.2), PGD=worse(clean, 0.5)),
            "clean",
            frozenset({"PGD"}),
            "c.npz",
        ),
        out_of_distribution=ood_detection(ood_scores(np.arange(9.0), np.arange(5.0), False, "no 2 softmax"), "s.npz"),
        seeds=of(seeds(0.1, 0.2)),
    )
    made = report("min_score = 0.99\nmax_p99_ms = 5.0\nusd_per_label = 0.1", around)
    return {"card": render_card(made, ARTIFACT), "annex": render_annex(made, ARTIFACT)}


PAGES = pages()
