"""From a model to a decision, through the real bench with simulated cells: what is stored, gone on from and watched."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcost
from kcost.api.recommend_after import exported
from kcost.api.recommend_data import Scored
from kcost.api.recommend_gates import answers_for_gates, split_of
from kcost.bench.store import open_run
from kcost.core import environment, schema
from kcost.core.artifact import open_model
from kcost.core.conversion import LeftOut
from kcost.core.errors import InputError, KcostError
from kcost.core.garbage_collection import collector_paused
from kcost.core.predictions import read_predictions
from kcost.core.probe import Probe
from kcost.core.process import installed
from kcost.recommend.answer import ALL_INVALID, Recommendation
from kcost.recommend.one_plan import plan_of
from kcost.risk.gates import Verdict
from kcost.serving.monitor.settings import MonitorSettings
from kcost.serving.monitor.watch import Watch
from kcost.ship.export_report import ExportReport
from tests.unit.report.browser import CHROMIUM, rendered
from tests.unit.serving.monitored import REFERENCE, put, report_of, rows_like_the_reference

TRAFFIC: dict[str, Any] = {"qps": 1000, "p99_ms": 50, "provider": "aws", "region": "us-east-1"}


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """Nothing is held to be beside the cells: a test shares its machine, and cells that sleep don't mind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kcost.cost.verdict.disturbances", lambda cell, environment: ())
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "fake.keras"
    path.write_text(json.dumps({"step_s": 0.002}))
    return path


class Told(list[str]):
    """What was told on the way."""

    def __call__(self, text: str) -> None:
        self.append(text)


def recommended(model: Path, out: Path, **changes: Any) -> Recommendation:
    settings: dict[str, Any] = {"backends": ["fake"], "batches": (1, 8), "minutes": 0.1, "card": False}
    return kcost.run_recommend(model, out=out, **{**TRAFFIC, **settings, **changes})


@pytest.fixture(scope="module")
def first(quiet: None, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recommendation, Told]:
    out, sentences = tmp_path_factory.mktemp("out") / "answer", Told()
    with collector_paused():
        return out, recommended(model, out, tell=sentences), sentences


def test_it_says_what_to_run_where_at_which_price_and_how_sure(first: tuple[Path, Recommendation, Told]) -> None:
    out, answer, sentences = first
    assert answer.winner == "fake/predict float32"  # moving costs work, and one instance does for either
    assert answer.words[0].startswith("[simulated] Run fake as fake/predict float32 on 1 instance aws ")
    assert "today's way" in answer.words[1]
    assert answer.doubt is not None
    assert sum(r.probability for r in answer.ranked) == pytest.approx(1)
    assert any(line.startswith("best so far: ") for line in sentences)
    assert {t.name: t.state for t in answer.tried}["fake/eager float32"] == "priced"
    assert any(one.name == "torch" and one.reason == "not among --backends" for one in answer.left_out)
    assert kcost.read_recommendation(out) == answer


def test_the_page_holds_the_answer_and_asks_for_nothing(first: tuple[Path, Recommendation, Told]) -> None:
    out, _, _ = first
    page = (out / "verdict.html").read_text()
    shown = ("Throughput against batch size", "What was the same for all", "Environment", environment.collect().host)
    for text in ("Run fake as fake/predict float32", "Simulated: step times", "not among --backends", *shown):
        assert text in page
    assert not any(f'{attribute}="http' in page.partition("<script")[0] for attribute in ("src", "href"))


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq on the PATH; on Debian: apt-get install jq")
def test_the_comment_of_a_pull_request_is_what_the_guide_prints(
    first: tuple[Path, Recommendation, Told], tmp_path: Path
) -> None:
    """The line of docs/recommend.md, run as it stands there on a verdict with gates."""
    _, answer, _ = first
    guide = (Path(kcost.__file__).parents[1] / "docs" / "recommend.md").read_text()
    (line,) = (one.strip() for one in guide.split("\n") if "jq -r" in one)
    (tmp_path / "verdict").mkdir()
    gates = (Verdict(gate="min_score", limit=0.9, answer="can't tell", more_labels=340, more_labels_usd=41.0),)
    schema.write(tmp_path / "verdict" / "verdict.json", answer.model_copy(update={"gates": gates}))
    subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, cwd=tmp_path)
    assert (tmp_path / "comment.md").read_text().split("\n")[:-1] == [*answer.words, "- min_score: can't tell"]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; on Debian: apt-get install chromium")
def test_a_browser_draws_every_plot(first: tuple[Path, Recommendation, Told], tmp_path: Path) -> None:
    out, _, _ = first
    document = rendered((out / "verdict.html").read_bytes(), tmp_path)
    assert "data-error" not in document
    titles = document.count('class="main-svg"')
    assert titles >= 4  # dollars by way, latency, the bill by kind, break-even


def test_the_same_call_goes_on_and_loses_no_round(first: tuple[Path, Recommendation, Told], model: Path) -> None:
    out, answer, _ = first
    before = {c.spec.cell_id: c.rounds for c in open_run(out / "run").cells}
    sentences = Told()
    again = recommended(model, out, tell=sentences, minutes=0.01)  # less than what is kept back: nothing is measured
    after = {c.spec.cell_id: c.rounds for c in open_run(out / "run").cells}
    assert before == after
    assert any("going on from there" in line for line in sentences)
    assert [r.name for r in again.ranked] == [r.name for r in answer.ranked]


def test_a_watch_measures_nothing_and_says_whether_the_answer_holds(
    first: tuple[Path, Recommendation, Told], tmp_path: Path
) -> None:
    out, answer, _ = first
    watched = kcost.watch_recommendation(out)
    assert (watched.holds, watched.changed, watched.winner_now) == (True, (), answer.winner)
    busier = kcost.watch_recommendation(out, qps=300_000)
    assert busier.changed[0] == "traffic: 1,000 to 300,000 requests a second"
    assert busier.usd_per_month_now is not None
    assert watched.usd_per_month_now is not None
    assert busier.usd_per_month_now.value > 10 * watched.usd_per_month_now.value


def test_a_watch_says_that_a_changed_model_must_be_measured_again(
    quiet: None, first: tuple[Path, Recommendation, Told], tmp_path: Path
) -> None:
    out, answer, _ = first
    path = Path(answer.request.model)
    content = path.read_text()
    try:
        path.write_text(json.dumps({"step_s": 0.003}))
        watched = kcost.watch_recommendation(out)
        assert not watched.holds
        assert "has changed since it was measured" in watched.words[0]
        path.unlink()
        assert "the model is gone" in kcost.watch_recommendation(out).words[0]
    finally:
        path.write_text(content)


def test_a_watch_reads_the_drift_of_live_traffic(first: tuple[Path, Recommendation, Told], tmp_path: Path) -> None:
    """From rows at the proxy to the sentence: drift ends an answer, and too few rows cannot tell."""
    out, answer, _ = first
    cases = ((0.0, 4, "none", True), (3.0, 4, "drifted", False), (0.0, 0, "can't tell", True))
    for shift, requests, state, holds in cases:
        settings = MonitorSettings(references={"m": Path("r.json")}, window_rows=100, usd_per_error=0.05)
        watch = Watch(settings, {"m": REFERENCE})
        for i in range(requests):
            put(watch, str(i), *rows_like_the_reference(100, shift))
        put(watch, "last", *rows_like_the_reference(1, shift))
        file = tmp_path / f"{state}.json"
        file.write_text(report_of(watch, settings).model_dump_json(by_alias=True))
        watched = kcost.watch_recommendation(out, monitor=file)
        assert watched.live is not None
        assert (watched.live.state, watched.holds, watched.undecided) == (state, holds, state == "can't tell")
        said = {"none": "No drift of m from d", "drifted": "not like d any more", "can't tell": "Can't tell of drift"}
        assert said[state] in " ".join(watched.words)
        assert (watched.command is None) == holds
        assert watched.winner_now == answer.winner
    with pytest.raises(InputError, match="URL, or a file"):
        kcost.watch_recommendation(out, monitor=tmp_path / "gone.json")


def test_an_interrupt_gives_the_best_so_far(quiet: None, model: Path, tmp_path: Path) -> None:
    def tell(text: str) -> None:
        if text.startswith("best so far"):
            raise KeyboardInterrupt

    answer = recommended(model, tmp_path / "out", tell=tell, minutes=5)
    assert answer.winner is not None
    assert {t.name: t.reason for t in answer.tried}["fake/eager bfloat16"] == "interrupted before its turn"


def test_what_was_measured_beside_other_work_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, first: tuple[Path, Recommendation, Told], model: Path
) -> None:
    monkeypatch.setattr("kcost.cost.verdict.invalid_by", lambda disturbed: "other processes took 50% of the CPU")
    answer = recommended(model, first[0], minutes=0.01)
    assert (answer.outcome, answer.winner, answer.ranked, answer.budget) == (
        "measured beside other work",
        None,
        (),
        None,
    )
    assert ALL_INVALID in answer.words[0]
    assert "INVALID: other processes took 50% of the CPU" in answer.words[1]
    assert all("nothing else runs" not in word for word in answer.words), "the reason says what helps"
    assert answer.undecided
    watched = kcost.watch_recommendation(first[0])
    assert not watched.holds


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 0}, "Minutes"),
        ({"minutes": float("nan")}, "Minutes"),
        ({"p99_ms": -1}, "p99 limit"),
        ({"max_drop": 2}, "fraction of 1"),
        ({"qps": None}, "Traffic is one of"),
        ({"daily": [1.0] * 24}, "Traffic is one of"),
        ({"instance": "none.such"}, "none.such"),
        ({"backends": ["tensorfow"]}, "Did you mean 'tensorflow'"),
        ({"data": "no-such-data"}, "no-such-data"),
        ({"device": "npu"}, "cpu, gpu, tpu"),
        ({"batches": (0,)}, "greater than 0"),
        ({"probe": "no-probe.json"}, "A probe is a file"),
        ({"gates": "no-gates.toml"}, "Gates are a TOML file"),
        ({"assumptions": {"headroom": -1}}, "headroom"),
    ],
)
def test_bad_input_is_one_message_before_anything_is_measured(
    model: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KcostError, match=message):
        recommended(model, tmp_path / "out", **changes)
    assert not (tmp_path / "out" / "run").exists()


def test_an_archive_that_is_none_is_refused(model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"no zip")
    with pytest.raises(InputError, match="npz"):
        recommended(model, tmp_path / "out", data=str(bad))


def test_a_folder_without_a_recommendation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder with verdict\.json"):
        kcost.watch_recommendation(tmp_path)


@pytest.mark.skipif(not installed("torch"), reason="needs kcost[torch]")
def test_a_real_backend_gives_a_verdict_gates_on_its_own_answers_and_a_card(quiet: None, tmp_path: Path) -> None:
    """From data to verdict, gates, card and a watch with PyTorch; beside whatever else runs, so it is no figure."""
    model, out, gates = tmp_path / "digits-cnn", tmp_path / "out", tmp_path / "gates.toml"
    kcost.train("cnn", data="digits", out=model, epochs=1, backend="torch", limit=300)
    gates.write_text("min_score = 0.0001\nmax_score_drop = 0.9\nmax_memory_mib = 100000.0\n")
    limits: dict[str, Any] = {"qps": 50, "p99_ms": 60_000, "max_drop": 0.9, "provider": "aws", "gates": gates}
    answer = kcost.run_recommend(
        model, **limits, data="digits", minutes=0.1, backends=["torch"], batches=(8,), variants=False, out=out,
        assumptions={"work_hours": 0},
    )  # fmt: skip
    assert answer.winner is not None
    # What is said first depends on the processor here: the instance may have another.
    assert answer.words[0].split("] ")[-1].startswith("Run digits-cnn as torch/")
    assert {v.gate: v.answer for v in answer.gates}["max_score_drop"] == "pass"
    assert {v.gate for v in answer.gates} == {"min_score", "max_score_drop", "max_memory_mib"}
    assert (out / "card.md").is_file()
    assert "Reliability diagram" in (out / "verdict.html").read_text()
    assert kcost.watch_recommendation(out).holds
    # A way's own answers to test examples, against those that risk has stored.
    way = next(c for c in answer.candidates if c.name == "torch/eager float32")
    scored, plan = Scored(None, True, "digits", ()), plan_of(model, answer.candidates, data=None, seed=0)
    made = answers_for_gates(open_model(model), scored, out, 0, plan, None, print)(way)
    assert made is not None
    assert made[1].rows is not None
    stored = read_predictions(out / "risk" / "predictions-torch.npz")
    own, theirs = split_of(made[0], made[1].rows, ()), stored.splits["test"]
    assert np.array_equal(own.labels, theirs.labels)
    assert np.array_equal(own.predicted, theirs.predicted)
    assert own.confidence == pytest.approx(theirs.confidence, abs=1e-4)


@pytest.mark.slow
def test_a_model_that_was_trained_here_gets_a_verdict(tmp_path: Path) -> None:
    """Real frameworks, on whatever else this machine does: a decision, or a clear word that it was disturbed."""
    model = tmp_path / "digits-cnn"
    kcost.train("cnn", data="digits", out=model, epochs=1)
    answer = kcost.run_recommend(
        model, **{**TRAFFIC, "qps": 200}, data="digits", minutes=1, batches=(1, 8), out=tmp_path / "out"
    )
    assert answer.outcome in ("decided", "can't tell", "same bill", "only one", "measured beside other work")
    assert (answer.winner is None) == (answer.outcome == "measured beside other work")
    assert answer.first_figures_s is not None
    assert (tmp_path / "out" / "card.md").is_file()
    assert {t.state for t in answer.tried} & {"priced", "disturbed"}
    again = kcost.run_recommend(model, **{**TRAFFIC, "qps": 200}, data="digits", minutes=0.01, batches=(1, 8),
                                out=tmp_path / "out")  # fmt: skip
    assert again.seconds < answer.seconds


def test_more_examples_are_spent_where_they_decide(quiet: None, model: Path, tmp_path: Path) -> None:
    """Of 256 answers that all stay, up to 0.64% may have changed: 564 examples tell that it is at most 0.29%."""
    data = tmp_path / "data.npz"
    np.savez(data, inputs=np.zeros((1_000, 2), np.float32), labels=np.zeros(1_000, np.int32))
    changes: dict[str, Any] = {
        "qps": 300_000,
        "data": str(data),
        "max_drop": 0.004,
        "minutes": 5,
        "assumptions": {"work_hours": 0},
    }
    sentences: list[str] = []

    def tell(text: str) -> None:
        """Ends the call once the drop is decided: it is not about the rounds after that."""
        if text.startswith("best so far") and any("a drop of at most" in line for line in sentences):
            raise KeyboardInterrupt
        sentences.append(text)

    answer = recommended(model, tmp_path / "out", tell=tell, **changes)
    lower = "fake/eager bfloat16"
    assert any("answering 564 examples: " in line and lower in line for line in sentences)
    assert answer.rescored[lower].count == 564
    assert answer.rescored[lower].bound == pytest.approx(1.645 / 566, rel=0.01)
    assert {t.name: t.state for t in answer.tried}[lower] == "priced"
    assert recommended(model, tmp_path / "out", **{**changes, "minutes": 0.01}).rescored == answer.rescored


def test_a_probe_of_another_machine_bounds_nothing_here(model: Path, tmp_path: Path) -> None:
    here = environment.collect()
    other = here.model_copy(update={"cpu_model": "another"})
    for machine, refused in ((other, True), (here, False)):
        probe = Probe(created_at="now", backend="fake", environment=machine, by_threads=())
        schema.write(tmp_path / "probe.json", probe)
        if refused:
            with pytest.raises(InputError, match="one of this machine"):
                recommended(model, tmp_path / "out", probe=tmp_path / "probe.json")
        else:
            answer = recommended(model, tmp_path / "out", probe=tmp_path / "probe.json", minutes=0.01)
            assert answer.request.probe == str(tmp_path / "probe.json")


def test_what_was_measured_says_how_the_export_puts_requests_together(
    first: tuple[Path, Recommendation, Told], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, answer, _ = first
    calls: list[dict[str, Any]] = []
    left = (LeftOut(what="batching_params.pbtxt", reason="ids of free lengths"),)
    report = ExportReport.model_construct(version=1, batching=None, left_out=())

    def export(source: Path, out: Path, **settings: Any) -> ExportReport:
        calls.append(settings)
        return report.model_copy(update={"left_out": left if len(calls) == 3 else ()})

    monkeypatch.setattr("kcost.api.shipping.export", export)
    arguments = (open_model(model), tmp_path / "serving", answer, folder / "run")
    sentence = exported(*arguments)  # the simulated cells are of no SavedModel
    assert calls == [{"name": "fake"}]
    assert "It puts no requests together: Batching is chosen from cells of tensorflow/saved_model" in sentence
    assert "(here: a run without one)" in sentence
    monkeypatch.setattr("kcost.cost.server_batching.choose_batching", lambda *_: None)
    assert exported(*arguments).endswith("; it puts requests together as the run says.")
    assert calls[-1] == {"name": "fake", "run": folder / "run", "queries_per_s": 1000, "p99_ms": 50}
    assert exported(*arguments).endswith("It puts no requests together: ids of free lengths.")
