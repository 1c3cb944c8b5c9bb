"""Wall time over measured time of a plan: python benchmarks/overhead.py PLAN OUT

OUT is a new run folder. Measured time is the sum of all steps of all rounds; preparing, warming up, scoring and writing
are in the wall time alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kcost.bench.runner import measure
from kcost.core.plan import Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    start = time.perf_counter()
    run = measure(Plan.read(given.plan), given.out)
    wall_s = time.perf_counter() - start
    measured_s = sum(sum(r.step_ns) for c in run.cells for r in c.rounds) / 1e9
    prepared = [c.preparation for c in run.cells if c.preparation is not None]
    parts = {
        "warm-up": sum(sum(p.warmup_ns) for p in prepared) / 1e9,
        "first calls": sum(p.first_call_s for p in prepared),
        "loading": sum(
            {
                (c.spec.model, c.spec.backend, c.spec.precision): c.preparation.load_s
                for c in run.cells
                if c.preparation
            }.values()
        ),
        "turns beyond their steps": sum(r.watch.wall_s for c in run.cells for r in c.rounds if r.watch) - measured_s,
    }
    print(f"{len(run.cells)} cells: wall {wall_s:.1f} s, measured {measured_s:.1f} s, ratio {wall_s / measured_s:.2f}")
    for name, seconds in parts.items():
        print(f"  {name}: {seconds:.1f} s")
    print(f"  the rest (imports, scoring, files): {wall_s - measured_s - sum(parts.values()):.1f} s")


if __name__ == "__main__":
    main()
