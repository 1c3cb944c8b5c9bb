"""What the benchmark of projections makes of stored measurements: here of simulated ones."""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from kcost.core.probe import HeldTimes, Probe
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


TAKES_TURNS = """
import importlib.util, sys
program, log, name, count, turns = sys.argv[1:]
spec = importlib.util.spec_from_file_location("program", program)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.SETTLE_S = 0.0
mine = module.Turns(int(turns))
for _ in range(int(count)):
    mine.wait()
    for what in ("begins", "ends"):
        with open(log, "a") as file:
            file.write(f"{name} {what}\\n")
sys.exit(3 if name == "fails" else 0)
"""


def test_processes_take_turns_and_one_that_fails_is_named_at_the_end(
    benchmark_program: ModuleType, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    counts = {"a": 3, "b": 5, "fails": 1, "none": 0}
    processes = [
        benchmark_program.Process(name, [sys.executable, "-c", TAKES_TURNS, str(PROGRAM), str(log), name, str(n)], {})
        for name, n in counts.items()
    ]
    with pytest.raises(SystemExit, match="Failed: fails"):
        benchmark_program.take_turns(processes)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert all(
        one == [two[0], "begins"] and two[1] == "ends" for one, two in zip(lines[::2], lines[1::2], strict=True)
    ), "one at a time"
    names = [name for name, what in lines if what == "begins"]
    assert {name: names.count(name) for name in counts} == counts
    assert [sorted(names[:3]), *(sorted(names[i : i + 2]) for i in (3, 5))] == [
        ["a", "b", "fails"],
        ["a", "b"],
        ["a", "b"],
    ], "each has a turn before one has its next"


def test_cells_with_the_fewest_rounds_have_the_next_turn(benchmark_program: ModuleType) -> None:
    run, _ = simulated_run(plan(batches=(1, 2, 4), phases=("inference",)))
    cells = [cell.model_copy(update={"rounds": cell.rounds[:n]}) for cell, n in zip(run.cells, (2, 0, 1), strict=False)]
    assert benchmark_program.next_turn(cells, 2, None) == [cells[1], cells[2]]
    assert benchmark_program.next_turn(cells, 2, 1) == [cells[1]]
    assert benchmark_program.next_turn(cells, 1, None) == [cells[1]]


def timed(probed: Probe, times: int, repetitions: int, *, held: bool = True) -> Probe:
    """A probe in which everything took so many times as long, and was repeated so often."""
    answers = []
    for each in probed.by_threads:
        answer = each.answer

        def slow(ns: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(times * one for one in ns) * repetitions

        update = {
            "call_ns": slow(answer.call_ns),
            "products": tuple(p.model_copy(update={"ns": slow(p.ns)}) for p in answer.products),
            "moves": tuple(m.model_copy(update={"ns": slow(m.ns)}) for m in answer.moves),
            "held": HeldTimes(size=256, cores=2.0, ns=(times * 1000,)) if held else None,
        }
        answers.append(each.model_copy(update={"answer": answer.model_copy(update=update)}))
    return probed.model_copy(update={"by_threads": tuple(answers)})


def test_a_slow_minute_counts_as_much_as_a_fast_one(benchmark_program: ModuleType) -> None:
    plain = probe(threads=(1, 2))
    together = benchmark_program.pooled([timed(plain, 1, 30, held=False), timed(plain, 3, 10)])
    assert [each.threads for each in together.by_threads] == [1, 2]
    for each, before in zip(together.by_threads, plain.by_threads, strict=True):
        assert statistics.median(each.answer.call_ns) == 2 * before.answer.call_ns[0]
        assert [p.program for p in each.answer.products] == [p.program for p in before.answer.products]
        for pooled, one in zip(each.answer.products, before.answer.products, strict=True):
            assert sorted(pooled.ns) == [one.ns[0]] * 10 + [3 * one.ns[0]] * 10
        assert each.answer.held == HeldTimes(size=256, cores=2.0, ns=(3000,))


def test_a_program_that_one_probe_lacks_is_that_of_the_other(benchmark_program: ModuleType) -> None:
    plain = probe(threads=(2,))
    answer = plain.by_threads[0].answer
    fewer = plain.by_threads[0].model_copy(update={"answer": answer.model_copy(update={"products": ()})})
    together = benchmark_program.pooled([plain.model_copy(update={"by_threads": (fewer,)}), plain])
    assert together.by_threads[0].answer.products == answer.products
