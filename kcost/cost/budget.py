"""A budget: the bills of all options, which is the cheapest, how sure that is, and when it pays back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.schema import VERSIONS, Record
from kcost.core.units import format_usd, significant
from kcost.cost.assumptions import HOURS_PER_MONTH, Assumption, Assumptions
from kcost.cost.basis import CostBasis, weakest
from kcost.cost.instance_map import InstancePoint
from kcost.cost.option import Option, Refused
from kcost.cost.sizing import Rates, rates_of
from kcost.cost.total import Bill, BreakEven, bill, break_even, by_total
from kcost.cost.traffic import Traffic
from kcost.cost.uncertainty import (
    CONFIDENCE,
    SURE,
    Band,
    Draws,
    Medians,
    Swing,
    bands,
    causes_in,
    cheaper_probability,
    draw,
    of_two,
    spend,
    tornado,
    without,
)

DRAWS = 10_000
SEED = 20_261_129

Outcome = Literal["decided", "can't tell", "same bill", "only one", "measured beside other work"]
"""decided: the winner costs less with a probability of 95% or more. same bill: both cost the same at their values, to
the cent. only one: there is nothing to compare with. measured beside other work: by that or another disturbance no
figure of the run is to be believed, so there is none."""

MEASURING_PARTS = (0.5, 2 / 3, 0.75, 0.8, 0.9)
"""Parts of the spread of step times that 4, 9, 16, 25 and 100 times the rounds take away."""


class PricedOption(Record):
    """The bill of one option with its intervals."""

    bill: Bill
    usd_total: Band
    usd_per_month: Band


class Budget(Record):
    """The answer of `kcost cost --qps`."""

    schema_: int = Field(default=VERSIONS["budget"], alias="schema")
    sentence: str
    outcome: Outcome
    basis: CostBasis | None = Field(description="the weakest of the two that are compared; None without an option")
    simulated: bool = Field(description="step times among them were made up")
    invalid: str | None = Field(default=None, description="why the run's figures are not to be believed")
    probability: float | None = Field(description="that the winner costs less than the runner-up")
    saved_usd_per_month: Band | None = Field(
        description="by the winner over the runner-up, what is paid once left out; None without a runner-up"
    )
    nothing_saved: bool = Field(
        default=False,
        description="what runs today, or changes least, is the cheapest, and no option costs less a month",
    )
    break_even: BreakEven | None
    break_even_days: Band | None = Field(default=None, description="None where it never pays back, or in some draws")
    against_plain: BreakEven | None = Field(default=None, description="the winner against plain Keras")
    would_tell: str | None = Field(default=None, description="what would decide, where it is not decided")
    traffic: Traffic
    p99_ms: float | None
    horizon_days: float
    options: tuple[PricedOption, ...] = Field(description="the cheapest over the horizon first")
    refused: tuple[Refused, ...]
    tornado: tuple[Swing, ...]
    instances: tuple[InstancePoint, ...] = Field(
        default=(), description="by price and time: options, other sizes for the winner, and what was projected"
    )
    assumptions: tuple[Assumption, ...]
    notes: tuple[str, ...]
    draws: int
    seed: int


def make_budget(
    options: Sequence[Option],
    medians: Mapping[str, Medians],
    traffic: Traffic,
    assumed: Assumptions,
    *,
    p99_ms: float | None = None,
    refused: Sequence[Refused] = (),
    notes: Sequence[str] = (),
    round_s: Mapping[str, float] | None = None,
    invalid: str | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Budget:
    """What follows from some options.

    Args:
        medians: name of an option -> medians by round of the cell it serves with; none for what was not measured.
        invalid: why the figures are not to be believed, where the run says so.
        round_s: name of an option -> seconds that a round of it takes, to say what more measuring would cost.

    Raises:
        InputError: no option, or two of one name.
    """
    names = [o.name for o in options]
    if not options or len(set(names)) < len(names):
        raise InputError("A budget compares options with names of their own.", received=names or "none")
    rates = rates_of(traffic)
    ordered = by_total([bill(o, traffic, rates, assumed) for o in options])
    sorted_options = [b.option for b in ordered]
    drawn = draw(sorted_options, [medians.get(o.name, {}) for o in sorted_options], assumed, draws, seed)
    money = spend(sorted_options, rates, assumed, drawn)
    totals = bands(money.total, [b.usd_total for b in ordered])
    monthly = bands(money.per_month, [b.usd_per_month for b in ordered])
    priced = [
        PricedOption(bill=b, usd_total=t, usd_per_month=m) for b, t, m in zip(ordered, totals, monthly, strict=True)
    ]
    winner, runner = ordered[0], ordered[1] if len(ordered) > 1 else None
    plain = next((b for b in ordered if b.option.is_plain), None)
    compared = [winner] if runner is None else [winner, runner]
    known = {
        "basis": weakest(b.option.basis for b in compared),
        "simulated": any(b.option.simulated for b in compared),
        "invalid": invalid,
        "against_plain": None if plain is None or plain is winner else break_even(winner, plain, traffic),
        "traffic": traffic,
        "p99_ms": p99_ms,
        "horizon_days": assumed.horizon_days,
        "options": tuple(priced),
        "refused": tuple(refused),
        "assumptions": assumed.listed(),
        "notes": tuple(notes),
        "draws": draws,
        "seed": seed,
    }
    if runner is None:
        sentence = (
            f"{_told(winner)} costs {format_usd(winner.usd_per_month)} a month; there is nothing to compare it with."
        )
        return Budget(
            sentence=_marked(sentence, known), outcome="only one", probability=None, saved_usd_per_month=None,
            break_even=None, tornado=(), **known,
        )  # fmt: skip
    pair = of_two(drawn, (0, 1))
    probability = cheaper_probability(money.total[:, 0], money.total[:, 1])
    saved = bands(
        (money.per_month[:, 1] - money.per_month[:, 0])[:, None], [runner.usd_per_month - winner.usd_per_month]
    )[0]
    back = break_even(winner, runner, traffic)
    same = round(winner.usd_total, 2) == round(runner.usd_total, 2)
    nothing_saved = _nothing_saved(ordered)
    outcome: Outcome = "same bill" if same else "decided" if probability >= SURE else "can't tell"
    would = None
    if outcome == "can't tell":
        would = _what_would_tell((winner.option, runner.option), rates, assumed, pair, medians, round_s or {})
    sentence = _sentence(outcome, winner, runner, probability, saved, back, would, assumed.horizon_days)
    if nothing_saved and outcome != "can't tell":
        sentence = f"No option saves anything: {sentence}"
    return Budget(
        sentence=_marked(sentence, known),
        outcome=outcome,
        nothing_saved=nothing_saved,
        probability=probability,
        saved_usd_per_month=saved,
        break_even=back,
        break_even_days=_days_band(back, winner, runner, money.per_month, assumed, pair),
        would_tell=would,
        tornado=tornado((winner.option, runner.option), rates, assumed, pair, _months(assumed)),
        **known,
    )


def no_budget(
    reasons: Sequence[Refused],
    traffic: Traffic,
    assumed: Assumptions,
    *,
    p99_ms: float | None,
    invalid: str,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Budget:
    """What is said in the place of a budget where every way is INVALID: no figure.

    Args:
        reasons: each way, and why it is INVALID.
        invalid: why the run is, and what to do about it.
    """
    return Budget(
        sentence=f"INVALID: {invalid}.",
        outcome="measured beside other work",
        basis=None,
        simulated=False,
        invalid=invalid,
        probability=None,
        saved_usd_per_month=None,
        break_even=None,
        traffic=traffic,
        p99_ms=p99_ms,
        horizon_days=assumed.horizon_days,
        options=(),
        refused=tuple(reasons),
        tornado=(),
        assumptions=assumed.listed(),
        notes=(),
        draws=draws,
        seed=seed,
    )


def _nothing_saved(ordered: Sequence[Bill]) -> bool:
    """Whether the first of the bills is of what changes least, and none is less a month."""
    first = ordered[0]
    today = first.option.is_plain or not any(b.option.is_plain for b in ordered[1:])
    return (
        today
        and all(round(b.usd_per_month - first.usd_per_month, 2) >= 0 for b in ordered[1:])
        and (first.option.is_plain or all(round(b.usd_total, 2) == round(first.usd_total, 2) for b in ordered[1:]))
    )


def _months(assumed: Assumptions) -> float:
    return assumed.horizon_days * 24 / HOURS_PER_MONTH


def _told(one: Bill) -> str:
    plural = "" if one.instances == 1 else "s"
    return f"{one.option.name} on {one.instances} instance{plural} {one.option.instance}"


def _marked(sentence: str, known: Mapping[str, object]) -> str:
    """What a verdict that rests on no measurement says first."""
    marks = [] if known["invalid"] is None else ["INVALID"]
    if known["simulated"]:
        marks.append("simulated step times")
    if known["basis"] != "measured":
        marks.append(str(known["basis"]))
    return f"[{', '.join(marks)}] {sentence}" if marks else sentence


def _sentence(
    outcome: Outcome,
    winner: Bill,
    runner: Bill,
    probability: float,
    saved: Band,
    back: BreakEven,
    would: str | None,
    horizon_days: float,
) -> str:
    if outcome == "same bill":
        return (
            f"{winner.option.name} and {runner.option.name} cost the same, {format_usd(winner.usd_per_month)} a month: "
            f"{_why_same(winner, runner)}{_least_change(winner, runner)}."
        )
    if outcome == "can't tell":
        return (
            f"can't tell whether {winner.option.name} costs less than {runner.option.name}: {probability:.0%} "
            f"probable, {SURE:.0%} asked for; {would}."
        )
    return (
        f"{_told(winner)} beats {runner.option.name} with {_percent(probability)} probability, "
        f"{_saves(saved)}{_repaid(back, horizon_days)}."
    )


def _percent(probability: float) -> str:
    return "over 99%" if probability > 0.995 else f"{probability:.0%}"


def _saves(saved: Band) -> str:
    if saved.value == saved.low == saved.high == 0:
        return "costs the same a month"
    if saved.value >= 0:
        return f"saves {significant(saved.value)} ({significant(saved.low)} to {significant(saved.high)}) USD a month"
    more = f"{significant(-saved.value)} ({significant(-saved.high)} to {significant(-saved.low)})"
    return f"costs {more} USD a month more"


def _repaid(back: BreakEven, horizon_days: float) -> str:
    """When the winner pays back what it costs more at first; or when the runner-up would, which costs more at first."""
    if back.days is None or back.predictions is None:
        return ", which never repays what it costs more at first"
    if back.usd_once > 0:
        return f", repaid after {_count(back.predictions)} predictions ({significant(back.days)} days)"
    if back.usd_once == 0:
        return ""
    less = f" and {format_usd(-back.usd_once)} less at first"
    if back.usd_saved_per_month >= 0:
        return less
    days = -back.usd_once / (-back.usd_saved_per_month / HOURS_PER_MONTH * 24)
    beyond = f"after {significant(days)} days, beyond the {horizon_days:g} asked for"
    return f"{less}: {back.against} would repay that {beyond}"


def _count(number: float) -> str:
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{significant(number / size)} {word}"
    return significant(number)


def _why_same(winner: Bill, runner: Bill) -> str:
    if winner.replicas == runner.replicas and winner.option.instance == runner.option.instance:
        return f"{winner.replicas} replica{'' if winner.replicas == 1 else 's'} of either holds the traffic"
    return "their instances come to the same"


def _least_change(winner: Bill, runner: Bill) -> str:
    """Why the first of two equal bills is the first, where the other computes in less than float32."""
    if runner.option.lowers_precision and not winner.option.lowers_precision:
        return f". {winner.option.name} computes in float32, so its answers do not change"
    return ""


def _days_band(
    back: BreakEven, winner: Bill, runner: Bill, per_month: np.ndarray, assumed: Assumptions, pair: Draws
) -> Band | None:
    """The interval of the days; None where some draws never pay back."""
    if back.days is None or back.usd_once <= 0:
        return None
    work = (winner.option.one_off.work_hours - runner.option.one_off.work_hours) * assumed.work_usd_per_hour
    extra = back.usd_once + work * (np.exp(pair.work) - 1)
    saved = (per_month[:, 1] - per_month[:, 0]) / HOURS_PER_MONTH * 24
    with np.errstate(divide="ignore", invalid="ignore"):
        days = np.where(extra <= 0, 0.0, np.where(saved > 0, extra / saved, math.inf))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.sort(days)[[int(len(days) * tail), math.ceil(len(days) * (1 - tail)) - 1]]
    return Band(value=back.days, low=float(low), high=float(high)) if math.isfinite(high) else None


def _what_would_tell(
    pair: tuple[Option, Option],
    rates: Rates,
    assumed: Assumptions,
    draws: Draws,
    medians: Mapping[str, Medians],
    round_s: Mapping[str, float],
) -> str:
    """More rounds, where with less spread of the step times it would be decided; else the cause that hides it."""

    def probability(some: Draws) -> float:
        money = spend(pair, rates, assumed, some)
        return cheaper_probability(money.total[:, 0], money.total[:, 1])

    if all(o.name in round_s and medians.get(o.name) for o in pair):
        seconds = sum(round_s[o.name] * len(medians[o.name]) for o in pair)
        for part in MEASURING_PARTS:
            if probability(without(draws, "step time", part)) >= SURE:
                more_s = seconds * (1 / (1 - part) ** 2 - 1)
                return f"{significant(max(more_s / 60, 0.1), 2)} more minutes of measuring would"
    remedies = {
        "capacity": "how near a real server comes to the simulated one: a load test of both would tell",
        "traffic": "how much traffic there is",
        "price": "what prices do",
        "work": "how many hours the move takes",
        "scaling": "how a step changes with the size of the instance: measuring on the one that is billed would tell",
    }
    without_one = {cause: probability(without(draws, cause)) for cause in causes_in(draws) if cause in remedies}
    cause = max(without_one, key=lambda name: without_one[name])
    if without_one[cause] >= SURE:
        return f"it depends on {remedies[cause]}"
    return "they are too close for these assumptions; more measuring would not decide"
