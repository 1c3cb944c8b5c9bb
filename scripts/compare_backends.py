"""Which backend runs a model cheapest: python scripts/compare_backends.py MODEL RUN_FOLDER

MODEL is an artifact folder or any .keras file.
"""

from __future__ import annotations

import sys

import kcost


def main(model: str, run: str) -> None:
    plan = kcost.Plan(models=(model,), phases=("inference",), batches=(1, 32), settings=kcost.Settings(rounds=8))
    kcost.run_bench(plan, run)
    verdict = kcost.estimate_cost(run)
    for ranking in verdict.rankings:
        for backend, cell in ranking.best_by_backend().items():
            usd = "measure again" if cell.cost is None else f"${cell.cost.usd:.3g} per {ranking.unit}"
            print(f"{backend}: {usd} as {cell.name}")
    for conclusion in verdict.conclusions:
        print(conclusion.sentence)


if __name__ == "__main__":
    main(*sys.argv[1:])
