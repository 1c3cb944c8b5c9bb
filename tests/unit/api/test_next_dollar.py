"""From artifact folders to the next dollar, by the API, by the command line and as a page; and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import kcost
from kcost.cli import app
from kcost.core.errors import ArtifactError, InputError
from kcost.cost.next_dollar import NextDollar
from tests.unit.report.browser import CHROMIUM, rendered
from tests.unit.report.pages import Tags

MODEL = Path(__file__).parents[3] / "docs" / "runs" / "model"


def artifact(folder: Path, score: float, *, labels: int = 1438, **settings: Any) -> Path:
    """The artifact of the documentation with another score and other settings; `parameters` and `usd` too."""
    folder.mkdir(parents=True)
    shutil.copy(MODEL / "model.keras", folder / "model.keras")
    about = json.loads((MODEL / "artifact.json").read_text())
    about["scores"][0]["value"] = score
    about["parameters"] = settings.pop("parameters", about["parameters"])
    about["dataset"]["splits"]["train"]["count"] = labels - 144
    (step,) = about["steps"]
    step["cost"]["usd"] = settings.pop("usd", 0.001)
    step["settings"].update({"epochs": 20, "most_epochs": 20, **settings})
    (folder / "artifact.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What there is first; then fewer labels, more epochs, a bigger model and a student, two seeds each."""
    root = tmp_path_factory.mktemp("artifacts")
    made = []
    for seed in (0, 1):
        jitter = 0.001 * seed
        for labels, score in ((1438, 0.950), (1000, 0.940), (700, 0.928), (400, 0.90)):
            made.append(artifact(root / f"{labels}-{seed}", score + jitter, labels=labels, seed=seed))
        made.append(artifact(root / f"longer-{seed}", 0.951 + jitter, seed=seed, most_epochs=40, epochs=33))
        made.append(
            artifact(root / f"small-{seed}", 0.97 + jitter, seed=seed, size="small", parameters=90_000, usd=0.1)
        )
        taught = {"teacher": "small", "teacher_parameters": 90_000, "teacher_usd": 0.1, "teacher_sha256": "0" * 64}
        made.append(artifact(root / f"student-{seed}", 0.965 + jitter, seed=seed, distill=0.5, **taught))
    return made


def test_artifacts_say_which_way_is_the_cheapest(folders: list[Path]) -> None:
    answer = kcost.next_dollar(folders, usd_per_label=0.05)
    standings = {r.kind: r.standing for r in answer.routes}
    assert standings["more labels"] == standings["bigger model"] == standings["distilling"] == "priced"
    assert (answer.labels, answer.model, answer.score_name) == (1438, "1438-0", "accuracy")
    assert answer.score == pytest.approx(0.9505)
    assert answer.cheapest is not None
    assert answer.probability is not None
    assert {r.kind: r.models for r in answer.routes}["distilling"] == 4
    assert {r.kind: r.models for r in answer.routes}["more labels"] == 8
    assert any("test split of digits" in note for note in answer.notes)


def test_the_command_tells_the_answer_first_on_one_screen(folders: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "next.html"
    arguments = ["next-dollar", *map(str, folders), "--usd-per-label", "0.05"]
    outcome = CliRunner().invoke(app, [*arguments, "--html", str(page)])
    assert outcome.exit_code == 0, outcome.output
    answer = kcost.next_dollar(folders, usd_per_label=0.05)
    shown = " ".join(outcome.stdout.split())
    assert shown.startswith(" ".join(answer.sentence.split()))
    assert len(outcome.stdout.splitlines()) <= 40
    assert "learning curve" in page.read_text()
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert NextDollar.model_validate(json.loads(as_json.stdout)) == answer
    assert CliRunner().invoke(app, [*arguments, "--qps", "3"]).exit_code == 2


def test_a_label_by_the_hour_takes_its_seconds(folders: list[Path]) -> None:
    answer = kcost.next_dollar(folders, annotator_usd_per_hour=18, label_seconds=10)
    assert answer.usd_per_label == pytest.approx(2 * 10 / 3600 * 18)
    assert "as given" in answer.usd_per_label_source


def test_one_model_says_what_would_help(folders: list[Path]) -> None:
    answer = kcost.next_dollar(folders[:1], usd_per_label=0.05)
    assert answer.outcome == "no way"
    assert all(r.would_help for r in answer.routes)
    assert "--labels 719, 359, 179" in answer.sentence
    labels = next(r for r in answer.routes if r.kind == "more labels")
    assert labels.because == (
        "A learning curve is fitted to three sizes and four scores at least; received: 1 size, 1 score"
    )


def test_a_measured_run_prices_serving(folders: list[Path]) -> None:
    """All folders hold one model file, which the run of the documentation measured: no more for the bigger one."""
    run = Path(__file__).parents[3] / "docs" / "runs" / "digits-cnn"
    answer = kcost.next_dollar(folders, usd_per_label=0.05, run=run, qps=100)
    bigger = next(r for r in answer.routes if r.kind == "bigger model")
    assert bigger.leaves_out is None
    assert bigger.usd is not None
    assert bigger.usd.value == pytest.approx(0.1)
    assert "14 of 14 models" in answer.notes[-3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"artifacts": []}, "Name artifact folders"),
        ({"usd_per_label": -1}, "usd_per_label = -1"),
        ({"usd_per_label": 1, "annotator_usd_per_hour": 3}, "one price"),
        ({"annotator_usd_per_hour": 3}, "--label-seconds"),
        ({"gain": 0}, "above 0"),
        ({"gain": 2}, "below 1"),
        ({"run": "nowhere"}, "--qps"),
    ],
)
def test_bad_input_is_refused_by_name(folders: list[Path], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        kcost.next_dollar(**{"artifacts": folders, **changes})
    assert caught.value.exit_code == 2


def test_other_tests_and_changed_models_are_refused(folders: list[Path], tmp_path: Path) -> None:
    other = artifact(tmp_path / "other", 0.9)
    about = json.loads((other / "artifact.json").read_text())
    about["dataset"]["splits"]["test"]["sha256"] = "f" * 64
    (other / "artifact.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"same test examples(.|\n)*--labels N"):
        kcost.next_dollar([folders[0], other])
    about = json.loads((folders[0] / "artifact.json").read_text())
    about["steps"].append({**about["steps"][0], "kind": "quantize"})
    (other / "artifact.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="came by train, quantize"):
        kcost.next_dollar([folders[0], other])
    with pytest.raises(InputError, match=r"a bare \.keras file"):
        kcost.next_dollar([MODEL / "model.keras"])
    with pytest.raises(ArtifactError, match="not there"):
        kcost.next_dollar([tmp_path / "nowhere"])


def test_the_page_loads_nothing(folders: list[Path], tmp_path: Path) -> None:
    answer = kcost.next_dollar(folders, usd_per_label=0.05)
    kcost.write_next_dollar_page(answer.model_copy(update={"model": "<script>alert(1)</script>"}), tmp_path / "n.html")
    text = (tmp_path / "n.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.loads == []
    assert "<script>alert(1)" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; on Debian: apt-get install chromium")
def test_a_browser_draws_the_learning_curve(folders: list[Path], tmp_path: Path) -> None:
    answer = kcost.next_dollar(folders, usd_per_label=0.05)
    kcost.write_next_dollar_page(answer, tmp_path / "n.html")
    document = rendered((tmp_path / "n.html").read_bytes(), tmp_path)
    body = re.search(r"<body[^>]*>", document)
    assert body is not None
    assert 'data-drawn="1"' in body.group(), body.group()
    assert answer.sentence in unescape(document)
    plot = document.split('id="plot-0"')[1].split('class="note"')[0]
    assert plot.count('class="trace scatter') == 4
