"""How often gates and checks of risk are wrong, over simulated test sets whose truth is known.

python benchmarks/risk_figures.py limit      # models exactly at a limit: how often each gate passes
python benchmarks/risk_figures.py labels     # "N more labels would decide": how often N more do
python benchmarks/risk_figures.py planted    # clean test sets, and planted defects
python benchmarks/risk_figures.py seeds      # trainings of known spread: how often intervals between seeds hold
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy.special import ndtr

from kcost.core.artifact import Dataset
from kcost.core.ood_scores import OodScores, OodScoresHeader, StoredOodScores
from kcost.core.predictions import SplitPredictions
from kcost.risk.calibration import bins_of, calibration, log_softmax
from kcost.risk.drift_reference import Reading, Reference, features_of
from kcost.risk.drift_usd import bands_of
from kcost.risk.drift_watch import DriftWatch
from kcost.risk.figures import share
from kcost.risk.gates import judge
from kcost.risk.label_noise import label_noise
from kcost.risk.out_of_distribution import ood_detection
from kcost.risk.overfitting import flips
from kcost.risk.scores import main_score
from kcost.risk.seeds import seeds_of
from kcost.risk.slices import search

CLASSES = 10
NAMES = tuple(map(str, range(CLASSES)))
_DATA = Dataset(name="simulated", synthetic=True, source="drawn", licence="none", splits={})
OOD_HEADER = OodScoresHeader(
    model="m",
    model_sha256="",
    backend="none",
    dataset=_DATA,
    other=_DATA,
    unit="examples",
    no_energy_because="confidence alone is drawn",
)


def classifier(rng: np.random.Generator, count: int, temperature: float = 1.0, noise: float = 0.0) -> SplitPredictions:
    """Labels drawn from softmax(logits), of which a share is made wrong; a model that says softmax(logits x T)."""
    logits = rng.normal(0, 1, (count, CLASSES))
    logits[np.arange(count), rng.integers(0, CLASSES, count)] += rng.gamma(6, 1.2, count)
    labels = (np.exp(log_softmax(logits)).cumsum(1) > rng.random((count, 1))).argmax(1)
    wrong = rng.random(count) < noise
    labels = np.where(wrong, (labels + rng.integers(1, CLASSES, count)) % CLASSES, labels)
    said = np.maximum(log_softmax(logits * temperature), math.log(1e-7)).astype(np.float32)
    return SplitPredictions(labels, said.argmax(1), said, np.arange(count), np.arange(count))


def with_predicted(answers: SplitPredictions, predicted: np.ndarray) -> SplitPredictions:
    return SplitPredictions(answers.labels, predicted, answers.log_probabilities, answers.rows, answers.examples)


def tagger(rng: np.random.Generator, count: int, f1: float) -> SplitPredictions:
    """Sentences of 0 to 6 entities, easy and hard ones, whose expected F1 is known: as many missed as wrongly found."""
    entities = rng.poisson(1.7, count)
    ease = rng.beta(8 * f1, 8 * (1 - f1), count)
    right = rng.binomial(entities, ease)
    missed = entities - right
    counts = np.stack([right, missed, missed], 1)[:, None, :]
    labels = np.zeros(count, np.int64)
    logs = np.log(np.full((count, 2), 0.5)).astype(np.float32)
    return SplitPredictions(labels, labels, logs, np.arange(count), np.arange(count), counts)


def print_share(name: str, hits: list[bool]) -> None:
    exact = share(name, sum(hits), len(hits), "cases")
    print(f"{name}: {exact.value:.3f} (95%: {exact.low:.3f} to {exact.high:.3f}) of {len(hits):,}")


def accuracy_at_the_limit(cases: int) -> None:
    rng = np.random.default_rng(0)
    for count, limit in ((300, 0.9), (2000, 0.9), (2000, 0.99)):
        figures = [share("accuracy", int(r), count, "examples") for r in rng.binomial(count, limit, cases)]
        passed = [judge("g", f, limit, at_most=False).answer == "pass" for f in figures]
        print_share(f"accuracy of {limit}, {count} examples: false pass", passed)


def f1_at_the_limit(cases: int) -> None:
    # Micro F1 is a ratio of sums: where as many are missed as wrongly found it is the share of entities found.
    rng = np.random.default_rng(1)
    for count in (300, 1000):
        figures = [main_score(tagger(rng, count, 0.8), "sentences") for _ in range(cases)]
        passed = [judge("g", f, 0.8, at_most=False).answer == "pass" for f in figures]
        print_share(f"entity F1 of 0.8, {count} sentences: false pass", passed)


def calibration_at_the_limit(cases: int) -> None:
    rng = np.random.default_rng(2)
    for temperature in (1.5, 2.0):
        truth = error_of(classifier(np.random.default_rng(1), 1_000_000, temperature))
        for count in (500, 2000):
            errors = [calibration(classifier(rng, count, temperature), "examples").error for _ in range(cases)]
            passed = [judge("g", e, truth, at_most=True).answer == "pass" for e in errors]
            print_share(f"calibration error of {truth:.4f}, {count} examples: false pass", passed)


def drop_at_the_limit(cases: int) -> None:
    rng = np.random.default_rng(4)
    drops = []
    for _ in range(cases):
        before = classifier(rng, 2000)
        # 3 of 100 right answers are lost and 5 of 100 wrong ones gained: a drop that is known on average.
        u, right = rng.random(2000), before.right
        lost, gained = right & (u < 0.03), ~right & (u < 0.05)
        after = with_predicted(
            before, np.where(lost, (before.labels + 1) % CLASSES, np.where(gained, before.labels, before.predicted))
        )
        drops.append(flips(before, after, "before", {}, "examples").drop)
    accuracy = float(np.mean([classifier(np.random.default_rng(s), 100_000).right.mean() for s in range(10)]))
    truth = 0.03 * accuracy - 0.05 * (1 - accuracy)
    passed = [judge("g", d, truth, at_most=True).answer == "pass" for d in drops]
    print_share(f"score drop of {truth:.4f}, 2000 examples: false pass", passed)


def auroc_at_the_limit(cases: int) -> None:
    # Two normals that are d apart have an area of Phi(d / sqrt(2)).
    rng = np.random.default_rng(6)
    for count, apart in ((100, 1.0), (1000, 1.0), (1000, 3.0)):
        truth = float(ndtr(apart / math.sqrt(2)))
        figures = []
        for _ in range(cases):
            own, other = OodScores(rng.normal(apart, 1, count), None), OodScores(rng.normal(0, 1, count), None)
            figures.append(ood_detection(StoredOodScores(OOD_HEADER, own, other, "0" * 64), "s").best.auroc)
        passed = [judge("g", f, truth, at_most=False, labelled=False).answer == "pass" for f in figures]
        print_share(f"AUROC of {truth:.3f}, {count} examples of each: false pass", passed)


def spread_between_seeds(cases: int) -> None:
    """True scores of trainings are normal around 0.9; all answer the same 2,000 examples, of which some are harder."""
    rng = np.random.default_rng(7)
    count, deviation = 2000, 0.01
    for trainings in (2, 3, 5, 10):
        mean, spread, another = [], [], []
        for _ in range(cases):
            ease = rng.normal(0, 0.05, count)
            answers = {
                str(i): right_share(rng.random(count) < np.clip(rng.normal(0.9, deviation) + ease, 0, 1))
                for i in range(trainings + 1)
            }
            last = answers.pop(str(trainings))
            between = seeds_of(answers, dict.fromkeys(answers, 0), dict.fromkeys(answers, ""), "examples")
            # Between trainings on these examples: of seeds, and of chance in each answer.
            chance = float(np.mean(np.clip(0.9 + ease, 0, 1) * (1 - np.clip(0.9 + ease, 0, 1)))) / count
            truth = math.sqrt(deviation**2 + chance)
            mean.append(between.mean.low <= 0.9 <= between.mean.high)
            spread.append(between.deviation.low <= truth <= between.deviation.high)
            another.append(between.another.low <= float(last.right.mean()) <= between.another.high)
        print_share(f"{trainings} seeds: the mean's interval holds", mean)
        print_share(f"{trainings} seeds: the deviation's interval holds", spread)
        print_share(f"{trainings} seeds: one more training lies where it is said", another)


def right_share(right: np.ndarray) -> SplitPredictions:
    """Answers of two classes that are right where it is said."""
    count = len(right)
    logs = np.log(np.full((count, 2), 0.5)).astype(np.float32)
    places = np.arange(count)
    return SplitPredictions(np.zeros(count, np.int64), (~right).astype(np.int64), logs, places, places)


LIMITS = {
    "accuracy": accuracy_at_the_limit,
    "f1": f1_at_the_limit,
    "calibration": calibration_at_the_limit,
    "drop": drop_at_the_limit,
    "auroc": auroc_at_the_limit,
}


def error_of(answers: SplitPredictions) -> float:
    """The calibration error of so many answers that the noise of 15 bins is nothing."""
    places, gaps = bins_of(answers.confidence), answers.confidence - answers.right
    return float(np.abs(np.bincount(places, weights=gaps)).sum() / len(gaps))


def labels_that_decide(cases: int) -> None:
    """True shares evenly around the limit; where a test set leaves it open, as many more labels as told are drawn."""
    rng = np.random.default_rng(3)
    for count, limit, reach in ((300, 0.9, 0.1), (1000, 0.8, 0.08)):
        decided: list[bool] = []
        while len(decided) < cases:
            truth = rng.uniform(limit - reach, min(1.0, limit + reach))
            right = int(rng.binomial(count, truth))
            first = judge("g", share("accuracy", right, count, "examples"), limit, at_most=False)
            if first.more_labels is None:
                continue
            more = right + int(rng.binomial(first.more_labels, truth))
            figure = share("accuracy", more, count + first.more_labels, "examples")
            decided.append(judge("g", figure, limit, at_most=False).answer != "can't tell")
        print_share(f"accuracy around {limit}, {count} labels and N more: decided", decided)
    decided = []
    while len(decided) < cases:
        truth = rng.uniform(0.74, 0.86)
        sentences = tagger(rng, 400, truth)
        first = judge("g", main_score(sentences, "sentences"), 0.8, at_most=False)
        if first.more_labels is None:
            continue
        added = tagger(rng, first.more_labels, truth)
        assert sentences.entity_counts is not None
        assert added.entity_counts is not None
        counts = np.concatenate([sentences.entity_counts, added.entity_counts])
        size = len(counts)
        zeros = np.zeros(size, np.int64)
        logs = np.zeros((size, 2), np.float32)
        both = SplitPredictions(zeros, zeros, logs, np.arange(size), np.arange(size), counts)
        decided.append(judge("g", main_score(both, "sentences"), 0.8, at_most=False).answer != "can't tell")
    print_share("entity F1 around 0.8, 400 sentences and N more: decided", decided)


def columns_of(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    sources = rng.choice(["web", "app", "mail", "scan"], count, p=[0.5, 0.3, 0.15, 0.05])
    return {
        "source": sources,
        "length": rng.choice(["short", "middle", "long", "longest"], count),
        "device": rng.choice(["old", "new"], count),
    }


def planted(clean: int, each: int) -> None:
    count = 2000
    rng = np.random.default_rng(5)
    error, noise, sliced = [], [], []
    for _ in range(clean):
        answers = classifier(rng, count)
        error.append(judge("g", calibration(answers, "e").error, 0.03, at_most=True).answer == "fail")
        noise.append(judge("g", label_noise(answers, NAMES, "e").share, 0.02, at_most=True).answer == "fail")
        sliced.append(bool(search(~answers.right, columns_of(rng, count)).slices))
    for name, hits in (("calibration above 0.03", error), ("label noise above 0.02", noise), ("a slice", sliced)):
        print_share(f"clean: {name}", hits)
    print_share("clean: any of the three", [a or b or c for a, b, c in zip(error, noise, sliced, strict=True)])
    error, noise, sliced = [], [], []
    for _ in range(each):
        hot = calibration(classifier(rng, count, temperature=2.0), "e").error
        error.append(judge("g", hot, 0.03, at_most=True).answer == "fail")
        noisy = label_noise(classifier(rng, count, noise=0.08), NAMES, "e").share
        noise.append(judge("g", noisy, 0.02, at_most=True).answer == "fail")
        answers, columns = classifier(rng, count), columns_of(rng, count)
        scans = (columns["source"] == "scan") & (rng.random(count) < 0.5)
        predicted = np.where(scans, rng.integers(0, CLASSES, count), answers.predicted)
        worse = search(with_predicted(answers, predicted).labels != predicted, columns)
        sliced.append(any("source=scan" in s.name for s in worse.slices))
    alarms = [drifts(np.random.default_rng((6, i)), moved=0.0) for i in range(clean)]
    caught = [drifts(np.random.default_rng((7, i)), moved=0.5) for i in range(each)]
    print_share("clean: drift called in 10 windows", alarms)
    print_share("one of five features moved by half a deviation: drift found in 10 windows", caught)
    print_share("temperature of 2: found", error)
    print_share("8% of labels wrong: found", noise)
    print_share("half the answers of a slice of 5% at random: found", sliced)


def drifts(rng: np.random.Generator, moved: float) -> bool:
    """Whether drift is called while 10 windows of 200 rows come, of which one feature's mean has moved.

    Args:
        moved: by so many standard deviations.
    """

    def rows(count: int, by: float) -> dict[str, np.ndarray]:
        confidence = rng.beta(8, 1.5, count)
        return {
            "confidence": confidence,
            "length": rng.poisson(18, count).astype(float),
            "class": rng.choice(["a", "b", "c", "d"], count, p=[0.4, 0.3, 0.2, 0.1]),
            "mean": rng.normal(by, 1, count),
            "spread": rng.lognormal(0, 1, count),
        }

    columns = rows(2000, 0.0)
    reference = Reference(
        model="m", model_sha256="0", dataset="d", split="test", rows=2000, unit="rows", label_names=("a", "b"),
        reading=Reading(kind="multiclass", logits=False, form="arrays"), features=features_of({"output": columns}),
        bands=bands_of(columns["confidence"], rng.random(2000) < columns["confidence"]),
    )  # fmt: skip
    watch = DriftWatch(reference, 200, 0.01)
    for _ in range(10):
        watch.add(rows(200, moved))
        if watch.report(1.0, 0.0).drifted:
            return True
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["limit", "labels", "planted", "seeds"])
    parser.add_argument("--cases", type=int, default=None, help="fewer, for a quick look")
    parser.add_argument("--only", choices=[*LIMITS], default=None, help="limit: one kind of figure alone")
    arguments = parser.parse_args()
    if arguments.what == "limit":
        for name, at_the_limit in LIMITS.items():
            if arguments.only in (None, name):
                at_the_limit(arguments.cases or 1000)
    elif arguments.what == "labels":
        labels_that_decide(arguments.cases or 200)
    elif arguments.what == "seeds":
        spread_between_seeds(arguments.cases or 1000)
    else:
        planted(arguments.cases or 200, (arguments.cases or 200) // 4)
