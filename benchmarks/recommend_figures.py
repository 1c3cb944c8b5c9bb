"""What the schedule of `kcost recommend` comes to on simulated candidates whose true costs are known.

python benchmarks/recommend_figures.py                     # 1,000 cases, 20 minutes each
python benchmarks/recommend_figures.py --minutes 5 --cases 200
"""

from __future__ import annotations

import argparse

import numpy as np

from kcost.recommend.schedule import NEAR
from kcost.recommend.simulate import case, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000)
    parser.add_argument("--minutes", type=float, default=20.0)
    given = parser.parse_args()
    outcomes = [run(case(seed), given.minutes, seed) for seed in range(given.cases)]
    losses = np.array([o.loss for o in outcomes])
    shares = np.array([o.share_of_time for o in outcomes])
    within = NEAR - 1
    print(f"simulated: {given.cases} cases of 18 candidates, {given.minutes:g} minutes each")
    print(f"the true winner: {np.mean(losses == 0):.1%}; it, or one within {within:.0%} of its cost: ", end="")
    print(f"{np.mean(losses <= within):.1%}; the worst loss {losses.max():.1%}")
    print("time, as a share of what 10 rounds of every candidate take: ", end="")
    print(", ".join(f"{np.quantile(shares, q):.0%} ({q:.0%} of the cases)" for q in (0.1, 0.5, 0.9)))
    print(f"first figures: after at most {max(o.first_figures_s for o in outcomes):.0f} s")


if __name__ == "__main__":
    main()
