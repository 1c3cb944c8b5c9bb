"""What int8 and bfloat16 bring: one model in every mode and backend, all in turns of one run, against Keras float32.

    python benchmarks/optimize_targets.py ARTIFACT OUT [--modes bfloat16,dynamic,static] [--threads 1,2] [--compile]
    python benchmarks/optimize_targets.py CNN OUT --each-backend --batches 1,32,256

ARTIFACT is an artifact folder, whose data calibrate static int8 and score each mode. Times are taken on made-up inputs:
128 word pieces a sentence for a tagger. A ratio is that of the same backend and method in float32, at its best number
of threads, to the mode at its own best. OUT/run is a run folder; a second call goes on with it.

What becomes of convolutions is chosen by timing: --each-backend makes the modes on each backend and measures them
there, in OUT/BACKEND.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import kcost
from kcost.core.artifact import open_model
from kcost.core.jobs import OPTIMIZE
from kcost.core.plan import Plan
from kcost.core.process import run_job
from kcost.core.request import OptimizeRequest
from kcost.core.result import CellResult
from kcost.core.units import significant
from kcost.cost.estimate import step_ns
from kcost.cost.payoff import shared_rounds_ratio

METHODS = {"tensorflow": ["saved_model", "graph"], "jax": ["jit"], "torch": ["eager"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--modes", default="bfloat16,dynamic,static")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--backends", default="tensorflow,jax,torch")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, which takes minutes")
    parser.add_argument("--each-backend", action="store_true", help="a file of each mode for each backend")
    options = parser.parse_args()
    backends = options.backends.split(",")
    if options.each_backend:
        cells = [cell for backend in backends for cell in measured(options, options.out / backend, [backend])]
    else:
        cells = measured(options, options.out, backends)
    show(cells)


def measured(options: argparse.Namespace, out: Path, backends: list[str]) -> list[CellResult]:
    """The cells of all modes on some backends, from files that are made on the first of them."""
    models = out / "models"
    models.mkdir(parents=True, exist_ok=True)
    first = models / "float32.keras"
    if not first.exists():
        shutil.copy(open_model(options.artifact).keras_file, first)
    for mode in options.modes.split(","):
        make(options.artifact, mode, models, backends[0])
    plan = Plan.parse(
        {
            "models": [str(models / f"{mode}.keras") for mode in ("float32", *options.modes.split(","))],
            "backends": backends,
            "precisions": ["float32"],
            "batches": [int(b) for b in options.batches.split(",")],
            "phases": ["inference"],
            "methods": [
                m for b in backends for m in (*METHODS[b], *(["compile"] if options.compile and b == "torch" else []))
            ],
            "threads": [int(t) for t in options.threads.split(",")],
            "together": True,
            "settings": {"rounds": options.rounds, "timeout_s": 600},
        }
    )
    return list(kcost.run_bench(plan, out / "run").cells)


def make(artifact: Path, mode: str, models: Path, backend: str) -> None:
    """Writes a mode's `.keras` file, and prints what it does to the score."""
    if (models / f"{mode}.keras").exists():
        return
    request = OptimizeRequest(
        model=artifact.absolute(),
        out=(models / f"{mode}-artifact").absolute(),
        name=mode,
        quantize=mode,  # type: ignore[arg-type]  # checked by pydantic
        usd_per_hour=1.0,
        usd_basis="not used",
    )
    answer = run_job(OPTIMIZE, backend, request)  # type: ignore[arg-type]  # a name of a backend
    drop = answer.drop
    change = f"{drop.score} {drop.before:.4f} -> {drop.after:.4f}, drop at most {drop.bound:.4f} (95%)"
    print(f"{mode}, made on {backend}: {change}, {drop.count} {drop.unit}")
    for change_made in (*answer.artifact.steps[-1].changed, *answer.artifact.steps[-1].skipped):
        print(f"    {change_made}")
    shutil.copy(models / f"{mode}-artifact" / "model.keras", models / f"{mode}.keras")


def show(cells: Sequence[CellResult]) -> None:
    """A line for each method, batch size and mode: the best thread count of both, and their ratio."""
    best: dict[tuple[str, int, str], CellResult] = {}
    for cell in cells:
        if cell.status != "ok":
            print(f"{cell.spec.model} {cell.spec.label}: {cell.status}: {cell.reason}")
            continue
        key = (f"{cell.spec.backend}/{cell.spec.method}", cell.spec.batch, cell.spec.model)
        if key not in best or step_ns(cell).value < step_ns(best[key]).value:
            best[key] = cell
    print("| run as | batch | mode | ms (threads) | float32 ms (threads) | times faster (95%) |")
    print("|---|---|---|---|---|---|")
    for (method, batch, mode), cell in sorted(best.items()):
        base = best.get((method, batch, "float32"))
        if mode == "float32" or base is None:
            continue
        ratio = shared_rounds_ratio(base, cell)
        times = [f"{significant(step_ns(c).value / 1e6)} ({c.spec.threads})" for c in (cell, base)]
        print(f"| {method} | {batch} | {mode} | {times[0]} | {times[1]} | {ratio} |")


if __name__ == "__main__":
    main()
