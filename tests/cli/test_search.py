"""A search end to end: two trials of a real model on real data, on one backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcost.core.artifact import open_model
from kcost.core.process import installed
from kcost.report.search_terminal import summary
from kcost.search import SearchRequest, search

pytestmark = pytest.mark.skipif(not installed("jax"), reason="needs jax: pip install 'kcost[jax]'")


@pytest.mark.slow
def test_two_trials_on_digits(tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    request = SearchRequest(
        family="cnn",
        data="digits",
        out=tmp_path / "out",
        backend="jax",
        trials=2,
        settings={"epochs": 2, "limit": 300, "size": "seed"},
    )
    result = search(request, lambda done, total, text: progress.append((done, total)))
    first, second = result.trials
    assert (first.state, second.state) == ("complete", "complete"), result.trials
    assert first.params != second.params
    assert first.params["learning_rate"] == 1e-3
    for trial in (first, second):
        assert trial.score is not None
        assert (trial.score.split, trial.score.name) == ("validation", "accuracy")
        assert trial.score.low <= trial.score.value <= trial.score.high
        assert trial.predicted is not None
        assert trial.predicted.unit == "million predictions"
        assert trial.predicted.basis in ("measured here", "projected")
        assert trial.predicted.low <= trial.predicted.usd
        assert trial.measured_as == "inference jax/jit float32 cpu batch 32, 8 rounds"
        model = open_model(Path(str(trial.artifact)))
        assert model.artifact is not None
        assert [s.split for s in model.artifact.scores] == ["test"]
        assert model.artifact.steps[-1].settings["batch_size"] == trial.params["batch_size"]
    assert first.predicted == second.predicted, "one architecture, one measurement"
    assert progress[-1] == (2, 2)
    assert any("basis" in sentence for sentence in summary(result))
    assert search(request) == result, "a study that is done is only read"
