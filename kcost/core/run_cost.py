"""What a piece of work on this machine took: seconds, energy and dollars, each with its basis."""

from __future__ import annotations

import time
from pathlib import Path

from kcost.core.artifact import RunCost

RAPL = Path("/sys/class/powercap")
WATTS_PER_VCPU = 3.9673047343937564
"""Source: Cloud Carbon Footprint, coefficients-aws-use.csv, Cascade Lake, maximum."""

ENERGY_MODEL = f"estimated: {WATTS_PER_VCPU:.2f} W a core, Cloud Carbon Footprint's figure for Cascade Lake at full use"


def _rapl_packages() -> list[Path]:
    return [p / "energy_uj" for p in sorted(RAPL.glob("intel-rapl:[0-9]*")) if p.name.count(":") == 1]


def _read_uj(packages: list[Path]) -> list[int] | None:
    try:
        return [int(p.read_text()) for p in packages] if packages else None
    except (OSError, ValueError):  # only root may read the counters on most systems
        return None


class Meter:
    """Measures from its making on. Energy is that of the whole machine: a counter knows no processes."""

    def __init__(self, cores: int, accelerators: int) -> None:
        self._cores, self._accelerators = cores, accelerators
        self._packages = _rapl_packages()
        self._start_uj = _read_uj(self._packages)
        self._start_s = time.perf_counter()

    def energy_wh(self, wall_s: float) -> tuple[float | None, str]:
        """Watt-hours since the start, and where the figure comes from."""
        if self._accelerators:
            return None, "not measured: no counter of the accelerator is read"
        end_uj = _read_uj(self._packages)
        if (
            self._start_uj is not None
            and end_uj is not None
            and all(b >= a for a, b in zip(self._start_uj, end_uj, strict=True))
        ):
            joules = sum(b - a for a, b in zip(self._start_uj, end_uj, strict=True)) / 1e6
            return joules / 3600, "counter: RAPL, CPU packages, the whole machine, idle included"
        return self._cores * WATTS_PER_VCPU * wall_s / 3600, ENERGY_MODEL

    def wall_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start_s


def run_cost(meter: Meter, labelled_examples: int, usd_per_hour: float, usd_basis: str) -> RunCost:
    """What the work since the meter's start took."""
    wall_s = meter.wall_s()
    energy_wh, energy_basis = meter.energy_wh(wall_s)
    return RunCost(
        wall_s=wall_s,
        energy_wh=energy_wh,
        energy_basis=energy_basis,
        usd=wall_s / 3600 * usd_per_hour,
        usd_basis=usd_basis,
        labelled_examples=labelled_examples,
    )
