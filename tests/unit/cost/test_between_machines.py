import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.errors import InputError
from kcost.core.probe import HeldTimes, Probe
from kcost.core.result import Watch
from kcost.core.stats import Interval
from kcost.cost.between_machines import (
    CAUSES,
    COMPONENTS,
    HELD_SD,
    BetweenMachines,
    Coefficients,
    Step,
    coefficients,
    fit_efficiencies,
    log_parts,
    project_between,
)
from kcost.cost.between_machines_fit import (
    BEFORE,
    Machine,
    fit_coefficients,
    grade,
    leave_out_machines,
    simple_ways,
    table_of,
    unchanged_pairs,
    with_coefficients,
)
from kcost.cost.cell_workload import step_of
from kcost.cost.machine_rates import MachineRates, rates_of
from kcost.cost.projection import WIDEST
from testing.probed_machines import probe, rates, step, true_s, workload, workloads
from testing.runs import plan, simulated_run

EFFICIENCY = (math.log(2.0), math.log(1.3), math.log(3.0), math.log(0.5))


def measured(machine: MachineRates, count: int = 12, noise: float = 0.0, seed: int = 0) -> list[Step]:
    generator = np.random.default_rng(seed)
    works = workloads(count)
    times = [true_s(w, machine, EFFICIENCY) * math.exp(generator.normal(0, noise)) for w in works]
    return [step(s, w, name=str(i)) for i, (s, w) in enumerate(zip(times, works, strict=True))]


def one(steps: list[Step], here: MachineRates, there: MachineRates, **changes: Any) -> BetweenMachines:
    return project_between(steps, here, there, BEFORE.model_copy(update=changes))[0]


def test_rates_are_those_of_the_probe_without_its_calls() -> None:
    machine = rates(1e11, 2e10, 1e-5, threads=(1, 2))
    assert machine.threads == 2
    assert math.exp(machine.products["float32"].log_rate_at(math.log(2e9))) == pytest.approx(2e11, rel=0.01)
    assert math.exp(machine.products["bfloat16"].log_rate_at(math.log(2e9))) == pytest.approx(4e11, rel=0.01)
    assert math.exp(machine.memory.log_rate_at(math.log(1e8))) == pytest.approx(4e10, rel=0.01)
    assert machine.call_s == pytest.approx(1e-5)
    assert rates_of(probe(), 1).threads == 1


def test_a_program_that_waits_for_threads_to_wake_takes_the_rate_of_fewer_threads() -> None:
    """Made up: a product and a sum are five times slower with two threads, all others twice as fast."""
    made = probe(threads=(1, 2))
    answer = made.by_threads[1].answer
    slowed = {
        "products": tuple(_as_slow(p, 10 if p.size == 256 else 1) for p in answer.products),
        "moves": tuple(_as_slow(m, 10 if m.elements == 1 << 16 else 1) for m in answer.moves),
        "call_ns": (2 * answer.call_ns[0],),
    }
    last = made.by_threads[1].model_copy(update={"answer": answer.model_copy(update=slowed)})
    waking = made.model_copy(update={"by_threads": (made.by_threads[0], last)})
    alone, both, mixed = rates_of(made, 1), rates_of(made, 2), rates_of(waking, 2)
    assert (mixed.threads, mixed.call_s) == (2, alone.call_s)
    small, large = math.log(2 * 256**3), math.log(2 * 2048**3)
    assert mixed.products["float32"].log_rate_at(small) == alone.products["float32"].log_rate_at(small)
    assert mixed.products["float32"].log_rate_at(large) == both.products["float32"].log_rate_at(large)
    assert mixed.memory.log_rate == (alone.memory.log_rate[0], both.memory.log_rate[-1])
    assert rates_of(waking, 1) == alone


def _as_slow(one: Any, times: int) -> Any:
    return one.model_copy(update={"ns": tuple(times * ns for ns in one.ns)})


def test_a_program_that_a_quota_stops_takes_no_rate_of_fewer_threads() -> None:
    made = probe(threads=(1, 2), cpu_quota_cores=1.0)
    answer = made.by_threads[1].answer
    small = tuple(p for p in answer.products if p.size < 2048)
    last = made.by_threads[1].model_copy(update={"answer": answer.model_copy(update={"products": small})})
    curve = rates_of(made.model_copy(update={"by_threads": (made.by_threads[0], last)}), 2).products["float32"]
    assert curve.log_rate_at(math.log(1e12)) == curve.log_rate[-1]
    assert curve.log_rate[-1] == pytest.approx(math.log(2e11), rel=0.01)


@pytest.mark.parametrize(
    ("threads", "quota_cores", "chosen"),
    [((1, 2, 4), None, 4), ((1, 2, 4), 2.5, 2), ((1, 2, 4), 0.5, 1), ((2, 4), 1.0, 2), ((1, 2, 4), 8.0, 4)],
)
def test_of_a_target_under_a_quota_those_threads_are_taken_that_it_allows(
    threads: tuple[int, ...], quota_cores: float | None, chosen: int
) -> None:
    assert rates_of(probe(threads=threads, cpu_quota_cores=quota_cores)).threads == chosen


def held_rates(quota_cores: float, threads: int = 2, longer: float | None = None, cores: float = 2.0) -> MachineRates:
    """Rates of a machine under a quota, where a product that keeps `cores` busy takes `longer` times as long."""
    made = probe(threads=(threads,), cpu_quota_cores=quota_cores)
    answer = made.by_threads[0].answer
    if longer is not None:
        alone_ns = next(p.ns[0] for p in answer.products if (p.dtype, p.size) == ("float32", 256))
        held = HeldTimes(size=256, cores=cores, ns=(round(alone_ns * longer),) * 4)
        answer = answer.model_copy(update={"held": held})
    return rates_of(_with_answer(made, answer))


@pytest.mark.parametrize(
    ("longer", "cores", "waste"), [(None, 2.0, 1.0), (2.0, 2.0, 1.0), (3.0, 2.0, 1.5), (1.2, 0.9, 1.2), (1.1, 2.0, 1.0)]
)
def test_a_quota_wastes_what_its_product_takes_beyond_its_cpu_time(
    longer: float | None, cores: float, waste: float
) -> None:
    held = held_rates(1.0, longer=longer, cores=cores).held
    assert held is not None
    assert (held.cores, held.waste) == (1.0, pytest.approx(waste, rel=0.01))


def test_a_quota_of_all_threads_holds_nothing_back() -> None:
    assert held_rates(2.0).held is None
    assert held_rates(0.5, threads=1).held is not None


@pytest.mark.parametrize(
    ("cores", "quota_cores", "waste", "times"),
    [
        (2.0, 1.0, 1.0, 2.0),
        (2.0, 1.0, 1.5, 3.0),
        (1.0, 1.0, 1.5, 1.0),
        (0.9, 1.0, 1.5, 1.0),
        (1.5, 1.0, 1.0, 1.5),
        (1.2, 1.5, 1.0, 1.0),  # it uses less than the quota has
        (2.0, 0.5, 1.0, 4.0),
        (2.3, 1.0, 1.0, 2.0),  # no more than all threads
        (None, 1.0, 1.0, math.sqrt(2)),
    ],
)
def test_a_step_under_a_quota_takes_as_long_as_its_cpu_time_lasts(
    cores: float | None, quota_cores: float, waste: float, times: float
) -> None:
    here = rates_of(probe(threads=(2,)))
    there = held_rates(quota_cores, longer=2 / quota_cores * waste)
    counted = step(0.01, workload())._replace(cores=cores)
    assert one([counted], here, there).step_ms == pytest.approx(10 * times, rel=0.01)
    assert one([counted], here, here).sd_by_cause["quota"] == 0


def test_what_one_thread_did_says_less_of_a_quota_of_two() -> None:
    here, there = rates_of(probe(threads=(1,))), held_rates(1.0, longer=2.0)
    counted = step(0.01, workload())._replace(cores=1.0)
    doubt = one([counted], here, there).sd_by_cause["quota"]
    assert doubt == pytest.approx(math.hypot(math.log(2) / math.sqrt(12), HELD_SD))
    assert one([counted], rates_of(probe(threads=(2,))), there).sd_by_cause["quota"] == pytest.approx(HELD_SD)


@pytest.mark.parametrize(
    ("watch", "cores"),
    [
        ({"worker_cpu_s": 0.18}, 1.8),
        ({"worker_cpu_s": None}, None),
        ({"worker_cpu_s": 0.18, "quota_periods": 5, "quota_throttles": 0}, 1.8),
        ({"worker_cpu_s": 0.18, "quota_periods": 5, "quota_throttles": 1}, None),
        (None, None),
    ],
)
def test_cores_of_a_step_are_counted_where_nothing_held_them_back(
    watch: dict[str, Any] | None, cores: float | None
) -> None:
    run, _ = simulated_run(plan(batches=(1,), phases=("inference",)))
    seen = None if watch is None else Watch(**{"wall_s": 0.2, "parent_cpu_s": 0.0, **watch})
    rounds = tuple(replace(r, step_ns=(25_000_000,) * 4, watch=seen) for r in run.cells[0].rounds)
    counted = step_of(run.cells[0].model_copy(update={"rounds": rounds}), workload()).cores
    assert counted == (None if cores is None else pytest.approx(cores))


def test_a_projection_to_a_quota_is_held_against_steps_with_their_pauses() -> None:
    here, there = rates_of(probe(threads=(2,))), held_rates(1.0, longer=2.0)
    steps = [s._replace(cores=2.0) for s in measured(here)]
    paused = [s._replace(measured_s=s.measured_s.scaled(2.0)) for s in steps]
    table = table_of([Machine("free", steps, here), Machine("held", steps, there, paused)])
    to_it = table.target == "held"
    errors = with_coefficients(table, BEFORE)
    assert np.abs(errors.log_error).max() < 0.02
    assert table.truth[to_it] == pytest.approx(table.truth[~to_it] + math.log(2.0))
    assert (errors.sd[to_it] > errors.sd[~to_it]).all()


def test_one_thread_under_half_a_core_takes_twice_as_long() -> None:
    here, there = rates_of(probe(threads=(1,))), held_rates(0.5, threads=1)
    assert one([step(0.01, workload())], here, there).step_ms == pytest.approx(20, rel=0.01)


def test_a_rate_between_two_sizes_lies_between_theirs_and_beyond_them_stays() -> None:
    answer = probe().by_threads[1].answer
    slow = answer.products[0].model_copy(update={"ns": (40_000,)})
    uneven = answer.model_copy(update={"products": (slow, *answer.products[1:])})
    curve = rates_of(_with_answer(probe(), uneven)).products["float32"]
    ends = [curve.log_rate_at(math.log(2.0 * n**3)) for n in (64, 256)]
    between = curve.log_rate_at(math.log(2.0 * 128**3))
    assert min(ends) < between < max(ends)
    assert curve.log_rate_at(0.0) == ends[0]


def _with_answer(made: Probe, answer: Any) -> Probe:
    last = made.by_threads[-1].model_copy(update={"answer": answer})
    return made.model_copy(update={"by_threads": (last,)})


@pytest.mark.parametrize(
    ("change", "says"),
    [({"call_ns": ()}, "a call"), ({"moves": ()}, "a call"), ({"products": ()}, "a call")],
)
def test_a_probe_that_lacks_something_is_refused(change: dict[str, Any], says: str) -> None:
    answer = probe().by_threads[1].answer.model_copy(update={**change, "not_measured": ("a call: no time was left",)})
    with pytest.raises(InputError, match=says) as caught:
        rates_of(_with_answer(probe(), answer))
    assert "no time was left" in str(caught.value)


def test_a_number_of_threads_that_was_not_probed_is_refused() -> None:
    with pytest.raises(InputError, match="was probed with 1, 2"):
        rates_of(probe(), 3)


@given(st.floats(1e-6, 10), st.floats(1, 9), st.floats(0, 8))
@settings(max_examples=60, deadline=None)
def test_a_machine_like_the_first_takes_the_same_time(seconds: float, flops: float, moved: float) -> None:
    machine = rates()
    work = workload(flops_per_example=10**flops, activations_per_example=10**moved)
    projected = one([step(seconds, work)], machine, machine)
    assert projected.step_ms == pytest.approx(seconds * 1e3, rel=1e-9)
    assert projected.low_ms < projected.step_ms < projected.high_ms
    assert projected.sd_by_cause[CAUSES[0]] == pytest.approx(0, abs=1e-6)


@given(st.floats(0.05, 20), st.floats(1e-6, 10))
@settings(max_examples=60, deadline=None)
def test_a_machine_that_is_slower_in_everything_takes_that_many_times_as_long(times: float, seconds: float) -> None:
    here, there = rates(1e11, 2e10, 2e-4), rates(1e11 / times, 2e10 / times, 2e-4 * times)
    assert one([step(seconds, workload())], here, there).times_slower == pytest.approx(times, rel=0.02)


@given(*(st.floats(0.1, 10) for _ in range(3)), st.floats(1e-5, 1), st.floats(4, 9))
@settings(max_examples=100, deadline=None)
def test_no_step_is_stretched_beyond_its_most_stretched_part(
    products: float, memory: float, calls: float, seconds: float, flops: float
) -> None:
    here, there = rates(1e11, 2e10, 2e-5), rates(1e11 / products, 2e10 / memory, 2e-5 * calls)
    projected = one([step(seconds, workload(flops_per_example=10**flops))], here, there)
    ratios = projected.component_ratios.values()
    assert min(ratios) * 0.999 <= projected.times_slower <= max(ratios) * 1.001
    assert sum(projected.shares.values()) == pytest.approx(1)


def test_a_step_of_products_follows_the_products_and_one_of_calls_the_calls() -> None:
    here, there = rates(1e11, 2e10, 1e-5), rates(5e10, 2e10, 1e-5)
    heavy = workload(flops_per_example=1e10, activations_per_example=1e3)
    light = workload(flops_per_example=1e3, activations_per_example=1e2, parameters=1e2)
    steps = [step(true_s(w, here, EFFICIENCY), w, name=n) for w, n in ((heavy, "heavy"), (light, "light"))]
    by_name = {p.name: p for p in project_between(steps, here, there, BEFORE)}
    assert by_name["heavy"].times_slower == pytest.approx(2, rel=0.02)
    assert by_name["heavy"].shares["products"] > 0.95
    assert by_name["light"].times_slower == pytest.approx(1, abs=0.02)
    assert by_name["light"].shares["calls"] > 0.95


def test_efficiencies_are_those_that_made_the_times() -> None:
    machine = rates()
    steps = measured(machine, 40)
    parts = np.array([log_parts(s.workload, machine) for s in steps])
    fitted = fit_efficiencies(steps, parts, np.log([s.measured_s.value for s in steps]))
    wide = np.sqrt(np.diag(fitted.covariance)) * 2.6
    assert np.all(np.abs(fitted.log - EFFICIENCY) < np.maximum(wide, 0.1))
    again = np.logaddexp.reduce(parts + fitted.log, axis=1)
    assert np.median(np.abs(again - np.log([s.measured_s.value for s in steps]))) < 0.05


def test_cells_of_other_sizes_tell_which_part_takes_how_long() -> None:
    """One cell alone leaves open what it consists of; twelve narrow the interval of the same cell."""
    here, there = rates(1e11, 2e10, 1e-5), rates(3e10, 2e10, 1e-5)
    steps = measured(here)
    alone, among = one(steps[:1], here, there), one(steps, here, there)
    assert among.sd_by_cause[CAUSES[0]] < alone.sd_by_cause[CAUSES[0]]


def test_a_single_round_has_no_interval_and_is_refused() -> None:
    lonely = step(0.01, workload())._replace(measured_s=Interval(0.01, 0.0, math.inf))
    projected = one([lonely], rates(), rates())
    assert "more rounds" in (projected.refused or "")
    assert math.isfinite(projected.high_ms)


def test_far_machines_are_refused_and_the_reason_names_the_part() -> None:
    heavy = workload(flops_per_example=1e10, activations_per_example=1e3)
    here, there = rates(1e11, 2e10, 1e-5), rates(1e9, 2e10, 1e-5)
    projected = one([step(true_s(heavy, here, EFFICIENCY), heavy)], here, there)
    assert projected.high_ms / projected.low_ms > WIDEST
    assert "products are 100 times as long there" in (projected.refused or "")
    assert "measuring the model there" in (projected.refused or "")
    assert one([step(0.01, heavy)], here, here).refused is None


def test_what_no_probe_measured_is_refused() -> None:
    quantized = step(0.01, workload(precision="int8"))
    with pytest.raises(InputError, match="int8"):
        project_between([quantized], rates(), rates())
    with pytest.raises(InputError, match="bf16"):
        project_between([step(0.01, workload(precision="bf16"))], rates(), rates(dtypes={"float32": 1.0}))
    with pytest.raises(InputError, match="one backend"):
        project_between([step(0.01, workload())], rates(), rates(backend="torch"))


def machines(seed: int, exponents: tuple[float, float, float] = (1, 1, 1), noise: float = 0.15) -> list[Machine]:
    """Five made-up machines: a step's parts follow their probes but for a deviation of each cell's part."""
    generator = np.random.default_rng(seed)
    first = rates()
    works = workloads(30, seed)
    own = generator.normal(0, 0.2, (len(works), 4)) + np.array(EFFICIENCY)
    made = []
    for number in range(5):
        factors = (1.0, 1.0, 1.0) if number == 0 else tuple(np.exp(generator.uniform(-0.9, 0.9, 3)))
        machine = rates(1e11 / factors[0], 2e10 / factors[1], 1e-5 * factors[2])
        steps = []
        for place, work in enumerate(works):
            parts, moved = log_parts(work, first), log_parts(work, machine) - log_parts(work, first)
            powers = np.array(exponents)[[0, 1, 2, 2]]
            parts = parts + powers * moved + own[place] + generator.normal(0, noise, 3)[[0, 1, 2, 2]]
            steps.append(step(float(np.exp(np.logaddexp.reduce(parts))), work, name=str(place)))
        made.append(Machine(f"machine {number}", steps, machine))
    return made


def test_intervals_hold_what_they_say_on_made_up_machines() -> None:
    """Synthetic: 600 projections, each fitted without the machine that it is to."""
    table = table_of(machines(3))
    graded = grade(table, leave_out_machines(table), "all")
    assert graded.rows == 5 * 4 * 30
    assert graded.left_out_cells == 150
    assert 0.85 <= graded.held <= 0.97
    assert graded.median_error < min(simple_ways(table).values())


def test_a_machine_that_is_left_out_tells_its_projection_nothing() -> None:
    table = table_of(machines(4)[:3])
    to_it = table.target == "machine 2"
    slower = table._replace(truth=table.truth + np.where(to_it, math.log(3), 0.0))
    before, after = leave_out_machines(table), leave_out_machines(slower)
    np.testing.assert_allclose(before.log_error[to_it] - after.log_error[to_it], math.log(3), atol=1e-9)
    np.testing.assert_allclose(before.sd[to_it], after.sd[to_it])


def test_a_model_that_is_left_out_tells_its_projection_nothing() -> None:
    table = table_of(machines(4)[:3])
    models = np.array(["a" if number % 2 else "b" for number in range(len(table.truth))])
    slower = table._replace(truth=table.truth + np.where(models == "a", math.log(3), 0.0))
    before, after = leave_out_machines(table, models), leave_out_machines(slower, models)
    of_a = models == "a"
    np.testing.assert_allclose(before.sd[of_a], after.sd[of_a])
    assert not np.allclose(before.sd[~of_a], after.sd[~of_a])


def test_pairs_that_take_as_long_are_known() -> None:
    one, other = machines(8)[:2]
    twin = one._replace(name="twin")
    unchanged = unchanged_pairs(table := table_of([one, twin, other]))
    same = (table.source != other.name) & (table.target != other.name)
    np.testing.assert_array_equal(unchanged, same)


def test_a_fit_sees_how_far_parts_follow_their_probes() -> None:
    half = fit_coefficients(table_of(machines(5, (0.5, 1, 1), noise=0.03)), "a test")
    assert half.exponents["products"] < 0.75
    assert half.exponents["products"] < half.exponents["calls"] - 0.2
    assert half.fitted_to == "a test"
    noisy = fit_coefficients(table_of(machines(5, noise=0.3)), "a test")
    assert noisy.floor_sd > half.floor_sd


def test_a_precision_that_one_probe_lacks_is_left_out_of_the_table() -> None:
    made = machines(7)[:2]
    low = [s._replace(workload=s.workload.model_copy(update={"precision": "bf16"}), group="low") for s in made[0].steps]
    both = [m._replace(steps=[*m.steps, *low]) for m in made]
    assert len(table_of(both).truth) == 2 * len(table_of(made).truth)
    without = both[1]._replace(rates=rates(dtypes={"float32": 1.0}))
    assert len(table_of([both[0], without]).truth) == len(table_of(made).truth)


def test_rows_are_graded_by_what_takes_most_of_their_time() -> None:
    table = table_of(machines(6))
    errors = with_coefficients(table, BEFORE)
    assert set(errors.component) <= {*COMPONENTS, ""}
    with pytest.raises(InputError, match="one row"):
        grade(table, errors, "none", np.zeros(len(table.truth), dtype=bool))
    with pytest.raises(InputError, match="two of them"):
        table_of(machines(6)[:1])


def test_the_package_ships_coefficients_that_say_what_they_come_from() -> None:
    shipped = coefficients()
    assert set(shipped.exponents) == set(COMPONENTS)
    assert shipped.fitted_to
    assert isinstance(shipped, Coefficients)
