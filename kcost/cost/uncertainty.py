"""How sure a budget is: seeded Monte Carlo over raw samples, traffic, prices, capacity and work, carried to the answer.

Step times are drawn as the intervals of a ranking are: Student's t on the logarithms of the medians of the rounds, and
cells that were measured in the same rounds are drawn together, so that what hit both alike cancels in their difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from kcost.core.schema import Record
from kcost.core.stats import NORMAL_95
from kcost.cost.assumptions import HOURS_PER_MONTH, Assumptions
from kcost.cost.option import Option
from kcost.cost.sizing import Rates, mean_usd_per_hour

CONFIDENCE = 0.90
"""Of the intervals of a budget: the ends are its 5th and 95th percentile."""

SURE = 0.95
"""How probable it must be that one option costs less than another before that is said."""

CHUNK = 1_000
"""Draws at a time: what is held beside the totals stays small, and in the processor's cache."""

MOST_CHANGE = 20.0

Medians = Mapping[tuple[str, str, int], float]
"""Round -> median of its steps, in any unit."""

Cause = Literal["step time", "scaling", "capacity", "traffic", "price", "work"]
CAUSES: tuple[Cause, ...] = ("step time", "scaling", "capacity", "traffic", "price", "work")
"""scaling: seconds of another size of instance; where no option has such, `causes_in` leaves it out."""


class Band(Record):
    """A figure with its 90% interval."""

    value: float = Field(description="of the bill, with every assumption at its value")
    low: float
    high: float


class Draws(NamedTuple):
    """What may be, one row a draw and one column an option: the factors that values are multiplied by, as
    logarithms."""

    step: np.ndarray
    """Shape (draws, options)."""
    capacity: np.ndarray
    """Shape (draws, options): a real server's rate over the simulated one's."""
    price: np.ndarray
    """Shape (draws, options); equal for options with one price."""
    traffic: np.ndarray
    """Shape (draws,)."""
    work: np.ndarray
    """Shape (draws,)."""
    scaling: np.ndarray
    """Shape (draws, options): a step on an instance of another size over what it is taken to be."""


def causes_in(draws: Draws) -> tuple[Cause, ...]:
    """The causes that may move anything."""
    return tuple(c for c in CAUSES if c != "scaling" or bool(draws.scaling.any()))


def draw(options: Sequence[Option], medians: Sequence[Medians], assumed: Assumptions, draws: int, seed: int) -> Draws:
    """Draws what may be.

    Args:
        medians: of each option the rounds of the cell that it serves with; empty where nothing was measured.
        draws: how many.
    """
    generator = np.random.default_rng(seed)
    sigma = {
        name: math.log1p(spread) / NORMAL_95
        for name, spread in (
            ("traffic", assumed.traffic_spread),
            ("price", assumed.price_spread),
            ("capacity", assumed.capacity_spread),
            ("work", assumed.work_spread),
        )
    }
    prices = {option.instance: i for i, option in enumerate(options)}
    places = {instance: i for i, instance in enumerate(prices)}
    moves = generator.standard_normal((draws, len(places))) * sigma["price"]
    return Draws(
        step=_step_factors(medians, draws, generator),
        capacity=generator.standard_normal((draws, len(options))) * sigma["capacity"],
        price=moves[:, [places[o.instance] for o in options]],
        traffic=generator.standard_normal(draws) * sigma["traffic"],
        work=generator.standard_normal(draws) * sigma["work"],
        scaling=generator.standard_normal((draws, len(options))) * [o.scaling_sd for o in options],
    )


def _step_factors(medians: Sequence[Medians], draws: int, generator: np.random.Generator) -> np.ndarray:
    """Logarithms of true over measured step times, shape (draws, options): multivariate t within the same rounds.

    With residuals R of n rounds (rows) and k options, R^T z / sqrt(n - 1) has their covariance for a standard normal
    z. Over sqrt(n), and over the root of chi^2(n - 1) / (n - 1), each option and each difference of two is Student's t
    with n - 1 degrees of freedom: the paired interval of `core.stats.paired_ratio`.

    Source: Gelman et al. (2013), Bayesian Data Analysis, 3.2 and 3.6, with the flat prior.
    """
    factors = np.zeros((draws, len(medians)))
    groups: dict[tuple[tuple[str, str, int], ...], list[int]] = {}
    for column, rounds in enumerate(medians):
        if len(rounds) > 1:
            groups.setdefault(tuple(sorted(rounds)), []).append(column)
    for keys, columns in groups.items():
        n = len(keys)
        logs = np.log(np.array([[medians[c][key] for c in columns] for key in keys]))
        residuals = logs - logs.mean(axis=0)
        spread = np.sqrt(generator.chisquare(n - 1, (draws, 1)) / (n - 1))
        normal = generator.standard_normal((draws, n)) / spread
        factors[:, columns] = normal @ (residuals / math.sqrt((n - 1) * n))
    return factors


class Money(NamedTuple):
    """Drawn dollars, shape (draws, options)."""

    total: np.ndarray
    """Over the horizon."""
    per_month: np.ndarray
    """Serving and energy."""


def spend(options: Sequence[Option], rates: Rates, assumed: Assumptions, draws: Draws) -> Money:
    """What each option costs in each draw."""
    count = len(draws.traffic)
    total = np.empty((count, len(options)))
    per_month = np.empty((count, len(options)))
    per_replica = np.array([o.queries_per_s_per_replica for o in options])
    elasticity = np.array([o.elasticity for o in options])
    workers = np.array([o.workers_per_instance for o in options], dtype=np.float64)
    on_demand = np.array([o.usd_per_hour for o in options])
    spot = np.array([o.spot_usd_per_hour or 0.0 for o in options])
    energy = np.array([(o.watts_per_instance or 0.0) / 1000 * o.usd_per_kwh for o in options])
    once = np.array([o.one_off.labels * o.one_off.usd_per_label + o.one_off.training_usd for o in options])
    work = np.array([o.one_off.work_hours * assumed.work_usd_per_hour for o in options])
    months = 24 * assumed.horizon_days / HOURS_PER_MONTH
    for begin in range(0, count, CHUNK):
        rows = slice(begin, begin + CHUNK)
        # Two rounds know so little that a draw may lie anywhere: what is beyond a factor of e^20 changes no percentile.
        change = draws.capacity[rows] - elasticity * (draws.step[rows] + draws.scaling[rows])
        rate = per_replica * np.exp(np.clip(change, -MOST_CHANGE, MOST_CHANGE))
        price = np.exp(draws.price[rows])
        hourly = mean_usd_per_hour(
            rates,
            rate,
            workers,
            on_demand * price + energy,
            spot * price + energy,
            assumed,
            traffic_factor=np.exp(draws.traffic[rows])[:, None],
        )
        np.multiply(hourly, HOURS_PER_MONTH, out=per_month[rows])
        total[rows] = per_month[rows] * months + once + work * np.exp(draws.work[rows])[:, None]
    return Money(total, per_month)


def bands(values: np.ndarray, at: Sequence[float]) -> list[Band]:
    """A 90% interval for each column.

    Args:
        values: shape (draws, figures).
        at: the figures themselves.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0, overwrite_input=False)
    return [Band(value=v, low=float(a), high=float(b)) for v, a, b in zip(at, low, high, strict=True)]


def cheaper_probability(one: np.ndarray, other: np.ndarray) -> float:
    """Probability that `one` costs less than `other`, draw by draw; equal to the cent counts half."""
    difference = np.round(other - one, 2)
    return float(np.mean(difference > 0) + np.mean(difference == 0) / 2)


class Swing(Record):
    """What one cause alone does to the saving of the winner over the runner-up."""

    cause: Cause
    low_usd: float = Field(description="saving a month at the 5th percentile of what this cause alone does")
    high_usd: float = Field(description="at the 95th")

    @property
    def width_usd(self) -> float:
        """How far apart the two are."""
        return self.high_usd - self.low_usd


FIELDS: dict[Cause, str] = {"step time": "step"}
"""Causes whose field of Draws has another name."""


def only(draws: Draws, cause: Cause) -> Draws:
    """The draws with every other cause at its value."""
    kept = FIELDS.get(cause, cause)
    return Draws(**{name: a if name == kept else np.zeros_like(a) for name, a in draws._asdict().items()})


def without(draws: Draws, cause: Cause, part: float = 1.0) -> Draws:
    """The draws with `part` of one cause's spread taken away."""
    less = FIELDS.get(cause, cause)
    return Draws(**{name: a * (1 - part) if name == less else a for name, a in draws._asdict().items()})


def tornado(
    options: Sequence[Option], rates: Rates, assumed: Assumptions, draws: Draws, months: float
) -> tuple[Swing, ...]:
    """Each cause alone, the one that moves the saving most first.

    Args:
        options: the winner and the runner-up, with the draws of these two.
        months: of the horizon: what is paid once is spread over them.
    """
    tail = (1 - CONFIDENCE) / 2
    swings = []
    for cause in causes_in(draws):
        money = spend(options, rates, assumed, only(draws, cause))
        low, high = np.quantile((money.total[:, 1] - money.total[:, 0]) / months, [tail, 1 - tail])
        swings.append(Swing(cause=cause, low_usd=float(low), high_usd=float(high)))
    return tuple(sorted(swings, key=lambda s: -s.width_usd))


def of_two(draws: Draws, columns: Sequence[int]) -> Draws:
    """The draws of some of the options."""
    chosen = list(columns)
    return Draws(
        step=draws.step[:, chosen],
        capacity=draws.capacity[:, chosen],
        price=draws.price[:, chosen],
        traffic=draws.traffic,
        work=draws.work,
        scaling=draws.scaling[:, chosen],
    )
