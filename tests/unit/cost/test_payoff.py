from __future__ import annotations

import numpy as np
import pytest

from kcost.core.score_drop import accuracy_drop
from kcost.cost.payoff import Size, Speed, decide
from tests.unit.cost.payoffs import BIG, drop, speed

SMALL = Size(file_bytes=300, parameters=10, peak_host_bytes=None)


@pytest.mark.parametrize(
    ("speeds", "after", "word"),
    [
        ((speed(1, 2.0), speed(32, 3.0)), SMALL, "pays"),
        ((speed(1, 0.8), speed(32, 3.0)), SMALL, "pays"),
        ((speed(1, 0.8), speed(32, 0.5)), SMALL, "slower"),
        ((speed(1, 0.8), speed(32, 1.0)), SMALL, "slower"),
        ((speed(1, 1.0), speed(32, 1.001)), SMALL, "size only"),
        ((speed(1, 1.3, half=0.5),), BIG, "no gain"),
        ((), SMALL, "size only"),
    ],
)
def test_the_word(speeds: tuple[Speed, ...], after: Size, word: str) -> None:
    assert decide(drop(0.001, 0.005), 0.01, speeds, BIG, after)[0] == word


def test_a_gain_at_one_batch_size_does_not_hide_a_loss_at_another() -> None:
    word, why = decide(drop(0, 0.001), 0.01, (speed(1, 0.8), speed(32, 3.0)), BIG, SMALL)
    assert word == "pays"
    assert "slower at batch 1" in why
    assert "66.7%" in why or "67%" in why


def test_a_drop_that_cannot_be_ruled_out_is_refused_and_says_which_of_both_it_is() -> None:
    fast = (speed(32, 3.0),)
    word, why = decide(drop(0.02, 0.03), 0.01, fast, BIG, SMALL)
    assert (word, "the drop itself is too large" in why) == ("refused", True)
    few = accuracy_drop(np.ones(50, int), np.ones(50, int))
    word, why = decide(few, 0.01, fast, BIG, SMALL)
    assert (word, "50 examples cannot rule out more" in why) == ("refused", True)
