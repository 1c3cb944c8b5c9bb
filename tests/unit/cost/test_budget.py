"""Bills by hand, break-even, intervals that hold the truth, and what a budget says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import InputError
from kcost.core.stats import location, paired_ratio
from kcost.cost.assumptions import ABOUT, Assumptions, assume
from kcost.cost.basis import weakest
from kcost.cost.budget import Budget, make_budget
from kcost.cost.option import OneOff
from kcost.cost.sizing import instances_for, rates_of, replicas_for, usd_per_hour_of
from kcost.cost.total import bill, break_even
from kcost.cost.traffic import constant, profile
from kcost.cost.uncertainty import cheaper_probability, draw, spend
from testing.budgets import case, option

KNOWN = {"traffic_spread": 0.0, "price_spread": 0.0, "capacity_spread": 0.0, "work_spread": 0.0}


def test_a_bill_by_hand() -> None:
    """A peak of 200 and a quarter more is 250: at 190 a replica 2 of them, at 45 six."""
    assumed = Assumptions(headroom=0.25, work_usd_per_hour=100)
    traffic = constant(200)
    once = OneOff(work_hours=12, labels=2000, usd_per_label=0.08, training_usd=1.5)
    fast = option("fast", queries_per_s_per_replica=190.0, queries_per_s_at_full_load=330.0, one_off=once)
    made = bill(fast, traffic, rates_of(traffic), assumed)
    assert (made.replicas, made.instances) == (2, 2)
    assert {line.kind: line.usd for line in made.lines} == {
        "serving": pytest.approx(2 * 0.1 * 24 * 365),
        "work": 1200,
        "labelling": 160,
        "training": 1.5,
        "energy": 0,
    }
    assert made.usd_total == pytest.approx(1752 + 1361.5)
    assert made.usd_per_month == pytest.approx(146)
    assert made.usd_per_million == pytest.approx(0.2 / 3600 / 200 * 1e6)
    assert made.usd_per_million_full == pytest.approx(0.1 / 3600 / 330 * 1e6)
    assert made.idle_share == pytest.approx(1 - 200 / (2 * 330))
    slow = bill(option(queries_per_s_per_replica=45.0), traffic, rates_of(traffic), assumed)
    back = break_even(made, slow, traffic)
    assert (slow.replicas, slow.usd_per_month) == (6, pytest.approx(438))
    assert back.usd_saved_per_month == pytest.approx(292)
    assert back.days == pytest.approx(1361.5 / (292 / 730 * 24))
    assert back.predictions == pytest.approx(back.days * 200 * 86_400)
    assert break_even(slow, made, traffic).days == 0
    dear = bill(option("dear", usd_per_hour=9.0, one_off=once), traffic, rates_of(traffic), assumed)
    assert break_even(dear, slow, traffic).days is None


def test_own_hardware_pays_its_electricity() -> None:
    own = option(usd_per_hour=0.05, watts_per_instance=400.0, usd_per_kwh=0.3, queries_per_s_per_replica=300.0)
    made = bill(own, constant(200), rates_of(constant(200)), Assumptions(horizon_days=10))
    assert {line.kind: line.usd for line in made.lines}["energy"] == pytest.approx(0.4 * 0.3 * 240)
    assert made.usd_per_month == pytest.approx((0.05 + 0.12) * 730)


def test_the_energy_of_a_rented_instance_is_told_and_costs_nothing_more() -> None:
    rented = option(joules_per_prediction=0.36, energy_basis="a counter")
    made = bill(rented, constant(100), rates_of(constant(100)), Assumptions(horizon_days=10))
    (energy,) = (line for line in made.lines if line.kind == "energy")
    # 0.36 J x 100 x 86,400 s x 10 days over 3.6e6 J
    assert (energy.usd, "its steps take 8.64 kWh" in energy.why) == (0, True)


def test_zones_hold_the_traffic_when_one_is_away() -> None:
    """200 a second and 20% more are 5 replicas of 50: 10 in two zones, 3 in each of three."""
    for zones, instances in ((1, 5), (2, 10), (3, 9)):
        assumed = assume({"zones": zones}, {})
        one = bill(option(), constant(200), rates_of(constant(200)), assumed)
        assert (one.replicas, one.instances) == (5, instances)
        assert one.usd_per_month == pytest.approx(instances * 0.1 * 730)


@given(st.integers(1, 500), st.integers(1, 8), st.integers(2, 9))
def test_any_zone_may_be_away(replicas: int, workers: int, zones: int) -> None:
    instances = int(instances_for(replicas, workers, zones))
    assert instances % zones == 0
    assert instances // zones * (zones - 1) * workers >= replicas


def test_the_carbon_of_a_bill_by_hand() -> None:
    """5 instances of 2 vCPUs at 200 of 5 x 80 a second are half busy: 2 x (0.639 + 0.5 x 3.328) = 4.606 W each."""
    grid = {"vcpus_per_instance": 2.0, "g_co2e_per_kwh": 400.0, "grid_source": "400 g a kWh, made up"}
    carbon = bill(option(**grid), constant(200), rates_of(constant(200)), Assumptions()).carbon
    assert carbon is not None
    assert carbon.kwh_per_month == pytest.approx(5 * 4.60625 / 1000 * 730, rel=1e-4)
    assert carbon.kg_co2e_per_month == pytest.approx(carbon.kwh_per_month * 0.4)
    assert "50.0% busy (estimated: Cloud Carbon Footprint, Cascade Lake; the processor alone)" in carbon.why
    assert carbon.why.endswith("400 g a kWh, made up")
    known = bill(option(**grid, watts_per_instance=100), constant(200), rates_of(constant(200)), Assumptions()).carbon
    assert known is not None
    assert known.kwh_per_month == pytest.approx(5 * 0.1 * 730)
    arm = bill(option(**grid, is_arm=True), constant(200), rates_of(constant(200)), Assumptions()).carbon
    assert arm is not None
    assert arm.kwh_per_month < carbon.kwh_per_month
    no_grid = bill(option(vcpus_per_instance=2.0), constant(200), rates_of(constant(200)), Assumptions()).carbon
    assert no_grid is not None
    assert no_grid.kg_co2e_per_month is None
    assert bill(option(), constant(200), rates_of(constant(200)), Assumptions()).carbon is None


def test_workers_share_an_instance_and_spot_has_spares() -> None:
    assumed = Assumptions(headroom=0.0, min_replicas=2, spot_share=0.5, spot_interruptions_per_month=730.0)
    assert replicas_for(10.0, 100.0, assumed) == 2
    assert replicas_for(300.0, 100.0, assumed) == 3
    assert instances_for(9, 4) == 3
    # 10 instances, 5 on spot; each is interrupted once an hour for 180 s: 5 * 0.05 = 0.25, so one spare
    assert usd_per_hour_of(10, 1.0, 0.4, assumed) == pytest.approx(5 * 1.0 + 6 * 0.4)


def test_autoscaling_pays_the_hours_and_the_starts() -> None:
    traffic = profile([100.0] * 12 + [400.0] * 12, "daily")
    plain = option(queries_per_s_per_replica=100.0)
    fixed = bill(plain, traffic, rates_of(traffic), Assumptions(headroom=0.0))
    scaled = bill(plain, traffic, rates_of(traffic), Assumptions(headroom=0.0, autoscale=True, cold_start_s=360))
    assert fixed.usd_per_month == pytest.approx(4 * 0.1 * 730)
    assert scaled.usd_per_month == pytest.approx((12 * 1 + 12 * 4 + 3 * 0.1) / 24 * 0.1 * 730)


@given(st.floats(1, 1e5), st.floats(0.1, 1e4), st.floats(0, 2), st.integers(1, 5), st.integers(1, 64))
def test_what_is_rented_holds_the_traffic(qps: float, each: float, headroom: float, least: int, workers: int) -> None:
    assumed = Assumptions(headroom=headroom, min_replicas=least)
    replicas = float(replicas_for(qps, each, assumed))
    assert replicas * each >= qps * (1 + headroom) * (1 - 1e-6)
    assert replicas >= least
    assert (replicas - 1) * each < qps * (1 + headroom) or replicas == least
    assert 0 <= instances_for(replicas, workers) * workers - replicas < workers


def test_step_times_are_drawn_as_their_intervals_are() -> None:
    """Each option and the ratio of two: the 95% interval of the draws is Student's t of `core.stats`."""
    generator = np.random.default_rng(1)
    drift = generator.normal(0, 0.2, 7)
    values = [np.exp(drift + generator.normal(0, 0.05, 7)) for _ in range(2)]
    medians = [{("b", "s", n): float(v) for n, v in enumerate(row)} for row in values]
    drawn = draw([option(), option("b")], medians, Assumptions(), 200_000, 3).step
    for column in range(2):
        expected = location(values[column])
        low, high = np.quantile(drawn[:, column], [0.025, 0.975])
        assert low == pytest.approx(math.log(expected.low / expected.value), rel=0.03)
        assert high == pytest.approx(math.log(expected.high / expected.value), rel=0.03)
    ratio = paired_ratio(values[0], values[1])
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975])
    assert high == pytest.approx(math.log(ratio.high / ratio.value), rel=0.03)
    assert high - low < 0.5 * np.ptp(np.quantile(drawn[:, 0], [0.025, 0.975])), "what hit both alike cancels"


def test_one_price_moves_all_its_options_alike() -> None:
    drawn = draw([option(), option("b"), option("c", instance="gcp")], [{}, {}, {}], Assumptions(), 100, 3)
    assert np.array_equal(drawn.price[:, 0], drawn.price[:, 1])
    assert not np.array_equal(drawn.price[:, 0], drawn.price[:, 2])
    assert not drawn.step.any()


def test_without_spread_a_draw_is_the_bill() -> None:
    assumed = assume(KNOWN, {})
    options = [option(), option("b", one_off=OneOff(work_hours=3), queries_per_s_per_replica=77.0)]
    traffic = profile([10.0] * 20 + [900.0] * 4, "daily")
    money = spend(options, rates_of(traffic), assumed, draw(options, [{}, {}], assumed, 3, 0))
    for column, one in enumerate(options):
        made = bill(one, traffic, rates_of(traffic), assumed)
        assert money.total[:, column] == pytest.approx([made.usd_total] * 3)
        assert money.per_month[:, column] == pytest.approx([made.usd_per_month] * 3)


def test_intervals_hold_the_truth_in_85_to_95_of_100() -> None:
    held_total = held_saving = 0
    for seed in range(200):
        options, medians, traffic, assumed, totals, saved = case(seed)
        budget = make_budget(options, medians, traffic, assumed, draws=2_000)
        by_name = {p.bill.option.name: p for p in budget.options}
        total = by_name["other"].usd_total
        held_total += total.low <= totals[1] <= total.high
        band = budget.saved_usd_per_month
        assert band is not None
        truth = saved if budget.options[0].bill.option.name == "other" else -saved
        held_saving += band.low <= truth <= band.high
    assert 170 <= held_total <= 190
    assert 170 <= held_saving <= 190


def budget_of(qps: float, fast: float, **assumptions: float) -> Budget:
    """A budget of plain Keras at 50 a replica, and of something faster that takes 8 hours of work."""
    other = option("fast", queries_per_s_per_replica=fast, one_off=OneOff(work_hours=8))
    return make_budget([option(), other], {}, constant(qps), assume(assumptions, {}))


def test_a_clear_winner_is_told_with_its_break_even() -> None:
    budget = budget_of(10_000, 200.0)
    assert budget.outcome == "decided"
    assert budget.options[0].bill.option.name == "fast"
    assert "beats plain with over 99% probability, saves 13," in budget.sentence
    assert "repaid after" in budget.sentence
    assert budget.break_even is not None
    assert budget.break_even.days == pytest.approx(800 / (180 * 0.1 * 24))
    assert budget.break_even_days is not None
    assert budget.break_even_days.low < budget.break_even.days < budget.break_even_days.high
    assert {s.cause for s in budget.tornado} == {"step time", "capacity", "traffic", "price", "work"}
    widths = [s.width_usd for s in budget.tornado]
    assert widths == sorted(widths, reverse=True)


def test_little_traffic_never_repays_work() -> None:
    budget = budget_of(10, 200.0)
    assert budget.options[0].bill.option.name == "plain"
    assert budget.outcome == "decided"
    assert budget.sentence.endswith("costs the same a month and $800.00 less at first.")


def test_a_short_horizon_says_when_the_other_would_repay() -> None:
    budget = budget_of(10_000, 200.0, horizon_days=1)
    assert budget.options[0].bill.option.name == "plain"
    days = 800 / (180 * 0.1 * 24)
    assert budget.sentence.endswith(
        f"less at first: fast would repay that after {days:.2f} days, beyond the 1 asked for."
    )


def test_equal_bills_are_told_apart_from_doubt() -> None:
    budget = make_budget([option(), option("b")], {}, constant(10), Assumptions())
    assert budget.outcome == "same bill"
    assert "cost the same, $73.0 a month: 1 replica of either holds the traffic" in budget.sentence
    assert budget.sentence.startswith("No option saves anything: ")
    assert budget.nothing_saved


def test_of_equal_bills_the_least_change_is_first() -> None:
    """Speed that saves nothing is worth nothing: float32 stays before bfloat16, and what runs today before both."""
    faster = option("bf16", queries_per_s_per_replica=90, queries_per_s_at_full_load=120, lowers_precision=True)
    float32 = option("float32", queries_per_s_per_replica=55, queries_per_s_at_full_load=70)
    with_today = make_budget([faster, float32, option()], {}, constant(10), Assumptions(), draws=50)
    assert [p.bill.option.name for p in with_today.options] == ["plain", "float32", "bf16"]
    without = make_budget([faster, float32], {}, constant(10), Assumptions(), draws=50)
    assert [p.bill.option.name for p in without.options] == ["float32", "bf16"]
    assert without.nothing_saved
    assert "float32 computes in float32, so its answers do not change" in without.sentence


def test_a_way_that_saves_is_not_denied() -> None:
    """Two ways of one bill that beat what runs today do save, and one that costs more but less a month does too."""
    fast = [option(n, queries_per_s_per_replica=90.0) for n in ("a", "b")]
    budget = make_budget([option(), *fast], {}, constant(70), Assumptions(), draws=50)
    assert (budget.outcome, budget.nothing_saved) == ("same bill", False)
    assert budget.against_plain is not None
    assert budget.against_plain.usd_saved_per_month > 0
    assert not budget_of(10_000, 200.0, horizon_days=1).nothing_saved


def test_a_faster_way_that_saves_nothing_loses_to_today() -> None:
    budget = budget_of(10, 200.0)
    assert budget.nothing_saved
    assert budget.sentence.startswith("No option saves anything: plain on 1 instance")


def rounds(centre: float, spread: float, seed: int) -> dict[tuple[str, str, int], float]:
    noise = np.random.default_rng(seed).normal(0, spread, 6)
    noise -= noise.mean()
    return {("b", "s", n): float(v) for n, v in enumerate(centre * np.exp(noise))}


def test_what_measuring_would_tell_is_said_with_its_minutes() -> None:
    medians = {"plain": rounds(1.0, 0.15, 1), "b": rounds(0.9, 0.15, 2)}
    options = [option(), option("b", queries_per_s_per_replica=55.0)]
    budget = make_budget(options, medians, constant(50_000), assume({**KNOWN}, {}), round_s={"plain": 2.0, "b": 2.0})
    assert budget.outcome == "can't tell"
    assert budget.would_tell is not None
    assert "more minutes of measuring would" in budget.would_tell
    assert budget.sentence.startswith("can't tell whether b costs less than plain")


def test_where_capacity_hides_it_measuring_is_not_advised() -> None:
    options = [option(), option("b", queries_per_s_per_replica=53.0)]
    medians = {"plain": rounds(1.0, 0.001, 1), "b": rounds(0.94, 0.001, 2)}
    budget = make_budget(options, medians, constant(50_000), Assumptions(), round_s={"plain": 2.0, "b": 2.0})
    assert budget.outcome == "can't tell"
    assert budget.would_tell is not None
    assert "load test" in budget.would_tell


def test_a_verdict_on_no_measurement_says_so_first() -> None:
    budget = make_budget([option(basis="projected"), option("b", simulated=True)], {}, constant(10), Assumptions())
    assert budget.sentence.startswith("[simulated step times, projected]")
    assert weakest(["measured", "published", "scaled"]) == "published"


def test_figures_that_are_not_to_be_believed_say_so_first() -> None:
    budget = make_budget([option()], {}, constant(10), Assumptions(), invalid="other processes took 80%")
    assert budget.sentence.startswith("[INVALID] ")
    assert budget.invalid == "other processes took 80%"


def test_one_option_has_nothing_beside_it() -> None:
    budget = make_budget([option()], {}, constant(10), Assumptions())
    assert (budget.outcome, budget.probability, budget.break_even) == ("only one", None, None)


def test_the_same_seed_gives_the_same_budget() -> None:
    assert budget_of(1_000, 70.0) == budget_of(1_000, 70.0)


def test_a_budget_survives_json() -> None:
    budget = budget_of(10_000, 200.0)
    assert Budget.model_validate_json(budget.model_dump_json()) == budget


def test_equal_costs_count_half() -> None:
    assert cheaper_probability(np.array([1.0, 1.0, 2.0]), np.array([2.0, 1.0, 1.0])) == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("horizon_days", 0),
        ("horizon_days", -1),
        ("headroom", -0.1),
        ("min_replicas", 0),
        ("min_replicas", 1.5),
        ("spot_share", 1.1),
        ("work_hours", math.nan),
        ("traffic_spread", "much"),
        ("unknown", 1),
    ],
)
def test_a_wrong_assumption_is_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        assume({name: value}, {})


def test_each_assumption_has_a_source_and_an_option() -> None:
    assert ABOUT.keys() == Assumptions.model_fields.keys() - {"sources"}
    listed = {a.name: a for a in assume({"headroom": 0.5}, {"headroom": "our load test"}).listed()}
    assert (listed["headroom"].value, listed["headroom"].source) == (0.5, "our load test")
    assert all(a.source and a.option.startswith("--") for a in listed.values())


@pytest.mark.parametrize("options", [[], ["a", "a"]])
def test_options_have_names_of_their_own(options: list[str]) -> None:
    with pytest.raises(InputError, match="names of their own"):
        make_budget([option(name) for name in options], {}, constant(10), Assumptions())
