"""Scores under changes, detection of foreign examples, and the spread between seeds, over made-up answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.errors import SchemaError
from kcost.core.ood_scores import OodScores, read_ood_scores, write_ood_scores
from kcost.report.risk_terminal import limits, ood_lines, robustness_lines, seed_lines
from kcost.risk.decide import Measured, decide
from kcost.risk.gates import parse_gates
from kcost.risk.out_of_distribution import ood_detection
from kcost.risk.report import Surroundings, assess
from kcost.risk.robustness import robustness

from .answers import classifier, tagger
from .changed_answers import of, ood_scores, seeds, stored, worse
from .reports import EVIDENCE, predictions


def test_the_worst_change_stands_first_with_a_paired_drop() -> None:
    clean = classifier(2000, 0, spread=4)
    tried = robustness(
        stored(clean=clean, noise=worse(clean, 0.1), blur=worse(clean, 0.3), FGSM=worse(clean, 0.6)),
        "clean",
        frozenset({"FGSM"}),
        "c.npz",
    )
    assert tried is not None
    assert [c.name for c in tried.conditions] == ["FGSM", "blur", "noise"]
    assert tried.worst.name == "blur", "an attack is no change of the world"
    for condition, share in zip(tried.conditions, (0.6, 0.3, 0.1), strict=True):
        assert condition.drop.value == pytest.approx(tried.clean.value - condition.score.value)
        assert condition.drop.low < share * clean.right.mean() * 1.1
        assert condition.drop.high - condition.drop.low < condition.score.high - condition.score.low + 0.02
    assert "blur costs most" in robustness_lines(tried)[0]


def test_a_tagger_is_paired_by_sentence_and_an_unchanged_condition_still_has_an_interval() -> None:
    clean = tagger(400, 0)
    tried = robustness(stored(clean=clean, same=clean, typos=tagger(400, 0, 0.5)), "clean", frozenset(), "c.npz")
    assert tried is not None
    typos, same = tried.conditions
    assert (typos.name, typos.score.name) == ("typos", "entity_f1")
    assert typos.drop.low > 0
    assert (same.drop.value, same.drop.low < 0 < same.drop.high) == (0.0, True)


def test_nothing_but_clean_examples_is_no_robustness_and_what_was_not_attacked_is_told() -> None:
    clean = classifier(50, 0)
    assert robustness(stored(clean=clean), "clean", frozenset(), "c.npz") is None
    tried = robustness(stored(("not attacked: no place",), clean=clean, noise=clean), "clean", frozenset(), "c")
    assert tried is not None
    assert robustness_lines(tried)[-1] == "not attacked: no place"


def test_the_gate_of_changes_passes_fails_and_leaves_attacks_out() -> None:
    clean = classifier(1500, 2, spread=4)
    around = Surroundings(
        robustness=robustness(
            stored(clean=clean, noise=worse(clean, 0.1), PGD=worse(clean, 0.9)), "clean", frozenset({"PGD"}), "c"
        )
    )
    for limit, answer in ((0.5, "pass"), (0.95, "fail")):
        gates = parse_gates(f"min_corrupted_score = {limit}", "g")
        (verdict,) = decide(assess(predictions(), EVIDENCE, around), gates, Measured()).verdicts
        assert (verdict.answer, verdict.slice) == (answer, "noise")
    gates = parse_gates("min_corrupted_score = 0.5\nmin_ood_auroc = 0.5", "g")
    verdicts = decide(assess(predictions(), EVIDENCE, Surroundings()), gates, Measured()).verdicts
    assert [v.answer for v in verdicts] == ["can't tell", "can't tell"]


def test_the_area_is_that_of_two_normals_and_its_interval_holds_it() -> None:
    """Two normals that are d apart have an area of Phi(d / sqrt(2))."""
    from scipy.stats import norm

    truth = float(norm.cdf(1 / np.sqrt(2)))
    held = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        detected = ood_detection(ood_scores(rng.normal(1, 1, 150), rng.normal(0, 1, 100)), "s.npz").best.auroc
        held.append(detected.low <= truth <= detected.high)
    assert 0.9 <= np.mean(held) <= 0.99


def test_a_threshold_that_keeps_95_of_100_lets_as_many_foreign_ones_through_as_lie_above_it() -> None:
    own = np.arange(100) / 100
    detected = ood_detection(ood_scores(own, np.array([0.01, 0.02, 0.03, 0.5])), "s.npz")
    assert detected.best.let_through.value == 0.25
    assert [d.by for d in detected.detections] == ["confidence", "energy"]
    assert "lets 0.2500" in ood_lines(detected)[0]


def test_data_that_are_like_test_are_not_told() -> None:
    detected = ood_detection(ood_scores(np.arange(50.0), np.arange(50.0)), "s")
    assert ood_lines(detected)[0].startswith("confidence does not tell test from strange: AUROC 0.5000")


def test_data_that_are_told_perfectly_still_have_an_interval() -> None:
    figure = ood_detection(ood_scores(np.full(30, 0.9), np.full(20, 0.1)), "s").best.auroc
    assert (figure.value, figure.high) == (1.0, 1.0)
    assert 0.8 < figure.low < 0.9, "as for 20 of 20"


def test_without_logits_there_is_confidence_alone_and_it_is_told_why() -> None:
    detected = ood_detection(ood_scores(np.array([0.9, 0.8]), np.array([0.1, 0.2]), False, "no softmax"), "s")
    assert [d.by for d in detected.detections] == ["confidence"]
    assert ood_lines(detected)[1] == "no energy: no softmax"
    gates = parse_gates("min_ood_auroc = 0.1", "g")
    report = assess(predictions(), EVIDENCE, Surroundings(out_of_distribution=detected))
    assert decide(report, gates, Measured()).verdicts[0].answer == "pass"


def test_stored_sureness_comes_back_and_damage_is_told(tmp_path: Path) -> None:
    made, path = ood_scores(np.array([0.9, 0.8]), np.array([0.1])), tmp_path / "s.npz"
    write_ood_scores(path, made.header, made.own, made.other)
    again = read_ood_scores(path)
    assert again.header == made.header
    assert again.other.energy is not None
    assert again.other.energy.tolist() == [1.0]
    first = path.read_bytes()
    write_ood_scores(path, made.header, made.own, made.other)
    assert path.read_bytes() == first, "the same figures have the same hash"
    for content in (first[:100], b"no zip", b""):
        path.write_bytes(content)
        with pytest.raises(SchemaError, match="Delete it"):
            read_ood_scores(path)
    write_ood_scores(path, made.header, made.own, OodScores(np.array([0.1]), None))
    with pytest.raises(SchemaError, match="why there is none"):
        read_ood_scores(path)


def test_the_spread_is_that_of_the_scores() -> None:
    spread = of(seeds(0.1, 0.12, 0.2, 0.15))
    values = [s.score.value for s in spread.scores]
    assert spread.deviation.value == pytest.approx(np.std(values, ddof=1))
    assert spread.mean.value == pytest.approx(np.mean(values))
    # Hahn and Meeker, table of factors for a normal sample of 4 at 95%: 0.567 and 3.729 times the deviation.
    assert spread.deviation.low / spread.deviation.value == pytest.approx(0.567, abs=0.001)
    assert spread.deviation.high / spread.deviation.value == pytest.approx(3.729, abs=0.001)
    # t of 3 degrees of freedom, 3.182, times sqrt(1 + 1/4), and times sqrt(2).
    assert spread.another.high - spread.another.value == pytest.approx(
        3.182 * spread.deviation.value * 1.25**0.5, rel=1e-3
    )
    assert spread.smallest_difference == pytest.approx(3.182 * spread.deviation.value * 2**0.5, rel=1e-3)
    assert f"below {spread.smallest_difference:.4f}" in seed_lines(spread)[0]


def test_more_seeds_say_more_and_equal_scores_do_not_say_that_seeds_do_not_matter() -> None:
    few, many = of(seeds(0.1, 0.2)), of(seeds(*[0.1, 0.2] * 5))
    assert few.smallest_difference > 3 * many.smallest_difference
    equal = of(seeds(0.0, 0.0, 0.0))
    assert equal.deviation.value == 0
    assert equal.deviation.high > 0
    assert equal.smallest_difference > 0


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([2, 3, 5]))
def test_intervals_hold_their_values(seed: int, count: int) -> None:
    shares = np.random.default_rng(seed).uniform(0, 0.5, count)
    spread = of(seeds(*shares, count=60))
    for figure in (spread.mean, spread.deviation, spread.another):
        assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_the_interval_of_the_mean_holds_for_new_seeds_and_new_examples() -> None:
    """Trainings whose true scores are normal around 0.8, each answering the same examples of varying difficulty."""
    held = []
    for case in range(150):
        rng = np.random.default_rng(case)
        ease = rng.normal(0, 0.05, 400)
        answers = {}
        for i in range(5):
            right = rng.random(400) < np.clip(0.8 + rng.normal(0, 0.02) + ease, 0, 1)
            base = classifier(400, 1)
            labels = np.where(right, base.predicted, (base.predicted + 1) % 4)
            answers[f"m, seed {i}"] = replace(base, labels=labels)
        spread = of(answers).mean
        held.append(spread.low <= 0.8 <= spread.high)
    assert np.mean(held) >= 0.93


def test_one_training_and_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="two trainings"):
        of(seeds(0.1))
    answers = seeds(0.1, 0.2)
    answers["m, seed 1"] = replace(answers["m, seed 1"], examples=np.arange(1000) + 1)
    with pytest.raises(ValueError, match="same examples"):
        of(answers)


def test_a_report_with_all_three_comes_back_from_json_and_says_each() -> None:
    clean = classifier(300, 0)
    around = Surroundings(
        robustness=robustness(stored(clean=clean, noise=worse(clean, 0.2)), "clean", frozenset(), "c.npz"),
        out_of_distribution=ood_detection(ood_scores(np.arange(9.0) + 4, np.arange(5.0)), "s.npz"),
        seeds=of(seeds(0.1, 0.2)),
    )
    report = assess(predictions(), EVIDENCE, around)
    assert type(report).model_validate_json(report.model_dump_json()) == report
    said = "\n".join(limits(report))
    assert all(word in said for word in ("noise costs most", "tells test from strange", "of 2 seeds"))
