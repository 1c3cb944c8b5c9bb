"""The scenarios of a run as tables: the same words in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from kcost.core.stats import samples_for_tail
from kcost.core.units import significant, usd_a_million
from kcost.cost.ranking import TailLatency
from kcost.cost.scenarios import ScenarioRow
from kcost.report.tables import MEASURE_AGAIN, titled_table

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

BETWEEN = 2
"""Blanks between two columns."""


class ScenarioTable(NamedTuple):
    """A table that is ready to be drawn: plain text, nothing escaped."""

    title: str
    rows: list[list[str]]
    remarks: list[str]
    """What failed, and rows that are not to be believed: those begin with INVALID."""


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
    columns = {i: [HEADINGS[i], *(texts[i] for texts in shown.rows)] for i in places}
    natural = {i: max(map(len, texts)) for i, texts in columns.items()}
    narrowest = {i: max(len(word) for text in texts for word in text.split()) for i, texts in columns.items()}
    narrowest[0] = max(narrowest[0], min(NAME_WIDTH, natural[0]))

    def fits(widths: Mapping[int, int]) -> bool:
        return sum(widths[i] for i in places) + BETWEEN * (len(places) - 1) <= console.width

    for heading in LESS_TELLING:
        if fits(narrowest):
            break
        places = [i for i in places if HEADINGS[i] != heading]
    most = None if fits(natural) else narrowest
    table = titled_table(shown.title)
    for i in places:
        # Where there is little room, what is left of it is the name's: rich itself would cut words.
        max_width = most[i] if most and i else None
        justify: JustifyMethod = "right" if i else "left"
        table.add_column(HEADINGS[i], justify=justify, min_width=narrowest[i], max_width=max_width)
    for texts in shown.rows:
        table.add_row(*(escape(texts[i]) for i in places))
    return table


def _name(row: ScenarioRow) -> str:
    return row.label.removeprefix("inference ")


def _texts(row: ScenarioRow) -> list[str]:
    return [
        _name(row),
        _single_stream(row, row.single_stream_p90, 0.90),
        _single_stream(row, row.single_stream_p99, 0.99),
        NO_FIGURE if row.offline_samples_per_s is None else significant(row.offline_samples_per_s),
        _usd(row, row.offline_samples_per_s, row.offline_usd_per_million),
        NO_FIGURE if row.after_idle_ms is None else significant(row.after_idle_ms),
        _server(row),
        NO_FIGURE if row.server_p99 is None else significant(row.server_p99.ms),
        _usd(row, row.server_queries_per_s, row.server_usd_per_million),
    ]


def _usd(row: ScenarioRow, per_s: float | None, usd_per_million: float | None) -> str:
    if usd_per_million is not None:
        return usd_a_million(usd_per_million)
    return MEASURE_AGAIN if per_s is not None and row.invalid is not None else NO_FIGURE


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
