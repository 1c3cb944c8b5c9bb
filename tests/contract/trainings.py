"""Short trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from kcost.core.request import TrainRequest
from kcost.models.bert import backbone, token_classifier
from kcost.training.checkpoint import Checkpoint
from kcost.training.fit import TrainingReport, fit
from kcost.training.tasks import TokenClassification


def train_request(**changes: Any) -> TrainRequest:
    values = {
        "family": "cnn",
        "data": "digits",
        "out": "unused",
        "name": "m",
        "usd_per_hour": 0.1,
        "usd_basis": "a test",
    }
    return TrainRequest.model_validate({**values, "epochs": 2, **changes})


def tagger(task: TokenClassification, **keywords: Any) -> keras.Model:
    return token_classifier(backbone(len(task.pieces.vocab), "tiny", **keywords), len(task.label_names))


def train(model: keras.Model, task: Any, tmp_path: Path, **changes: Any) -> TrainingReport:
    request = train_request(**changes)
    return fit(model, task, request, request.learning_rate or 1e-3, Checkpoint(tmp_path / "state", request))
