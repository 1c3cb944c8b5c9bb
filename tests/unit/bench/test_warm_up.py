"""Warm-ups on a simulated clock: no step takes real time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from kcost.core.plan import Settings
from kcost.core.stats import has_settled
from kcost.worker import measure
from kcost.worker.inputs import MADE_SEED


class Clock:
    """Nanoseconds that pass only when a step says so."""

    def __init__(self) -> None:
        self.now_ns = 0

    def step(self, seconds: Callable[[], float]) -> Callable[[int], None]:
        """A step that takes as long as `seconds` gives."""

        def run(_: int) -> None:
            self.now_ns += round(seconds() * 1e9)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter_ns=lambda: made.now_ns))
    return made


def test_a_warm_up_goes_on_until_it_has_settled(clock: Clock) -> None:
    calls = count()
    step = clock.step(lambda: 0.02 if next(calls) < 4 else 0.005)
    done = measure._warm_up(step, Settings(warmup_s=0.1, warmup_max_s=20))
    assert has_settled(done)
    assert len(done) > 6


def test_one_that_does_not_settle_ends_at_its_longest_time(clock: Clock) -> None:
    calls = count(1)
    step = clock.step(lambda: 0.002 * next(calls))
    done = measure._warm_up(step, Settings(warmup_s=0.01, warmup_max_s=0.2))
    assert not has_settled(done)
    assert sum(done) >= 0.2e9


def test_steps_that_were_run_before_count(clock: Clock) -> None:
    before = [5_000_000] * 40
    step = clock.step(lambda: pytest.fail("there was no need of another step"))
    assert measure._warm_up(step, Settings(warmup_s=0.1, warmup_max_s=20), before) == before


def test_scoring_tells_how_long_each_call_took(clock: Clock) -> None:
    seconds = iter((0.5, 0.25))

    def forward(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        clock.now_ns += round(next(seconds) * 1e9)
        return [inputs["x"]]

    timed, durations = measure._recorded(forward)
    x = np.ones(2)
    assert timed({"x": x})[0] is x
    timed({"x": x})
    assert durations == [500_000_000, 250_000_000]


def test_made_up_samples_are_those_of_a_conversion_whatever_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A converted file is measured on the samples that it was checked on, and held against Keras's answers."""
    seeds: list[int] = []
    monkeypatch.setattr(measure, "make_samples", lambda model, count, seed: seeds.append(seed))
    for seed in (0, 1):
        request = SimpleNamespace(
            samples_file=None, spec=SimpleNamespace(backend="torch"), settings=Settings(seed=seed)
        )
        measure._samples(request, None)  # type: ignore[arg-type]  # it reads no more of either
    assert seeds == [MADE_SEED, MADE_SEED]
