"""What the benchmark of projections makes of stored measurements: here of simulated ones."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from kcost.core.profile import Profile, Work
from kcost.core.result import Run
from kcost.cost.between_machines import COMPONENTS, Coefficients
from testing.probed_machines import probe
from testing.runs import environment, plan, simulated_run, write_run

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "projection_between_machines.py"
LAYERS = ("Conv2D", "Conv2D", "Dense")


@pytest.fixture(scope="module")
def benchmark_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("projection_between_machines", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, benchmark_program: ModuleType) -> Path:
    """Two places that measured the same cells: the second is half as fast in all."""
    out = tmp_path_factory.mktemp("between")
    (out / "models").mkdir()
    layers = [{"class_name": c, "config": {"name": f"l{n}"}} for n, c in enumerate(LAYERS)]
    with zipfile.ZipFile(out / "models" / "simulated-cnn.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": layers}}))
        archive.writestr("model.weights.h5", b"")
    for number, name in enumerate(list(benchmark_program.PLACES)[:2]):
        cores = benchmark_program.PLACES[name].cores
        axes = {"phases": ("inference",), "precisions": ("float32",), "methods": ("graph", "jit", "eager")}
        run, _ = simulated_run(plan(**axes), machine=environment(cores=cores))
        write_run(out / name / "float32", slowed(run, 2**number, with_profiles=number == 0))
        for backend in benchmark_program.BACKENDS:
            made = probe(1e11 / cores, 2e10 / cores, 1e-5, threads=(cores,), backend=backend, cores=cores)
            slow = probe(1e11 / 2, 2e10 / 2, 2e-5, threads=(cores,), backend=backend, cores=cores)
            text = (made if number == 0 else slow).model_dump_json(by_alias=True)
            (out / name / f"probe-{backend}.json").write_text(text)
    return out


def slowed(run: Run, times: int, *, with_profiles: bool) -> Run:
    cells = []
    for cell in run.cells:
        work = Work(flops=10**7 * cell.spec.batch, flops_source="a test", bytes=None, bytes_source="nobody")
        rounds = tuple(
            type(r)(session=r.session, number=r.number, step_ns=tuple(times * ns for ns in r.step_ns))
            for r in cell.rounds
        )
        assert cell.preparation is not None
        threads = run.environments[cell.environment_id].cores
        update = {
            "rounds": rounds,
            "outputs_file": None,
            "preparation": cell.preparation.model_copy(update={"threads": threads}),
            "profile": Profile(status="ok", work=work) if with_profiles else None,
        }
        cells.append(cell.model_copy(update=update))
    return run.model_copy(update={"cells": tuple(cells)})


def test_each_cell_is_projected_from_each_other_machine(
    benchmark_program: ModuleType, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark_program.grade(measured)
    lines = {
        line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in capsys.readouterr().out.split("\n")
    }
    cells = 3 * 2  # three backends, one method each, two batch sizes
    total = lines["all, fitted without the machine that is projected to"]
    assert total[1:3] == [str(2 * cells), str(2 * cells)]
    assert float(total[3].strip("%")) < 5, "twice as slow in each part is twice as long"
    assert lines["2-cores to 1-core"][1] == str(cells)
    assert lines["torch"][1] == "4"


def test_a_fit_is_what_the_package_reads(benchmark_program: ModuleType, measured: Path, tmp_path: Path) -> None:
    benchmark_program.fit(measured, tmp_path / "between.json")
    fitted = Coefficients.model_validate_json((tmp_path / "between.json").read_text())
    assert set(fitted.exponents) == set(COMPONENTS)
    assert "12 projections between 2 machines" in fitted.fitted_to
