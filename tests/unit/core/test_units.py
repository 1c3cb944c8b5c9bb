from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kcost.core import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.significant(0.0), "0"),
        (units.significant(1234.5), "1,230"),
        (units.significant(0.012345), "0.0123"),
        (units.significant(1e-7), "1.00e-07"),
        (units.format_usd(0.000123), "$0.000123"),
        (units.format_usd(1234.5), "$1,234.50"),
        (units.format_usd(9.69e-5), "$0.0000969"),
        (units.format_usd(0.0), "$0"),
        (units.format_usd(-2.5), "-$2.50"),
        (units.format_s(0.0005), "500 us"),
        (units.format_s(0.25), "250 ms"),
        (units.format_s(90), "90.0 s"),
        (units.format_s(600), "10.0 min"),
        (units.format_bytes(512), "512 B"),
        (units.format_bytes(1536), "1.50 KiB"),
        (units.format_percent(0.1234), "12.3%"),
    ],
)
def test_numbers_read_as_expected(text: str, expected: str) -> None:
    assert text == expected


@given(st.floats(1e-4, 9e8))
def test_three_digits_are_within_half_a_percent(value: float) -> None:
    assert float(units.significant(value).replace(",", "")) == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize(
    ("usd", "unit", "expected"),
    [
        ([9.69e-5, 0.5], "million predictions", "$0.0969 per billion predictions"),
        ([0.5, 90.0], "million predictions", "$0.500 per million predictions"),
        ([123_000.0], "million predictions", "$123.00 per thousand predictions"),
        ([3e-9], "million predictions", "$0.00300 per trillion predictions"),
        ([5.8e-5], "training run (3 epochs)", "$0.0580 per thousand training runs (3 epochs)"),
        ([1e-5], "epoch", "$0.0000100 per epoch"),
        ([], "million predictions", "$0.0200 per million predictions"),
    ],
)
def test_costs_are_told_in_a_unit_that_reads_at_a_glance(usd: list[float], unit: str, expected: str) -> None:
    scale = units.usd_scale(usd, unit)
    text = scale.text(usd[0] if usd else 0.02)
    assert f"{text} per {scale.unit}" == expected


@given(st.lists(st.floats(1e-8, 9e6), min_size=1))
def test_the_cheapest_is_between_a_cent_and_ten_thousand_dollars(usd: list[float]) -> None:
    scale = units.usd_scale(usd, "million predictions")
    assert 0.0099 <= min(usd) * scale.factor <= 10_000
