"""Profiles in words: the terminal and the page show the same."""

from __future__ import annotations

import io
from html import unescape

import pytest
from rich.console import Console

from kcost.core.profile import Operation, Profile, Work, trace_of
from kcost.core.result import Run
from kcost.report.profile_terminal import WIDEST_PLACE, show_profiles
from kcost.report.profiles import views_of
from testing.runs import Outputs, plan, replaced, simulated_run
from tests.unit.core.peaks import peak
from tests.unit.report.pages import page_of

PLACE = "model/" + "deep/" * 20 + "dense"
TRACE = trace_of(
    "a profiler",
    4,
    4_000_000,
    [
        Operation(name="dot[0] <b>", calls=8, self_ns=2_000_000, largest=PLACE),
        *(Operation(name=f"add {n}", calls=5, self_ns=100_000) for n in range(12)),
    ],
)
COUNTED = Work(flops=2_000_000, flops_source="a counter", bytes=4096, bytes_source="a bound", bytes_are_least=True)


def run_with(*profiles: Profile) -> tuple[Run, Outputs]:
    """A simulated run whose first cells have these profiles."""
    run, outputs = simulated_run(plan())
    for cell, profile in zip(run.cells, profiles, strict=False):
        run = replaced(run, cell.spec.cell_id, profile=profile)
    return run, outputs


def shown(run: Run) -> str:
    console = Console(width=250, record=True, file=io.StringIO())
    show_profiles(console, run, everything=True)
    return console.export_text()


def test_a_profile_shows_its_top_ten_and_what_its_arithmetic_says() -> None:
    text = shown(run_with(Profile(status="ok", trace=TRACE, work=COUNTED, peak=peak()))[0])
    assert "dot[0] <b>" in text
    row = next(line for line in text.splitlines() if line.startswith("dot"))
    assert row.split()[-4:-1] == ["2", "50.0%", "500"]
    assert row.split()[-1].endswith("/dense")
    assert len(row.split()[-1]) == WIDEST_PLACE
    assert sum(line.startswith("add ") for line in text.splitlines()) == 9
    assert "a profiler, 4 steps of 1.00 ms while it looked on; further operations 7.5%" in text
    assert "outside of operations 20.0%" in text
    assert "2.00 MFLOP a step (a counter); at least 4.00 KiB a step (a bound)" in text
    assert "100 GFLOP/s (float32 product of 1000 x 1000)" in text
    assert "at most 488 flops a byte, products set the roof from 10.0 on" in text
    assert "doi 10.1145/1498765.1498785" in text


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (Profile(status="crash", reason="it\nfell over"), "No operations, crash: it fell over"),
        (
            Profile(
                status="unsupported",
                reason="none here",
                work=Work(flops_source="nobody", bytes_source="nobody"),
                peak_reason="not today",
            ),
            "flops unknown, bytes unknown (nobody)",
        ),
        (Profile(status="ok", trace=TRACE, work=COUNTED, peak_reason="not today"), "Peak not measured: not today"),
    ],
)
def test_what_could_not_be_found_out_has_its_reason(profile: Profile, reason: str) -> None:
    assert reason in shown(run_with(profile)[0])


def test_the_page_shows_what_the_terminal_shows_and_names_are_text() -> None:
    run, outputs = run_with(Profile(status="ok", trace=TRACE, work=COUNTED, peak=peak()))
    page = page_of(run, outputs)
    assert "Where the time goes" in page
    assert "dot[0] <b>" not in page
    text = unescape(page)
    view = views_of(run)[0]
    assert view.rows[0].name in text
    assert all(note in text for note in view.notes)


def test_a_run_without_profiles_shows_none() -> None:
    run, outputs = run_with()
    assert shown(run) == ""
    assert "Where the time goes" not in page_of(run, outputs)
