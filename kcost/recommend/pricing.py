"""From judged ways to a ranking in dollars, with probabilities and the price of the doubt. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kcost.cost.assumptions import HOURS_PER_MONTH
from kcost.cost.budget import DRAWS, Budget, PricedOption, make_budget
from kcost.cost.deployment import options_of
from kcost.cost.option import OneOff, Option, Refused
from kcost.cost.serving_ways import Way
from kcost.cost.uncertainty import SURE, Band, Draws, Swing, bands, draw, of_two, spend, tornado, without
from kcost.recommend.answer import Ranked
from kcost.recommend.doubt import Doubt, causes_of_doubt, expected_losses
from kcost.recommend.drop import DropBound
from kcost.recommend.standings import Capacities, Judged, offers_of, standings_of
from kcost.recommend.terms import Terms
from kcost.risk.figures import Figure

MOST_PRICED = 12
"""Ways that are priced in full; plain Keras is always one. The others are dearer, and their bound says so."""

MEASURING_PARTS = (0.5, 2 / 3, 0.75, 0.8, 0.9)
"""Parts of the spread of step times that 4, 9, 16, 25 and 100 times the rounds take away."""

SECONDS_PER_HOUR = 3600.0


class Priced(NamedTuple):
    """The ways that hold every limit, by cost."""

    ranked: tuple[Ranked, ...]
    budget: Budget
    doubt: Doubt
    saved: Band | None
    """By the best against plain Keras, USD a month; None where that has no figure, or lacks batch sizes of the best."""
    swings: tuple[Swing, ...]
    """What each cause alone does to the saving of the best over the next, the widest first."""
    dearer: dict[str, str]
    """Way -> why it was not priced in full."""
    refused: dict[str, str]
    """Way -> why it holds no limit."""


def price(
    judged: Judged,
    terms: Terms,
    capacities: Capacities,
    *,
    errors: Mapping[str, Figure] | None = None,
    usd_per_label: float | None = None,
    draws: int = DRAWS,
) -> Priced | None:
    """Prices what was measured and not disturbed; None where nothing is left of it, or where a way that was disturbed
    is cheaper all the same than each that is left.

    Args:
        errors: way -> expected loss of its errors, USD per million answers.
        usd_per_label: price of one more labelled example.

    Raises:
        InputError: no way holds the p99, or only with more replicas than are allowed.
    """
    valid = {name: way for name, way in judged.ways.items() if name not in judged.invalid}
    if not valid or _cheapest_was_disturbed(judged, terms, capacities):
        return None
    chosen, dearer = _worth_pricing(judged._replace(ways=valid), terms, capacities)
    offers = {way.name: offers_of(terms, way.environment, way.peak_bytes) for way in chosen}
    p99_s = terms.limits.p99_ms / 1e3
    options, capacity_by_way, refused = options_of(
        chosen,
        offers,
        terms.rates,
        terms.assumed,
        terms.limits.p99_ms,
        terms.seed,
        capacity_of=lambda way: capacities.of(way.name, way, p99_s),
    )
    move = OneOff(work_hours=terms.assumed.work_hours)
    options = [o if o.is_plain else o.model_copy(update={"one_off": move}) for o in options]
    ways = {way.name: way for way in chosen}
    medians = {name: ways[name].medians_ns[capacity.batch_limit] for name, capacity in capacity_by_way.items()}
    budget = make_budget(
        options,
        medians,
        terms.traffic,
        terms.assumed,
        p99_ms=terms.limits.p99_ms,
        refused=refused,
        round_s={o.name: ways[o.name].round_s for o in options},
        draws=draws,
        seed=terms.seed,
    )
    return _ranked(budget, ways, medians, terms, capacities, judged, errors or {}, usd_per_label, dearer, refused)


def _cheapest_was_disturbed(judged: Judged, terms: Terms, capacities: Capacities) -> bool:
    """Whether the best of what has a figure is the wrong answer: other work makes a way dearer, hardly cheaper."""
    if not judged.invalid:
        return False
    costs = standings_of(judged, terms, capacities)
    least_usd = min((costs[n].low_usd for n in judged.ways if n not in judged.invalid), default=math.inf)
    return any(costs[n].high_usd < least_usd for n in judged.invalid if n in costs)


def _worth_pricing(judged: Judged, terms: Terms, capacities: Capacities) -> tuple[list[Way], dict[str, str]]:
    """The ways that may be the cheapest, and plain Keras; the others with the reason."""
    standings = standings_of(judged, terms, capacities)
    ordered = sorted(standings, key=lambda n: (standings[n].value_usd, n))
    kept = [n for place, n in enumerate(ordered) if place < MOST_PRICED or judged.ways[n].is_plain]
    best = standings[ordered[0]].value_usd
    dearer = {}
    for name in ordered:
        if name not in kept:
            usd = standings[name].value_usd
            dearer[name] = f"at least ${usd:,.0f} in {terms.assumed.horizon_days:g} days, the cheapest ${best:,.0f}"
    return [judged.ways[n] for n in kept], dearer


def _ranked(
    budget: Budget,
    ways: Mapping[str, Way],
    medians: Mapping[str, Mapping[tuple[str, str, int], float]],
    terms: Terms,
    capacities: Capacities,
    judged: Judged,
    errors: Mapping[str, Figure],
    usd_per_label: float | None,
    dearer: dict[str, str],
    refused: Sequence[Refused],
) -> Priced:
    millions_a_month = terms.traffic.mean_queries_per_s * SECONDS_PER_HOUR * HOURS_PER_MONTH / 1e6
    a_month = {n: _times(f, millions_a_month) for n, f in uncredited(errors, judged.drops).items()}
    by_name = {p.bill.option.name: p for p in budget.options}

    def full_usd(name: str) -> float:
        return by_name[name].bill.usd_total + _value(a_month.get(name)) * terms.months

    # Of equal bills today's way, then what computes in float32, then the budget's own order.
    names = sorted(by_name, key=lambda n: (round(full_usd(n), 2), not ways[n].is_plain, n in judged.drops))
    options = [by_name[n].bill.option for n in names]
    drawn = draw(options, [medians.get(n, {}) for n in names], terms.assumed, budget.draws, budget.seed)
    more = np.array([_value(a_month.get(n)) * terms.months for n in names])
    money = spend(options, terms.rates, terms.assumed, drawn)
    loss, chances = expected_losses(money.total + more, 0)
    causes = causes_of_doubt(options, terms.rates, terms.assumed, drawn, 0, more)
    ranked = tuple(
        _row(by_name[name], ways[name], float(chance), judged.drops.get(name), a_month.get(name), full_usd(name))
        for name, chance in zip(names, chances, strict=True)
    )
    doubt = Doubt(expected_loss_usd=max(0.0, loss), by_cause=causes)
    doubt = _with_measuring(doubt, options, medians, ways, terms, drawn, more)
    doubt = _with_labels(doubt, judged, terms, capacities, best_usd=full_usd(names[0]), usd_per_label=usd_per_label)
    plain = next((i for i, o in enumerate(options) if o.is_plain), None)
    saved = None
    # At a batch size that was not measured plain Keras may be cheaper: the saving would look larger than it is.
    if plain is not None and plain > 0 and not judged.lacking(names[plain], names[0]):
        value = by_name[names[plain]].bill.usd_per_month - by_name[names[0]].bill.usd_per_month
        saved = bands((money.per_month[:, plain] - money.per_month[:, 0])[:, None], [value])[0]
    swings: tuple[Swing, ...] = ()
    if len(options) > 1:
        pair = (options[0], options[1])
        swings = tornado(pair, terms.rates, terms.assumed, of_two(drawn, (0, 1)), terms.months)
    return Priced(ranked, budget, doubt, saved, swings, dearer, {r.name: r.reason for r in refused})


def uncredited(errors: Mapping[str, Figure], drops: Mapping[str, DropBound]) -> dict[str, Figure]:
    """What errors cost, with no way of lower precision credited with fewer than float32 makes on the same examples.

    Rounding makes no model better: a few answers that it happens to get right are chance, and a price of errors would
    make a fortune of them.

    Args:
        errors: way -> USD per million.
        drops: the ways of lower precision.
    """
    exact = [f for n, f in errors.items() if n not in drops]
    if not exact:
        return dict(errors)
    least = min(exact, key=lambda f: f.value)
    return {n: least if n in drops and f.value < least.value else f for n, f in errors.items()}


def _times(figure: Figure, factor: float) -> Figure:
    scaled = {"value": figure.value * factor, "low": figure.low * factor, "high": figure.high * factor}
    return figure.model_copy(update={**scaled, "name": "errors_usd_per_month"})


def _value(figure: Figure | None) -> float:
    return 0.0 if figure is None else figure.value


def _row(
    priced: PricedOption, way: Way, chance: float, drop: DropBound | None, errors: Figure | None, full_usd: float
) -> Ranked:
    bill, option = priced.bill, priced.bill.option
    return Ranked(
        name=option.name,
        is_plain=option.is_plain,
        probability=chance,
        usd_per_month=priced.usd_per_month,
        usd_total=priced.usd_total,
        usd_with_errors=full_usd,
        errors_usd_per_month=errors,
        instance=option.instance,
        instances=bill.instances,
        replicas=bill.replicas,
        batch_limit=option.batch_limit,
        wait_ms=option.wait_ms,
        p99_ms=option.p99_ms,
        rounds=min(len(r) for r in way.medians_ns.values()),
        basis="simulated" if option.simulated else option.basis,
        drop=drop,
    )


def _with_measuring(
    doubt: Doubt,
    options: Sequence[Option],
    medians: Mapping[str, Mapping[tuple[str, str, int], float]],
    ways: Mapping[str, Way],
    terms: Terms,
    drawn: Draws,
    more: np.ndarray,
) -> Doubt:
    """What it costs to measure until step times no longer leave a doubt, at the price of the winner's machine."""
    step = next((c.usd for c in doubt.by_cause if c.cause == "step time"), 0.0)
    rivals = [o for o in options[:3] if medians.get(o.name)]
    if step <= 0 or len(rivals) < 2:
        return doubt
    seconds = sum(ways[o.name].round_s * len(medians[o.name]) for o in rivals)
    for part in MEASURING_PARTS:
        money = spend(options, terms.rates, terms.assumed, without(drawn, "step time", part))
        _, chances = expected_losses(money.total + more, 0)
        if float(chances.max()) >= SURE or part == MEASURING_PARTS[-1]:
            more_s = seconds * (1 / (1 - part) ** 2 - 1)
            usd = more_s / SECONDS_PER_HOUR * options[0].usd_per_hour
            return doubt.model_copy(update={"measuring_usd": usd, "measuring_minutes": more_s / 60})
    return doubt


def _with_labels(
    doubt: Doubt,
    judged: Judged,
    terms: Terms,
    capacities: Capacities,
    *,
    best_usd: float,
    usd_per_label: float | None,
) -> Doubt:
    """What labels would be worth that decide whether a cheaper way keeps its score: its saving times the chance."""
    worth: list[tuple[float, str, DropBound]] = []
    open_ways = {n: w for n, w in judged.undecided_ways.items() if n not in judged.invalid}
    for name, standing in standings_of(judged._replace(ways=open_ways), terms, capacities).items():
        if standing.value_usd < best_usd:
            drop = judged.undecided[name]
            chance = drop.chance_within(terms.limits.max_drop)
            worth.append(((best_usd - standing.value_usd) * chance, name, drop))
    if not worth:
        return doubt
    saving, name, drop = max(worth, key=lambda w: w[0])
    labels = drop.more_labels(terms.limits.max_drop)
    if labels is None:
        return doubt
    return doubt.model_copy(
        update={
            "labels": labels,
            "labels_usd": None if usd_per_label is None else labels * usd_per_label,
            "labels_for": name,
            "labels_worth_usd": saving,
        }
    )
