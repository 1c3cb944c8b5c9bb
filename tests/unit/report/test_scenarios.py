"""The scenarios of a run in the terminal and on the page."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kcost.core.result import Run
from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import Verdict, conclude, prices_for
from kcost.report.page import render
from kcost.report.terminal import show_verdict
from testing.runs import plan, simulated_run
from tests.unit.cost.scenario_runs import after_idle, offline, run_with, server, single, trial


def verdict_of(run: Run) -> Verdict:
    _, outputs = simulated_run(plan(phases=("inference",)))
    return conclude(run, prices_for(run, PriceBook.read()), lambda c: outputs.get(c.spec.cell_id))


def shown(run: Run, width: int = 160) -> str:
    text = io.StringIO()
    show_verdict(Console(file=text, width=width), verdict_of(run))
    return text.getvalue()


def test_figures_with_their_units_in_the_heading() -> None:
    run = run_with(single(700), offline(), server(trial(243, 20)))
    text = " ".join(shown(run, 200).split())
    assert "simulated-cnn, scenarios: server with p99 within 50 ms" in text
    assert "offline, samples/s" in text
    assert "server, queries/s" in text
    row = next(line for line in shown(run).splitlines() if "243" in line)
    assert "250" in row
    assert row.count("$") == 2


def test_steps_after_idle_time_have_a_column() -> None:
    run = run_with(offline(), after_idle())
    row = next(line for line in shown(run).splitlines() if "jit" in line and "250" in line)
    assert row.split()[-1] == "6.00"
    assert '<td class="n">6.00</td>' in render(run, verdict_of(run)).decode()


def table_of(text: str) -> str:
    """The table of scenarios, without the note below it."""
    return text.split("simulated-cnn, scenarios")[1].split("single-stream: one query")[0]


def test_it_fits_into_eighty_columns() -> None:
    text = shown(run_with(single(700), offline(), after_idle(), server(trial(243, 20))), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "p90" not in text
    assert "single-stream" in text
    assert "6.00" in table_of(text), "the steps after idle time"


def test_columns_are_left_out_only_where_there_is_no_room() -> None:
    run = run_with(single(700), offline(), after_idle(), server(trial(243, 20)))
    assert "p90" in table_of(shown(run, 125))
    assert "20.0" in table_of(shown(run, 90)), "the server's p99"
    assert "20.0" not in table_of(shown(run, 80))
    assert "6.00" not in table_of(shown(run, 70))


@pytest.mark.parametrize("width", [80, 90, 100, 110, 125, 140, 160, 200])
def test_no_word_of_a_table_is_cut(width: int) -> None:
    table = table_of(shown(run_with(single(64), offline(), after_idle(), server(trial(243, 20))), width))
    words = table.split()
    assert words.count("million") == 2
    assert words.count("USD") == 2
    assert "queries/s" in words
    assert "can't" in words
    assert max(map(len, table.splitlines())) <= width


def test_columns_without_a_figure_take_no_room() -> None:
    table = table_of(shown(run_with(after_idle()), 40))
    assert "6.00" in table
    assert "offline" not in table
    assert "server" not in table


def test_what_is_not_known_is_said_in_words() -> None:
    fails = [trial(rate, 60) for rate in (125.0, 125.0, 62.5, 62.5, 31.25, 31.25, 15.625, 15.625, 7.8125, 7.8125)]
    held_not = shown(run_with(single(64), offline(), server(*fails)), 250)
    assert "not held, even at 7.81" in held_not
    assert "can't tell: under 662 queries" in held_not
    assert "too slow to try a rate" in shown(run_with(offline(), server(capacity_per_s=5.0)), 250)
    failed = shown(run_with(offline(), server(failure="crash: killed by SIGKILL")), 250)
    assert "unfinished" in failed
    assert "server: crash: killed by SIGKILL" in failed


def test_the_page_has_the_same_table() -> None:
    run = run_with(single(700), offline(), server(trial(243, 20), failure=None))
    page = render(run, verdict_of(run)).decode()
    assert "<h2>Scenarios</h2>" in page
    assert "<h3>simulated-cnn, scenarios: server with p99 within 50 ms</h3>" in page
    assert '<td class="n">243</td>' in page
    without, _ = simulated_run(plan(phases=("inference",)))
    assert "<h2>Scenarios</h2>" not in render(without, verdict_of(without)).decode()


def test_what_a_failure_says_is_text_not_markup() -> None:
    run = run_with(offline(failure="crash: <b>[red]</b>"))
    assert "crash: <b>[red]</b>" in shown(run, 250)
    assert "crash: &lt;b&gt;[red]&lt;/b&gt;" in render(run, verdict_of(run)).decode()
