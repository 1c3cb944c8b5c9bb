"""Whether a recommendation still holds: what was measured, at the prices and the traffic of now, beside live drift."""

from __future__ import annotations

import shlex
from pathlib import Path

from pydantic import Field

from kcost.core.schema import Record
from kcost.core.units import format_usd, significant
from kcost.cost.traffic import Traffic
from kcost.cost.uncertainty import Band
from kcost.recommend.answer import Recommendation, Request
from kcost.recommend.live import LiveTraffic, rate_told
from kcost.recommend.pricing import Priced
from kcost.recommend.terms import Terms


class Watched(Record):
    """A recommendation, looked at again. Nothing was measured."""

    holds: bool = Field(
        description="the same way wins, the model is the one that was measured, and no live drift is known"
    )
    words: tuple[str, ...]
    changed: tuple[str, ...] = Field(description="what is otherwise than when it was made; empty for nothing")
    winner_before: str | None
    winner_now: str | None
    usd_per_month_before: Band | None
    usd_per_month_now: Band | None
    measure_again: str | None = Field(default=None, description="why stored figures are not enough")
    command: str | None = Field(default=None, description="that measures again, where that is to be done")
    live: LiveTraffic | None = Field(default=None, description="None where no proxy was named")

    @property
    def undecided(self) -> bool:
        """Whether a proxy was named that cannot tell of drift yet."""
        return self.live is not None and self.live.state == "can't tell"


def watched(
    before: Recommendation,
    priced: Priced | None,
    terms: Terms,
    folder: Path,
    sha256: str | None,
    why_gone: str | None = None,
    live: LiveTraffic | None = None,
    none_because: str | None = None,
) -> Watched:
    """Holds the prices of now against those of a recommendation.

    Args:
        priced: the stored cells at the prices and the traffic of now; None where no figure may be given.
        folder: of the recommendation.
        sha256: of the model's file now; None where it is gone, and `why_gone` says so.
        live: what a proxy says; None where none was named.
        none_because: why no way is priced, where the traffic or the p99 is it.
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
        again = "the model's file has changed since it was measured"
    elif live is not None and live.state == "drifted":
        again = f"{live.sentence}. Label rows of now, train on them or judge the model by them"
    if again is not None:
        changed.append(again)
    winner = ranked[0].name if ranked else None
    holds = again is None and winner == before.winner and winner is not None
    month_before = None if before.winner is None else rows[before.winner].usd_per_month
    month_now = ranked[0].usd_per_month if ranked else None
    return Watched(
        holds=holds,
        words=_words(before.winner, winner, month_before, month_now, changed, again, live, now, none_because),
        changed=tuple(changed),
        winner_before=before.winner,
        winner_now=winner,
        usd_per_month_before=month_before,
        usd_per_month_now=month_now,
        measure_again=again,
        command=command_of(before.request, folder) if again is not None and sha256 is not None else None,
        live=live,
    )


def command_of(request: Request, folder: Path) -> str:
    """The command that made a recommendation, but for traffic of more than one rate: its profile is a file's, or long.

    Examples:
        >>> from kcost.cost.assumptions import Assumptions
        >>> from kcost.cost.traffic import constant
        >>> request = Request(model="m.keras", model_sha256="", data=None, traffic=constant(200), p99_ms=50,
        ...                   assumed=Assumptions(), max_drop=0.01, provider="aws", region=None, instance=None,
        ...                   minutes=20, backends=(), batches=(1, 8, 32), seed=0)
        >>> command_of(request, Path("out"))
        'kcost recommend m.keras --qps 200 --p99-ms 50 --max-drop 0.01 --provider aws --minutes 20 --out out'
    """
    rate = f"{request.traffic.mean_queries_per_s:g}"
    values = {
        "data": request.data,
        "qps": rate if request.traffic.kind == "rate" else None,
        "p99-ms": f"{request.p99_ms:g}",
        "max-drop": f"{request.max_drop:g}",
        "provider": request.provider,
        "region": request.region,
        "instance": request.instance,
        "prices": request.prices_file,
        "gates": request.gates,
        "probe": request.probe,
        "minutes": f"{request.minutes:g}",
        "backends": ",".join(request.backends) or None,
        "out": str(folder),
    }
    options = [f"--{name} {shlex.quote(value)}" for name, value in values.items() if value is not None]
    return " ".join(["kcost recommend", shlex.quote(request.model), *options])


def _words(
    before: str | None,
    now: str | None,
    then: Band | None,
    month: Band | None,
    changed: list[str],
    again: str | None,
    live: LiveTraffic | None,
    traffic: Traffic,
    none_because: str | None,
) -> tuple[str, ...]:
    if again is not None:
        first = f"Measure again: {again}."
    elif now is None or month is None:
        first = "No figure may be given of what is stored: measure again."
        if none_because is not None:
            first = f"No way keeps the limits any more: {none_because}"
    elif now == before:
        first = f"The answer holds: {now}, {format_usd(month.value)} a month"
        first += "." if then is None else f", {format_usd(then.value)} when it was made."
    else:
        first = f"The winner changes: {now} at {format_usd(month.value)} a month, in the place of {before}."
    others = [c for c in changed if c != again]
    words = [first]
    if again is None or others:
        words.append("Changed since: " + "; ".join(others) + "." if others else "Nothing that it rests on has changed.")
    if again is not None and now is not None and month is not None:
        still = "still" if now == before else f"now, in the place of {before}"
        words.append(f"Priced as of now, {now} is the cheapest {still}: {format_usd(month.value)} a month.")
    if live is not None:
        if live.state != "drifted":
            words.append(f"{live.sentence[0].upper()}{live.sentence[1:]}.")
        if (rate := rate_told(live, traffic.mean_queries_per_s)) is not None:
            words.append(rate)
    return tuple(words)
