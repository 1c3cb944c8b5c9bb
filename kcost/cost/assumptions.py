"""What a budget takes for granted: each assumption has a value, a source, and an option that changes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.schema import Record

HOURS_PER_MONTH = 730.0
"""8,760 hours of a year over 12, as cloud providers count a month."""


class Assumption(Record):
    """One of the values that a budget rests on and that nobody measured."""

    name: str
    value: float
    unit: str
    source: str
    option: str = Field(description="of the command line; its name in a scenario is `name`")


class _About(NamedTuple):
    unit: str
    source: str
    least: float
    most: float
    above: bool = False
    """Whether `least` itself is refused."""


CHOSEN = "kcost's choice, measured on nothing"

AGAINST_SERVER = "the simulated rate was 0.9% below to 15.2% above that of a server, in three cells of one run"

WITHOUT_SERVER = "none: a server that takes no time; kcost serve counts its own at /monitoring/prometheus/metrics"

ABOUT: dict[str, _About] = {
    "horizon_days": _About("days", "a year", 0, 36_500, above=True),
    "headroom": _About("of the peak", CHOSEN, 0, 100),
    "min_replicas": _About("replicas", "one answers; take 2 if it may never be away", 1, 100_000),
    "zones": _About("zones", "one; with 2 or more the others hold the traffic when one is away", 1, 100),
    "max_replicas": _About("replicas", CHOSEN, 1, 1_000_000),
    "autoscale": _About("1 or 0", "the peak is paid at all hours", 0, 1),
    "cold_start_s": _About("s", CHOSEN, 0, 86_400),
    "spot_share": _About("of the instances", "none on spot", 0, 1),
    "spot_interruptions_per_month": _About("of the instances", "lowest class of AWS's Spot Instance Advisor", 0, 1000),
    "hand_over_ms": _About("ms of each step", WITHOUT_SERVER, 0, 1e6),
    "work_hours": _About("hours", CHOSEN, 0, 1e6),
    "work_usd_per_hour": _About("USD an hour", CHOSEN, 0, 1e6),
    "traffic_spread": _About("either way, 90%", CHOSEN, 0, 10),
    "price_spread": _About("either way, 90%", CHOSEN, 0, 10),
    "capacity_spread": _About("either way, 90%", AGAINST_SERVER, 0, 10),
    "work_spread": _About("either way, 90%", CHOSEN, 0, 10),
    "scaling_spread": _About("either way, 90%", CHOSEN, 0, 10),
}


class Assumptions(Record):
    """The values that a budget takes for granted; `listed` says where each is from.

    A spread of 0.2 means that the truth lies between value / 1.2 and value * 1.2 with 90% probability, spread
    log-normally.
    """

    horizon_days: float = 365.0
    headroom: float = Field(default=0.2, description="capacity above the busiest hour, as a part of it")
    min_replicas: int = 1
    zones: int = Field(default=1, description="that instances are spread over; all but one of them hold the traffic")
    max_replicas: int = 1000
    autoscale: bool = Field(default=False, description="replicas follow the hours of the profile")
    cold_start_s: float = Field(
        default=180.0, description="paid before a new replica answers; until a spot one is back"
    )
    spot_share: float = 0.0
    spot_interruptions_per_month: float = 0.05
    hand_over_ms: float = Field(default=0.0, description="of each step, in which the server keeps the model waiting")
    work_hours: float = Field(default=8.0, description="of an engineer, to move from plain Keras to another way")
    work_usd_per_hour: float = 100.0
    traffic_spread: float = 0.2
    price_spread: float = 0.05
    capacity_spread: float = Field(default=0.15, description="how far a real server may be from the simulated one")
    work_spread: float = 0.5
    scaling_spread: float = Field(
        default=0.1, description="of a step on another size of instance: for each doubling of workers side by side"
    )
    sources: dict[str, str] = Field(default={}, description="name -> where a value is from that is not the default")

    def listed(self) -> tuple[Assumption, ...]:
        """Every assumption with its source."""
        return tuple(
            Assumption(
                name=name,
                value=float(getattr(self, name)),
                unit=about.unit,
                source=self.sources.get(name, about.source),
                option=f"--{name.replace('_', '-')}",
            )
            for name, about in ABOUT.items()
        )


def assume(values: Mapping[str, object], sources: Mapping[str, str]) -> Assumptions:
    """Assumptions with some values in the place of the defaults.

    Args:
        values: name -> number, or a boolean for `autoscale`; None keeps the default.
        sources: name -> where the value is from, of those in `values`.

    Raises:
        InputError: an unknown name, no number, or one that is out of its range.

    Examples:
        >>> assume({"headroom": 0.5}, {"headroom": "our load test"}).headroom
        0.5
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        about = ABOUT.get(name)
        if about is None:
            raise InputError(
                "An assumption has a name that kcost knows.", received=name, remedy=f"One of {', '.join(ABOUT)}."
            )
        number = value if isinstance(value, int | float) else math.nan
        within = about.least <= number <= about.most and not (about.above and number == about.least)
        whole = not isinstance(getattr(Assumptions(), name), int) or number == int(number if within else 0)
        if not (within and whole):
            between = "above" if about.above else "from"
            raise InputError(
                f"{name} is a {'' if whole else 'whole '}number {between} {about.least:g} to {about.most:g}"
                f" ({about.unit}).",
                received=repr(value),
                remedy=f"Mend --{name.replace('_', '-')}, or {name} in the scenario.",
            )
    # A boolean is stored as one, whole numbers as such.
    kept = {name: type(getattr(Assumptions(), name))(value) for name, value in given.items()}
    return Assumptions(**kept, sources={name: text for name, text in sources.items() if name in given})
