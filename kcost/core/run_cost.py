"""What a piece of work on this machine took: seconds, energy and dollars, each with its basis."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any, NamedTuple

from kcost.core.artifact import RunCost
from kcost.core.result import CellResult

RAPL = Path("/sys/class/powercap")
WATTS_PER_VCPU = 3.9673047343937564
"""Source: Cloud Carbon Footprint, coefficients-aws-use.csv, Cascade Lake, maximum."""

ENERGY_MODEL = f"estimated: {WATTS_PER_VCPU:.2f} W a core, Cloud Carbon Footprint's figure for Cascade Lake at full use"
NOT_MEASURED = "not measured: no counter can be read here"


class EnergyCounter:
    """A counter of energy that only grows. It is the whole machine's, or GPU's: it knows no processes."""

    def __init__(self, *, gpu: bool = False) -> None:
        """Finds the counter: RAPL's of the CPU packages, or with `gpu` NVML's of all GPUs."""
        self._nvml = _nvml_handles() if gpu else None
        self._packages = [] if gpu else _rapl_packages()
        self._ranges_uj = [_read_int(p / "max_energy_range_uj") for p in self._packages]

    @property
    def source(self) -> str | None:
        """Which counter; None where there is none that this process may read."""
        if self.read() is None:
            return None
        return "counter: NVML, the whole GPU" if self._nvml else "counter: RAPL, CPU packages, the whole machine"

    def read(self) -> tuple[int, ...] | None:
        """Microjoules now, one number a package or GPU."""
        if self._nvml:
            nvml, handles = self._nvml
            try:
                return tuple(nvml.nvmlDeviceGetTotalEnergyConsumption(h) * 1000 for h in handles)
            except nvml.NVMLError:  # GPUs before Volta have no such counter
                return None
        counters = [_read_int(p / "energy_uj") for p in self._packages]
        known = tuple(f for f in counters if f is not None)
        return known if known and len(known) == len(counters) else None

    def spent_uj(self, start: tuple[int, ...] | None, end: tuple[int, ...] | None) -> int | None:
        """Microjoules between two readings. RAPL begins again at zero after some hours, which is set right."""
        if start is None or end is None:
            return None
        spent = 0
        for i, (before, after) in enumerate(zip(start, end, strict=True)):
            wrap = self._ranges_uj[i] if not self._nvml and after < before else 0
            if wrap is None:
                return None
            spent += after - before + wrap
        return spent if spent >= 0 else None


def _rapl_packages() -> list[Path]:
    return [p for p in sorted(RAPL.glob("intel-rapl:[0-9]*")) if p.name.count(":") == 1]


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # only root may read the counters on most systems
        return None


def _nvml_handles() -> tuple[Any, list[Any]] | None:
    """NVIDIA's management library with its GPUs; None without the package nvidia-ml-py, the driver, or a GPU."""
    try:
        nvml = importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return None
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return None
    return (nvml, handles) if handles else None


def idle_watts(counter: EnergyCounter, seconds: float = 0.5) -> float | None:
    """Power while this process sleeps: what is taken off a measured energy. None without a counter."""
    start, began_s = counter.read(), time.perf_counter()
    if start is None:
        return None
    time.sleep(seconds)
    spent_uj = counter.spent_uj(start, counter.read())
    return None if spent_uj is None else spent_uj / 1e6 / (time.perf_counter() - began_s)


class StepEnergy(NamedTuple):
    """Energy of one step of a cell over the window of its latency."""

    joules: float | None
    basis: str


def step_energy(cell: CellResult) -> StepEnergy:
    """The energy of a step: counted, with idle taken off, where a counter was read; else by a stated model.

    The window is the turns, which hold nothing but the steps whose durations are the latency.
    """
    done = cell.preparation
    if done is not None and done.energy_source is not None and done.idle_watts is not None:
        counted = [r for r in cell.rounds if r.energy_uj is not None and r.watch is not None]
        if counted:
            seconds = sum(r.watch.wall_s for r in counted if r.watch is not None)
            joules = sum(r.energy_uj or 0 for r in counted) / 1e6 - done.idle_watts * seconds
            steps = sum(len(r.step_ns) for r in counted)
            return StepEnergy(
                max(0.0, joules) / steps, f"{done.energy_source}, idle of {done.idle_watts:.1f} W taken off"
            )
    if cell.spec.device != "cpu" or done is None or done.simulated or not cell.rounds:
        return StepEnergy(None, NOT_MEASURED)
    steps = sum(len(r.step_ns) for r in cell.rounds)
    seconds = sum(sum(r.step_ns) for r in cell.rounds) / 1e9
    return StepEnergy(done.threads * WATTS_PER_VCPU * seconds / steps, ENERGY_MODEL)


class Meter:
    """Measures from its making on. Energy is that of the whole machine: a counter knows no processes."""

    def __init__(self, cores: int, accelerators: int) -> None:
        self._cores, self._accelerators = cores, accelerators
        self._counter = EnergyCounter()
        self._start = self._counter.read()
        self._start_s = time.perf_counter()

    def energy_wh(self, wall_s: float) -> tuple[float | None, str]:
        """Watt-hours since the start, and where the figure comes from."""
        if self._accelerators:
            return None, "not measured: no counter of the accelerator is read"
        spent_uj = self._counter.spent_uj(self._start, self._counter.read())
        if spent_uj is not None:
            return spent_uj / 1e6 / 3600, "counter: RAPL, CPU packages, the whole machine, idle included"
        return self._cores * WATTS_PER_VCPU * wall_s / 3600, ENERGY_MODEL

    def wall_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start_s


def run_cost(
    meter: Meter, labelled_examples: int, usd_per_hour: float, usd_basis: str, parts_s: dict[str, float] | None = None
) -> RunCost:
    """What the work since the meter's start took.

    Args:
        parts_s: seconds of its parts, where they were measured.
    """
    wall_s = meter.wall_s()
    energy_wh, energy_basis = meter.energy_wh(wall_s)
    return RunCost(
        wall_s=wall_s,
        energy_wh=energy_wh,
        energy_basis=energy_basis,
        usd=wall_s / 3600 * usd_per_hour,
        usd_basis=usd_basis,
        labelled_examples=labelled_examples,
        parts_s=parts_s or {},
    )
