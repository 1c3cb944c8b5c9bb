"""A simulated trainer: losses, scores and step times follow from the parameters by formula. Nothing is trained.

Run as `python -m tests.unit.search.fake REQUEST_JSON [SECONDS_A_TRIAL]` it is a search process of its own.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kcost.core.artifact import Artifact, Score
from kcost.core.errors import InputError
from kcost.core.plan import CellSpec
from kcost.core.request import TrainAnswer, TrainRequest
from kcost.core.result import CellResult, Round
from kcost.search import SearchRequest, search
from kcost.search.prediction import Machine, Measured
from kcost.search.result import SearchResult
from testing.runs import preparation


def request(out: Path, **changes: Any) -> SearchRequest:
    """A search of the simulated cnn on a simulated backend."""
    fields: dict[str, Any] = {"family": "cnn", "data": "simulated", "out": out, "backend": "fake", "trials": 6}
    return SearchRequest(**{**fields, **changes})


def run(search_request: SearchRequest, **parts: Any) -> SearchResult:
    """The search with the simulated trainer, other parts where given."""
    return search(search_request, **{"run_trial": train, "measure_cells": measure, **parts})


def badness(train_request: TrainRequest) -> float:
    """0 for the best learning rate; `seed` is a little worse than `small`."""
    assert train_request.learning_rate is not None
    return abs(math.log10(train_request.learning_rate) + 3) + (0.2 if train_request.size == "seed" else 0.0)


def train(search_: SearchRequest, train_request: TrainRequest) -> TrainAnswer:
    """Answers as the train job does."""
    losses: list[float] = []
    pruned = False
    for epoch in range(1, train_request.epochs + 1):
        losses.append((0.2 + badness(train_request)) / epoch)
        if losses[-1] > (train_request.prune_above or {}).get(epoch, math.inf):
            pruned = True
            break
    train_request.out.mkdir(parents=True)
    (train_request.out / "size").write_text(str(train_request.size))
    right = round(400 * (1 - 0.2 * badness(train_request)))
    score = {"name": "accuracy", "value": right / 400, "low": right / 400 - 0.03, "high": min(1.0, right / 400 + 0.03)}
    return TrainAnswer(
        artifact=Artifact.model_validate(artifact(train_request.name)),
        history=tuple({"val_loss": loss} for loss in losses),
        validation_scores=(Score.model_validate({**score, "split": "validation", "count": 400, "unit": "examples"}),),
        pruned=pruned,
    )


def artifact(name: str) -> dict[str, Any]:
    """`artifact.json` of a model that was never trained."""
    splits = {"train": {"count": 1000, "sha256": "0"}}
    dataset = {"name": "simulated", "synthetic": True, "source": "none", "licence": "none", "splits": splits}
    return {
        "name": name, "task": "image-classification", "family": "cnn", "model_sha256": "0" * 64, "parameters": 1,
        "inputs": [], "outputs": [], "dataset": dataset, "created_at": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip


def measure(
    search_: SearchRequest, machine: Machine, models: Sequence[Measured], folder: Path, slowness: float = 1.0
) -> list[CellResult]:
    """Simulated rounds: `small` takes three times as long as `seed`. A busy machine has a slowness above 1."""
    return [cell_of(search_, machine, measured, slowness) for measured in models]


def cell_of(search_: SearchRequest, machine: Machine, measured: Measured, slowness: float) -> CellResult:
    """The simulated cell of one model."""
    inference = search_.objective == "inference"
    spec = CellSpec(
        model=measured.model.parent.name,
        model_sha256="0" * 64,
        backend="fake",
        device="cpu",
        precision="float32",
        batch=measured.batch,
        phase="inference" if inference else "training",
        method="eager" if inference else "train_on_batch",
        threads=0,
    )
    factor = 3 if (measured.model / "size").read_text() == "small" else 1
    step_ns = round(1_000_000 * factor * measured.batch * slowness)
    rounds = tuple(Round(session="s", number=n, step_ns=(step_ns + n, step_ns, step_ns - n)) for n in range(5))
    return CellResult(
        spec=spec,
        environment_id=machine.environment.environment_id,
        status="ok",
        preparation=preparation(spec),
        rounds=rounds,
    )


def fail_every(n: int) -> Any:
    """A trainer that fails on every n-th trial."""

    def failing(search_: SearchRequest, train_request: TrainRequest) -> TrainAnswer:
        if int(train_request.out.parent.name) % n == n - 1:
            raise InputError("Training keeps a finite loss.", received="nan")
        return train(search_, train_request)

    return failing


def main(document: str, seconds: float) -> None:
    """A search whose trials take `seconds` each; prints the number of each trial that it finishes."""

    def slow(search_: SearchRequest, train_request: TrainRequest) -> TrainAnswer:
        time.sleep(seconds)
        answer = train(search_, train_request)
        print(train_request.out.parent.name, flush=True)  # noqa: T201 -- read by the test that started this process
        return answer

    run(SearchRequest.model_validate_json(document), run_trial=slow)


if __name__ == "__main__":
    from kcost.search import storage

    storage.HEARTBEAT_S, storage.GRACE_S = 1, 3
    main(sys.argv[1], float(sys.argv[2]))
