"""What the schedule of `kcost recommend` comes to: on simulated candidates, and against measuring everything.

    python benchmarks/recommend_figures.py                     # 1,000 simulated cases, 20 minutes each
    python benchmarks/recommend_figures.py --minutes 5 --cases 200
    python benchmarks/recommend_figures.py real --out FIGURES --stop-after 15
    python benchmarks/recommend_figures.py replay --out FIGURES --seeds 100    # measures nothing

`real` measures a CNN, a tagger and a ResNet: each once in every way that there is (`kcost bench` with its defaults),
and recommended with several seeds of the order and the draws. Nothing else may run. Each part, a model measured or
recommended once, takes some minutes and is stored in FIGURES; the same call goes on with the parts that are missing,
and prints what it has. Cheaper versions of the model are left out: each model is measured as it is. By default the ways
are few: one backend with the runtimes that it converts to, two batch sizes.
`--backends tensorflow,jax,torch --batches 1,8,32` are all, and take hours.

Beside each model stands what an oracle needs: one that knows the winner, and gets that and plain Keras ready alone. No
schedule needs less. `replay` holds the schedule as it is now against what measuring everything took in FIGURES, piece
by piece: rounds are drawn around the costs that were measured, seconds are those that were recorded.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from recommend_replay import Pieces, recorded

import kcost
from kcost.api.recommend_data import Scored, has_more
from kcost.api.recommend_variants import work_of
from kcost.bench.plan_models import open_models, specs_of
from kcost.bench.runner import measure
from kcost.bench.store import RunStore
from kcost.core.artifact import open_model
from kcost.core.plan import Settings
from kcost.recommend.answer import Recommendation
from kcost.recommend.drop import undecidable
from kcost.recommend.measuring import LOWER
from kcost.recommend.one_plan import plan_of
from kcost.recommend.schedule import NEAR, WORTH_TRYING
from kcost.recommend.simulate import Truth, case, run
from kcost.recommend.standings import Capacities, fastest_mhz, floor_of, judge, standings_of
from kcost.recommend.terms import Limits, Terms
from kcost.ship.build import build
from kcost.ship.convert import converted

WITHIN = NEAR - 1
ROOT = Path(__file__).resolve().parents[1]

QPS = {"cnn": 40_000.0, "tagger": 2_000.0, "resnet": 5_000.0}
"""Requests a second, so many that the ways differ in the number of instances."""

P99_MS = 500.0
EVERYTHING = "everything.json"
"""How long measuring everything took."""

MINUTES = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("simulated", "real", "replay"), default="simulated")
    parser.add_argument("--cases", type=int, default=1_000)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="to spend on each recommendation")
    parser.add_argument("--out", type=Path, default=Path("recommend-figures"))
    parser.add_argument("--models", default="cnn,tagger,resnet")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--backends", default="torch")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="minutes after which no part begins")
    given = parser.parse_args()
    if unknown := sorted(set(given.models.split(",")) - QPS.keys()):
        sys.exit(f"Models are {', '.join(QPS)}. Received: {', '.join(unknown)}.")
    if given.what == "simulated":
        print_simulated(given.cases, given.minutes, WORTH_TRYING)
        print_simulated(given.cases, given.minutes, 0.0)
    elif given.what == "replay":
        for name in given.models.split(","):
            print_replay(given, name)
    else:
        print_real(given)


def print_simulated(cases: int, minutes: float, worth: float) -> None:
    """Candidates whose true costs are made up and known."""
    outcomes = [run(case(seed), minutes, seed, worth) for seed in range(cases)]
    losses = np.array([o.loss for o in outcomes])
    shares = np.array([o.share_of_time for o in outcomes])
    tries = np.array([len(o.order) for o in outcomes])
    rule = f"whatever is expected to save {worth:.0%} is tried" if worth else "--thorough: whatever can win is tried"
    print(f"simulated: {cases} cases of 18 candidates, {minutes:g} minutes each; {rule}")
    print(f"the true winner: {np.mean(losses == 0):.1%}; it, or one within {WITHIN:.0%} of its cost: ", end="")
    print(f"{np.mean(losses <= WITHIN):.1%}; 99% of the losses at most {np.quantile(losses, 0.99):.1%}, ", end="")
    print(f"the worst {losses.max():.1%}")
    print("time, as a share of what 10 rounds of every candidate take: ", end="")
    print(", ".join(f"{np.quantile(shares, q):.0%} ({q:.0%} of the cases)" for q in (0.1, 0.5, 0.9)), end="")
    print(f"; {shares.mean():.0%} on average")
    print(f"conversions and compilations: {tries.mean():.1f} of 9; ", end="")
    print(f"first figures: after at most {max(o.first_figures_s for o in outcomes):.0f} s\n")


class Part(NamedTuple):
    """A recommendation of a model with one seed, against measuring everything."""

    model: str
    seed: int
    winner: str | None
    best: str
    loss: float
    """Cost of the winner over that of the best, both as measuring everything has them, less one."""
    share: float
    """Of the seconds of measuring everything."""


def print_real(given: argparse.Namespace) -> None:
    """Does the parts that are missing, and prints what there is."""
    began = time.monotonic()
    names = given.models.split(",")

    def late() -> bool:
        return time.monotonic() - began > 60 * given.stop_after

    parts: list[Part] = []
    for name in names:
        for seed in range(given.seeds):
            if late() and not _verdict_file(given.out, name, seed).exists():
                continue
            answer = recommended(given, name, seed)
            if answer.winner is None:
                folder = _verdict_file(given.out, name, seed).parent
                print(f"{name} seed {seed} has no winner: {answer.words[0]} Remove {folder} before.", file=sys.stderr)
                continue
            whole = given.out / name / "everything"
            if late() and not (whole / EVERYTHING).exists():
                continue
            parts.append(compared(given, name, seed, answer))
    print(f"real: {given.backends}, batch sizes {given.batches}, {len(parts)} of {len(names) * given.seeds} parts")
    for p in parts:
        print(f"{p.model} seed {p.seed}: {p.winner}, {p.loss:.1%} above {p.best}; {p.share:.0%} of the time")
    if parts:
        same = sum(p.winner == p.best for p in parts)
        near = sum(p.loss <= WITHIN for p in parts)
        shares = [p.share for p in parts]
        print(f"the same winner: {same} of {len(parts)}; it, or one within {WITHIN:.0%}: {near}; ", end="")
        print(f"time: {np.median(shares):.0%} of measuring everything in the middle, {max(shares):.0%} at most")
    for name in dict.fromkeys(p.model for p in parts):
        if pieces_of(given.out / name):
            print_oracle(name, truth_of(given, name))
        else:
            print(f"{name}: measured before pieces were recorded, so that nothing is known of an oracle")


def print_oracle(name: str, truth: Truth) -> None:
    """The least that any schedule takes."""
    winner = min(truth.usd, key=truth.least_usd)
    share = f"{truth.oracle_s:.0f} of {truth.exhaustive_s:.0f} s, {truth.oracle_s / truth.exhaustive_s:.0%}"
    print(f"{name}: an oracle, which gets plain Keras and {winner} ready alone, needs {share}")


def print_replay(given: argparse.Namespace, name: str) -> None:
    """The schedule as it is now on what measuring everything recorded."""
    truth = truth_of(given, name)
    print_oracle(name, truth)
    outcomes = [run(truth, given.minutes, seed) for seed in range(given.seeds)]
    near = sum(o.loss <= WITHIN for o in outcomes)
    shares = [o.share_of_time for o in outcomes]
    print(f"{name}, replayed {len(outcomes)} times: within {WITHIN:.0%} of the best {near} times; ", end="")
    print(f"{np.median(shares):.0%} of the time in the middle, {min(shares):.0%} to {max(shares):.0%}")
    for order, count in Counter(o.order for o in outcomes).most_common(3):
        print(f"  {count} times: {', '.join(order) or 'nothing that is slow to get ready'}")


def truth_of(given: argparse.Namespace, name: str) -> Truth:
    """What measuring everything showed of a model, as a schedule is held against it."""
    folder = given.out / name
    verdicts, recorded_s = sorted(folder.glob("seed-*/verdict.json")), pieces_of(folder)
    if not (verdicts and recorded_s):
        sys.exit(f"{folder} does not hold what measuring everything took, piece by piece: measure it with `real`.")
    answer = kcost.read_recommendation(verdicts[0].parent)
    store, terms = RunStore(folder / "everything"), terms_of(answer)
    measured = store.load()
    usd: dict[tuple[str, int], float] = {}
    for batch in answer.request.batches:
        alone = [c.model_copy(update={"batches": (batch,)}) for c in answer.candidates]
        judged = judge(measured, store.read_outputs, terms, alone)
        usd |= {(n, batch): s.value_usd for n, s in standings_of(judged, terms, Capacities(0)).items()}
    model = open_model(model_of(given.out, name))
    work = work_of(model.keras_file)
    here = next(e for e in measured.environments.values())
    floor = floor_of(terms, here, answer.candidates, work, fastest_mhz(measured))
    # The recommendations of a benchmark are of a model alone: without data.
    more = has_more(model, Scored(None, model.samples_file is not None, None, ()))
    few = None if more or judged.unlabelled is None else undecidable(judged.unlabelled, terms.limits.max_drop)
    untried = [] if few is None else [c.name for c in answer.candidates if c.precision in LOWER]
    total_s = json.loads((folder / "everything" / EVERYTHING).read_text())["seconds"]
    return recorded(measured, recorded_s, answer.candidates, usd, floor, measured_s=total_s, untried=untried)


def pieces_of(folder: Path) -> dict[str, float] | None:
    """What measuring everything took, piece by piece; None where it was not recorded from the beginning."""
    file = folder / "everything" / EVERYTHING
    return json.loads(file.read_text()).get("pieces") if file.exists() else None


def terms_of(answer: Recommendation) -> Terms:
    """What a recommendation priced its ways under."""
    request = answer.request
    return Terms(
        request.traffic, request.assumed, Limits(p99_ms=request.p99_ms, max_drop=request.max_drop),
        kcost.prices().checked(), request.provider, request.region, request.instance, 0,
    )  # fmt: skip


def _verdict_file(out: Path, name: str, seed: int) -> Path:
    return out / name / f"seed-{seed}" / "verdict.json"


def model_of(out: Path, name: str) -> Path:
    """The model, made where it is not there yet."""
    folder = out / name / "model"
    if name == "resnet":
        file = folder / "resnet20.keras"
        return file if file.exists() else build("benchmarks.recommend_models:resnet20", folder)
    if not folder.exists():
        family, data = {"cnn": ("cnn", "digits"), "tagger": ("bert", "ner-mini")}[name]
        kcost.train(family, data=data, out=folder, epochs=1, name=name)
    return folder


def recommended(given: argparse.Namespace, name: str, seed: int) -> Recommendation:
    """The recommendation with a seed, from the folder where it is there."""
    file = _verdict_file(given.out, name, seed)
    if not file.exists():
        print(f"{name} seed {seed}: recommending", file=sys.stderr)
        kcost.run_recommend(
            model_of(given.out, name), qps=QPS[name], p99_ms=P99_MS, provider="aws", minutes=given.minutes,
            backends=given.backends.split(","), batches=[int(b) for b in given.batches.split(",")],
            card=False, variants=False, seed=seed, out=file.parent,
            tell=lambda text: print(f"  {text}", file=sys.stderr),
        )  # fmt: skip
    return kcost.read_recommendation(file.parent)


def compared(given: argparse.Namespace, name: str, seed: int, answer: Recommendation) -> Part:
    """A recommendation held against every one of its candidates, measured with the defaults of `kcost bench`."""
    whole = given.out / name / "everything"
    seconds = everything(whole, model_of(given.out, name), answer)
    store = RunStore(whole)
    terms = terms_of(answer)
    judged = judge(store.load(), store.read_outputs, terms, answer.candidates)
    if judged.invalid:
        print(f"{name}: {len(judged.invalid)} ways are INVALID", file=sys.stderr)
    usd = {n: s.value_usd for n, s in standings_of(judged, terms, Capacities(0)).items()}
    best = min(usd, key=lambda n: usd[n])
    loss = usd.get(answer.winner or "", math.inf) / usd[best] - 1
    return Part(name, seed, answer.winner, best, loss, answer.seconds / seconds)


def everything(folder: Path, model: Path, answer: Recommendation) -> float:
    """Measures every candidate; the seconds that it took, all calls together."""
    file = folder / EVERYTHING
    before = json.loads(file.read_text()) if file.exists() else {"seconds": 0.0, "done": False, "pieces": {}}
    if before["done"]:
        return float(before["seconds"])
    print(f"{model}: measuring everything", file=sys.stderr)
    defaults: dict[str, Any] = Settings().model_dump(include={"rounds", "round_s", "warmup_s", "warmup_max_s"})
    plan = plan_of(model, answer.candidates, data=None, seed=0, settings=defaults)
    cells = [s.cell_id for s in specs_of(plan, open_models(plan)) if any(c.has(s) for c in answer.candidates)]
    began, done, pieces = time.monotonic(), False, Pieces(before.get("pieces", {}))
    try:
        measure(plan, folder, pieces, converted, only=frozenset(cells))
        done = True
    finally:  # what an interrupted call took counts
        folder.mkdir(parents=True, exist_ok=True)
        seconds = before["seconds"] + time.monotonic() - began
        record = {"seconds": seconds, "done": done}
        # A record that was begun without pieces has none of what was done by then.
        record |= {"pieces": pieces.seconds} if "pieces" in before else {}
        file.write_text(json.dumps(record, indent=1))
    return everything(folder, model, answer)


if __name__ == "__main__":
    main()
