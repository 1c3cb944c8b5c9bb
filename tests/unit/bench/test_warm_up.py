from __future__ import annotations

import time
from itertools import count

from kcost.core.plan import Settings
from kcost.core.stats import has_settled
from kcost.worker.measure import _warm_up


def test_a_warm_up_goes_on_until_it_has_settled() -> None:
    calls = count()

    def slow_at_first(_: int) -> None:
        time.sleep(0.02 if next(calls) < 4 else 0.005)

    done = _warm_up(slow_at_first, Settings(warmup_s=0.1, warmup_max_s=20))
    assert has_settled(done)
    assert len(done) > 6


def test_one_that_does_not_settle_ends_at_its_longest_time() -> None:
    calls = count(1)
    done = _warm_up(lambda _: time.sleep(0.002 * next(calls)), Settings(warmup_s=0.01, warmup_max_s=0.2))
    assert not has_settled(done)
    assert sum(done) >= 0.2e9
