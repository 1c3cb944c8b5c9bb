"""The page in a real browser, with the network cut off."""

import re
from html import unescape
from pathlib import Path

import pytest

from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import conclude, prices_for
from kcost.report.page import render
from testing.runs import plan, replaced, simulated_run
from tests.unit.report.browser import CHROMIUM, layout_at, rendered

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; on Debian: apt-get install chromium")


def test_the_plots_are_drawn_offline_and_no_script_fails(tmp_path: Path) -> None:
    run, outputs = simulated_run(plan(models=("simulated-cnn", "simulated-bert")))
    run = replaced(run, run.cells[4].spec.cell_id, status="crash", reason="<script>document.body.innerHTML=''</script>")
    verdict = conclude(run, prices_for(run, PriceBook.read()), lambda c: outputs.get(c.spec.cell_id))
    document = rendered(render(run, verdict), tmp_path)
    body = re.search(r"<body[^>]*>", document).group()
    assert "data-error" not in body, body
    assert 'data-drawn="6"' in body
    for number in range(6):
        plot = document.split(f'id="plot-{number}"')[1].split('class="note"')[0]
        assert 'class="main-svg"' in plot
        assert 'class="xtick"' in plot
    lines = len([line for r in verdict.rankings for line in {(c.backend, c.method, c.precision) for c in r.cells}])
    assert len(re.findall(r'class="trace scatter', document)) >= lines
    assert verdict.conclusions[0].sentence in unescape(document)


def test_a_script_that_fails_is_seen_by_the_test_above(tmp_path: Path) -> None:
    run, outputs = simulated_run(plan(batches=(1,), phases=("training",)))
    verdict = conclude(run, prices_for(run, PriceBook.read()), lambda c: outputs.get(c.spec.cell_id))
    broken = render(run, verdict).replace(b"Plotly.react(", b"Plotly.noSuchFunction(")
    assert 'data-error="TypeError: Plotly.noSuchFunction' in rendered(broken, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_a_phone_and_a_wide_screen(width: int, tmp_path: Path) -> None:
    run, outputs = simulated_run(plan(models=("simulated-cnn", "simulated-bert")))
    run = replaced(run, run.cells[4].spec.cell_id, status="crash", reason="it fell over " + "at-length" * 12)
    verdict = conclude(run, prices_for(run, PriceBook.read()), lambda c: outputs.get(c.spec.cell_id))
    layout = layout_at(render(run, verdict), width, tmp_path)
    assert layout.inner_width == width
    assert layout.scroll_width <= width
    assert layout.smallest_text >= 10


def test_a_page_that_is_too_wide_is_seen_by_the_test_above(tmp_path: Path) -> None:
    wide = b'<!doctype html><body><p style="font-size:7px;width:600px">wide</p></body>'
    layout = layout_at(wide, 400, tmp_path)
    assert layout.inner_width == 400
    assert layout.scroll_width > 600
    assert layout.smallest_text == 7
