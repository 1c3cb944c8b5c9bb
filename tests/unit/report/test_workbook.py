"""The workbook: LibreOffice computes from its formulas the cents that kcost does, also after a figure was changed."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import kcost
from kcost.core.errors import UnavailableError
from kcost.cost.assumptions import assume
from kcost.cost.budget import Budget, make_budget
from kcost.cost.option import OneOff
from kcost.cost.traffic import Traffic, constant, profile
from testing.budgets import option

pytest.importorskip("xlsxwriter", reason="xlsxwriter is not installed: pip install 'kcost[xlsx]'")
OFFICE = shutil.which("soffice") or shutil.which("libreoffice")

ROW_OF = {"serving": 19, "work": 20, "labelling": 21, "training": 22, "energy": 23}


def budget_of(traffic: Traffic, **assumptions: Any) -> Budget:
    fast = option(
        "fast",
        usd_per_hour=0.4032,
        spot_usd_per_hour=0.1571,
        workers_per_instance=4,
        queries_per_s_per_replica=183.7,
        queries_per_s_at_full_load=330.0,
        one_off=OneOff(work_hours=12.5, labels=2000, usd_per_label=0.0813, training_usd=1.507, source="made up"),
    )
    own = option("own", usd_per_hour=0.0611, spot_usd_per_hour=0.0611, watts_per_instance=310.0, usd_per_kwh=0.287)
    plain = option(usd_per_hour=0.1008, spot_usd_per_hour=0.0407)
    return make_budget([plain, fast, own], {}, traffic, assume(assumptions, {}), draws=200)


DAY = profile([30.0 + 11.3 * hour for hour in range(12)] + [900.0 - 61.7 * hour for hour in range(12)], "daily")


def without_values(content: bytes, replace: tuple[str, str] | None = None) -> bytes:
    """The workbook without what kcost computed: what a reader shows then, it computed itself."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name.startswith("xl/worksheets/"):
                text = re.sub(rb"</f><v>[^<]*</v>", b"</f>", text)
                if replace is not None:
                    text = text.replace(*(part.encode() for part in replace))
            new.writestr(name, text)
    return made.getvalue()


GUIDE = Path(__file__).parents[3] / "docs" / "scenario.toml"

CASES: dict[str, tuple[Traffic, dict[str, Any]]] = {
    "rate": (constant(2_000), {"headroom": 0.25}),
    "autoscaled": (
        DAY,
        {"autoscale": True, "spot_share": 0.5, "spot_interruptions_per_month": 40.0, "min_replicas": 2},
    ),
    "spot": (constant(2_000), {"spot_share": 0.3}),
    "day": (DAY, {"horizon_days": 90}),
    "zones": (constant(2_000), {"zones": 3, "spot_share": 0.3}),
    "zones autoscaled": (DAY, {"zones": 2, "autoscale": True}),
}


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """The sheet `options` of each workbook as LibreOffice computes it, with all digits; one start of it for all."""
    from kcost.report.workbook import workbook

    if OFFICE is None:
        pytest.skip("LibreOffice is not installed: apt install libreoffice-calc")
    folder = tmp_path_factory.mktemp("workbooks")
    contents = {name: without_values(workbook(budget_of(t, **a))) for name, (t, a) in CASES.items()}
    contents["guide"] = without_values(workbook(kcost.estimate_budget(scenario=GUIDE, draws=200)))
    rate = workbook(budget_of(CASES["rate"][0], **CASES["rate"][1]))
    contents["changed"] = without_values(rate, ("<v>2000</v>", "<v>7321</v>"))
    for name, content in contents.items():
        (folder / f"{name}.xlsx").write_bytes(content)
    form = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,false,false,false,2"
    command = [OFFICE, f"-env:UserInstallation=file://{folder / 'profile'}", "--headless", "--convert-to", form]
    files = [str(folder / f"{name}.xlsx") for name in contents]
    subprocess.run([*command, "--outdir", str(folder), *files], check=True, capture_output=True, timeout=300)
    return {name: list(csv.reader((folder / f"{name}-options.csv").read_text().splitlines())) for name in contents}


@pytest.mark.parametrize("name", CASES)
def test_libreoffice_computes_the_same_cents(name: str, computed: dict[str, list[list[str]]]) -> None:
    traffic, assumptions = CASES[name]
    rows = computed[name]
    for place, priced in enumerate(budget_of(traffic, **assumptions).options, start=1):
        made = priced.bill
        cents = {line.kind: line.usd for line in made.lines}
        assert {kind: round(float(rows[row - 1][place]), 2) for kind, row in ROW_OF.items()} == cents
        assert round(float(rows[23][place]), 2) == made.usd_total
        assert float(rows[14][place]) == made.replicas
        assert float(rows[15][place]) == made.instances
        for row, value in ((25, made.usd_per_month), (26, made.usd_per_million), (28, made.idle_share)):
            assert float(rows[row - 1][place]) == pytest.approx(value)


def test_the_example_of_the_guide_is_the_same_by_hand(computed: dict[str, list[list[str]]]) -> None:
    """The table of docs/cost.md: by the command, and as LibreOffice computes it."""
    by_hand = {
        "int8 on tensorflow": (1766.02, 1200.0, 150.0, 1.5, 0.0, 3117.52, 147.17),
        "float32 on tensorflow": (5298.05, 0.0, 0.0, 0.0, 0.0, 5298.05, 441.50),
    }
    rows = computed["guide"]
    read = {
        name: tuple(round(float(rows[row][place]), 2) for row in range(18, 25))
        for place, name in enumerate(rows[0][1:], start=1)
    }
    assert read == by_hand
    budget = kcost.estimate_budget(scenario=GUIDE, draws=200)
    made = {
        p.bill.option.name: (
            *(line.usd for line in p.bill.lines),
            p.bill.usd_total,
            round(p.bill.usd_per_month, 2),
        )
        for p in budget.options
    }
    assert made == by_hand
    guide = (GUIDE.parent / "cost.md").read_text()
    for figures in by_hand.values():
        assert all(f"{figure:,.2f}" in guide for figure in figures if figure)
    assert budget.break_even is not None
    assert f"{budget.break_even.days:.1f} days" in guide


def test_a_figure_that_is_changed_changes_the_total(computed: dict[str, list[list[str]]]) -> None:
    """The rate of 2,000 requests a second became 7,321."""
    rows = computed["changed"]
    after = {p.bill.option.name: p.bill for p in budget_of(constant(7_321), headroom=0.25).options}
    for name, cell in zip(rows[0][1:], rows[18][1:], strict=True):
        serving = next(line.usd for line in after[name].lines if line.kind == "serving")
        assert round(float(cell), 2) == round(serving, 2)


def test_without_xlsxwriter_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from kcost.report.workbook import workbook

    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    with pytest.raises(UnavailableError, match=r"pip install 'kcost\[xlsx\]'") as caught:
        workbook(budget_of(constant(10)))
    assert caught.value.exit_code == 3


def test_the_file_holds_every_assumption() -> None:
    from kcost.report.workbook import workbook

    budget = budget_of(constant(10))
    with zipfile.ZipFile(io.BytesIO(workbook(budget))) as file:
        strings, book = file.read("xl/sharedStrings.xml").decode(), file.read("xl/workbook.xml").decode()
    for one in budget.assumptions:
        assert f">{one.name}<" in strings
        assert f'<definedName name="{one.name}">' in book
