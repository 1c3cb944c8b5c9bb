"""The next dollar: what a point of score costs by more labels, a bigger model, longer training, and distilling.

The evidence is trained models: what each scored on the same test examples, how many labels it saw, how many parameters
it has, how long it was trained and what that cost. Nothing is assumed of a way that nobody tried.

Each way is priced in `kcost.cost.score_routes`; here they are held against each other, and told in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.schema import VERSIONS, Record
from kcost.core.units import format_usd, significant
from kcost.cost.learning_curve import DRAWS, LearningCurve
from kcost.cost.score_routes import KINDS, POINT, DrawnRoute, Kind, Price, Route, Span, Trained, price_routes
from kcost.cost.uncertainty import SURE

SEED = 20_261_129

Outcome = Literal["decided", "can't tell", "only one", "no way"]


class NextDollar(Record):
    """The answer of `kcost next-dollar`."""

    schema_: int = Field(default=VERSIONS["next_dollar"], alias="schema")
    sentence: str
    outcome: Outcome
    cheapest: Kind | None
    probability: float | None = Field(description="that it is the cheapest of those that gain enough")
    model: str
    score_name: str
    score: float = Field(description="mean over seeds of the model that there is")
    labels: int
    gain: float = Field(description="asked for, as a part of 1")
    routes: tuple[Route, ...] = Field(description="one for each kind, the cheapest first")
    usd_per_label: float | None
    usd_per_label_source: str
    forecast: tuple[tuple[float, float, float, float], ...] = Field(
        default=(), description="of the learning curve: labels, mean score, and the ends of the 90% interval"
    )
    scores: tuple[tuple[float, float], ...] = Field(default=(), description="labels and score of each of its models")
    notes: tuple[str, ...]
    draws: int
    seed: int


def next_dollar(
    models: Sequence[Trained],
    *,
    score_name: str,
    label_price: Price | None,
    gain: float = POINT,
    notes: Sequence[str] = (),
    seed: int = SEED,
) -> NextDollar:
    """Which way to a better score is the cheapest, and how sure that is.

    Args:
        models: the first is what there is; those that differ from it in the seed alone stand beside it.
        label_price: of one more labelled example; None where it is not known.
        gain: as a part of 1, such as 0.01 for a point.

    Raises:
        InputError: no model, or a gain outside 0 to 1.
    """
    if not models:
        raise InputError("What a point costs is told by trained models.", received="none")
    if not 0 < gain < 1:
        raise InputError("A gain is above 0 and below 1.", received=gain, remedy="Such as 0.01 for a point.")
    routes = price_routes(models, label_price, gain, seed)
    # A way that gives less than was asked for stands behind those that give it, however little a point of it costs.
    drawn = sorted(
        routes.drawn,
        key=lambda d: (d.usd_per_point is None, not d.route.is_enough, d.middle, KINDS.index(d.route.kind)),
    )
    priced = [d for d in drawn if d.route.standing == "priced"]
    priced = [d for d in priced if d.route.is_enough] or priced
    outcome, probability = _outcome(priced)
    first = priced[0].route if priced else None
    return NextDollar(
        sentence=_sentence(outcome, first, drawn, probability, score_name, gain),
        outcome=outcome,
        cheapest=None if first is None else first.kind,
        probability=probability,
        model=models[0].name,
        score_name=score_name,
        score=float(np.mean([m.score for m in routes.here])),
        labels=models[0].labels,
        gain=gain,
        routes=tuple(d.route for d in drawn),
        usd_per_label=None if label_price is None else label_price.usd,
        usd_per_label_source="not given" if label_price is None else label_price.source,
        forecast=() if routes.curve is None else _forecast(routes.curve, routes.of_curve),
        scores=tuple((float(m.labels), m.score) for m in routes.of_curve),
        notes=(*notes, *_notes(routes.scatter)),
        draws=DRAWS,
        seed=seed,
    )


def _forecast(curve: LearningCurve, models: Sequence[Trained]) -> tuple[tuple[float, float, float, float], ...]:
    sizes = [m.labels for m in models]
    points = np.geomspace(min(sizes), 4 * max(sizes), 25)
    forecasts = [curve.at(float(n)) for n in points]
    return tuple((f.labels, f.score, f.low, f.high) for f in forecasts)


def _outcome(priced: Sequence[DrawnRoute]) -> tuple[Outcome, float | None]:
    if not priced:
        return "no way", None
    first = priced[0].usd_per_point
    assert first is not None
    if len(priced) == 1:
        return "only one", None
    others = np.min([d.usd_per_point for d in priced[1:] if d.usd_per_point is not None], axis=0)
    # Two ways that both gain nothing in a draw are equal there.
    both = np.isinf(first) & np.isinf(others)
    probability = float(np.mean((first < others) & ~both) + np.mean((first == others) | both) / 2)
    sure = probability >= SURE and priced[0].route.leaves_out is None
    return ("decided" if sure else "can't tell"), probability


def _sentence(
    outcome: Outcome,
    first: Route | None,
    drawn: Sequence[DrawnRoute],
    probability: float | None,
    score: str,
    gain: float,
) -> str:
    if first is None or first.usd_per_point is None or first.usd_per_point.value is None:
        missing = [d.route for d in drawn if d.route.would_help]
        then = f" {missing[0].would_help}" if missing else ""
        return f"Nothing says what a point of {score} costs: no way that was tried has a price.{then}"
    each = f"{format_usd(first.usd_per_point.value)} ({_range(first.usd_per_point)}) a point of {score}"
    short = ""
    points = f"{gain / POINT:g} point{'' if gain == POINT else 's'}"
    if first.gain is not None and first.gain.value is not None and not first.is_enough:
        short = f" It gains {first.gain.value / POINT:.2g} points, and no way is known to gain {points}."
    if outcome == "only one":
        return f"{_named(first)} costs {each}; no other way is known to gain as much.{short}"
    second = next(d.route for d in drawn if d.route.standing == "priced" and d.route.kind != first.kind)
    if outcome == "can't tell" and first.leaves_out is not None:
        return (
            f"can't tell: {first.kind} would be the cheapest at {each}, but that leaves out {first.leaves_out}. "
            f"Next is {second.kind}.{short}"
        )
    if outcome == "can't tell":
        return (
            f"can't tell whether {first.kind} or {second.kind} is the cheaper: {first.kind} costs {each}, and is the "
            f"cheapest with {probability:.0%} probability, {SURE:.0%} asked for. More seeds would tell.{short}"
        )
    sure = "over 99%" if probability is not None and probability > 0.995 else f"{probability:.0%}"
    return f"{_named(first)} is the cheapest, with {sure} probability: {each}.{short}"


def _named(route: Route) -> str:
    return f"{route.kind[0].upper()}{route.kind[1:]} ({route.what})"


def _range(span: Span) -> str:
    high = "without end" if span.high is None else significant(span.high)
    return f"{significant(span.low or 0.0)} to {high}, 90%"


def _notes(scatter: np.ndarray | None) -> list[str]:
    notes = ["Intervals are of seeds and of the curve: other test examples are not in them."]
    if scatter is not None:
        notes.append(f"A score scatters by {float(np.median(scatter)):.4f} from seed to seed, pooled over all groups.")
    return notes
