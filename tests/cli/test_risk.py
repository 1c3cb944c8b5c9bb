"""kcost risk as a user gives it: bad input before any framework starts, and exit codes of gates with a real backend."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from kcost.core.process import installed
from tests.cli.commands import check, kcost


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "which sets none"),
        ("min_scor = 0.9", "Did you mean 'min_score'?"),
        ("min_score = ninety", "gates.toml"),
        ("min_score = 90", "less than or equal to 1"),
    ],
)
def test_bad_gates_are_refused_before_anything_runs(tmp_path: Path, model: Path, text: str, message: str) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text(text)
    check(kcost("risk", model, "--data", "digits", "--gates", gates), 2, message)


def test_gates_that_are_not_there(tmp_path: Path, model: Path) -> None:
    check(kcost("risk", model, "--data", "digits", "--gates", tmp_path / "none.toml"), 2, "No such file")


def test_a_target_error_that_is_none(model: Path) -> None:
    check(kcost("risk", model, "--data", "digits", "--target-error", "5"), 2, "between 0 and 1", "Received: 5.0")


def test_data_that_are_not_named_or_not_there(model: Path) -> None:
    check(kcost("risk", model), 2, "Give --data")
    check(kcost("risk", model, "--data", "digts"), 2, "digts")


def test_other_data_and_other_trainings_that_are_none(model: Path) -> None:
    check(kcost("risk", model, "--data", "digits", "--ood", "mnits"), 2, "mnits")
    check(kcost("risk", model, "--data", "digits", "--other-seed", model), 2, "artifact folder that kcost train made")
    check(
        kcost("risk", model, "--data", "digits", "--robustness", "--robustness-examples", "3"),
        2,
        "10 test examples at least",
    )


def test_a_calibrated_export_wants_a_report(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("export", model, "--out", out, "--name", "m", "--calibrated")
    check(kcost(*arguments), 2, "kcost risk")
    check(kcost(*arguments, "--format", "huggingface"), 2, "own logits")
    assert not out.exists()


def test_a_card_of_nothing(model: Path) -> None:
    check(kcost("card", model), 2, "Make one first with kcost risk")
    check(kcost("card", "verify", model), 2, "Write it: kcost card")
    check(kcost("card", "verify"), 2, "verify, which is not there")
    check(kcost("card", "verfy", model), 2, "neither", "pages")


@pytest.mark.slow
@pytest.mark.skipif(not installed("torch"), reason="needs kcost[torch]")
def test_gates_of_a_digits_cnn_pass_fail_and_are_open(tmp_path: Path) -> None:
    model, gates = tmp_path / "m", tmp_path / "gates.toml"
    arguments = ("--backend", "torch", "--limit", "300")
    assert kcost("train", "cnn", "--data", "digits", "--epochs", "2", "--out", model, *arguments).returncode == 0

    def risk(text: str, *more: str) -> tuple[int, str, str]:
        gates.write_text(text)
        done = kcost("risk", model, "--gates", gates, *arguments, *more)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    code, output, progress = risk("min_score = 0.01")
    assert (code, "passes" in output) == (0, True)
    assert re.search(r"(?m)^ *0% predicting with .*, step 1 of 2 \(", progress), progress
    assert re.search(r"(?m)^ *\d+% predicting train: \d+ of [\d,]+ examples \(", progress), progress
    assert "100% done: the risk of" in progress
    scored = kcost("evaluate", model, *arguments)
    assert re.search(r"(?m)^ *\d+% scoring: \d+ of 300 examples \(", scored.stderr), scored.stderr
    assert "\x1b" not in progress + scored.stderr
    assert kcost("evaluate", model, *arguments, "--quiet").stderr == ""
    check(kcost("evaluate", model, "--attack", "fgsm", "--auroc"), 2, "--auroc: of scores without --attack")
    written = (model / "risk" / "predictions-torch.npz").stat().st_mtime_ns
    code, output, _ = risk("min_score = 1.0")
    assert (code, "fails" in output) == (1, True)
    code, output, warned = risk("max_p99_ms = 5.0")
    assert (code, "can't tell" in output, "--strict" in warned) == (0, True, True)
    assert risk("max_p99_ms = 5.0", "--strict")[0] == 1
    code, output, _ = risk("min_score = 0.01", "--json")
    assert json.loads(output) == json.loads((model / "risk" / "risk.json").read_text())
    assert (model / "risk" / "predictions-torch.npz").stat().st_mtime_ns == written, "predicted once"
    assert kcost("card", model).returncode == 0
    assert kcost("card", "verify", model).stdout == "every figure is as its evidence has it\n"
    card = model / "risk" / "card.md"
    card.write_text(card.read_text().replace("300 examples", "301 examples"))
    verified = kcost("card", "verify", model)
    assert (verified.returncode, "301 examples" in verified.stdout) == (1, True)
    check(kcost("card", model), 2, "overwrites no card")
    columns = tmp_path / "c.csv"
    rows = np.random.default_rng(0).choice(["web", "app"], 300)
    columns.write_text("source\n" + "\n".join(rows) + "\n")
    code, output, _ = risk("min_worst_slice_score = 0.01", "--columns", str(columns), "--against", str(model), "--json")
    document = json.loads(output)
    assert {d["column"] for d in document["disparities"]} == {"source"}
    assert document["flips"]["lost"] == 0
    code, _, warned = risk("min_score = 0.5", "--columns", str(gates))
    assert (code, "for 300 test examples" in warned) == (2, True)


@pytest.mark.slow
@pytest.mark.skipif(not installed("torch"), reason="needs kcost[torch]")
def test_changes_other_data_and_seeds_are_told_gated_and_stand_in_cards_that_verify(tmp_path: Path) -> None:
    model, other, gates = tmp_path / "m", tmp_path / "other", tmp_path / "gates.toml"
    arguments = ("--backend", "torch", "--limit", "200")
    for out, seed in ((model, "0"), (other, "1")):
        done = kcost("train", "cnn", "--data", "digits", "--epochs", "1", "--seed", seed, "--out", out, *arguments)
        assert done.returncode == 0, done.stderr
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "noise.npz", x=(255 * rng.random((60, 8, 8))).astype(np.uint8), y=rng.integers(0, 7, 60))
    gates.write_text("min_corrupted_score = 0.999\nmin_ood_auroc = 0.001")
    changes = ("--robustness", "--robustness-examples", "50")
    assert kcost("risk", model, *arguments, *changes).returncode == 0
    more = ("--ood", tmp_path / "noise.npz", "--other-seed", other, "--gates", gates, *changes[1:])
    done = kcost("risk", model, *arguments, *more)
    assert done.returncode == 1, done.stderr
    assert all(words in done.stdout for words in ("costs most", "noise", "of 2 seeds", "lower by")), done.stdout
    document = json.loads((model / "risk" / "risk.json").read_text())
    assert {v["gate"]: v["answer"] for v in document["verdicts"]} == {
        "min_corrupted_score": "fail",
        "min_ood_auroc": "pass",
    }
    assert document["robustness"]["examples"] == 50
    assert {c["name"] for c in document["robustness"]["conditions"]} >= {"noise 5%", "rotation 20 degrees", "PGD 5%"}
    assert [s["seed"] for s in document["seeds"]["scores"]] == [0, 1]
    stored = {name: (model / "risk" / name).stat().st_mtime_ns for name in ("corrupted-torch.npz", "ood-torch.npz")}
    assert kcost("card", model).returncode == 0
    assert kcost("card", "verify", model).stdout == "every figure is as its evidence has it\n"
    assert stored == {name: (model / "risk" / name).stat().st_mtime_ns for name in stored}, "answered once"
    for name in ("card-annex-iv.md", "card-annex-iv.html", "card.html"):
        path = model / "risk" / name
        text = path.read_text()
        path.write_text(text.replace("noise 5%", "noise 6%", 1))
        verified = kcost("card", "verify", model)
        assert (verified.returncode, "noise 6%" in verified.stdout) == (1, True), name
        path.write_text(text)
    annex = model / "risk" / "card-annex-iv.md"
    annex.write_text(
        annex.read_text().replace("*To be written by a person: kcost has no evidence for it.*", "Mine.", 1)
    )
    assert kcost("card", "verify", model).returncode == 1
    assert kcost("card", "pages", model).stdout.count(".html") == 2
    assert kcost("card", "verify", model).returncode == 0
    (model / "risk" / "card.html").unlink()
    assert "card.html is missing" in kcost("card", "verify", model).stdout
