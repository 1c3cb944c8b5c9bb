"""The table of electricity by region, and what it is made from."""

from __future__ import annotations

import csv
import os
import runpy
from pathlib import Path

import pytest

from kcost.cost.carbon import grid_of, grids
from kcost.cost.pricebook import PriceBook
from kcost.cost.scenario_file import parse_scenario

ENERGY = Path(os.environ.get("KCOST_DATA_DIR", ""), "energy")
ROOT = Path(__file__).parents[3]


def test_regions_have_their_figure_place_and_source() -> None:
    virginia, belgium = grid_of("aws", "us-east-1"), grid_of("GCP", "europe-west1")
    assert virginia is not None
    assert belgium is not None
    assert virginia.g_co2e_per_kwh == pytest.approx(415.755)
    assert (belgium.g_co2e_per_kwh, belgium.year) == (103.37, 2024)
    assert "region-carbon-info" in belgium.text
    assert grid_of("azure", "eastus") is not None
    assert grid_of("azure", "finlandcentral") is None, "the source lacks its decimal point"
    assert grid_of("aws", "mars") is None
    assert all(0 < grid.g_co2e_per_kwh < 1000 for grid in grids().values())


def test_most_prices_are_of_a_region_with_a_figure() -> None:
    prices = [p for p in PriceBook.read().find() if p.provider in ("aws", "azure", "gcp")]
    known = [p for p in prices if grid_of(p.provider, p.region) is not None]
    assert len(known) > 0.9 * len(prices)


@pytest.mark.skipif(not ENERGY.is_dir(), reason="KCOST_DATA_DIR holds no energy/")
def test_the_table_is_what_its_sources_say(capsys: pytest.CaptureFixture[str]) -> None:
    made = sorted(runpy.run_path(str(ROOT / "scripts" / "grid_carbon.py"))["rows"](ENERGY))
    with (ROOT / "kcost" / "cost" / "data" / "grid.csv").open(newline="") as file:
        (_, *held) = csv.reader(file)
    assert held == [[*map(str, row)] for row in made]
    assert "finlandcentral" in capsys.readouterr().err


def test_a_scenario_may_say_how_clean_its_electricity_is() -> None:
    text = (
        "[traffic]\nqps = 1\n[[options]]\nname = 'a'\ninstance = 'aws m7i.large eu-north-1'\nusd_per_hour = 1\n"
        "queries_per_s_per_replica = 1\nbasis = 'published'\nsource = 's'\n"
    )
    by_region = parse_scenario(text.encode(), "s").options[0].given()
    assert by_region is not None
    assert by_region.g_co2e_per_kwh == pytest.approx(8)
    own = parse_scenario(f"{text}g_co2e_per_kwh = 20\n".encode(), "s").options[0].given()
    assert own is not None
    assert (own.g_co2e_per_kwh, own.grid_source) == (20, "20 g a kWh, as the scenario says")
