from __future__ import annotations

import pytest

from kcost.backends.kernels import bfloat16_products


@pytest.mark.parametrize(("bfloat16_ns", "float32_ns", "faster"), [(5, 10, True), (10, 5, False), (9, 10, False)])
def test_the_clock_says_whether_bfloat16_is_faster(
    bfloat16_ns: int, float32_ns: int, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0

    def working(ns: int) -> None:
        nonlocal now
        now += ns

    def product(ns: int) -> None:
        working(100 * ns if calls.count(ns) == 0 else ns)  # the first call makes a kernel
        calls.append(ns)

    calls: list[int] = []
    monkeypatch.setattr(bfloat16_products, "perf_counter_ns", lambda: now)
    is_faster = bfloat16_products.clearly_faster(lambda: product(bfloat16_ns), lambda: product(float32_ns))
    assert is_faster is faster
    assert calls[2:] == [bfloat16_ns, float32_ns] * 7  # in turns, so that a change of the machine meets both
