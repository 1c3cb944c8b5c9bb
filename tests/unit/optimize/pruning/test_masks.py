"""Masks and schedules: what they promise for any array. That they equal TFMOT's is a contract test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from kcost.core.prune_spec import parse_prune_spec
from kcost.optimize.pruning.masks import block_mask, global_masks, magnitude_mask, pattern_mask
from kcost.optimize.pruning.schedules import schedule_of

values = st.floats(min_value=0, max_value=8, width=32)
matrices = arrays(np.float32, st.tuples(st.integers(1, 13), st.integers(1, 13)), elements=values)
sparsities = st.floats(min_value=0, max_value=0.99)


@given(matrices, sparsities)
def test_what_stays_is_not_smaller_than_what_goes(scores: np.ndarray, sparsity: float) -> None:
    mask = magnitude_mask(scores, sparsity)
    assert mask.any()
    assert mask.all() or scores[mask].min() > scores[~mask].max()


@given(st.permutations(range(40)), sparsities)
def test_without_ties_the_count_is_that_of_the_sparsity(order: list[int], sparsity: float) -> None:
    kept = magnitude_mask(np.array(order, np.float32).reshape(8, 5), sparsity).sum()
    assert kept == max(1, int(np.round(np.float32(40) * (np.float32(1) - np.float32(sparsity)))))


def test_global_masks_share_one_threshold() -> None:
    small, large = np.full((3, 4), 0.1, np.float32), np.full((2, 6), 0.9, np.float32)
    masks = global_masks([small, large], 0.5)
    assert not masks[0].any()
    assert masks[1].all()


@given(matrices, st.integers(2, 6), st.data())
def test_a_pattern_keeps_its_count_in_each_group(scores: np.ndarray, group: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, group - 1))
    mask = pattern_mask(scores, kept, group)
    for column, stays in zip(scores.T, mask.T, strict=True):
        for start in range(0, len(column), group):
            of, which = column[start : start + group], stays[start : start + group]
            assert which.sum() == min(kept, len(of))
            assert which.all() or of[which].min() >= of[~which].max()


@given(matrices, sparsities, st.integers(1, 5), st.integers(1, 5), st.sampled_from(["avg", "max"]))
def test_a_block_stays_or_goes_as_a_whole(
    scores: np.ndarray, sparsity: float, height: int, width: int, pooling: str
) -> None:
    mask = block_mask(scores, sparsity, height, width, pooling)  # type: ignore[arg-type]
    assert mask.shape == scores.shape
    for i in range(0, scores.shape[0], height):
        for j in range(0, scores.shape[1], width):
            block = mask[i : i + height, j : j + width]
            assert block.all() or not block.any()


def test_the_best_blocks_stay() -> None:
    scores = np.array([[9, 0, 1, 1], [0, 0, 1, 1], [3, 3, 2, 2], [3, 3, 2, 2]], np.float32)
    assert block_mask(scores, 0.75, 2, 2)[2:, :2].all()
    assert block_mask(scores, 0.75, 2, 2, "max")[:2, :2].all()


def test_a_polynomial_schedule_rises_to_what_was_asked() -> None:
    schedule = schedule_of(parse_prune_spec("magnitude:0.8,schedule=polynomial,begin=0.1,end=0.9,every=7"), 100)  # type: ignore[arg-type]
    steps = [step for step in range(1, 101) if schedule.updates_at(step)]
    reached = [float(schedule.sparsity_at(step)) for step in steps]
    assert steps == list(range(10, 90, 7))[: len(steps)]
    assert reached == sorted(reached)
    assert reached[0] == 0
    assert reached[-1] == pytest.approx(0.8)
    # Zhu and Gupta: most goes early.
    assert reached[len(reached) // 2] > 0.6


@given(st.integers(1, 3000), st.none() | st.integers(1, 100), st.sampled_from(["constant", "polynomial"]))
def test_every_training_ends_at_the_sparsity_that_was_asked_for(total: int, every: int | None, kind: str) -> None:
    text = f"magnitude:0.7,schedule={kind}" + (f",every={every}" if every else "")
    schedule = schedule_of(parse_prune_spec(text), total)  # type: ignore[arg-type]
    assert schedule.end_step <= max(2, total)
    assert schedule.updates_at(schedule.begin_step)
    last = max(step for step in range(1, schedule.end_step + 1) if schedule.updates_at(step))
    assert float(schedule.sparsity_at(last)) == pytest.approx(0.7)


def test_a_pattern_is_chosen_once_before_the_first_step() -> None:
    schedule = schedule_of(parse_prune_spec("2:4"), 100)  # type: ignore[arg-type]
    assert [step for step in range(1, 101) if schedule.updates_at(step)] == [1]
