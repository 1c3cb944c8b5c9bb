"""The plots of a budget as plotly figures in plain data."""

from __future__ import annotations

from html import escape
from typing import Any

from kcost.core.units import format_usd, significant, usd_a_million
from kcost.cost.budget import Budget
from kcost.cost.instance_map import InstancePoint
from kcost.cost.total import KINDS, Bill, Kind
from kcost.report.plots import Plot

KIND_COLOURS: dict[Kind, str] = {
    "serving": "#2b7de9",
    "work": "#e8710a",
    "labelling": "#1f9d6b",
    "training": "#c2377e",
    "energy": "#7a7f87",
}
LINE_COLOURS = ("#2b7de9", "#e8710a", "#7a7f87")
SHOWN = 12
"""Options in the bill: more bars than that nobody compares."""

ROW_PX, FRAME_PX = 34, 190
FITTING = 6
"""Bars that fit into a plot of the usual height."""

POINTS = 60


def plots_of_budget(budget: Budget) -> list[Plot]:
    """The plots that a budget has data for."""
    if not budget.options:
        return []
    plots = [bill_plot(budget)]
    if len(budget.options) > 1:
        plots.append(break_even_plot(budget))
    if any(swing.width_usd > 0 for swing in budget.tornado):
        plots.append(tornado_plot(budget))
    if budget.instances:
        plots.append(map_plot(budget))
    return plots


def map_plot(budget: Budget) -> Plot:
    """Instances by price and time, both axes logarithmic; hatched where no measurement of such a processor stands
    behind it.

    The line joins what costs as much a prediction at full load as the cheapest of those that rest on a measurement.
    """
    measured = [p for p in budget.instances if p.is_measured]
    others = [p for p in budget.instances if not p.is_measured]
    best = min(measured or others, key=lambda p: p.usd_per_million)
    hours = [p.usd_per_hour for p in budget.instances]
    ends = [min(hours) / 2, max(hours) * 2]
    data = [_points(points, name, hatched) for points, name, hatched in (
        (measured, "measured or scaled", False), (others, "hatched: not measured", True)
    ) if points]  # fmt: skip
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": usd_a_million(best.usd_per_million),
            "x": ends,
            "y": [best.usd_per_million / end * 3.6 for end in ends],
            "line": {"dash": "dot", "width": 1, "color": LINE_COLOURS[2]},
            "hoverinfo": "skip",
        }
    )
    return Plot(
        title="Map of instances",
        note="Each point is an instance that is never idle; below the line a prediction costs less. Hatched: "
        "projected, published or simulated, with its 90% interval where there is one. What --to adds is on this map "
        "alone, not in the bill.",
        figure={
            "data": data,
            "layout": {
                "xaxis": {"title": {"text": "USD an hour"}, "type": "log"},
                "yaxis": {"title": {"text": "milliseconds a prediction"}, "type": "log"},
            },
        },
    )


def _points(points: list[InstancePoint], name: str, hatched: bool) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [p.usd_per_hour for p in points],
        "y": [p.ms_per_prediction for p in points],
        "text": [
            f"{escape(p.instance)}<br>{escape(p.way)}<br>{usd_a_million(p.usd_per_million)}, "
            f"{'simulated' if p.simulated else p.basis}"
            for p in points
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "size": 13 if hatched else 10,
            "symbol": "hash-open" if hatched else "circle",
            "color": LINE_COLOURS[int(hatched)],
            "line": {"width": 2, "color": LINE_COLOURS[int(hatched)]},
        },
    }
    if any(p.high_ms is not None for p in points):
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [(p.high_ms or p.ms_per_prediction) - p.ms_per_prediction for p in points],
            "arrayminus": [p.ms_per_prediction - (p.low_ms or p.ms_per_prediction) for p in points],
            "thickness": 1,
            "width": 0,
        }
    return trace


def bill_plot(budget: Budget) -> Plot:
    """The total of each option over the horizon, a bar each, by kind; hatched where it rests on no measurement."""
    bills = [p.bill for p in budget.options[:SHOWN]][::-1]
    hatches = ["" if b.option.basis == "measured" and not b.option.simulated else "/" for b in bills]
    names = [escape(b.option.name) for b in bills]
    bars = []
    for kind in KINDS:
        amounts = [_of_kind(b, kind) for b in bills]
        if any(amounts):
            bars.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": kind,
                    "y": names,
                    "x": amounts,
                    "marker": {"color": KIND_COLOURS[kind], "pattern": {"shape": hatches, "size": 6}},
                    "customdata": [format_usd(usd) for usd in amounts],
                    "hovertemplate": f"%{{y}}<br>{kind} %{{customdata}}<extra></extra>",
                }
            )
    return Plot(
        title=f"The bill of {budget.horizon_days:g} days by kind",
        note="Serving is paid by the hour, all else once. Hatched: not measured on the instance that is billed.",
        figure={
            "data": bars,
            "layout": {
                "barmode": "stack",
                **({"height": FRAME_PX + ROW_PX * len(bills)} if len(bills) > FITTING else {}),
                "xaxis": {"title": {"text": "USD"}},
                "yaxis": {"title": {"text": ""}},
            },
        },
    )


def _of_kind(bill: Bill, kind: Kind) -> float:
    return sum(line.usd for line in bill.lines if line.kind == kind)


def break_even_plot(budget: Budget) -> Plot:
    """What has been paid by a day: the winner, the runner-up, and what runs today where it is neither."""
    bills = [p.bill for p in budget.options[:2]]
    bills += [p.bill for p in budget.options[2:] if p.bill.option.is_plain][:1]
    days = [budget.horizon_days * i / POINTS for i in range(POINTS + 1)]
    lines: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": escape(bill.option.name),
            "x": days,
            "y": [bill.usd_once + day * (bill.usd_total - bill.usd_once) / budget.horizon_days for day in days],
            "line": {"color": LINE_COLOURS[i], "width": 2},
        }
        for i, bill in enumerate(bills)
    ]
    back = budget.break_even
    note = "Where the lines cross, what was paid at first has been saved."
    if back is not None and back.days is not None and 0 < back.days <= budget.horizon_days:
        first = bills[0]
        paid = first.usd_once + back.days * (first.usd_total - first.usd_once) / budget.horizon_days
        lines.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"day {significant(back.days)}",
                "x": [back.days],
                "y": [paid],
                "marker": {"size": 10, "color": LINE_COLOURS[0], "symbol": "diamond"},
            }
        )
    elif back is None or back.days is None:
        note = "The lines do not cross: what was paid at first is never saved."
    elif back.days > budget.horizon_days:
        note = f"The lines cross after {significant(back.days)} days, beyond the horizon."
    elif back.usd_once <= 0:
        note = "The cheapest costs no more at first, so there is nothing to pay back."
    return Plot(
        title="When it pays back",
        note=note,
        figure={
            "data": lines,
            "layout": {"xaxis": {"title": {"text": "days"}}, "yaxis": {"title": {"text": "USD paid so far"}}},
        },
    )


def tornado_plot(budget: Budget) -> Plot:
    """What each cause alone does to the saving, the widest on top."""
    swings = [s for s in budget.tornado if s.width_usd > 0][::-1]
    return Plot(
        title=f"What moves the saving over {budget.options[1].bill.option.name}",
        note="Each bar is where the saving lies with 90% probability if nothing but this is uncertain. USD a month, "
        "with what is paid once spread over the horizon. A bar that crosses 0 can turn the answer around.",
        figure={
            "data": [
                {
                    "type": "bar",
                    "orientation": "h",
                    "showlegend": False,
                    "y": [s.cause for s in swings],
                    "base": [s.low_usd for s in swings],
                    "x": [s.width_usd for s in swings],
                    "marker": {"color": LINE_COLOURS[0]},
                    "customdata": [f"{format_usd(s.low_usd)} to {format_usd(s.high_usd)}" for s in swings],
                    "hovertemplate": "%{y}<br>%{customdata}<extra></extra>",
                }
            ],
            "layout": {"xaxis": {"title": {"text": "USD a month"}}, "yaxis": {"title": {"text": ""}}},
        },
    )
