from __future__ import annotations

import statistics

from hypothesis import given, strategies as st

from kcost.search.pruning import FIRST_EPOCH, MIN_TRIALS, prune_above

losses = st.lists(st.floats(0, 100), max_size=8)


def test_the_limit_is_the_median_of_those_that_got_so_far() -> None:
    histories = [[9, 1, 1, 1], [9, 2, 2], [9, 3, 3], [9, 8, 4]]
    assert prune_above(histories, 5) == {2: 2.5, 3: 2.5}
    assert prune_above(histories, 3) == {2: 2.5}, "ending a run after its last epoch saves nothing"
    assert prune_above(histories[:3], 5) == {}
    assert prune_above(histories, 2) == {}


@given(st.lists(losses, max_size=8), st.integers(1, 10))
def test_each_limit_spares_at_least_half_of_the_runs_that_it_was_made_of(histories, epochs) -> None:
    for epoch, limit in prune_above(histories, epochs).items():
        assert FIRST_EPOCH <= epoch < epochs
        there = [h[epoch - 1] for h in histories if len(h) >= epoch]
        assert len(there) >= MIN_TRIALS
        assert limit == statistics.median(there)
        assert sum(loss <= limit for loss in there) * 2 >= len(there)
