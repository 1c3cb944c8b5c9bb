"""Figures with their intervals, one row each, as a picture in SVG without a script, and as a plotly figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from kcost.core.units import significant
from kcost.report.plots import Plot, round_numbers

WIDTH, ROW, TOP, BOTTOM = 760, 26, 34, 46
"""Of the picture, in units of its view box; about pixels."""
LABEL, TEXT = 270, 110
"""Columns left and right of the plot: what a row is, and its figure in words."""
CHARACTERS = 40
"""Of a label; longer ones are cut in the middle, as names differ at their ends."""
LINEAR_TICKS = 5


class Mark(NamedTuple):
    """One figure with its interval."""

    label: str
    value: float
    low: float
    high: float | None
    """None where the interval has no upper end."""
    colour: str
    text: str
    """The figure in words."""
    faded: bool = False
    """Not to be compared with the others, or not to be believed."""


class Axis(NamedTuple):
    """What the figures are of."""

    title: str
    logarithmic: bool = False
    reference: float | None = None
    """Where a line stands, such as 1 for a ratio."""


class Theme(NamedTuple):
    """Colours of what is no figure."""

    text: str
    soft: str
    grid: str


INHERITED = Theme("currentColor", "currentColor", "currentColor")
"""Of a page that the picture stands in."""
LIGHT = Theme("#1c2127", "#5c6570", "#d5dae0")
DARK = Theme("#e6e9ed", "#9aa4b0", "#3a424c")


def interval_svg(marks: Sequence[Mark], axis: Axis, *, theme: Theme = INHERITED, title: str) -> str:
    """The picture: a row for each figure, in the order given.

    Args:
        title: read aloud in the place of the picture.

    Raises:
        ValueError: no figure at all, or one on a logarithmic axis that is not positive.
    """
    if not marks:
        raise ValueError("a picture has a figure at least")
    ticks = _ticks(marks, axis)
    height = TOP + ROW * len(marks) + BOTTOM
    left, right = LABEL, WIDTH - TEXT
    bottom = height - BOTTOM

    def place(value: float) -> float:
        first, last, here = (math.log(v) if axis.logarithmic else v for v in (ticks[0], ticks[-1], value))
        return left + (right - left) * (here - first) / (last - first)

    opacity = ' stroke-opacity="0.25"' if theme is INHERITED else ""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="100%" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">',
        f'<text x="0" y="16" fill="{theme.text}" font-weight="600">{escape(title)}</text>',
    ]
    for tick in ticks:
        x = f"{place(tick):.1f}"
        parts.append(f'<line x1="{x}" y1="{TOP - 6}" x2="{x}" y2="{bottom}" stroke="{theme.grid}"{opacity}/>')
        parts.append(f'<text x="{x}" y="{bottom + 17}" fill="{theme.soft}" text-anchor="middle">{tick:g}</text>')
    middle = (left + right) / 2
    parts.append(
        f'<text x="{middle:g}" y="{bottom + 37}" fill="{theme.soft}" text-anchor="middle">{escape(axis.title)}</text>'
    )
    if axis.reference is not None:
        x = f"{place(axis.reference):.1f}"
        parts.append(
            f'<line x1="{x}" y1="{TOP - 6}" x2="{x}" y2="{bottom}" stroke="{theme.text}" stroke-dasharray="4 3"/>'
        )
    for number, mark in enumerate(marks):
        y = TOP + ROW * number + ROW // 2
        end = right if mark.high is None else place(mark.high)
        group = f'<g opacity="{0.45 if mark.faded else 1:g}">'
        parts += [
            f'{group}<text x="0" y="{y + 4}" fill="{theme.text}">{escape(_cut(mark.label))}</text>',
            f'<line x1="{place(mark.low):.1f}" y1="{y}" x2="{end:.1f}" y2="{y}" stroke="{mark.colour}" '
            'stroke-width="4" stroke-linecap="round" stroke-opacity="0.45"/>',
            f'<circle cx="{place(mark.value):.1f}" cy="{y}" r="5" fill="{mark.colour}"/>',
            f'<text x="{WIDTH}" y="{y + 4}" fill="{theme.text}" text-anchor="end">{escape(mark.text)}</text></g>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def interval_plot(marks: Sequence[Mark], axis: Axis, *, title: str, note: str) -> Plot:
    """The same as a plotly figure in plain data."""
    shown = list(marks)[::-1]  # plotly counts from below
    ends = [m.value if m.high is None else m.high for m in shown]
    xaxis = {"title": {"text": axis.title}, "type": "log" if axis.logarithmic else "linear"}
    return Plot(
        title=title,
        note=note,
        figure={
            "data": [
                {
                    "type": "scatter",
                    "mode": "markers",
                    "y": [escape(m.label) for m in shown],
                    "x": [m.value for m in shown],
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": [end - m.value for end, m in zip(ends, shown, strict=True)],
                        "arrayminus": [m.value - m.low for m in shown],
                    },
                    "marker": {
                        "size": 9,
                        "color": [m.colour for m in shown],
                        "opacity": [0.45 if m.faded else 1.0 for m in shown],
                    },
                    "text": [escape(m.text) for m in shown],
                    "hovertemplate": "%{y}<br>%{text}<extra></extra>",
                }
            ],
            "layout": {"xaxis": xaxis, "yaxis": {"title": {"text": ""}}},
        },
    )


def _cut(label: str) -> str:
    return label if len(label) <= CHARACTERS else f"{label[: CHARACTERS // 3]}...{label[3 - CHARACTERS * 2 // 3 :]}"


def _ticks(marks: Sequence[Mark], axis: Axis) -> list[float]:
    """From at most the least to at least the largest of what is drawn."""
    drawn = [v for m in marks for v in (m.value, m.low, m.high) if v is not None and math.isfinite(v)]
    drawn += [] if axis.reference is None else [axis.reference]
    low, high = min(drawn), max(drawn)
    if axis.logarithmic:
        if low <= 0:
            raise ValueError(f"a logarithmic axis has positive figures, not {low:g}")
        ticks = round_numbers(low, high)
        return ticks if len(ticks) > 1 else [low / 2, low * 2]
    width = high - low or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(width / LINEAR_TICKS))
    step = next(power * n for n in (1, 2, 5, 10) if width / (power * n) <= LINEAR_TICKS)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(significant(step * n, 6).replace(",", "")) for n in range(first, max(last, first + 1) + 1)]
