"""Makes the picture of the README from a run folder: what predictions cost by each way of running a model.

python scripts/readme_picture.py                            # from docs/runs/digits-cnn, into docs/pictures
python scripts/readme_picture.py RUN FOLDER                 # another run, another place

What is INVALID is left out, and the picture says of how many ways. To measure again, on a machine
that does nothing else, from the root of the checkout:

rm -r docs/runs/digits-cnn
kcost bench docs/runs/plan.toml --out docs/runs/digits-cnn
python scripts/readme_picture.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import kcost
from kcost.report.interval_chart import DARK, LIGHT, Theme, interval_svg
from kcost.report.measured_results import ShownVerdict, usd_chart

ROOT = Path(__file__).parents[1]
RUN = ROOT / "docs" / "runs" / "digits-cnn"
FOLDER = ROOT / "docs" / "pictures"
THEMES = {"light": LIGHT, "dark": DARK}
MOST = 14


def pictures(run: Path) -> dict[str, str]:
    """Name of a file -> the picture in SVG, in light and dark."""
    # The instance is named, so that the picture stays where the price book gets a nearer one.
    verdict = kcost.estimate_cost(run, provider="aws", region="us-east-1", instance="m7i.large")
    return {f"cost-{name}.svg": picture(verdict, theme) for name, theme in THEMES.items()}


def picture(verdict: ShownVerdict, theme: Theme) -> str:
    """The cheapest ways and plain Keras, in dollars per so many predictions that the figures read at a glance."""
    ranking = verdict.main_ranking
    if ranking is None:
        raise SystemExit("The run holds nothing that was measured.")
    chart = usd_chart(ranking)
    if chart is None:
        raise SystemExit(f"INVALID: {ranking.cells[0].invalid}.")
    return interval_svg(chart.marks[:MOST], chart.axis, theme=theme, title=chart.title)


def main() -> None:
    """Writes the pictures."""
    run, folder = (Path(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, RUN), (2, FOLDER)))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pictures(run).items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
