"""The scenarios of a run as tables: the same words in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from kcost.core.stats import samples_for_tail
from kcost.core.units import significant, usd_a_million
from kcost.cost.ranking import TailLatency
from kcost.cost.scenarios import ScenarioRow
from kcost.report.tables import titled_table

NOTE = (
    "single-stream: one query at a time. offline: all samples there at once. after idle: the median of steps that "
    "begin after the model had nothing to do for 0.2 to 50 ms. server: queries arrive at random "
    "(Poisson) at this rate, and their p99 latency, counted from the arrival, is within the bound. USD are for so many "
    "predictions at that rate, for a machine that has that much work in every hour that is paid for."
)

HEADINGS = (
    "run as",
    "single-stream p90, ms",
    "single-stream p99, ms",
    "offline, samples/s",
    "offline, USD",
    "after idle, ms",
    "server, queries/s",
    "server p99, ms",
    "server, USD",
)
"""The first column is text; the others are figures, or say in words why there is none."""

NO_FIGURE = "-"
"""Of what was not measured."""

LESS_TELLING = ("single-stream p90, ms", "server p99, ms", "after idle, ms")
"""What is left out where a terminal has no room for it: the first of them first."""

NAME_WIDTH = 16
"""A name is wrapped at it, or at its longest word, before a column is left out."""

WIDEST = 1_000
"""Columns of a terminal that every table fits into."""


class ScenarioTable(NamedTuple):
    """A table that is ready to be drawn: plain text, nothing escaped."""

    title: str
    rows: list[list[str]]
    remarks: list[str]
    """What failed, and figures that are not to be believed: those begin with INVALID."""


def scenario_tables(rows: Sequence[ScenarioRow]) -> list[ScenarioTable]:
    """A table for each model and latency bound."""

    def key(row: ScenarioRow) -> tuple[str, float]:
        return row.model, row.latency_bound_ms or 0.0

    return [_table(list(group)) for _, group in groupby(sorted(rows, key=key), key=key)]


def _table(rows: list[ScenarioRow]) -> ScenarioTable:
    bound_ms = rows[0].latency_bound_ms
    title = f"{rows[0].model}, scenarios" + ("" if bound_ms is None else f": server with p99 within {bound_ms:g} ms")
    remarks = [f"{_name(row)}: {failure}" for row in rows for failure in row.failures]
    remarks += [f"INVALID: {_name(row)}: {row.invalid}" for row in rows if row.invalid is not None]
    return ScenarioTable(title, [_texts(row) for row in rows], remarks)


def show_scenarios(console: Console, rows: Sequence[ScenarioRow]) -> None:
    """Prints the tables; nothing for no rows."""
    if not rows:
        return
    for shown in scenario_tables(rows):
        console.print(_that_fits(console, shown))
        for remark in shown.remarks:
            style = "bold red" if remark.startswith("INVALID") else "yellow"
            console.print(f"[{style}]{escape(remark)}[/{style}]", highlight=False)
    console.print(NOTE, highlight=False)
    console.print()


def _that_fits(console: Console, shown: ScenarioTable) -> Table:
    """The columns that have a figure in some row, without the less telling ones that there is no room for."""
    places = [i for i in range(len(HEADINGS)) if i == 0 or any(texts[i] != NO_FIGURE for texts in shown.rows)]
    for heading in LESS_TELLING:
        narrowest = Measurement.get(console, console.options.update_width(WIDEST), _drawn(shown, places)).minimum
        if narrowest <= console.width:
            break
        places = [i for i in places if HEADINGS[i] != heading]
    return _drawn(shown, places)


def _drawn(shown: ScenarioTable, places: Sequence[int]) -> Table:
    """A table of some columns."""
    table = titled_table(shown.title)
    for place in places:
        narrowest = max(map(len, HEADINGS[place].split())) if place else NAME_WIDTH
        table.add_column(HEADINGS[place], justify="right" if place else "left", min_width=narrowest)
    for texts in shown.rows:
        table.add_row(*(escape(texts[place]) for place in places))
    return table


def _name(row: ScenarioRow) -> str:
    return row.label.removeprefix("inference ")


def _texts(row: ScenarioRow) -> list[str]:
    return [
        _name(row),
        _single_stream(row, row.single_stream_p90, 0.90),
        _single_stream(row, row.single_stream_p99, 0.99),
        NO_FIGURE if row.offline_samples_per_s is None else significant(row.offline_samples_per_s),
        NO_FIGURE if row.offline_usd_per_million is None else usd_a_million(row.offline_usd_per_million),
        NO_FIGURE if row.after_idle_ms is None else significant(row.after_idle_ms),
        _server(row),
        NO_FIGURE if row.server_p99 is None else significant(row.server_p99.ms),
        NO_FIGURE if row.server_usd_per_million is None else usd_a_million(row.server_usd_per_million),
    ]


def _single_stream(row: ScenarioRow, tail: TailLatency | None, fraction: float) -> str:
    if tail is not None:
        return significant(tail.ms)
    return f"can't tell: under {samples_for_tail(fraction)} queries" if row.single_stream else NO_FIGURE


def _server(row: ScenarioRow) -> str:
    if row.server_queries_per_s is not None:
        return significant(row.server_queries_per_s)
    if row.lowest_queries_per_s is not None:
        return f"not held, even at {significant(row.lowest_queries_per_s)}"
    if row.server_outcome == "not tried":
        return "can't tell: too slow to try a rate"
    return NO_FIGURE if row.server_outcome is None else "unfinished"
