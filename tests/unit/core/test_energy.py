from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from kcost.core import run_cost
from kcost.core.result import CellResult, Round, Watch
from kcost.core.run_cost import NOT_MEASURED, WATTS_PER_VCPU, EnergyCounter, idle_watts, step_energy
from testing.runs import plan, preparation, simulated_run


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CPU package whose counter stands at 500 of 1000 microjoules."""
    monkeypatch.setattr(run_cost, "RAPL", tmp_path)
    folder = tmp_path / "intel-rapl:0"
    folder.mkdir()
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of the package, which must not be counted twice
    (folder / "max_energy_range_uj").write_text("1000\n")
    (folder / "energy_uj").write_text("500\n")
    return folder


def test_a_counter_that_grows_and_one_that_begins_again(package: Path) -> None:
    counter = EnergyCounter()
    assert counter.source == "counter: RAPL, CPU packages, the whole machine"
    start = counter.read()
    (package / "energy_uj").write_text("700")
    assert counter.spent_uj(start, counter.read()) == 200
    (package / "energy_uj").write_text("100")
    assert counter.spent_uj(start, counter.read()) == 600
    assert idle_watts(counter, seconds=0.01) == 0.0


def test_a_counter_that_may_not_be_read_is_none(package: Path) -> None:
    (package / "energy_uj").unlink()
    counter = EnergyCounter()
    assert (counter.read(), counter.source, idle_watts(counter)) == (None, None, None)
    assert counter.spent_uj(None, (5,)) is None


def test_nvml_counts_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = ModuleType("pynvml")
    nvml.NVMLError = RuntimeError  # type: ignore[attr-defined]
    nvml.nvmlInit = lambda: None  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetCount = lambda: 2  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetHandleByIndex = lambda i: i  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 7 + handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    counter = EnergyCounter(gpu=True)
    assert counter.read() == (7000, 8000)
    assert counter.source == "counter: NVML, the whole GPU"
    assert counter.spent_uj((7000, 8000), (9000, 8500)) == 2500

    def no_counter(handle: int) -> int:
        raise RuntimeError("not supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = no_counter  # type: ignore[attr-defined]
    assert counter.source is None


def cell(device: str = "cpu", **prepared: object) -> CellResult:
    run, _ = simulated_run(plan(batches=(1,), phases=("inference",)))
    watch = Watch(wall_s=0.1, worker_cpu_s=0.1, parent_cpu_s=0.0)
    rounds = tuple(
        Round(session="s", number=n, step_ns=(50_000_000, 50_000_000), watch=watch, energy_uj=3_000_000)
        for n in range(4)
    )
    spec = run.cells[0].spec.model_copy(update={"device": device})
    return run.cells[0].model_copy(
        update={"spec": spec, "rounds": rounds, "preparation": preparation(spec, **{"simulated": False, **prepared})}
    )


def test_counted_energy_is_of_the_turns_without_idle() -> None:
    energy = step_energy(cell(idle_watts=10.0, energy_source="counter: RAPL"))
    # 3 J a turn, less 10 W for 0.1 s, over two steps
    assert energy.joules == pytest.approx(1.0)
    assert energy.basis == "counter: RAPL, idle of 10.0 W taken off"


def test_without_a_counter_a_cpu_has_a_stated_model_and_a_gpu_nothing() -> None:
    energy = step_energy(cell(threads=2))
    assert energy.joules == pytest.approx(2 * WATTS_PER_VCPU * 0.05)
    assert energy.basis.startswith("estimated")
    assert step_energy(cell(device="gpu")) == (None, NOT_MEASURED)
    assert step_energy(cell(simulated=True)) == (None, NOT_MEASURED)
