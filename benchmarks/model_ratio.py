"""How many times faster one model is than another, on each backend, all in turns of one run.

    python benchmarks/model_ratio.py BEFORE AFTER OUT [--batches 1,32] [--threads 1,2]

BEFORE and AFTER are artifact folders or .keras files of the same inputs. Each is taken at its better number of threads.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import kcost
from kcost.core.artifact import open_model
from kcost.core.plan import Plan
from kcost.core.units import significant
from kcost.cost.estimate import step_ns
from kcost.cost.payoff import shared_rounds_ratio

METHODS = {"tensorflow": "graph", "jax": "jit", "torch": "eager"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    batches = [int(b) for b in options.batches.split(",")]
    plan = Plan.parse(
        {
            "models": [str(options.before), str(options.after)],
            "backends": list(METHODS),
            "precisions": ["float32"],
            "batches": batches,
            "phases": ["inference"],
            "methods": list(METHODS.values()),
            "threads": [int(t) for t in options.threads.split(",")],
            "together": True,
            "settings": {"rounds": options.rounds},
        }
    )
    cells = kcost.run_bench(plan, options.out).cells
    for cell in cells:
        if cell.status != "ok":
            print(f"{cell.spec.model} {cell.spec.label}: {cell.status}: {cell.reason}")
    before = open_model(options.before).name
    print("| backend | batch | before, ms (threads) | after, ms (threads) | times faster (95%) |")
    print("|---|---|---|---|---|")
    for backend in METHODS:
        for batch in batches:
            measured = [c for c in cells if c.status == "ok" and (c.spec.backend, c.spec.batch) == (backend, batch)]
            sides = [[c for c in measured if (c.spec.model == before) is first] for first in (True, False)]
            if not all(sides):
                continue
            old, new = (min(side, key=lambda cell: step_ns(cell).value) for side in sides)
            times = [f"{significant(step_ns(c).value / 1e6)} ({c.spec.threads})" for c in (old, new)]
            print(f"| {backend} | {batch} | {times[0]} | {times[1]} | {shared_rounds_ratio(old, new)} |")


if __name__ == "__main__":
    main()
