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
