"""What has to be so before a spread between seeds is taken, and before a temperature is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kcost.api.risk_predictions import folder_of, refuse_other_settings, temperature_of
from kcost.core import schema
from kcost.core.answer import Answer
from kcost.core.artifact import Artifact, Dataset, Model, Split, Step, open_model, sha256_of
from kcost.core.errors import InputError
from kcost.risk.report import Surroundings, assess
from tests.unit.risk.reports import EVIDENCE, predictions

SETTINGS = {"epochs": 5, "batch_size": 32, "seed": 0, "name": "m"}
ANSWER = Answer(output="y", kind="multiclass", logits=True, because="a test")


def artifact(folder: Path, *, train: int = 9, kind: str = "train", **settings: Any) -> Model:
    folder.mkdir()
    (folder / "model.keras").write_text(folder.name)
    splits = {"train": Split(count=train, sha256=folder.name), "test": Split(count=9, sha256="t")}
    index = Artifact(
        name="m",
        task="image-classification",
        family="cnn",
        model_sha256=sha256_of(folder / "model.keras"),
        parameters=1,
        inputs=(),
        outputs=(),
        dataset=Dataset(name="d", synthetic=False, source="s", licence="MIT", splits=splits),
        steps=(Step(kind=kind, backend="torch", backend_version="2", settings={**SETTINGS, **settings}),),  # type: ignore[arg-type]
        created_at="2026-01-01T00:00:00Z",
    )
    schema.write(folder / "artifact.json", index)
    return open_model(folder)


def test_trainings_that_differ_in_their_seed_alone_go_together(tmp_path: Path) -> None:
    first = artifact(tmp_path / "a")
    artifact(tmp_path / "b", seed=1, epochs=3, name="again")
    artifact(tmp_path / "c", seed=2)
    trained = refuse_other_settings(first, [tmp_path / "b", tmp_path / "c"])
    assert [one.seed for one in trained] == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1, "batch_size": 64}, "batch_size 64, m with 32"),
        ({"seed": 1, "train": 8}, r"the data d \(8 train, 9 test\)"),
        ({"seed": 0}, "with the seed 0 again"),
        ({"kind": "import"}, "other.*model.keras"),
    ],
)
def test_others_are_refused_by_what_differs(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    first = artifact(tmp_path / "a")
    artifact(tmp_path / "other", **changes)
    with pytest.raises(InputError, match=words):
        refuse_other_settings(first, [tmp_path / "other"])


def test_a_bare_file_has_no_seed(tmp_path: Path) -> None:
    first = artifact(tmp_path / "a")
    (tmp_path / "m.keras").write_text("{}")
    with pytest.raises(InputError, match="artifact folder that kcost train made"):
        refuse_other_settings(first, [tmp_path / "m.keras"])


def written(model: Model, *, answer: Answer | None = ANSWER, temperature: float = 2.0, **evidence: str) -> None:
    made = predictions(temperature=temperature)
    header = made.header.model_copy(update={"answer": answer, "place": 1})
    about = EVIDENCE.model_copy(update={"model_sha256": model.sha256, **evidence})
    report = assess(type(made)(header, made.splits, made.sha256), about, Surroundings())
    schema.write(folder_of(model) / "risk.json", report)


def test_the_temperature_is_that_of_the_report_of_this_very_model(tmp_path: Path) -> None:
    model = artifact(tmp_path / "a")
    with pytest.raises(InputError, match="Make one first with kcost risk"):
        temperature_of(model)
    folder_of(model).mkdir()
    written(model)
    temperature = temperature_of(model)
    assert temperature.value == pytest.approx(2.0, rel=0.1)
    assert (temperature.place, temperature.kind, temperature.logits) == (1, "multiclass", True)
    assert temperature_of(model, folder_of(model)) == temperature
    written(model, model_sha256="9" * 64)
    with pytest.raises(InputError, match="of the very model"):
        temperature_of(model)
    written(model, answer=None)
    with pytest.raises(InputError, match="Make the report again"):
        temperature_of(model)


def test_a_temperature_that_is_none_is_refused(tmp_path: Path) -> None:
    model = artifact(tmp_path / "a")
    folder_of(model).mkdir()
    written(model)
    path = folder_of(model) / "risk.json"
    path.write_text(path.read_text().replace('"no_optimum": false', '"no_optimum": true'))
    with pytest.raises(InputError, match="Leave --calibrated out"):
        temperature_of(model)
