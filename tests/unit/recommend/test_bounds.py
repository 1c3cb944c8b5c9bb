"""Bounds: the least that a step can take, how far a score may have dropped, and what a doubt costs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core.artifact import Score
from kcost.core.errors import InputError
from kcost.core.probe import MoveTimes, Probe, ProbeAnswer, ProbeOfThreads, ProductTimes
from kcost.core.score_drop import accuracy_drop
from kcost.cost.quality import Quality
from kcost.recommend.bounds import Roof, Work, least_step_s, most_per_s, peak_flops_per_s, probed_roof
from kcost.recommend.doubt import expected_losses
from kcost.recommend.drop import DropBound, drop_bound
from kcost.recommend.errors_usd import errors_of
from kcost.recommend.flops import flops_of_convolutions, flops_per_example, weights_of_products
from kcost.risk.expected_loss import LossTable
from testing.runs import environment


def layer(name: str, shape: list[int | None], **config: Any) -> dict[str, Any]:
    return {"class_name": name, "config": config, "build_config": {"input_shape": shape}}


@pytest.mark.parametrize(
    ("one", "flops"),
    [
        (layer("Dense", [None, 64], units=10), 2 * 64 * 10),
        (layer("Dense", [None, 7, 64], units=10), 7 * 2 * 64 * 10),
        (layer("Dense", [None, None, 64], units=10), 2 * 64 * 10),
        (
            layer("Conv2D", [None, 8, 8, 3], filters=16, kernel_size=[3, 3], strides=[1, 1], padding="same", groups=1),
            2 * 64 * 9 * 3 * 16,
        ),
        (
            layer("Conv2D", [None, 8, 8, 3], filters=16, kernel_size=[3, 3], strides=[2, 2], padding="valid", groups=1),
            2 * 9 * 9 * 3 * 16,
        ),
        (
            layer("DepthwiseConv2D", [None, 8, 8, 4], kernel_size=[3, 3], strides=[1, 1], padding="same"),
            2 * 64 * 9 * 4,
        ),
        (layer("MyOwn", [None, 64], units=10), 0),
        (layer("Dense", [None, "?"], units=10), 0),  # type: ignore[list-item]
        ({"class_name": "Dense", "config": None, "build_config": None}, 0),
    ],
)
def test_products_are_counted_from_the_config(one: dict[str, Any], flops: int) -> None:
    assert flops_per_example({"config": {"layers": [one]}}) == flops


def test_convolutions_are_counted_apart_from_dense_products() -> None:
    convolution = layer("Conv2D", [None, 8, 8, 3], filters=16, kernel_size=[3, 3], strides=[1, 1], padding="same")
    config = {"config": {"layers": [convolution, layer("Dense", [None, 64], units=10)]}}
    assert flops_of_convolutions(config) == flops_per_example(config) - 2 * 64 * 10 == 2 * 64 * 9 * 3 * 16


def test_a_model_inside_a_model_counts_too() -> None:
    inner = {"class_name": "Functional", "config": {"layers": [layer("Dense", [None, 5], units=3)]}}
    assert flops_per_example({"config": {"layers": [inner, layer("Dense", [None, 3], units=2)]}}) == 30 + 12


@given(st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)))
def test_a_config_of_any_form_is_counted_as_nothing_at_worst(config: Any) -> None:
    assert flops_per_example({"config": config}) >= 0
    assert weights_of_products({"config": config}) >= 0


def test_a_processor_with_more_features_is_bounded_higher() -> None:
    plain = peak_flops_per_s("int8", 2, {"avx512f"}, 3_000)
    tiles = peak_flops_per_s("int8", 2, {"avx512f", "amx_int8"}, 3_000)
    assert (
        tiles > plain > peak_flops_per_s("int8", 2, {"avx2"}, 3_000) > peak_flops_per_s("float32", 2, {"avx2"}, 3_000)
    )
    assert least_step_s(Work(1e9), 32, Roof(1e11)) == pytest.approx(0.32)


answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=200)


@given(answers)
def test_the_bound_of_a_drop_is_never_below_that_of_the_paired_test(pairs: list[tuple[bool, bool]]) -> None:
    before, after = (np.array(column, int) for column in zip(*pairs, strict=True))
    count = len(pairs)
    # Of wrong answers some became other wrong ones: agreement tells fewer changes than there are, at most none.
    changed = int((before != after).sum())
    drop = drop_bound(_quality(1 - changed / count, count, before.mean(), after.mean()))
    assert drop is not None
    exact = accuracy_drop(before, after)
    assert drop.value == pytest.approx(exact.value)
    assert drop.bound == pytest.approx(exact.bound)


def _quality(agreement: float, count: int, before: float, after: float) -> Quality:
    def score(value: float) -> Score:
        return Score(
            name="accuracy", split="test", value=value, low=0, high=1, count=count, unit="examples"
        )  # its interval is not read

    return Quality(
        agreement=agreement, agreement_count=count, scores=(score(after),), reference_scores=(score(before),)
    )


def test_without_labels_each_change_counts_as_a_loss() -> None:
    drop = drop_bound(Quality(agreement=0.99, agreement_count=1000))
    assert drop is not None
    assert (drop.basis, drop.value, drop.changed) == ("agreement", 0.01, 10)
    assert drop_bound(Quality()) is None


def test_more_labels_are_just_as_many_as_decide() -> None:
    drop = DropBound(value=0.0, bound=0.0195, changed=4, count=256, basis="labels")
    more = drop.more_labels(0.01)
    assert more is not None
    times = (256 + more) / 256
    assert drop._bound_at(times) <= 0.01 < drop._bound_at(times - 0.02)
    assert drop.more_labels(0.02) == 0
    assert DropBound(value=0.05, bound=0.08, changed=12, count=256, basis="labels").more_labels(0.01) is None
    assert drop.chance_within(0.01) == pytest.approx(0.80, abs=0.02)


def test_the_expected_loss_is_that_of_the_draws_and_ties_are_shared() -> None:
    totals = np.array([[10.0, 12.0, 10.0], [10.0, 6.0, 14.0]])
    loss, chances = expected_losses(totals, 0)
    assert loss == 2.0
    assert chances.tolist() == [0.25, 0.5, 0.25]


@given(st.lists(st.lists(st.floats(0, 1e6), min_size=3, max_size=3), min_size=1, max_size=50))
def test_no_choice_loses_less_than_nothing_and_chances_sum_to_one(totals: list[list[float]]) -> None:
    for chosen in range(3):
        loss, chances = expected_losses(np.array(totals), chosen)
        assert loss >= 0
        assert chances.sum() == pytest.approx(1)


def test_errors_are_priced_by_the_table() -> None:
    labels, predictions = np.array([0, 1, 1, 0, -1]), np.array([0, 0, 1, 0, 1])
    figure = errors_of(predictions, labels, LossTable(wrong_usd=0.04), ("no", "yes"))
    assert figure.value == pytest.approx(0.01 * 1e6)
    assert figure.low <= figure.value <= figure.high
    assert errors_of(predictions, labels, LossTable(pairs={"yes -> no": 2.0}), ("no", "yes")).value == 0.5e6
    with pytest.raises(InputError, match="labels"):
        errors_of(predictions, np.full(5, -1), LossTable(wrong_usd=1), ())


def probe_of(threads: int = 2, moved: int = 4_000_000) -> Probe:
    """Products at 1e11 operations a second in float32, memory at 12 GB a second."""
    answer = ProbeAnswer(
        version="1",
        simulated=True,
        products=(ProductTimes(dtype="float32", size=1_000, ns=(20_000_000, 40_000_000)),),
        moves=(
            MoveTimes(elements=1_000, ns=(100,)),  # in a cache: ten times as fast
            MoveTimes(elements=moved, ns=(moved,)),
        ),
        call_ns=(1_000,),
    )
    by_threads = (ProbeOfThreads(threads=threads, answer=answer),)
    return Probe(created_at="now", backend="fake", environment=environment(), by_threads=by_threads)


def test_a_probe_bounds_by_its_fastest_product_with_room_above_it() -> None:
    roof = probed_roof(probe_of(), "float32", 2, weight_bytes=0)
    assert roof is not None
    assert roof.flops_per_s == pytest.approx(1.25e11)
    assert roof.bytes_per_s == math.inf
    int8 = probed_roof(probe_of(), "int8", 2, weight_bytes=0)
    assert int8 is not None
    assert int8.flops_per_s == pytest.approx(5e11)
    assert probed_roof(probe_of(), "float32", 1, weight_bytes=0) is None


def test_memory_bounds_weights_that_no_cache_may_hold() -> None:
    large = probed_roof(probe_of(), "float32", 2, weight_bytes=1e9)
    assert large is not None
    assert large.bytes_per_s == pytest.approx(1.25 * 12e9)
    small = probed_roof(probe_of(), "float32", 2, weight_bytes=1e6)
    assert small is not None
    assert small.bytes_per_s == math.inf


def test_weights_are_read_once_a_step_so_that_larger_batches_are_bounded_higher() -> None:
    work, roof = Work(1e6, weight_bytes=100_000_000), Roof(1e12, 1e10)
    assert most_per_s(work, (1,), roof, "float32") == pytest.approx(100)
    assert most_per_s(work, (1, 8), roof, "float32") == pytest.approx(800)
    assert most_per_s(work, (1,), roof, "int8") == pytest.approx(400)
    assert most_per_s(Work(0.0), (1,), roof, "float32") == math.inf


@pytest.mark.parametrize(
    ("one", "weights"),
    [
        (layer("Dense", [None, 64], units=10), 640),
        (layer("Dense", [None, 7, 64], units=10), 640),
        (
            layer("Conv2D", [None, 8, 8, 3], filters=16, kernel_size=[3, 3], strides=[2, 2], padding="valid", groups=1),
            9 * 3 * 16,
        ),
        (layer("DepthwiseConv2D", [None, 8, 8, 4], kernel_size=[3, 3], strides=[1, 1], padding="same"), 9 * 4),
        (
            layer(
                "Conv2D", [None, 3, 8, 8], filters=16, kernel_size=[3, 3], strides=[1, 1], padding="same", groups=1,
                data_format="channels_first",
            ),
            9 * 3 * 16,
        ),
        (layer("Dense", [], units=10), 0),
        (layer("MyOwn", [None, 64], units=10), 0),
    ],
)  # fmt: skip
def test_weights_of_products_are_counted_from_the_config(one: dict[str, Any], weights: int) -> None:
    assert weights_of_products({"config": {"layers": [one]}}) == weights
