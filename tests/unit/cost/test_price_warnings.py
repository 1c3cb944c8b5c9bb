import csv
import io
from datetime import date

import pytest
from typer.testing import CliRunner

from kcost.cli import app
from kcost.cost.price_rules import COLUMNS
from kcost.cost.pricebook import PriceBook

TODAY = date(2026, 11, 28)
ROW = {
    "provider": "aws",
    "instance": "t3.small",
    "region": "us-east-1",
    "vcpus": "2",
    "memory_gib": "2",
    "accelerator": "",
    "accelerator_count": "0",
    "on_demand_usd_per_hour": "0.0208",
    "spot_usd_per_hour": "",
    "source": "a price list",
    "as_of": "2026-01-02",
}
A100 = {
    **ROW,
    "provider": "gcp",
    "instance": "a2-highgpu-1g",
    "region": "us-central1",
    "vcpus": "12",
    "memory_gib": "85",
    "accelerator": "A100",
    "accelerator_count": "1",
    "on_demand_usd_per_hour": "3.67",
}
CHEAP_HOST = {
    **ROW,
    "provider": "a cheap host",
    "instance": "cx22",
    "memory_gib": "4",
    "on_demand_usd_per_hour": "0.007",
}


def text_of(*rows: dict[str, str]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def book(*rows: dict[str, str]) -> PriceBook:
    return PriceBook.parse(text_of(*rows).encode(), "a test's book")


DOUBTFUL = {
    "cents": ({**ROW, "on_demand_usd_per_hour": "2.08"}, "not in cents"),
    "by the month": ({**ROW, "on_demand_usd_per_hour": "15.2"}, "not by the month"),
    "by the month at a cheap host": ({**CHEAP_HOST, "on_demand_usd_per_hour": "4.35"}, "not by the month"),
    "by the minute": ({**ROW, "on_demand_usd_per_hour": "0.00035"}, "the minute"),
    "GPU machine in cents": ({**A100, "on_demand_usd_per_hour": "367"}, "not in cents"),
    "a day to come": ({**ROW, "as_of": "2099-01-01"}, "a day that has been"),
    "Google machine without its GPU, the chip named in short": (
        {**A100, "on_demand_usd_per_hour": "0.85"},
        "includes its accelerator",
    ),
    "the chip named at length": (
        {**A100, "accelerator": "nvidia-tesla-a100", "on_demand_usd_per_hour": "0.85"},
        "includes its accelerator",
    ),
    "another provider's machine without its GPU": (
        {**A100, "provider": "aws", "accelerator": "A100-40GB", "on_demand_usd_per_hour": "0.85"},
        "includes its accelerator",
    ),
    "a chip that nobody knows": (
        {**A100, "provider": "x", "accelerator": "NewChip", "on_demand_usd_per_hour": "0.7"},
        "includes its accelerator",
    ),
    "provider in capitals": ({**ROW, "provider": "AWS"}, "A provider is written"),
    "instance in capitals": ({**ROW, "instance": "T3.SMALL"}, "names in lower case"),
}


@pytest.mark.parametrize(("row", "rule"), DOUBTFUL.values(), ids=DOUBTFUL.keys())
def test_a_doubtful_row_is_warned_of_and_refuses_nothing(row: dict[str, str], rule: str) -> None:
    doubtful = book({**ROW, "instance": "t3.sound"}, row)
    (warning,) = doubtful.warnings(TODAY)
    assert rule in warning.rule
    assert (warning.row, warning.level) == (3, "warning")
    assert str(warning).startswith("warning: line 3, ")
    assert doubtful.checked() is doubtful


SOUND = {
    "small": ROW,
    "cheap host": CHEAP_HOST,
    "read tomorrow, east of here": {**ROW, "as_of": "2026-11-29"},
    "Azure writes capitals": {**ROW, "provider": "azure", "instance": "Standard_B1s"},
    "GPU": A100,
    "much memory": {**ROW, "vcpus": "128", "memory_gib": "4096", "on_demand_usd_per_hour": "26.7"},
    "a marketplace's GPU": {**A100, "provider": "x", "accelerator": "RTX-4090", "on_demand_usd_per_hour": "0.9"},
    "many old GPUs": {
        **ROW,
        "provider": "lambda",
        "instance": "gpu_8x_v100_n",
        "vcpus": "88",
        "memory_gib": "448",
        "accelerator": "V100",
        "accelerator_count": "8",
        "on_demand_usd_per_hour": "6.32",
    },
}


@pytest.mark.parametrize("row", SOUND.values(), ids=SOUND.keys())
def test_a_sound_row_is_not_warned_of(row: dict[str, str]) -> None:
    assert book(row).warnings(TODAY) == []


def test_the_packages_own_book_has_no_warning() -> None:
    assert PriceBook.read().warnings(TODAY) == []


def test_the_same_key_in_capitals_is_the_same_key() -> None:
    (problem,) = book(ROW, {**ROW, "provider": "AWS", "instance": "T3.SMALL"}).check()
    assert problem.received == "the key of line 2 again"


def test_a_google_machine_without_its_gpu_is_refused_in_capitals_too() -> None:
    bare = {**A100, "provider": "GCP", "accelerator": "A100-40GB", "on_demand_usd_per_hour": "0.74"}
    assert [p.level for p in book(bare).check()] == ["problem"]


def test_a_no_break_space_in_a_number_is_refused() -> None:
    (problem,) = book({**ROW, "on_demand_usd_per_hour": "\N{NO-BREAK SPACE}0.17"}).check()
    assert problem.received == r"on_demand_usd_per_hour = '\xa00.17'"


def test_warnings_alone_exit_with_0_and_problems_with_2(tmp_path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(text_of({**ROW, "on_demand_usd_per_hour": "2.08"}))
    outcome = CliRunner().invoke(app, ["prices", "check", str(path)])
    assert outcome.exit_code == 0
    assert "no problems, 1 warning(s)" in " ".join(outcome.output.split())
    path.write_text(text_of({**ROW, "on_demand_usd_per_hour": "0"}, {**ROW, "on_demand_usd_per_hour": "2.08"}))
    outcome = CliRunner().invoke(app, ["prices", "check", str(path)])
    assert outcome.exit_code == 2
    assert "refused: 1 problem(s), 1 warning(s)" in " ".join(outcome.output.split())
