"""Training with another model's answers, and with fewer labels, through the job that `kcost train` starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kcost.core.artifact import Artifact
from kcost.core.errors import InputError
from kcost.worker.train import run
from tests.contract.trainings import train_request


def trained(folder: Path, **changes: Any) -> Artifact:
    return run(train_request(out=folder, epochs=1, labels=60, **changes)).artifact


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers") / "teacher"
    trained(folder, size="small")
    return folder


def test_a_student_learns_from_a_teacher_and_its_artifact_says_which(teacher: Path, tmp_path: Path) -> None:
    alone, taught = trained(tmp_path / "alone"), trained(tmp_path / "taught", teacher=teacher, distill=0.9)
    assert alone.training is not None
    assert taught.training is not None
    assert taught.model_sha256 != alone.model_sha256
    settings = taught.training.settings
    assert settings["teacher_parameters"] > (taught.parameters or 0)
    assert settings["teacher_usd"] > 0
    assert len(settings["teacher_sha256"]) == 64
    assert "teacher_sha256" not in alone.training.settings
    assert alone.dataset is not None
    assert {name: split.count for name, split in alone.dataset.splits.items()} == {
        "train": 54, "validation": 6, "test": 359,
    }  # fmt: skip


@pytest.mark.slow
def test_a_student_of_texts_reads_with_its_teachers_vocabulary(tmp_path: Path) -> None:
    texts: dict[str, Any] = {"family": "bert", "data": "ner-mini", "max_length": 32}
    trained(tmp_path / "teacher", vocabulary_size=250, **texts)
    trained(tmp_path / "student", vocabulary_size=400, teacher=tmp_path / "teacher", distill=0.5, **texts)
    words = [(tmp_path / name / "vocab.txt").read_text() for name in ("teacher", "student")]
    assert words[0] == words[1]


def test_a_teacher_of_other_data_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="A teacher answers on the student's data"):
        trained(tmp_path / "a", family="bert", data="ner-mini", teacher=teacher, distill=0.5)
    with pytest.raises(InputError, match="artifact folder, which says"):
        trained(tmp_path / "b", teacher=teacher / "model.keras", distill=0.5)
