"""The ways to a better score, each with what a point of it costs in each draw.

More labels are priced by a learning curve (`kcost.cost.learning_curve`). A bigger model, longer training and distilling
were tried or not: their gain is the difference of mean scores, and its doubt is the scatter by seed, pooled over all
groups of models that differ in the seed alone, with Student's t. A way's price of a point is what it costs over the
points that it gains, in each draw.

Source of the pooled scatter: Gelman et al. (2013), Bayesian Data Analysis, 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.cost.learning_curve import DRAWS, TAIL, LearningCurve, fit_curve

POINT = 0.01
"""A point of score, as a part of 1."""

SIGMAS_OF_95 = 1.959963984540054
"""Standard deviations from the middle of a 95% interval to its end."""

BIGGER = 1.05
"""A model with so many times the parameters is a bigger one: vocabularies that differ a little do not count."""

Kind = Literal["more labels", "bigger model", "longer training", "distilling"]
KINDS: tuple[Kind, ...] = ("more labels", "bigger model", "longer training", "distilling")

Standing = Literal["priced", "nothing gained", "out of reach", "no evidence"]
"""priced: it gains, in more than half of the draws. nothing gained: it was tried and does not. out of reach: half of
the curves end below the score. no evidence: it was not tried, or too seldom."""


class Trained(NamedTuple):
    """A trained model, as evidence."""

    name: str
    labels: int
    """Of the training and validation splits together."""
    parameters: int
    size: str
    """Which of the family's sizes, or the checkpoint that it began with."""
    most_epochs: int
    """That it was allowed; fewer ran where it stopped by itself."""
    epochs: int
    recipe: tuple[tuple[str, str], ...]
    """All other settings but the seed."""
    teacher_parameters: int | None
    """None where it learnt from labels alone."""
    teacher_usd: float | None
    usd: float
    """What training it cost."""
    score: float
    serving_usd: float | None = None
    """Over the horizon; None where it was not measured."""


class Price(NamedTuple):
    """What a label costs."""

    usd: float
    low: float
    """Lower end of the 95% interval; `usd` where it was given."""
    high: float
    source: str


class Span(Record):
    """A figure with its 90% interval; None where it is without end."""

    value: float | None
    low: float | None
    high: float | None


class Route(Record):
    """One way to a better score."""

    kind: Kind
    standing: Standing
    what: str = Field(description="what would be done")
    gain: Span | None = Field(default=None, description="of the score, as a part of 1")
    usd: Span | None = Field(default=None, description="of the whole")
    usd_per_point: Span | None = None
    reaches: float | None = Field(default=None, description="probability that it gains as much as was asked for")
    models: int = Field(default=0, description="that this rests on")
    because: str = Field(default="", description="why there is no price")
    would_help: str | None = None
    leaves_out: str | None = Field(default=None, description="a cost that is not in it")

    @property
    def is_enough(self) -> bool:
        """Whether it more likely than not gains as much as was asked for."""
        return (self.reaches or 0.0) >= 0.5


class DrawnRoute(NamedTuple):
    """A way with what it costs a point in each draw."""

    route: Route
    usd_per_point: np.ndarray | None
    """Shape (draws,), infinite where it gains nothing; None without a price."""

    @property
    def middle(self) -> float:
        """Median of the price of a point; infinite without one."""
        return _middle(self.usd_per_point)


class Routes(NamedTuple):
    """Every way, and what they were priced by."""

    drawn: list[DrawnRoute]
    """One of each kind, more labels first."""
    here: list[Trained]
    """What there is, and those that differ from it in the seed alone."""
    scatter: np.ndarray | None
    """Standard deviation of a score by seed, shape (draws,); None where no two models differ in the seed alone."""
    curve: LearningCurve | None
    of_curve: list[Trained]
    """The models like the one that there is, at each number of labels."""


def price_routes(models: Sequence[Trained], label_price: Price | None, gain: float, seed: int) -> Routes:
    """Prices each way to a better score.

    Args:
        models: the first is what there is.
        label_price: of one more labelled example; None where it is not known.
        gain: as a part of 1.
    """
    now = models[0]
    here = [m for m in models if _like(m, now, but=())]
    generator = np.random.default_rng(seed)
    scatter = _scatter(models, generator)
    curve, of_curve, missing = _curve_of(models, now, seed)

    def mean_score(group: Sequence[Trained]) -> np.ndarray:
        assert scatter is not None
        return np.mean([m.score for m in group]) + scatter * generator.standard_normal(DRAWS) / math.sqrt(len(group))

    base = None if scatter is None else mean_score(here)
    tried = [_tried(kind, models, now, here, base, mean_score, gain) for kind in KINDS if kind != "more labels"]
    labels = _labels_route(curve, of_curve, missing, now, label_price, gain, generator)
    return Routes([labels, *tried], here, scatter, curve, of_curve)


def _like(one: Trained, other: Trained, *, but: Sequence[str]) -> bool:
    """Whether two models were made alike, but for the seed and the fields that are named."""
    fields = {"labels", "size", "most_epochs", "recipe", "teacher_parameters"} - set(but)
    return all(getattr(one, f) == getattr(other, f) for f in fields)


def _groups(models: Sequence[Trained]) -> list[list[Trained]]:
    """Models that differ in the seed alone, together."""
    groups: list[list[Trained]] = []
    for model in models:
        mine = next((g for g in groups if _like(g[0], model, but=())), None)
        if mine is None:
            groups.append([model])
        else:
            mine.append(model)
    return groups


def _scatter(models: Sequence[Trained], generator: np.random.Generator) -> np.ndarray | None:
    """Standard deviation of a score by seed, shape (draws,); None where no two models differ in the seed alone."""
    groups = [[m.score for m in g] for g in _groups(models) if len(g) > 1]
    degrees = sum(len(g) - 1 for g in groups)
    if degrees == 0:
        return None
    squares = sum(float(((np.array(g) - np.mean(g)) ** 2).sum()) for g in groups)
    drawn: np.ndarray = np.sqrt(max(squares, 1e-12) / generator.chisquare(degrees, DRAWS))
    return drawn


def _curve_of(
    models: Sequence[Trained], now: Trained, seed: int
) -> tuple[LearningCurve | None, list[Trained], str | None]:
    """The learning curve of models like the one that there is, those models, and why there is no curve."""
    alike = [m for m in models if _like(m, now, but=("labels",))]
    scores: dict[float, list[float]] = {}
    for model in alike:
        scores.setdefault(float(model.labels), []).append(model.score)
    try:
        return fit_curve(scores, seed=seed), alike, None
    except InputError as error:
        return None, alike, f"{error.rule.rstrip('.')}; received: {error.received}"


def _labels_route(
    curve: LearningCurve | None,
    models: Sequence[Trained],
    missing: str | None,
    now: Trained,
    price: Price | None,
    gain: float,
    generator: np.random.Generator,
) -> DrawnRoute:
    points = gain / POINT
    if curve is None:
        known = {model.labels for model in models}
        sizes = ", ".join(str(n) for part in (2, 4, 8) if (n := max(10, now.labels // part)) not in known)
        return DrawnRoute(
            Route(
                kind="more labels",
                standing="no evidence",
                what="train with more labels",
                models=len(models),
                because=missing or "",
                would_help=f"Train the same model with --labels {sizes}, with two seeds each."
                if sizes
                else "Train with more seeds, or at sizes that lie further apart.",
            ),
            None,
        )
    needed = curve.labels_for_gain(now.labels, gain)
    more = needed - now.labels
    middle = _middle(more)
    if not math.isfinite(middle):
        ends = 1 - float(np.median(curve.floor))
        return DrawnRoute(
            Route(
                kind="more labels",
                standing="out of reach",
                what="train with more labels",
                models=len(models),
                because=f"half of the curves never gain {points:g} points: they end at {ends:.4f}",
                would_help="Train at more sizes that lie further apart, or change the model.",
            ),
            None,
        )
    what = f"{math.ceil(middle):,} more labels ({_count(more, TAIL)} to {_count(more, 1 - TAIL)})"
    common = {"kind": "more labels", "what": what, "models": len(models), "gain": Span(value=gain, low=gain, high=gain)}
    if price is None:
        return DrawnRoute(
            Route(
                standing="no evidence",
                because="what a label costs is not known",
                would_help="Give --usd-per-label, or --annotator-usd-per-hour.",
                **common,
            ),
            None,
        )
    each = _label_usd(price, generator)
    # The model is trained again with all of them: seconds of a step do not change, and there are more steps.
    usd = more * each + needed / now.labels * now.usd
    per_point = usd / points
    return DrawnRoute(
        Route(
            standing="priced",
            usd=_span(usd),
            usd_per_point=_span(per_point),
            reaches=float(np.isfinite(needed).mean()),
            **common,
        ),
        per_point,
    )


def _label_usd(price: Price, generator: np.random.Generator) -> np.ndarray:
    if price.low == price.high:
        return np.full(DRAWS, price.usd)
    sigma = math.log(price.high / price.low) / (2 * SIGMAS_OF_95)
    return price.usd * np.exp(sigma * generator.standard_normal(DRAWS))


class _Search(NamedTuple):
    """Which models show a way, and what to do where none does."""

    fits: Callable[[Trained, Trained], bool]
    what: Callable[[Trained, Trained], str]
    would_help: str


def _bigger(one: Trained, now: Trained) -> bool:
    return (
        one.labels == now.labels
        and one.teacher_parameters is None
        and one.size != now.size
        and one.parameters > BIGGER * now.parameters
    )


def _longer(one: Trained, now: Trained) -> bool:
    return _like(one, now, but=("most_epochs",)) and one.most_epochs > now.most_epochs


def _distilled(one: Trained, now: Trained) -> bool:
    return (
        one.teacher_parameters is not None
        and one.teacher_parameters > BIGGER * now.parameters
        and _like(one, now, but=("teacher_parameters", "most_epochs"))
    )


_SEARCHES: Mapping[Kind, _Search] = {
    "bigger model": _Search(
        _bigger,
        lambda one, now: f"{one.size}: {one.parameters:,} parameters for {now.parameters:,}",
        "Train the next --size with the same labels, with two seeds.",
    ),
    "longer training": _Search(
        _longer,
        lambda one, now: f"up to {one.most_epochs} epochs for {now.most_epochs}",
        "Train the same model with more --epochs, with two seeds.",
    ),
    "distilling": _Search(
        _distilled,
        lambda one, now: f"from a model of {one.teacher_parameters or 0:,} parameters",
        "Train the same model with --teacher BIGGER, with two seeds.",
    ),
}


def _tried(
    kind: Kind,
    models: Sequence[Trained],
    now: Trained,
    here: Sequence[Trained],
    base: np.ndarray | None,
    mean_score: Callable[[Sequence[Trained]], np.ndarray],
    gain: float,
) -> DrawnRoute:
    """A way that somebody took, or did not."""
    search = _SEARCHES[kind]
    groups = [g for g in _groups(models) if search.fits(g[0], now)]
    if not groups:
        return DrawnRoute(
            Route(
                kind=kind, standing="no evidence", what="not tried", because="no model shows it",
                would_help=search.would_help,
            ),
            None,
        )  # fmt: skip
    if base is None:
        return DrawnRoute(
            Route(
                kind=kind,
                standing="no evidence",
                what=search.what(groups[0][0], now),
                models=len(groups[0]) + len(here),
                because="no two models differ in the seed alone, so nothing says what is chance",
                would_help="Train each with a second --seed.",
            ),
            None,
        )
    drawn = [_of_group(kind, search.what(g[0], now), g, here, mean_score(g) - base, gain) for g in groups]
    return min(drawn, key=lambda d: (d.middle, -(d.route.gain.value or 0.0) if d.route.gain else 0.0))


def _of_group(
    kind: Kind, what: str, group: Sequence[Trained], here: Sequence[Trained], gains: np.ndarray, gain: float
) -> DrawnRoute:
    usd = float(np.mean([m.usd for m in group]))
    leaves_out = None
    if kind == "distilling":
        teachers = [m.teacher_usd for m in group]
        known = [t for t in teachers if t is not None]
        if len(known) == len(teachers):
            usd += float(np.mean(known))
        else:
            leaves_out = "training the teacher, whose cost its artifact does not say"
    if kind == "bigger model":
        bigger, smaller = _mean_serving(group), _mean_serving(here)
        if bigger is None or smaller is None:
            leaves_out = "serving a bigger model: give --run and --qps"
        else:
            usd = max(usd + bigger - smaller, 0.0)
    with np.errstate(divide="ignore"):
        per_point = np.where(gains > 0, usd / (np.maximum(gains, 1e-300) / POINT), math.inf)
    standing: Standing = "priced" if float(np.mean(gains > 0)) > 0.5 else "nothing gained"
    return DrawnRoute(
        Route(
            kind=kind,
            standing=standing,
            what=what,
            gain=_span(gains),
            usd=Span(value=usd, low=usd, high=usd),
            usd_per_point=_span(per_point) if standing == "priced" else None,
            reaches=float(np.mean(gains >= gain)),
            models=len(group) + len(here),
            because="" if standing == "priced" else "it was tried, and more likely than not it gains nothing",
            leaves_out=leaves_out,
        ),
        per_point if standing == "priced" else None,
    )


def _mean_serving(group: Sequence[Trained]) -> float | None:
    """Of those that were measured; models that differ in the seed alone take the same time."""
    known = [m.serving_usd for m in group if m.serving_usd is not None]
    return float(np.mean(known)) if known else None


def _middle(values: np.ndarray | None) -> float:
    return math.inf if values is None else _quantile(values, 0.5)


def _quantile(values: np.ndarray, fraction: float) -> float:
    """Of members: an infinite one does not make its neighbours infinite."""
    return float(np.sort(values)[round((len(values) - 1) * fraction)])


def _span(values: np.ndarray) -> Span:
    middle, low, high = (_quantile(values, f) for f in (0.5, TAIL, 1 - TAIL))
    return Span(
        value=middle if math.isfinite(middle) else None,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
    )


def _count(values: np.ndarray, fraction: float) -> str:
    count = _quantile(values, fraction)
    return f"{math.ceil(count):,}" if math.isfinite(count) else "without end"
