"""The energy of an instance, and the carbon of its electricity by region: published coefficients, nothing measured.

    watts = vCPUs x (idle + busy share x (full - idle))
    kg CO2e a month = kWh a month x grams a kWh of the region / 1000

Source of the watts: Cloud Carbon Footprint, coefficients-aws-use.csv (Apache-2.0): Cascade Lake for x86, Graviton2 for
Arm. They are of the processor alone: memory, network, cooling and the making of the machine are not in them. An
instance with an accelerator has no figure. Source of the grams: data/grid.csv, which names one in each row.
"""

from __future__ import annotations

import csv
import io
from functools import cache
from importlib import resources
from typing import NamedTuple

from pydantic import Field

from kcost.core.schema import Record
from kcost.core.units import format_percent, significant

GRAMS_PER_KG = 1000


class Power(NamedTuple):
    """Watts of a vCPU."""

    idle: float
    full: float
    source: str


X86 = Power(0.6389493581523519, 3.9673047343937564, "Cloud Carbon Footprint, Cascade Lake")
ARM = Power(0.4742621527777778, 1.6929615162037037, "Cloud Carbon Footprint, Graviton2")


class Grid(Record):
    """The electricity of a region."""

    provider: str
    region: str
    place: str
    g_co2e_per_kwh: float = Field(ge=0)
    year: int | None = Field(default=None, description="None where the source does not say")
    source: str

    @property
    def text(self) -> str:
        """The figure with its place and source."""
        year = "" if self.year is None else f", {self.year}"
        return f"{significant(self.g_co2e_per_kwh)} g a kWh in {self.place}{year} ({self.source})"


@cache
def grids() -> dict[tuple[str, str], Grid]:
    """(provider, region) -> its electricity, as the package's table has it."""
    text = resources.files("kcost.cost").joinpath("data/grid.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text))
    return {(row["provider"], row["region"]): Grid(**{**row, "year": row["year"] or None}) for row in rows}


def grid_of(provider: str, region: str) -> Grid | None:
    """The electricity of a provider's region; None where no source has it."""
    return grids().get((provider.lower(), region.lower()))


class Carbon(Record):
    """What the electricity of one option comes to in a month of 730 hours."""

    kwh_per_month: float
    kg_co2e_per_month: float | None = Field(description="None where nothing says how clean the electricity is")
    why: str = Field(description="the sum in words, with its sources")


def carbon_of(
    *,
    instances: float,
    busy_share: float,
    vcpus: float | None,
    is_arm: bool,
    watts_per_instance: float | None,
    g_co2e_per_kwh: float | None,
    grid_source: str,
    hours: float,
) -> Carbon | None:
    """The carbon of some instances over some hours; None where nothing says how much power they take.

    Args:
        instances: that run, the mean of the hours.
        busy_share: of their time, 0 to 1.
        vcpus: of an instance; None for one with an accelerator, or where it is not known.
        watts_per_instance: in the place of the coefficients, where the user knows it.
    """
    if watts_per_instance is not None:
        watts, basis = watts_per_instance, f"{watts_per_instance:g} W as given"
    elif vcpus is not None:
        power = ARM if is_arm else X86
        watts = vcpus * (power.idle + busy_share * (power.full - power.idle))
        basis = (
            f"{vcpus:g} vCPUs at {power.idle:.2f} to {power.full:.2f} W, {format_percent(busy_share)} busy "
            f"(estimated: {power.source}; the processor alone)"
        )
    else:
        return None
    kwh = instances * watts / 1000 * hours
    kg = None if g_co2e_per_kwh is None else kwh * g_co2e_per_kwh / GRAMS_PER_KG
    why = f"{significant(instances)} x {basis} are {significant(kwh)} kWh a month"
    return Carbon(
        kwh_per_month=kwh,
        kg_co2e_per_month=kg,
        why=f"{why}; {grid_source}" if kg is not None else f"{why}; nothing says how clean its electricity is",
    )
