"""Instances by price and time: what was measured, what scales from it, and what is projected elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field

from kcost.core.schema import Record
from kcost.cost.basis import CostBasis
from kcost.cost.instances import Offer
from kcost.cost.option import Option
from kcost.cost.placements import Placement
from kcost.cost.serving_ways import Way

HARD = ("measured", "scaled")
"""Bases that rest on seconds of the instance's own kind of processor; a map marks all others."""


class InstancePoint(Record):
    """One instance on the map."""

    instance: str
    way: str = Field(description="of serving")
    usd_per_hour: float
    ms_per_prediction: float = Field(description="of the whole instance, never without a full batch")
    low_ms: float | None = Field(default=None, description="ends of the 90% interval of a projection")
    high_ms: float | None = None
    basis: CostBasis
    simulated: bool = False

    @property
    def is_measured(self) -> bool:
        """Whether it rests on a measurement of such a processor."""
        return self.basis in HARD and not self.simulated

    @property
    def usd_per_million(self) -> float:
        """At full load."""
        return self.usd_per_hour / 3600 * self.ms_per_prediction * 1e3


def map_of(
    options: Sequence[Option],
    winner: Way | None,
    offers: Mapping[str, Sequence[Offer]],
    placements: Iterable[Placement] = (),
) -> tuple[InstancePoint, ...]:
    """Each option on its instance, the winner's way on the others that could hold it, and projections; each instance
    and way once, the cheapest at full load first.

    Args:
        options: the cheapest first.
        winner: the way of serving of the first; None where it is of a scenario's own figures.
        offers: name of a way -> the instances that could serve it.
        placements: of `kcost.cost.placements`; those that are refused, or were measured, are left out.
    """
    points: dict[tuple[str, str], InstancePoint] = {}
    for option in options:
        points[option.instance, option.name] = InstancePoint(
            instance=option.instance,
            way=option.name,
            usd_per_hour=option.usd_per_hour,
            ms_per_prediction=_ms(option.workers_per_instance, option.queries_per_s_at_full_load),
            basis=option.basis,
            simulated=option.simulated,
        )
    for offer in () if winner is None else offers.get(winner.name, ()):
        assert winner is not None
        if offer.price.key == options[0].instance:
            continue
        # Several workers side by side were not measured, as the bill says too.
        basis: CostBasis = "scaled" if offer.workers > 1 and offer.basis == "measured" else offer.basis
        point = InstancePoint(
            instance=offer.price.key,
            way=winner.name,
            usd_per_hour=offer.usd_per_hour,
            ms_per_prediction=_ms(offer.workers, winner.service.capacity_per_s),
            basis=basis,
            simulated=winner.simulated,
        )
        points.setdefault((point.instance, point.way), point)
    for placement in sorted(placements, key=lambda p: p.usd_per_million):
        if placement.projection is not None and placement.refused is None:
            point = _projected(placement)
            points.setdefault((point.instance, "projected"), point)  # the cheapest of each instance
    return tuple(sorted(points.values(), key=lambda p: (p.usd_per_million, p.instance, p.way)))


def _projected(one: Placement) -> InstancePoint:
    return InstancePoint(
        instance=one.price.key,
        way=f"{one.runs_as} {one.precision}, batch {one.batch}",
        usd_per_hour=one.usd_per_hour,
        ms_per_prediction=one.step_ms / one.batch,
        low_ms=one.low_ms / one.batch,
        high_ms=None if one.high_ms is None else one.high_ms / one.batch,
        basis=one.basis,
    )


def _ms(workers: int, queries_per_s: float) -> float:
    return 1e3 / (workers * queries_per_s)
