"""The demo with its steps replaced: what is recommended, and what it prints. `make demo` runs the steps."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kcost.api.demo import LIMITS, MODELS, DemoReport, run_demo
from kcost.cli.answers import show_demo
from kcost.core.artifact import Artifact, Score, TensorSpec
from kcost.core.errors import StorageError
from kcost.recommend.answer import Recommendation
from kcost.ship.export_report import ExportReport
from tests.unit.recommend.answers import answer

TENSOR = TensorSpec(name="x", shape=(None,), dtype="float32")


def trained(*, out: Path, name: str, **settings: Any) -> Artifact:
    score = Score(name="accuracy", value=0.9, low=0.8, high=0.95, count=360, unit="examples", split="test")
    return Artifact(
        name=name, task="image-classification", family="cnn", model_sha256="0", parameters=1, inputs=(TENSOR,),
        outputs=(TENSOR,), created_at="2026-01-01", scores=(score,),
    )  # fmt: skip


def exported(source: Path, out: Path, *, name: str) -> ExportReport:
    return ExportReport(
        name=name, version=1, model=name, model_sha256="0", inputs=(TENSOR,), outputs=(TENSOR,), checks=(),
        weights_bytes=1, keras_version="3", tensorflow_version="2", library_version="2", serving_image="i", files={},
        created_at="2026-01-01",
    )  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, dict[str, Any]]]:
    """What was recommended, with the settings."""
    seen: list[tuple[Path, dict[str, Any]]] = []

    def recommended(model: Path, **settings: Any) -> Recommendation:
        seen.append((model, settings))
        return answer()

    monkeypatch.setattr("kcost.api.demo.train", trained)
    monkeypatch.setattr("kcost.api.demo.run_recommend", recommended)
    monkeypatch.setattr("kcost.api.demo.export", exported)
    return seen


def printed(report: DemoReport, **settings: Any) -> str:
    file = StringIO()
    show_demo(Console(file=file, width=120), report, **settings)
    return file.getvalue()


def test_each_model_is_recommended_with_its_versions_within_minutes(calls: Any, tmp_path: Path) -> None:
    report = run_demo(tmp_path / "demo")
    assert [model.name for model, _ in calls] == [m["name"] for m in MODELS] == ["digits-cnn", "ner-mini-bert"]
    assert [model.parent for model, _ in calls] == [tmp_path / "demo" / "models"] * 2
    for (_, settings), artifact in zip(calls, report.artifacts, strict=True):
        assert settings["out"] == report.folder(artifact)
        assert settings.items() >= LIMITS.items()
        assert settings.get("variants", True)  # pruned, and in int8
    assert sum(settings["minutes"] for _, settings in calls) <= 4  # training and exporting take the rest of six
    assert [e.name for e in report.exports] == ["digits-cnn", "ner-mini-bert"]


def test_it_ends_in_its_verdicts_on_one_screen(calls: Any, tmp_path: Path) -> None:
    report = run_demo(tmp_path / "demo")
    text = printed(report)
    assert text.count("Run m as jit.") == text.count("It saves $1.") == 2
    assert text.index("digits-cnn: accuracy 0.9000") < text.index("ner-mini-bert: accuracy 0.9000")
    assert "verdict/ner-mini-bert/verdict.html" in text.replace("\n", "")
    assert len(text.splitlines()) <= 40
    assert "a month" in printed(report, everything=True)


def test_a_folder_that_holds_something_is_not_written_to(calls: Any, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("mine")
    with pytest.raises(StorageError):
        run_demo(tmp_path / "demo")
    assert not calls
