"""Makes the picture of the README from a run folder: what a million predictions cost by each way of running a model.

python scripts/readme_picture.py                            # from docs/runs/digits-cnn, into docs/pictures
python scripts/readme_picture.py RUN FOLDER                 # another run, another place

A run that was measured beside other work gives a picture that says so in the place of its figures. To measure again, on
a machine that does nothing else, from the root of the checkout:

rm -r docs/runs/digits-cnn
kcost bench docs/runs/plan.toml --out docs/runs/digits-cnn
python scripts/readme_picture.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import kcost
from kcost.report.interval_chart import DARK, LIGHT, Axis, Mark, Theme, interval_svg
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
    """The cheapest ways and plain Keras, in USD per million predictions."""
    ranking = verdict.main_ranking
    if ranking is None:
        raise SystemExit("The run holds nothing that was measured.")
    chart = usd_chart(ranking)
    scale = ranking.usd_scale
    marks = [_per_million(mark, scale.factor) for mark in chart.marks[:MOST]]
    valid = ranking.best is not None and not any(mark.faded for mark in marks)
    title = f"{ranking.model}: what a million predictions cost"
    if not valid:
        title += " (measured beside other work: measure again)"
    axis = Axis("USD per million predictions, with 95% intervals; * is plain Keras", logarithmic=True)
    return interval_svg(marks, axis, theme=theme, title=title)


def _per_million(mark: Mark, factor: float) -> Mark:
    high = None if mark.high is None else mark.high / factor
    return mark._replace(value=mark.value / factor, low=mark.low / factor, high=high)


def main() -> None:
    """Writes the pictures."""
    run, folder = (Path(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, RUN), (2, FOLDER)))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pictures(run).items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
