"""The simulation against closed forms, the closed forms against published numbers, and batches against arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.errors import InputError
from kcost.cost.capacity import MOST_BUSY, find_capacity, serve_at
from kcost.cost.queue_simulation import NEIGHBOURS, AfterIdleSteps, ServiceTimes, poisson_arrivals_s, simulate
from kcost.cost.queueing import (
    erlang_c,
    md1_mean_wait_s,
    mg1_mean_wait_s,
    mm1_sojourn_quantile_s,
    mmc_mean_wait_s,
    mmc_wait_quantile_s,
)

REQUESTS = 3_000_000
FEWER = 1_000_000


def exponential_samples(count: int = 1_000_000) -> np.ndarray:
    """Of mean 1 to the last digit: what is drawn from is known."""
    samples = np.random.default_rng(5).exponential(1.0, count)
    return samples / samples.mean()


def test_closed_forms_agree_where_they_meet() -> None:
    # Cooper's table: 2 servers at an offered load of 1 make a third of the arrivals wait
    assert erlang_c(1.0, 1.0, 2) == pytest.approx(1 / 3)
    assert erlang_c(0.7, 1.0, 1) == pytest.approx(0.7)
    assert mmc_mean_wait_s(0.7, 1.0) == pytest.approx(mg1_mean_wait_s(0.7, 1.0, 1.0))
    assert md1_mean_wait_s(0.7, 1.0) == pytest.approx(mg1_mean_wait_s(0.7, 1.0, 1.0) / 2)
    assert mm1_sojourn_quantile_s(0.5, 1.0, 0.99) == pytest.approx(math.log(100) / 0.5)
    assert mmc_wait_quantile_s(0.1, 1.0, 4, 0.99) == 0.0
    assert erlang_c(900.0, 1.0, 1000) < 1e-2  # factorials of 1000 would overflow


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_mm1_within_one_percent(load: float) -> None:
    served = simulate(poisson_arrivals_s(load, REQUESTS, 1), ServiceTimes({1: exponential_samples()}), seed=2)
    assert served.wait_s.mean() == pytest.approx(mmc_mean_wait_s(load, 1.0), rel=0.01)
    assert served.percentile_s(0.99) == pytest.approx(mm1_sojourn_quantile_s(load, 1.0, 0.99), rel=0.01)
    assert served.busy_share == pytest.approx(load, rel=0.01)


def test_md1_within_one_percent() -> None:
    served = simulate(poisson_arrivals_s(0.7, REQUESTS, 1), ServiceTimes({1: np.ones(1)}))
    assert served.wait_s.mean() == pytest.approx(md1_mean_wait_s(0.7, 1.0), rel=0.01)


def test_mg1_within_one_percent() -> None:
    samples = np.array([0.5] * 9 + [5.5])
    served = simulate(poisson_arrivals_s(0.5, REQUESTS, 3), ServiceTimes({1: samples}), seed=4)
    assert served.wait_s.mean() == pytest.approx(mg1_mean_wait_s(0.5, 1.0, float(samples.var())), rel=0.01)


def test_mmc_within_one_percent() -> None:
    service = ServiceTimes({1: exponential_samples()})
    arrivals = poisson_arrivals_s(2.4, FEWER, 1)
    served = simulate(arrivals, service, replicas=4, seed=2)
    # at the rate and the service time that really were: those of so few arrivals are off by a tenth of a percent each
    rate, mean_s = FEWER / arrivals[-1], float((served.latency_s - served.wait_s).mean())
    assert served.wait_s.mean() == pytest.approx(mmc_mean_wait_s(rate, mean_s, 4), rel=0.01)
    assert np.quantile(served.wait_s, 0.99) == pytest.approx(mmc_wait_quantile_s(rate, mean_s, 4, 0.99), rel=0.01)


def test_both_ways_through_the_simulation_agree() -> None:
    """One replica without batches is computed at once; with a second size that is never filled, step by step."""
    arrivals = poisson_arrivals_s(0.5, 5_000, 1)
    one = simulate(arrivals, ServiceTimes({1: np.ones(1)}))
    two = simulate(arrivals, ServiceTimes({1: np.ones(1), 2: np.ones(1)}), batch_limit=1, replicas=1)
    by_step = simulate(np.concatenate([arrivals]), ServiceTimes({1: np.ones(1)}), replicas=2, batch_limit=1)
    assert np.allclose(one.latency_s, two.latency_s)
    assert by_step.latency_s.mean() < one.latency_s.mean()


def test_batches_by_hand() -> None:
    service = ServiceTimes({1: np.array([1.0]), 4: np.array([2.0])})
    arrivals = np.array([0.0, 0.1, 0.2, 10.0, 10.1, 10.2, 10.3])
    greedy = simulate(arrivals, service)
    # the first alone; the next two fill a step of four from 1.0 to 3.0; at 10 one alone, then three from 11 to 13
    assert greedy.latency_s == pytest.approx([1.0, 2.9, 2.8, 1.0, 2.9, 2.8, 2.7])
    waiting = simulate(arrivals, service, wait_limit_s=0.5)
    # three wait until 0.5; four are full at 10.3
    assert waiting.latency_s == pytest.approx([2.5, 2.4, 2.3, 2.3, 2.2, 2.1, 2.0])
    assert waiting.mean_batch == 3.5
    one = simulate(arrivals, service, batch_limit=1, wait_limit_s=0.5)
    assert one.latency_s[:3] == pytest.approx([1.0, 1.9, 2.8])


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.05, 5.0),
    st.integers(1, 4),
    st.sampled_from([1, 4, 16]),
    st.floats(0, 2.0),
    st.integers(0, 1000),
)
def test_no_request_is_lost_or_early(rate: float, replicas: int, limit: int, wait_s: float, seed: int) -> None:
    service = ServiceTimes({1: np.array([0.9, 1.1]), 4: np.array([1.5]), 16: np.array([3.0])})
    arrivals = poisson_arrivals_s(rate, 300, seed)
    served = simulate(arrivals, service, replicas=replicas, batch_limit=limit, wait_limit_s=wait_s, seed=seed)
    assert served.latency_s.shape == (300,)
    assert served.wait_s.min() >= -1e-9
    assert served.latency_s.min() >= 0.9 - 1e-9
    assert np.all(np.diff(arrivals + served.wait_s) >= -1e-9), "first come, first served"
    assert 1 <= served.mean_batch <= limit
    assert 0 < served.busy_share <= 1 + 1e-9


@pytest.mark.parametrize(
    "samples", [{}, {1: np.array([])}, {1: np.array([0.0])}, {0: np.array([1.0])}, {2: np.array([np.nan])}]
)
def test_service_times_are_positive(samples: dict[int, np.ndarray]) -> None:
    with pytest.raises(InputError, match="positive samples"):
        ServiceTimes(samples)


def test_what_cannot_be_simulated_is_refused() -> None:
    service = ServiceTimes({1: np.ones(1)})
    with pytest.raises(InputError, match="size that was measured"):
        simulate(np.arange(3.0), service, batch_limit=8)
    with pytest.raises(InputError, match="a replica, a request"):
        simulate(np.arange(3.0), service, replicas=0)
    with pytest.raises(InputError, match="stable"):
        mmc_mean_wait_s(2.0, 1.0)
    with pytest.raises(InputError, match="positive rate"):
        erlang_c(-1.0, 1.0, 1)
    with pytest.raises(InputError, match="variance"):
        mg1_mean_wait_s(0.5, 1.0, -1.0)


def test_capacity_of_mm1_is_that_of_its_closed_form() -> None:
    """The p99 of M/M/1 is ln(100) / (mu - lambda): within 20 service times, lambda is mu - ln(100) / 20."""
    capacity = find_capacity(ServiceTimes({1: exponential_samples()}), 20.0, 1)
    assert capacity is not None
    assert capacity.queries_per_s == pytest.approx(1 - math.log(100) / 20, rel=0.04)
    assert capacity.p99_s <= 20
    # d ln(rate) / d ln(step) of mu - c is -mu / (mu - c)
    assert capacity.elasticity == pytest.approx(1 / (1 - math.log(100) / 20), rel=0.3)


def test_capacity_takes_the_batch_that_pays() -> None:
    service = ServiceTimes({1: np.array([1.0]), 8: np.array([2.0]), 16: np.array([9.0])})
    capacity = find_capacity(service, 6.0, 1)
    assert capacity is not None
    assert capacity.batch_limit == 8
    assert capacity.queries_per_s > 1.0
    assert capacity.queries_per_s <= MOST_BUSY * 4
    again = serve_at(capacity.queries_per_s, service, 8, capacity.wait_s, 5_000, 77)
    assert again.percentile_s(0.99) <= 6.0 * 1.05


def test_no_capacity_where_a_step_is_too_long() -> None:
    assert find_capacity(ServiceTimes({1: np.array([1.0])}), 0.5, 1) is None


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_each_request_waits_as_long_as_in_ciw(replicas: int) -> None:
    """Ciw is an independent simulator of queues: given the same arrivals and services, every wait is the same."""
    ciw = pytest.importorskip("ciw", reason="Ciw is not installed: pip install ciw")
    service = ServiceTimes({1: np.array([0.5] * 9 + [5.5])})
    arrivals = poisson_arrivals_s(0.85 * replicas, 1_500, 8)
    served = simulate(arrivals, service, replicas=replicas, seed=9)
    services = served.latency_s - served.wait_s
    # Ciw begins a sequence again at its end: a last gap that never ends stops the arrivals
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Sequential([*np.diff(arrivals, prepend=0.0).tolist(), 1e9])],
        service_distributions=[ciw.dists.Sequential(services.tolist())],
        number_of_servers=[replicas],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(len(arrivals), method="Finish")
    records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)
    assert len(records) == len(arrivals)
    assert [r.waiting_time for r in records] == pytest.approx(served.wait_s.tolist(), abs=1e-6)


def test_a_step_after_idle_time_is_drawn_from_those_after_such_gaps() -> None:
    """Gaps up to 5 s make steps of 1.25 s, longer ones of 2 s: as many of each as a draw looks at."""
    gaps_s = np.repeat([4.0, 20.0], NEIGHBOURS)
    idle = AfterIdleSteps(gaps_s[::-1], np.where(gaps_s > 5, 2.0, 1.25)[::-1])
    service = ServiceTimes({1: np.array([1.0]), 2: np.array([1.5])}, {1: idle})
    arrivals_s = np.array([0.0, 5.0, 5.5, 28.0, 29.0, 29.5])
    served = simulate(arrivals_s, service)
    # The first finds the replica as it was made. The third and the last two waited: the replica was busy until then.
    np.testing.assert_allclose(served.latency_s, [1.0, 1.25, 1.75, 2.0, 2.5, 2.0])
    one_by_one = simulate(arrivals_s, service, batch_limit=1)
    np.testing.assert_allclose(one_by_one.latency_s, [1.0, 1.25, 1.75, 2.0, 2.0, 2.5])
    np.testing.assert_allclose(simulate(np.array([0.0, 6.0]), service.scaled(2.0).up_to(1)).latency_s, [2.0, 2.5])
    without = ServiceTimes(service.samples_s)
    np.testing.assert_allclose(simulate(arrivals_s, without).latency_s, [1.0, 1.0, 1.5, 1.0, 1.0, 1.5])


def test_a_machine_that_slows_down_for_a_while_lets_a_queue_run_over() -> None:
    """Requests each second with steps of 0.75 s, of 1.5 s from the third second to the fifth."""
    service = ServiceTimes({1: np.array([0.75])})

    def times_longer(moment_s: float) -> float:
        return 2.0 if 2 <= moment_s < 5 else 1.0

    arrivals_s = np.arange(8.0)
    served = simulate(arrivals_s, service, times_longer=times_longer)
    np.testing.assert_allclose(served.latency_s, [0.75, 0.75, 1.5, 2.0, 1.75, 1.5, 1.25, 1.0])
    np.testing.assert_allclose(simulate(arrivals_s, service).latency_s, np.full(8, 0.75))


def test_a_step_after_idle_time_is_any_of_its_neighbours() -> None:
    steps_s = np.arange(1.0, 4 * NEIGHBOURS + 1)
    service = ServiceTimes({1: np.array([0.5])}, {1: AfterIdleSteps(steps_s * 1e3, steps_s)})
    middle = 2 * NEIGHBOURS
    arrivals_s = np.array([0.0, 0.5 + middle * 1e3])
    drawn = {simulate(arrivals_s, service, seed=seed).latency_s[1] for seed in range(2_000)}
    assert {round(d) for d in drawn} == set(range(middle - NEIGHBOURS // 2, middle + NEIGHBOURS // 2))
    far_s = np.array([0.0, 1e9])
    longest = {simulate(far_s, service, seed=seed).latency_s[1] for seed in range(100)}
    assert min(longest) > 3 * NEIGHBOURS


def test_steps_after_idle_time_raise_the_p99_of_little_traffic_and_leave_the_capacity() -> None:
    gaps_s = np.linspace(0.0, 50.0, 400)
    warm = ServiceTimes({1: np.array([1.0])})
    cold = ServiceTimes({1: np.array([1.0])}, {1: AfterIdleSteps(gaps_s, np.full(400, 1.5))})
    assert serve_at(0.01, cold, 1, 0.0, 5_000, 1).percentile_s(0.5) == pytest.approx(1.5)
    assert serve_at(0.01, warm, 1, 0.0, 5_000, 1).percentile_s(0.5) == pytest.approx(1.0)
    assert cold.capacity_per_s == warm.capacity_per_s == 1.0
    capacities = find_capacity(cold, 1.2, 1), find_capacity(warm, 1.2, 1)
    assert capacities[0] is None, "no rate holds it, as a request that finds the replica idle is already too late"
    assert capacities[1] is not None


def test_a_hand_over_keeps_the_replica_and_leaves_the_model_without_work() -> None:
    """A step of 1 s that follows another at once has waited for the hand-over of 0.25 s: it is one after a gap."""
    gaps_s = np.repeat([0.25, 20.0], NEIGHBOURS)
    idle = AfterIdleSteps(gaps_s, np.where(gaps_s > 5, 2.0, 1.25))
    arrivals_s = np.array([0.0, 0.5, 24.0, 24.5])
    service = ServiceTimes({1: np.array([1.0])}, {1: idle}, hand_over_s=0.25)
    np.testing.assert_allclose(simulate(arrivals_s, service).latency_s, [1.5, 2.5, 2.25, 3.25])
    assert service.capacity_per_s == pytest.approx(1 / 1.5), "each step is one after the hand-over"
    plain = ServiceTimes(service.samples_s).handed_over_in(0.25)
    np.testing.assert_allclose(simulate(arrivals_s, plain).latency_s, [1.25, 2.0, 1.25, 2.0])
    in_batches = ServiceTimes({1: np.array([1.0]), 2: np.array([1.0])}, hand_over_s=0.25)
    np.testing.assert_allclose(simulate(arrivals_s, in_batches).latency_s, [1.25, 2.0, 1.25, 2.0])
    assert in_batches.scaled(2.0).up_to(1).hand_over_s == 0.5
    with pytest.raises(InputError, match="0 seconds or more"):
        plain.handed_over_in(-1.0)


def test_a_replica_is_not_asked_for_more_than_its_steps_after_hand_overs_allow() -> None:
    """A p99 that every queue holds: 2.25 ms back to back, 2.45 after the hand-over of 0.3 ms, so 2.75 ms a request."""
    gaps_s = np.geomspace(0.2e-3, 50e-3, 662)
    idle = AfterIdleSteps(gaps_s, np.where(gaps_s < 1e-3, 2.45e-3, 2.8e-3))
    service = ServiceTimes({1: np.array([2.25e-3])}, {1: idle}, hand_over_s=0.3e-3)
    assert service.capacity_per_s == pytest.approx(1 / 2.75e-3)
    capacity = find_capacity(service, 10.0, 1)
    assert capacity is not None
    assert capacity.queries_per_s == pytest.approx(MOST_BUSY / 2.75e-3)
    assert capacity.served.busy_share < 0.98
    assert capacity.p99_s < 0.5, "a queue that does not grow"
    together = ServiceTimes({1: np.array([2.25e-3]), 4: np.array([4e-3])}, {1: idle}, hand_over_s=0.3e-3)
    assert together.capacity_per_s == pytest.approx(4 / 4.3e-3), "of this size none was measured after idle time"


def test_a_gap_far_below_any_measured_one_hardly_lengthens_a_step() -> None:
    """The shortest gap was 0.2 ms: after a hand-over of 0.05 ms a quarter of the steps are such as follow it."""
    idle = AfterIdleSteps(np.geomspace(0.2e-3, 50e-3, 400), np.full(400, 3e-3))
    service = ServiceTimes({1: np.array([2e-3])}, {1: idle}, hand_over_s=0.05e-3)
    all_there = np.zeros(8_000)
    ended_s = simulate(all_there, service, seed=3).latency_s
    steps_s = np.diff(ended_s) - 0.05e-3
    assert set(np.round(steps_s * 1e3, 6)) == {2.0, 3.0}
    assert (steps_s > 2.5e-3).mean() == pytest.approx(0.25, abs=0.02)
    assert service.capacity_per_s == pytest.approx(1 / 2.3e-3)
    assert 1 / np.diff(ended_s).mean() == pytest.approx(service.capacity_per_s, rel=0.01)
    assert service.handed_over_in(1e-9).capacity_per_s == pytest.approx(500, rel=1e-4)
    assert service.handed_over_in(0.2e-3).capacity_per_s == pytest.approx(1 / 3.2e-3)


@pytest.mark.parametrize("hand_over_s", [0.0, 1e-3, 10e-3])
def test_as_many_steps_are_simulated_as_are_asked_for(hand_over_s: float) -> None:
    """At four fifths of the capacity a step has 6.4 requests: those that came during the hand-over and step before."""
    service = ServiceTimes({1: np.array([1e-3]), 8: np.array([1e-3])}, hand_over_s=hand_over_s)
    served = serve_at(0.8 * service.capacity_per_s, service, 8, 0.0, 2_000, 1)
    assert len(served.latency_s) / served.mean_batch == pytest.approx(2_000, rel=0.05)


@pytest.mark.parametrize(
    ("gaps_s", "steps_s"), [([], []), ([1.0], [1.0, 2.0]), ([-1.0], [1.0]), ([1.0], [0.0]), ([math.nan], [1.0])]
)
def test_steps_after_idle_time_that_cannot_be(gaps_s: list[float], steps_s: list[float]) -> None:
    with pytest.raises(InputError, match="gap of 0 seconds or more"):
        AfterIdleSteps(np.array(gaps_s), np.array(steps_s))


def test_steps_after_idle_time_belong_to_a_size_that_was_measured() -> None:
    with pytest.raises(InputError, match=r"back to back.\nReceived: \[2\]"):
        ServiceTimes({1: np.ones(1)}, {2: AfterIdleSteps(np.ones(1), np.ones(1))})
