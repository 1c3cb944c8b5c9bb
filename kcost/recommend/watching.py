"""Whether a recommendation still holds: what was measured, at the prices and the traffic of now."""

from __future__ import annotations

from pydantic import Field

from kcost.core.schema import Record
from kcost.core.units import format_usd, significant
from kcost.cost.uncertainty import Band
from kcost.recommend.answer import Recommendation
from kcost.recommend.pricing import Priced
from kcost.recommend.terms import Terms


class Watched(Record):
    """A recommendation, looked at again. Nothing was measured."""

    holds: bool = Field(description="the same way wins, and the model is the one that was measured")
    words: tuple[str, ...]
    changed: tuple[str, ...] = Field(description="what is otherwise than when it was made; empty for nothing")
    winner_before: str | None
    winner_now: str | None
    usd_per_month_before: Band | None
    usd_per_month_now: Band | None
    measure_again: str | None = Field(default=None, description="why stored figures are not enough")


def watched(
    before: Recommendation, priced: Priced | None, terms: Terms, sha256: str | None, why_gone: str | None = None
) -> Watched:
    """Holds the prices of now against those of a recommendation.

    Args:
        priced: the stored cells at the prices and the traffic of now; None where no figure may be given.
        sha256: of the model's file now; None where it is gone, and `why_gone` says so.
    """
    changed = []
    old, now = before.request.traffic, terms.traffic
    if old != now:
        rates = f"{significant(old.mean_queries_per_s)} to {significant(now.mean_queries_per_s)}"
        changed.append(f"traffic: {rates} requests a second")
    rows = {r.name: r for r in before.ranked}
    ranked = () if priced is None else priced.ranked
    bills = {} if before.budget is None else {p.bill.option.name: p.bill.option for p in before.budget.options}
    moved: dict[str, str] = {}
    if priced is not None:
        for one in priced.budget.options:
            option = one.bill.option
            then = bills.get(option.name)
            if then is not None and then.instance == option.instance and then.usd_per_hour != option.usd_per_hour:
                at = f"{format_usd(then.usd_per_hour)} to {format_usd(option.usd_per_hour)} an hour"
                moved[option.instance] = f"price of {option.instance}: {at}"
    changed += moved.values()
    again = None
    if sha256 is None:
        again = f"the model is gone: {why_gone}"
    elif sha256 != before.request.model_sha256:
        again = "the model's file has changed since it was measured: run kcost recommend again"
    if again is not None:
        changed.append(again)
    winner = ranked[0].name if ranked else None
    holds = again is None and winner == before.winner and winner is not None
    month_before = None if before.winner is None else rows[before.winner].usd_per_month
    month_now = ranked[0].usd_per_month if ranked else None
    return Watched(
        holds=holds,
        words=_words(before.winner, winner, month_before, month_now, changed, again),
        changed=tuple(changed),
        winner_before=before.winner,
        winner_now=winner,
        usd_per_month_before=month_before,
        usd_per_month_now=month_now,
        measure_again=again,
    )


def _words(
    before: str | None, now: str | None, then: Band | None, month: Band | None, changed: list[str], again: str | None
) -> tuple[str, ...]:
    if again is not None:
        first = f"Measure again: {again}."
    elif now is None or month is None:
        first = "No figure may be given of what is stored: measure again."
    elif now == before:
        first = f"The answer holds: {now}, {format_usd(month.value)} a month"
        first += "." if then is None else f", {format_usd(then.value)} when it was made."
    else:
        first = f"The winner changes: {now} at {format_usd(month.value)} a month, in the place of {before}."
    second = "Changed since: " + "; ".join(changed) + "." if changed else "Nothing that it rests on has changed."
    return first, second
