"""What a live proxy says of the model that was recommended: whether its traffic is still what it was judged on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kcost.core.schema import Record
from kcost.core.units import format_usd, significant
from kcost.risk.drift_watch import ModelDrift
from kcost.risk.figures import Figure


class LiveTraffic(Record):
    """The rows of a proxy that were answered by the model, against those that it was judged on."""

    state: Literal["drifted", "none", "can't tell"]
    sentence: str
    rows_per_s: float | None = Field(default=None, description="over the last windows; None where no row was looked at")
    errors_usd_per_month: Figure | None = Field(
        default=None, description="expected errors more than on the reference, priced; None without a price of an error"
    )


def unwatched(because: str) -> LiveTraffic:
    """Of a proxy that does not watch the model."""
    return LiveTraffic(state="can't tell", sentence=f"can't tell of drift: {because}")


def live_traffic(name: str, drift: ModelDrift, rows_per_s: float) -> LiveTraffic:
    """What is told of a model's rows.

    Args:
        name: as it is served.
        rows_per_s: over the last windows.
    """
    if not drift.windows:
        wanted = f"{drift.rows:,} of the first window's {drift.window_rows:,} rows are there"
        return unwatched(f"{wanted} for {name}").model_copy(update={"rows_per_s": rows_per_s or None})
    cost = drift.cost if drift.cost is not None and drift.cost.usd_per_error else None
    if not drift.drifted:
        sentence = f"no drift of {name} from {drift.dataset} in {drift.windows:,} windows"
        return LiveTraffic(state="none", sentence=sentence, rows_per_s=rows_per_s)
    first, *rest = drift.drifted
    more = f" and {len(rest)} more" if rest else ""
    sentence = f"the traffic of {name} is not like {drift.dataset} any more: {first.name} was {first.reference}, is "
    sentence += f"{first.now}{more} (a false alarm at most {max(first.false_alarm_probability, 1e-12):.1g} of the time)"
    if cost is not None:
        usd = cost.usd_per_month
        word = "less" if usd.value < 0 else "more"
        between = f"{format_usd(usd.low)} to {format_usd(usd.high)}"
        sentence += f"; expected errors cost {format_usd(abs(usd.value))} a month {word} ({between})"
    return LiveTraffic(
        state="drifted",
        sentence=sentence,
        rows_per_s=rows_per_s,
        errors_usd_per_month=None if cost is None else cost.usd_per_month,
    )


def rate_told(live: LiveTraffic, priced_per_s: float) -> str | None:
    """How the live rate stands beside the one that is priced; None where no row was looked at."""
    if live.rows_per_s is None:
        return None
    rate = significant(live.rows_per_s)
    return f"Live are {rate} rows a second of late; {significant(priced_per_s)} requests a second are priced."
